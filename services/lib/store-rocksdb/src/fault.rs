//! RocksDB's errors as ours.

use creel_store::{Cause, Error};
use rocksdb::ErrorKind;
use std::path::Path;
use std::sync::Arc;

const RESTORE: &str = "restore a backup of the store; keep the damaged directory for inspection";

/// Why a synced write failed, and what may be said about it.
#[derive(Debug)]
pub(crate) struct WriteFault {
    /// The answer to the transactions of the batch.
    pub(crate) answer: Error,
    /// The answer to later ones; `None` if writing may be tried again on the same handle.
    pub(crate) later: Option<Error>,
}

/// Judges a failed write.
///
/// No space while the record was appended: the log holds at most a part of it, which recovery drops; RocksDB polls
/// for space, starts a new log, and takes writes again. Anything else (a failed sync above all) leaves it open
/// whether the record is on the disk, and the pages a failed sync dropped can't be written again by trying: the log
/// has to be read back, which opening does.
pub(crate) fn write(err: rocksdb::Error) -> WriteFault {
    let text: &str = err.as_ref();
    let full = text.contains("No space left on device");
    let maybe_logged = !full || text.contains("sync");
    let cause: Cause = Arc::new(err);
    let what = "a write failed".to_owned();
    if full {
        let hint = "free disk space; the store goes on by itself within seconds".to_owned();
        let answer = match maybe_logged {
            false => Error::Unavailable {
                what: "the disk is full".into(),
                hint,
                cause: Some(cause),
            },
            true => Error::Indeterminate {
                what: "the disk is full".into(),
                cause: Some(cause),
            },
        };
        return WriteFault { answer, later: None };
    }
    let hint = "check the disk and the system log, then restart the service".to_owned();
    let later = Error::Unavailable {
        what: "an earlier write failed, so no more are taken".into(),
        hint,
        cause: Some(cause.clone()),
    };
    WriteFault {
        answer: Error::Indeterminate {
            what,
            cause: Some(cause),
        },
        later: Some(later),
    }
}

/// A failed read.
pub(crate) fn read(err: rocksdb::Error) -> Error {
    let kind = err.kind();
    let cause: Cause = Arc::new(err);
    match kind {
        ErrorKind::Corruption => Error::Corrupt {
            what: "a stored block doesn't match its checksum".into(),
            hint: RESTORE.into(),
            cause: Some(cause),
        },
        _ => Error::Unavailable {
            what: "a read failed".into(),
            hint: "check the disk and the system log".into(),
            cause: Some(cause),
        },
    }
}

/// A database that doesn't open.
pub(crate) fn open(path: &Path, err: rocksdb::Error) -> Error {
    let text: &str = err.as_ref();
    let locked = text.contains("lock hold by current process") || text.contains("While lock file");
    let full = text.contains("No space left on device");
    let kind = err.kind();
    let cause: Cause = Arc::new(err);
    let path = path.display();
    let unavailable = |what: String, hint: &str, cause| Error::Unavailable {
        what,
        hint: hint.into(),
        cause,
    };
    match kind {
        _ if locked => unavailable(
            format!("`{path}` is already open"),
            "stop the other process that uses it (creel status shows it)",
            Some(cause),
        ),
        ErrorKind::Corruption => Error::Corrupt {
            what: format!("`{path}` can't be read"),
            hint: RESTORE.into(),
            cause: Some(cause),
        },
        _ if full => unavailable(
            format!("no space to open `{path}`"),
            "free disk space, then restart the service",
            Some(cause),
        ),
        _ => unavailable(
            format!("opening `{path}` failed"),
            "check that the directory exists and belongs to the service's user",
            Some(cause),
        ),
    }
}

/// A failed operation on the files around the database.
pub(crate) fn files(what: &str, path: &Path, err: std::io::Error) -> Error {
    Error::Unavailable {
        what: format!("{what} `{}` failed", path.display()),
        hint: "check that the directory exists, belongs to the service's user and has space".into(),
        cause: Some(Arc::new(err)),
    }
}
