//! The mark: the last revision that was answered, in a small file beside the database.
//!
//! It is written after each batch and never synced. Every value it can hold after a crash was durable before it was
//! written, so it may lag behind the database but not lead it. If it does lead, answered commits are missing:
//! the log was damaged in its middle, a file was removed, or the disk doesn't honour fsync.

use crate::fault;
use creel_store::{Error, Rev};
use std::fs::{self, File};
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

pub(crate) struct Mark {
    file: File,
}

/// Where the mark lies.
pub(crate) fn path(store: &Path) -> PathBuf {
    store.join("acked")
}

/// Refuses if answered commits after `recovered` are missing. Writes nothing.
pub(crate) fn check(store: &Path, recovered: Rev) -> Result<(), Error> {
    let path = path(store);
    let acked = match fs::read(&path) {
        Ok(bytes) => decode(&bytes),
        Err(err) if err.kind() == ErrorKind::NotFound => 0,
        Err(err) => return Err(fault::files("reading", &path, err)),
    };
    if acked <= recovered {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: format!("committed revisions {}..={acked} are missing", recovered + 1),
        hint: format!(
            "restore a backup; to go on without these changes, remove `{}` and start again",
            path.display()
        ),
        cause: None,
    })
}

impl Mark {
    /// Opens the mark of a store that was checked, or makes it.
    pub(crate) fn open(store: &Path, rev: Rev) -> Result<Self, Error> {
        let path = path(store);
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path);
        let mut mark = Self {
            file: file.map_err(|err| fault::files("opening", &path, err))?,
        };
        // Its space is taken now, so that a full disk can't keep it from being updated.
        mark.set(rev);
        Ok(mark)
    }

    /// Notes that everything up to `rev` was durable and is about to be answered.
    pub(crate) fn set(&mut self, rev: Rev) {
        let written = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&encode(rev)));
        if let Err(err) = written {
            // An old mark is still true, it only proves less.
            tracing::debug!(error = %err, rev, "the mark of the last answered revision wasn't updated");
        }
    }
}

/// The revision and its complement: a file torn or zeroed by a power failure isn't taken for a revision.
fn encode(rev: Rev) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&rev.to_be_bytes());
    bytes[8..].copy_from_slice(&(!rev).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Rev {
    let rev = bytes.first_chunk().map_or(0, |rev| Rev::from_be_bytes(*rev));
    if bytes == encode(rev) { rev } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_marks_count() {
        assert_eq!(decode(&encode(77)), 77);
        for torn in [&[][..], &[0; 16], &encode(77)[..15], &[0xff; 16]] {
            assert_eq!(decode(torn), 0, "{torn:?}");
        }
    }

    #[test]
    fn a_mark_ahead_of_the_database_is_loss() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), 0).unwrap();
        Mark::open(dir.path(), 5).unwrap().set(7);
        let err = check(dir.path(), 6).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the store is damaged: committed revisions 7..=7 are missing"
        );
        assert!(err.hint().unwrap().contains("acked"));
        check(dir.path(), 7).unwrap();
        drop(Mark::open(dir.path(), 8).unwrap());
        assert!(check(dir.path(), 7).is_err(), "opening at 8 was noted");
    }
}
