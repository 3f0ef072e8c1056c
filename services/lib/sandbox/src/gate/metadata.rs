//! Changes of a file's mode, owner and times by path.
//!
//! Landlock judges opening, not metadata: a program that may not read a file may still `chmod` it if its user owns
//! it. Refusing the calls would break every archiver and package manager, so init makes them for the program: it
//! copies the path out of the program's memory once, opens what it names, looks where that lies, and acts on the
//! opened file. The program can change its memory as it likes meanwhile; it is not read again.
//!
//! Init has the program's user, groups and (no) capabilities, so it can do nothing the program could not.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use libc::{c_int, pid_t};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chmodat, chownat, openat2,
    utimensat,
};

use crate::sys;

type Errno = i32;

/// A file named by a caller, and what it wants changed.
pub(super) struct Change {
    dirfd: c_int,
    path: u64,
    flags: c_int,
    what: What,
}

enum What {
    Mode(u32),
    /// User and group; `u32::MAX` keeps one as it is.
    Owner(u32, u32),
    /// Address of the two times, or null for now.
    Times(u64),
}

impl Change {
    /// What a notified call asks for; `None` when it is another call.
    pub(super) fn from_call(nr: i64, args: &[u64; 6]) -> Option<Self> {
        const FCHMODAT2: i64 = 452;
        let int = |i: usize| super::low_int(args[i]);
        let word = |i: usize| int(i).cast_unsigned();
        #[cfg(target_arch = "x86_64")]
        {
            let by_path = |flags, what| {
                Some(Self {
                    dirfd: libc::AT_FDCWD,
                    path: args[0],
                    flags,
                    what,
                })
            };
            match nr {
                libc::SYS_chmod => return by_path(0, What::Mode(word(1))),
                libc::SYS_chown => return by_path(0, What::Owner(word(1), word(2))),
                libc::SYS_lchown => return by_path(libc::AT_SYMLINK_NOFOLLOW, What::Owner(word(1), word(2))),
                _ => {}
            }
        }
        let (flags, what) = match nr {
            libc::SYS_fchmodat => (0, What::Mode(word(2))),
            FCHMODAT2 => (int(3), What::Mode(word(2))),
            libc::SYS_fchownat => (int(4), What::Owner(word(2), word(3))),
            libc::SYS_utimensat => (int(3), What::Times(args[2])),
            _ => return None,
        };
        Some(Self {
            dirfd: int(0),
            path: args[1],
            flags,
            what,
        })
    }

    /// Makes the change for the thread `caller` if the file lies in one of `writable`. `still_waiting` says whether
    /// the caller still waits for this answer, that is, whether what was read came from it.
    pub(super) fn apply(
        &self,
        caller: pid_t,
        writable: &[PathBuf],
        still_waiting: impl Fn() -> bool,
    ) -> Result<(), Errno> {
        let known = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
        if self.flags & !known != 0 {
            return Err(libc::EINVAL);
        }
        let path = read_path(caller, self.path)?;
        let times = match self.what {
            What::Times(address) => Some(read_times(caller, address)?),
            _ => None,
        };
        let target = self.open(caller, &path, still_waiting)?;
        let opened = format!("/proc/self/fd/{}", target.as_raw_fd());
        let real = fs::read_link(&opened).map_err(|_| libc::EPERM)?;
        if !writable.iter().any(|grant| real.starts_with(grant)) {
            return Err(libc::EPERM);
        }
        let done = match (&self.what, times) {
            (_, Some(times)) => utimensat(&target, c"", &times, AtFlags::EMPTY_PATH),
            (What::Mode(mode), _) => chmodat(CWD, &opened, Mode::from_raw_mode(*mode), AtFlags::empty()),
            (What::Owner(user, group), _) => {
                let user = (*user != u32::MAX).then(|| Uid::from_raw(*user));
                let group = (*group != u32::MAX).then(|| Gid::from_raw(*group));
                chownat(&target, c"", user, group, AtFlags::EMPTY_PATH)
            }
            (What::Times(_), None) => Err(rustix::io::Errno::INVAL),
        };
        done.map_err(rustix::io::Errno::raw_os_error)
    }

