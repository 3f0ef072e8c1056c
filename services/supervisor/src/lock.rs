//! One supervisor per profile: an flock on `run/lock`, with its process id and start inside. The lock
//! goes with the process, so a lock that is held is never stale.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process.
    pub(crate) pid: i32,
    /// When it started, Unix milliseconds.
    pub(crate) since_unix_ms: i64,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Somebody has it.
    #[error("held by process {}", .0.pid)]
    Held(Holder),
    /// The file can't be used.
    #[error("the lock can't be used")]
    Io(#[from] io::Error),
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held open for its lock")] File);

/// How long a holder may take to write who it is, and a look ([`holder`]) may hold the lock itself.
const PATIENCE: u32 = 50;
const STEP: Duration = Duration::from_millis(10);

impl Lock {
    /// Takes the lock at `path` for this process.
    ///
    /// # Errors
    /// [`LockError`].
    pub(crate) fn take(path: &Path, since_unix_ms: i64) -> Result<Self, LockError> {
        let mut file = open(path)?;
        for _ in 0..PATIENCE {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    file.set_len(0)?;
                    writeln!(file, "{} {since_unix_ms}", std::process::id())?;
                    return Ok(Self(file));
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            // Held by a supervisor, or for an instant by somebody who looks.
            match read(&mut file)? {
                Some(holder) if lives(holder.pid) => return Err(LockError::Held(holder)),
                _ => thread::sleep(STEP),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "held by somebody who does not say who it is",
        )
        .into())
    }
}

/// Who holds the lock at `path`, if anybody does.
///
/// # Errors
/// What the system said; `WouldBlock` when the holder does not say who it is.
pub(crate) fn holder(path: &Path) -> io::Result<Option<Holder>> {
    if !path.exists() {
        return Ok(None);
    }
    let mut file = open(path)?;
    for _ in 0..PATIENCE {
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(None),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        match read(&mut file)? {
            Some(holder) if lives(holder.pid) => return Ok(Some(holder)),
            _ => thread::sleep(STEP),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::WouldBlock,
        "the lock is held by somebody who does not say who it is",
    ))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn read(file: &mut File) -> io::Result<Option<Holder>> {
    let mut text = String::new();
    file.rewind()?;
    file.take(64).read_to_string(&mut text)?;
    file.rewind()?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Option<Holder> {
    let (pid, since) = text.strip_suffix('\n')?.split_once(' ')?;
    let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
    Some(Holder {
        pid,
        since_unix_ms: since.parse().ok()?,
    })
}

/// A file may tell of a holder that is long gone, while somebody else just took the lock.
fn lives(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_the_other_is_told_who_and_the_end_frees_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path).unwrap(), None);
        let lock = Lock::take(&path, 1_234).unwrap();
        let me = Holder {
            pid: i32::try_from(std::process::id()).unwrap(),
            since_unix_ms: 1_234,
        };
        assert_eq!(holder(&path).unwrap(), Some(me));
        assert!(matches!(Lock::take(&path, 5_678), Err(LockError::Held(held)) if held == me));
        drop(lock);
        assert_eq!(holder(&path).unwrap(), None);
        Lock::take(&path, 5_678).unwrap();
    }

    #[test]
    fn half_a_line_is_nobody() {
        for text in ["", "12", "12 34", "x 34\n", "-1 34\n", "0 1\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(
            parse("12 34\n"),
            Some(Holder {
                pid: 12,
                since_unix_ms: 34
            })
        );
    }
}
