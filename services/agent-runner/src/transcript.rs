//! The transcript of a context: segment files in one folder, each named by the index of its first
//! entry. The store commits how many entries there are; what lies behind them is cut at open.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use creel_proto::agent::v1::TranscriptEntry;
use prost::Message as _;

use crate::segment::{LogFile, Reader, sync_dir};

/// A segment that has reached this size is closed, in bytes.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Segments kept; the oldest goes when there are more. A transcript is at most about this many MiB.
const MAX_SEGMENTS: usize = 64;

/// A transcript that its one owner extends.
#[derive(Debug)]
pub(crate) struct Transcript {
    dir: PathBuf,
    /// First indexes of the segments, ascending; the last is the one that grows.
    firsts: Vec<u64>,
    tail: LogFile,
}

impl Transcript {
    /// Opens or makes a transcript, and cuts off what lies behind `committed` entries.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(dir: &Path, committed: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(dir)? {
            firsts.extend(entry?.file_name().to_str().and_then(index_of));
        }
        firsts.sort_unstable();
        // A segment that starts behind what is committed holds nothing that is.
        while firsts.len() > 1 && firsts.last().is_some_and(|first| *first >= committed) {
            if let Some(first) = firsts.pop() {
                fs::remove_file(path_of(dir, first))?;
            }
        }
        if firsts.is_empty() {
            firsts.push(0);
        }
        let tail = Self::open_tail(dir, &firsts, committed)?;
        Ok(Self {
            dir: dir.to_owned(),
            firsts,
            tail,
        })
    }

    fn open_tail(dir: &Path, firsts: &[u64], len: u64) -> io::Result<LogFile> {
        let first = firsts.last().copied().unwrap_or(0);
        LogFile::open(&path_of(dir, first), len.saturating_sub(first), drop)
    }

    /// Entries in all, counting those that are no longer kept.
    pub(crate) fn len(&self) -> u64 {
        self.firsts.last().copied().unwrap_or(0) + self.tail.entries()
    }

    /// Adds an entry; its `index` is set. Durable after [`Self::unsynced`] is synced.
    ///
    /// # Errors
    /// The system's; nothing was added then.
    pub(crate) fn append(&mut self, mut entry: TranscriptEntry) -> io::Result<()> {
        entry.index = self.len();
        if self.tail.bytes() >= SEGMENT_BYTES {
            self.roll()?;
        }
        self.tail.append(&entry)
    }

    fn roll(&mut self) -> io::Result<()> {
        // Only the tail is ever synced later.
        self.tail.handle().sync_data()?;
        let first = self.len();
        self.tail = LogFile::open(&path_of(&self.dir, first), u64::MAX, drop)?;
        self.firsts.push(first);
        sync_dir(&self.dir)?;
        if self.firsts.len() > MAX_SEGMENTS {
            fs::remove_file(path_of(&self.dir, self.firsts.remove(0)))?;
        }
        Ok(())
    }

    /// Takes entries back that were added after there were `len`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn cut(&mut self, len: u64) -> io::Result<()> {
        if len < self.len() {
            *self = Self::open(&self.dir, len)?;
        }
        Ok(())
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }

    /// What has to be synced for all entries to be durable.
    pub(crate) fn unsynced(&self) -> Unsynced {
        Unsynced {
            file: self.tail.handle(),
            dir: (self.tail.entries() < 8).then(|| self.dir.clone()),
        }
    }

    /// A view for reading elsewhere.
    pub(crate) fn view(&self) -> View {
        View {
            dir: self.dir.clone(),
            firsts: self.firsts.clone(),
            len: self.len(),
        }
    }
}

/// A file that has to be synced, and its directory while it is new.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) file: Arc<fs::File>,
    pub(crate) dir: Option<PathBuf>,
}

impl Unsynced {
    /// Syncs; not on an async thread.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.dir.as_deref().map_or(Ok(()), sync_dir)
    }
}

/// A transcript as it was at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    dir: PathBuf,
    firsts: Vec<u64>,
    len: u64,
}