    fn open(
        &self,
        caller: pid_t,
        path: &CString,
        still_waiting: impl Fn() -> bool,
    ) -> Result<OwnedFd, Errno> {
        let by_descriptor = match descriptor(path) {
            None if path.is_empty() && self.flags & libc::AT_EMPTY_PATH != 0 => Some(self.dirfd),
            None if path.is_empty() => return Err(libc::ENOENT),
            named => named,
        };
        let base = match by_descriptor {
            Some(fd) => Some(link(caller, fd, OFlags::empty())?),
            None if path.as_bytes().starts_with(b"/") => None,
            None => Some(link(caller, self.dirfd, OFlags::DIRECTORY)?),
        };
        if !still_waiting() {
            return Err(libc::EINTR);
        }
        match (base, by_descriptor) {
            (Some(target), Some(_)) => Ok(target),
            (base, _) => open(base.as_ref(), path, self.flags & libc::AT_SYMLINK_NOFOLLOW != 0),
        }
    }
}

fn open(base: Option<&OwnedFd>, path: &CString, nofollow: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if nofollow {
        flags |= OFlags::NOFOLLOW;
    }
    let base = base.map_or(CWD, |fd| fd.as_fd());
    // No magic links: `/proc/self` here would be init, not the program.
    openat2(base, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(rustix::io::Errno::raw_os_error)
}

/// One of the caller's descriptors, or its working directory.
fn link(caller: pid_t, fd: c_int, flags: OFlags) -> Result<OwnedFd, Errno> {
    let link = match fd {
        libc::AT_FDCWD => format!("/proc/{caller}/cwd"),
        fd => format!("/proc/{caller}/fd/{fd}"),
    };
    rustix::fs::open(link, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        if e == rustix::io::Errno::NOENT {
            libc::EBADF
        } else {
            e.raw_os_error()
        }
    })
}

/// The number in the usual name of an own descriptor: how C libraries change a link's mode.
fn descriptor(path: &CString) -> Option<c_int> {
    let path = path.to_str().ok()?;
    path.strip_prefix("/proc/self/fd/")
        .or_else(|| path.strip_prefix("/dev/fd/"))?
        .parse()
        .ok()
}

fn read_path(caller: pid_t, address: u64) -> Result<CString, Errno> {
    let limit = usize::try_from(libc::PATH_MAX).unwrap_or(4096);
    let mut bytes = Vec::with_capacity(256);
    while bytes.len() < limit {
        // Up to the next page boundary: what lies beyond may not be mapped.
        let at = address
            .checked_add(u64::try_from(bytes.len()).unwrap_or(0))
            .ok_or(libc::EFAULT)?;
        let room = 4096 - usize::try_from(at % 4096).unwrap_or(0);
        let mut chunk = vec![0; room.min(limit - bytes.len())];
        let read = sys::read_memory(caller, at, &mut chunk).map_err(errno)?;
        if let Some(end) = chunk[..read].iter().position(|b| *b == 0) {
            bytes.extend_from_slice(&chunk[..end]);
            return CString::new(bytes).map_err(|_| libc::EFAULT);
        }
        if read < chunk.len() {
            return Err(libc::EFAULT);
        }
        bytes.append(&mut chunk);
    }
    Err(libc::ENAMETOOLONG)
}

fn read_times(caller: pid_t, address: u64) -> Result<Timestamps, Errno> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: libc::UTIME_NOW,
    };
    if address == 0 {
        return Ok(Timestamps {
            last_access: now,
            last_modification: now,
        });
    }
    let mut raw = [0; 32];
    match sys::read_memory(caller, address, &mut raw) {
        Ok(32) => {}
        Ok(_) => return Err(libc::EFAULT),
        Err(e) => return Err(errno(e)),
    }
    let words: Vec<i64> = raw
        .chunks_exact(8)
        .filter_map(|w| Some(i64::from_ne_bytes(*w.first_chunk()?)))
        .collect();
    let [asec, ansec, msec, mnsec] = words[..] else {
        return Err(libc::EFAULT);
    };
    Ok(Timestamps {
        last_access: Timespec {
            tv_sec: asec,
            tv_nsec: ansec,
        },
        last_modification: Timespec {
            tv_sec: msec,
            tv_nsec: mnsec,
        },
    })
}

fn errno(e: io::Error) -> Errno {
    e.raw_os_error().unwrap_or(libc::EFAULT)
}
