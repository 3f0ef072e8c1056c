//! Changes of a file's mode and times by path.
//!
//! Landlock judges opening, not metadata: a program that may not read a file may still `chmod` it if its user owns
//! it. Refusing the calls would break every archiver and package manager, so init makes them for the program: it
//! copies the path out of the program's memory once, opens what it names, looks where that lies, and acts on the
//! opened file. The program can change its memory as it likes meanwhile; it is not read again.
//!
//! Init has the program's user, groups and (no) capabilities, so it can do nothing the program could not.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use libc::{c_int, pid_t};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, chmodat, openat2, utimensat};

use crate::sys;

type Errno = i32;

/// The calls that come here.
pub(super) enum Change {
    Mode { dirfd: c_int, path: u64, mode: u32, flags: c_int },
    Times { dirfd: c_int, path: u64, times: u64, flags: c_int },
}

impl Change {
    /// What a notified call asks for; `None` when it is another call.
    pub(super) fn from_call(nr: i64, args: &[u64; 6]) -> Option<Self> {
        const FCHMODAT2: i64 = 452;
        let int = |i: usize| super::low_int(args[i]);
        let mode = |i: usize| int(i).cast_unsigned();
        #[cfg(target_arch = "x86_64")]
        if nr == libc::SYS_chmod {
            return Some(Self::Mode { dirfd: libc::AT_FDCWD, path: args[0], mode: mode(1), flags: 0 });
        }
        match nr {
            libc::SYS_fchmodat => Some(Self::Mode { dirfd: int(0), path: args[1], mode: mode(2), flags: 0 }),
            FCHMODAT2 => Some(Self::Mode { dirfd: int(0), path: args[1], mode: mode(2), flags: int(3) }),
            libc::SYS_utimensat => {
                Some(Self::Times { dirfd: int(0), path: args[1], times: args[2], flags: int(3) })
            }
            _ => None,
        }
    }

    /// Makes the change for the thread `caller` if the file lies in one of `writable`. `still_waiting` says whether
    /// the caller still waits for this answer, that is, whether what was read came from it.
    pub(super) fn apply(
        &self,
        caller: pid_t,
        writable: &[PathBuf],
        still_waiting: impl Fn() -> bool,
    ) -> Result<(), Errno> {
        let (dirfd, address, flags) = match *self {
            Self::Mode { dirfd, path, flags, .. } | Self::Times { dirfd, path, flags, .. } => (dirfd, path, flags),
        };
        if flags & !libc::AT_SYMLINK_NOFOLLOW != 0 {
            return Err(libc::EPERM);
        }
        let path = read_path(caller, address)?;
        let times = match *self {
            Self::Times { times, .. } => Some(read_times(caller, times)?),
            Self::Mode { .. } => None,
        };
        let base = base(caller, dirfd, &path)?;
        if !still_waiting() {
            return Err(libc::EINTR);
        }
        let target = open(&base, &path, flags & libc::AT_SYMLINK_NOFOLLOW != 0)?;
        let link = format!("/proc/self/fd/{}", target.as_raw_fd());
        let real = fs::read_link(&link).map_err(|_| libc::EPERM)?;
        if !writable.iter().any(|grant| real.starts_with(grant)) {
            return Err(libc::EPERM);
        }
        let done = match (self, times) {
            (Self::Times { .. }, Some(times)) => utimensat(&target, c"", &times, AtFlags::EMPTY_PATH),
            (Self::Mode { mode, .. }, _) => chmodat(CWD, &link, Mode::from_raw_mode(*mode), AtFlags::empty()),
            (Self::Times { .. }, None) => Err(rustix::io::Errno::INVAL),
        };
        done.map_err(rustix::io::Errno::raw_os_error)
    }
}

fn open(base: &Option<OwnedFd>, path: &CString, nofollow: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if nofollow {
        flags |= OFlags::NOFOLLOW;
    }
    let base = base.as_ref().map_or(CWD, |fd| fd.as_fd());
    // No magic links: `/proc/self` here would be init, not the program.
    openat2(base, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(rustix::io::Errno::raw_os_error)
}

/// Where a relative path starts: the caller's working directory, or one of its descriptors.
fn base(caller: pid_t, dirfd: c_int, path: &CString) -> Result<Option<OwnedFd>, Errno> {
    if Path::new(OsStr::from_bytes(path.as_bytes())).is_absolute() {
        return Ok(None);
    }
    let link = match dirfd {
        libc::AT_FDCWD => format!("/proc/{caller}/cwd"),
        fd => format!("/proc/{caller}/fd/{fd}"),
    };
    let opened = rustix::fs::open(link, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.map(Some).map_err(|e| if e == rustix::io::Errno::NOENT { libc::EBADF } else { e.raw_os_error() })
}

fn read_path(caller: pid_t, address: u64) -> Result<CString, Errno> {
    let limit = usize::try_from(libc::PATH_MAX).unwrap_or(4096);
    let mut bytes = Vec::with_capacity(256);
    while bytes.len() < limit {
        // Up to the next page boundary: what lies beyond may not be mapped.
        let at = address.checked_add(u64::try_from(bytes.len()).unwrap_or(0)).ok_or(libc::EFAULT)?;
        let room = 4096 - usize::try_from(at % 4096).unwrap_or(0);
        let mut chunk = vec![0; room.min(limit - bytes.len())];
        let read = sys::read_memory(caller, at, &mut chunk).map_err(errno)?;
        if let Some(end) = chunk[..read].iter().position(|b| *b == 0) {
            bytes.extend_from_slice(&chunk[..end]);
            return match bytes.is_empty() {
                true => Err(libc::ENOENT),
                false => CString::new(bytes).map_err(|_| libc::EFAULT),
            };
        }
        if read < chunk.len() {
            return Err(libc::EFAULT);
        }
        bytes.append(&mut chunk);
    }
    Err(libc::ENAMETOOLONG)
}

fn read_times(caller: pid_t, address: u64) -> Result<Timestamps, Errno> {
    let now = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    if address == 0 {
        return Ok(Timestamps { last_access: now, last_modification: now });
    }
    let mut raw = [0; 32];
    match sys::read_memory(caller, address, &mut raw) {
        Ok(32) => {}
        Ok(_) => return Err(libc::EFAULT),
        Err(e) => return Err(errno(e)),
    }
    let words: Vec<i64> =
        raw.chunks_exact(8).filter_map(|w| Some(i64::from_ne_bytes(*w.first_chunk()?))).collect();
    let [asec, ansec, msec, mnsec] = words[..] else { return Err(libc::EFAULT) };
    Ok(Timestamps {
        last_access: Timespec { tv_sec: asec, tv_nsec: ansec },
        last_modification: Timespec { tv_sec: msec, tv_nsec: mnsec },
    })
}

fn errno(e: io::Error) -> Errno {
    e.raw_os_error().unwrap_or(libc::EFAULT)
}
