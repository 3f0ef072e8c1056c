//! How much of what turns said stays on the disk: events of turns, and transcripts of jobs' runs. What is too much
//! goes, what jobs' runs said before what was said in conversations, much before little, old before new. The
//! transcripts of conversations are bounded one by one and stay.
//!
//! Invariant: when a turn leaves its place, what is kept is within its bound, beside what still runs; and that takes
//! half of the bound at most, since no turn may say more than its share ([`Kept::of_a_turn`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use creel_proto::agent::v1::{TurnRecord, TurnState};
use creel_wire::{Error, SessionKey};

use crate::{contexts::blocking, convert, events, files::Dirs, runner::Runner, session, store, turn};

/// A run that said so much is among the first to go, in bytes.
const MUCH: u64 = 1 << 20;
/// Turns that go at once, at most: they are held in memory.
const MAX_AT_ONCE: usize = 20_000;
/// How the folders of jobs' runs begin.
const RUN: &str = "run-";

/// What is kept, and the bound.
#[derive(Debug)]
pub(crate) struct Kept {
    most: u64,
    turns: u64,
    /// Never less than what there is, as long as all is counted that is added.
    bytes: AtomicU64,
    /// One at a time makes room.
    making: tokio::sync::Mutex<()>,
}

impl Kept {
    /// At most so many bytes, said by turns of which so many run at once.
    pub(crate) fn new(most: u64, turns: usize) -> Self {
        Self {
            most,
            turns: turns as u64,
            bytes: AtomicU64::new(0),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// What one turn may say, in bytes.
    pub(crate) fn of_a_turn(&self) -> u64 {
        (self.most / 2 / self.turns.max(1)).min(turn::MAX_OUTPUT_BYTES)
    }

    fn is_over(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.most
    }
}

/// A turn whose events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    folder: String,
    turn: String,
    /// Of the disk.
    bytes: u64,
}

impl Said {
    /// The first goes first.
    fn rank(&self) -> (u8, String) {
        let class = match self.folder.starts_with(RUN) {
            true if self.bytes >= MUCH => 0,
            true => 1,
            false => 2,
        };
        // The ids of turns sort by time.
        (class, self.turn.clone())
    }
}

impl Runner {
    /// Counts what a turn that has ended left behind, and makes room for it.
    pub(crate) async fn keep(&self, bytes: u64) {
        self.kept.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.kept.is_over() {
            self.make_room().await;
        }
    }

    /// Counts what there is, and removes what is too much. What can't be read or removed stays.
    pub(crate) async fn make_room(&self) {
        let _one = self.kept.making.lock().await;
        let before = self.kept.bytes.load(Ordering::Relaxed);
        let (dirs, most, open) = (self.dirs.clone(), self.kept.most, self.open());
        let found = blocking(move || too_much(&dirs, most, &open)).await;
        let (total, too_much) = match found {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "what turns said was not counted"),
        };
        let (mut freed, mut removed) = (0, 0_usize);
        for said in too_much {
            match self.forget_said(&said).await {
                Ok(true) => (freed, removed) = (freed + said.bytes, removed + 1),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, turn = said.turn, "what a turn said was not removed"),
            }
        }
        if removed > 0 {
            tracing::info!(
                turns = removed,
                bytes = freed,
                "what old turns said was removed: agent.kept_mib"
            );
        }
        // What was added meanwhile may be counted twice, until the next look.
        let now = total.saturating_sub(freed);
        let update = |bytes: u64| Some(bytes.saturating_sub(before) + now);
        let _ = self
            .kept
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// Removes what a turn said; `false` if it goes on.
    async fn forget_said(&self, said: &Said) -> Result<bool, Error> {
        let record = store::get::<TurnRecord>(&self.store, &store::turn_key(&said.turn)).await?;
        let Some(record) = record else {
            // A crash came between the record's end and the file's.
            let path = events::path_of(&self.dirs.events, &said.folder, &said.turn);
            return blocking(move || fs::remove_file(path)).await.map(|()| true);
        };
        if matches!(convert::state(&record), TurnState::Accepted | TurnState::Running) {
            return Ok(false);
        }
        match SessionKey::parse(&record.session) {
            Ok(key) if session::is_ephemeral(&key) => self.remove_idle(&key).await,
            _ => self
                .forget_turn(&record.folder, record.number)
                .await
                .map(|()| true),
        }
    }
}