impl View {
    /// Entries in all.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Entries from an index on: at most `max`, and none more once they hold `max_bytes`. Reads files.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn page(&self, from: u64, max: usize, max_bytes: usize) -> io::Result<Vec<TranscriptEntry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let start = self
            .firsts
            .partition_point(|first| *first <= from)
            .saturating_sub(1);
        for first in &self.firsts[start..] {
            let mut reader = match Reader::open(&path_of(&self.dir, *first)) {
                Ok(reader) => reader,
                // The oldest one may have been dropped meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            while let Some(message) = reader.next()? {
                let entry = TranscriptEntry::decode(message.as_slice())?;
                if entry.index >= self.len {
                    return Ok(entries);
                }
                if entry.index < from {
                    continue;
                }
                bytes += message.len();
                entries.push(entry);
                if entries.len() >= max || bytes >= max_bytes {
                    return Ok(entries);
                }
            }
        }
        Ok(entries)
    }

    /// The last entries: at most `max`, and of no more than `max_bytes` in all. Reads files.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn tail(&self, max: usize, max_bytes: usize) -> io::Result<Vec<TranscriptEntry>> {
        let from = self.len.saturating_sub(max as u64);
        let mut entries = self.page(from, max, usize::MAX)?;
        let mut bytes = 0;
        let fits = |entry: &&TranscriptEntry| {
            bytes += entry.encoded_len();
            bytes <= max_bytes
        };
        let kept = entries.iter().rev().take_while(fits).count();
        entries.drain(..entries.len() - kept);
        Ok(entries)
    }
}

fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

fn index_of(name: &str) -> Option<u64> {
    name.strip_suffix(".log")
        .filter(|digits| digits.len() == 20)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use creel_proto::agent::v1::{UserMessage, transcript_entry::Entry};

    use super::*;

    fn entry(bytes: usize) -> TranscriptEntry {
        let text = "x".repeat(bytes);
        TranscriptEntry {
            entry: Some(Entry::User(UserMessage { text })),
            ..Default::default()
        }
    }

    fn indexes(entries: &[TranscriptEntry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn pages_and_tails_cross_segments() {
        let dir = tempfile::tempdir().unwrap();
        let mut transcript = Transcript::open(dir.path(), 0).unwrap();
        for _ in 0..25 {
            transcript.append(entry(200 << 10)).unwrap();
        }
        assert!(transcript.firsts.len() > 3);
        let view = transcript.view();
        assert_eq!(
            indexes(&view.page(0, 500, usize::MAX).unwrap()),
            (0..25).collect::<Vec<_>>()
        );
        assert_eq!(indexes(&view.page(7, 3, usize::MAX).unwrap()), [7, 8, 9]);
        assert_eq!(
            view.page(7, 500, 300 << 10).unwrap().len(),
            2,
            "a page is bounded in bytes"
        );
        assert_eq!(indexes(&view.tail(4, usize::MAX).unwrap()), [21, 22, 23, 24]);
        assert_eq!(indexes(&view.tail(4, 500 << 10).unwrap()), [23, 24]);
        assert!(view.page(25, 10, usize::MAX).unwrap().is_empty());
        transcript.append(entry(1)).unwrap();
        assert_eq!(
            view.page(20, 500, usize::MAX).unwrap().len(),
            5,
            "a view does not grow"
        );
    }

    #[test]
    fn what_was_not_committed_is_cut_in_whatever_segment_it_lies() {
        for committed in 0..=12 {
            let dir = tempfile::tempdir().unwrap();
            let mut transcript = Transcript::open(dir.path(), 0).unwrap();
            for _ in 0..12 {
                transcript.append(entry(400 << 10)).unwrap();
            }
            drop(transcript);
            let mut transcript = Transcript::open(dir.path(), committed).unwrap();
            assert_eq!(transcript.len(), committed);
            transcript.append(entry(1)).unwrap();
            assert_eq!(
                indexes(&transcript.view().page(0, 500, usize::MAX).unwrap()),
                (0..=committed).collect::<Vec<_>>()
            );
            transcript.cut(committed).unwrap();
            assert_eq!(transcript.len(), committed);
        }
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let mut transcript = Transcript::open(dir.path(), 0).unwrap();
        let count = MAX_SEGMENTS as u64 + 3;
        for _ in 0..count {
            transcript.append(entry(1 << 20)).unwrap();
        }
        let view = transcript.view();
        assert_eq!(view.len(), count);
        assert_eq!(indexes(&view.page(0, 1, usize::MAX).unwrap()), [3]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_SEGMENTS);
    }
}