/// What is kept in all, in bytes, and what of it has to go, first things first. Turns in `open` stay.
fn too_much(dirs: &Dirs, most: u64, open: &BTreeSet<String>) -> io::Result<(u64, Vec<Said>)> {
    let mut total = 0;
    each(dirs, |said| total += said.bytes)?;
    if total <= most {
        return Ok((total, Vec::new()));
    }
    // A little more than has to, so that not every turn has to make room for itself.
    let least = total - (most - most / 8);
    let (mut first, mut bytes) = (BTreeMap::new(), 0);
    each(dirs, |said| {
        if open.contains(&said.turn) {
            return;
        }
        bytes += said.bytes;
        first.insert(said.rank(), said);
        while let Some(last) = first.last_entry()
            && (bytes - last.get().bytes >= least || first.len() > MAX_AT_ONCE)
        {
            if let Some((_, last)) = first.pop_last() {
                bytes -= last.bytes;
            }
        }
    })?;
    Ok((total, first.into_values().collect()))
}

/// Looks at every turn whose events are kept.
fn each(dirs: &Dirs, mut see: impl FnMut(Said)) -> io::Result<()> {
    for folder in listed(&dirs.events)? {
        let Ok(name) = folder.file_name().into_string() else {
            continue;
        };
        // A run's transcript goes with its first turn.
        let mut beside = 0;
        if name.starts_with(RUN) {
            for segment in listed(&dirs.transcripts.join(&name))? {
                beside += size(&segment)?;
            }
        }
        for file in listed(&folder.path())? {
            let turn = file
                .file_name()
                .to_str()
                .and_then(|name| name.strip_suffix(".log").map(str::to_owned));
            if let Some(turn) = turn {
                let bytes = size(&file)? + std::mem::take(&mut beside);
                see(Said {
                    folder: name.clone(),
                    turn,
                    bytes,
                });
            }
        }
    }
    Ok(())
}

/// The entries of a directory; none if it went meanwhile.
fn listed(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The room a file takes on the disk; none if it went meanwhile.
fn size(file: &fs::DirEntry) -> io::Result<u64> {
    match file.metadata() {
        Ok(file) => Ok(file.blocks() * 512),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(at: &Path) -> Dirs {
        Dirs {
            transcripts: at.join("transcripts"),
            events: at.join("events"),
            inputs: at.join("inputs"),
            workspace: at.join("workspace"),
            turns: at.join("turns"),
        }
    }

    fn write(dir: &Path, folder: &str, file: &str, kib: usize) {
        let dir = dir.join(folder);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{file}.log")), vec![7; kib << 10]).unwrap();
    }

    #[test]
    fn what_jobs_said_goes_first_much_before_little_and_old_before_new() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = dirs(dir.path());
        assert_eq!(too_much(&dirs, 0, &BTreeSet::new()).unwrap(), (0, vec![]));
        write(&dirs.events, "agent-1", "01", 64);
        write(&dirs.events, "agent-1", "09", 64);
        write(&dirs.events, "run-1", "02", 64);
        write(&dirs.transcripts, "run-1", "0", 64);
        write(&dirs.transcripts, "agent-1", "0", 640);
        write(&dirs.events, "run-2", "03", 2 << 10);
        write(&dirs.events, "run-3", "04", 64);
        write(&dirs.events, "run-4", "05", 1 << 10);
        let kib = |kib: u64| kib << 10;
        let gone = |most, open: &[&str]| {
            let open = open.iter().map(|turn| (*turn).to_owned()).collect();
            let (total, said) = too_much(&dirs, most, &open).unwrap();
            assert_eq!(total, kib(5 * 64 + 3 * 1024));
            said.into_iter().map(|said| said.turn).collect::<Vec<_>>()
        };
        assert_eq!(gone(kib(5 * 64 + 3 * 1024), &[]), [""; 0], "at the bound");
        assert_eq!(gone(kib(5 * 64 + 3 * 1024) - 1, &[]), ["03"]);
        assert_eq!(gone(kib(640), &[]), ["03", "05"]);
        assert_eq!(
            gone(kib(640), &["05"]),
            ["03", "02", "04", "01", "09"],
            "what is open stays"
        );
        assert_eq!(gone(kib(320), &[]), ["03", "05", "02"]);
        assert_eq!(gone(kib(64), &[]), ["03", "05", "02", "04", "01", "09"]);
    }
}
