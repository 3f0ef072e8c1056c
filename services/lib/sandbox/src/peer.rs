//! Who is at the other end of a unix socket, and how confined that process is.
//!
//! Written for a reader that has locked itself: Landlock then denies the links in `/proc/PID/ns` and
//! `/proc/PID/exe` (they demand ptrace rights), but not `status`, `stat` and `uid_map`, so those are what is read.
//! Kernel numbers are compared with a baseline, never with a constant: inside a container everybody, the service
//! included, has a filter and `no_new_privs`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::{PollFd, PollFlags, poll};

use crate::sys;

/// The process that connected, as of the moment it did.
#[derive(Debug)]
pub struct Peer {
    /// Its process id, in this process's pid namespace.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// A handle on it (Linux ≥ 6.5). With it, [`Confinement::of_peer`] is immune to reuse of the pid.
    pub pidfd: Option<OwnedFd>,
}

/// Why nothing can be said about a peer. To be read as: refuse it.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The socket told nothing, or no process (pid 0: it is in a namespace this process can't see).
    #[error("the socket does not tell its peer")]
    Unknown(#[source] io::Error),
    /// It is gone, or hidden from us.
    #[error("process {pid} can't be examined")]
    Gone {
        /// The process.
        pid: i32,
    },
}

/// Asks a connected unix socket who the peer is.
///
/// # Errors
/// [`PeerError::Unknown`].
pub fn peer_credentials(socket: &impl AsFd) -> Result<Peer, PeerError> {
    let cred = sys::peer_ucred(socket.as_fd()).map_err(PeerError::Unknown)?;
    if cred.pid <= 0 {
        return Err(PeerError::Unknown(io::ErrorKind::NotFound.into()));
    }
    Ok(Peer {
        pid: cred.pid,
        uid: cred.uid,
        gid: cred.gid,
        pidfd: sys::peer_pidfd(socket.as_fd()).ok(),
    })
}

/// What confines a process, as far as the kernel tells others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// `no_new_privs` is set.
    pub no_new_privs: bool,
    /// Number of seccomp filters on it (1 also for strict mode).
    pub seccomp_filters: u32,
    /// How many pid namespaces below this process's own it lives.
    pub pid_namespaces: u32,
    /// Its user namespace's map. The initial namespace maps everything to itself.
    pub uid_map: String,
    /// Capabilities it could ever gain.
    pub bounding: u64,
}

/// The map of a user namespace that confines nobody.
const WHOLE_MAP: &str = "0 0 4294967295";

impl Confinement {
    /// Of this process, now. A service takes it before it locks itself, as the baseline.
    ///
    /// # Errors
    /// [`PeerError::Gone`] when `/proc` is not readable.
    pub fn of_self() -> Result<Self, PeerError> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Of a process by id.
    ///
    /// # Errors
    /// [`PeerError::Gone`].
    pub fn of(pid: i32) -> Result<Self, PeerError> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let parse = || Self::parse(&read("status").ok()?, &read("uid_map").ok()?);
        parse().ok_or(PeerError::Gone { pid })
    }

    /// Of a peer; fails if it ended meanwhile, when its pid may already be another process.
    ///
    /// # Errors
    /// [`PeerError::Gone`].
    pub fn of_peer(peer: &Peer) -> Result<Self, PeerError> {
        let found = Self::of(peer.pid)?;
        match &peer.pidfd {
            Some(pidfd) if has_ended(pidfd) => Err(PeerError::Gone { pid: peer.pid }),
            _ => Ok(found),
        }
    }

    /// Whether this process has a wall around it that `baseline` has not. Any one is enough.
    #[must_use]
    pub fn is_more_confined_than(&self, baseline: &Self) -> bool {
        (self.no_new_privs && !baseline.no_new_privs)
            || self.seccomp_filters > baseline.seccomp_filters
            || self.pid_namespaces > baseline.pid_namespaces
            || (self.uid_map != WHOLE_MAP && self.uid_map != baseline.uid_map)
            || (baseline.bounding & !self.bounding != 0)
    }

    /// `None` when a field is missing: an unknown kernel is no reason to trust.
    fn parse(status: &str, uid_map: &str) -> Option<Self> {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|l| Some(l.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let mode: u32 = field("Seccomp")?.parse().ok()?;
        Some(Self {
            no_new_privs: field("NoNewPrivs")? != "0",
            // Kernels before 5.9 have no count; then one filter looks like any number of them.
            seccomp_filters: match field("Seccomp_filters") {
                Some(count) if mode == 2 => count.parse().ok()?,
                _ => mode.min(1),
            },
            pid_namespaces: u32::try_from(field("NSpid")?.split_ascii_whitespace().count())
                .ok()?
                .checked_sub(1)?,
            uid_map: uid_map.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
            bounding: u64::from_str_radix(field("CapBnd")?, 16).ok()?,
        })
    }
}

/// Whether `pid` is, or has among its ancestors, a process for which `matches` holds.
///
/// An ancestor that can't be examined counts as a match: it may be what was asked for.
pub fn descends_from(pid: i32, matches: impl Fn(i32) -> bool) -> bool {
    let mut pid = pid;
    // Deeper trees than this are not made by accident.
    for _ in 0..256 {
        if matches(pid) {
            return true;
        }
        match parent(pid) {
            Some(0) => return false,
            Some(parent) => pid = parent,
            None => return true,
        }
    }
    true
}

/// Whether a process is a spawner or a run's init, by the name they give themselves. A process can pretend to be
/// one, which only gets it refused; one that is can't pretend otherwise.
#[must_use]
pub fn is_spawner(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| matches!(name.trim_end(), "creel-spawner" | "creel-init"))
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    !matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const STATUS: &str = "Name:\tx\nPPid:\t7\nUid:\t1000\t1000\t1000\t1000\nNSpid:\t42\nCapBnd:\t000001ffffffffff\n\
                          NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n";
    const MAP: &str = "         0          0 4294967295\n";

    fn parse(edit: &[(&str, &str)], map: &str) -> Confinement {
        let status = edit
            .iter()
            .fold(STATUS.to_owned(), |s, (from, to)| s.replace(from, to));
        Confinement::parse(&status, map).unwrap()
    }

    #[test]
    fn any_single_wall_makes_more_confined() {
        let free = parse(&[], MAP);
        assert!(!free.is_more_confined_than(&free));
        let walled = [
            parse(&[("NoNewPrivs:\t0", "NoNewPrivs:\t1")], MAP),
            parse(
                &[("Seccomp:\t0", "Seccomp:\t2"), ("filters:\t0", "filters:\t1")],
                MAP,
            ),
            parse(&[("Seccomp:\t0", "Seccomp:\t1")], MAP),
            parse(&[("NSpid:\t42", "NSpid:\t42\t1")], MAP),
            parse(&[], "0 1000 1\n"),
            parse(&[("CapBnd:\t000001ffffffffff", "CapBnd:\t00000000a80425fb")], MAP),
        ];
        for one in &walled {
            assert!(one.is_more_confined_than(&free), "{one:?}");
            assert!(!free.is_more_confined_than(one), "{one:?}");
            assert!(
                !one.is_more_confined_than(one),
                "in a container everybody is: {one:?}"
            );
        }
    }

    #[test]
    fn one_more_filter_than_the_container_gave_everybody_is_noticed() {
        let filters = |n: &str| {
            parse(
                &[
                    ("Seccomp:\t0", "Seccomp:\t2"),
                    ("filters:\t0", &format!("filters:\t{n}")),
                ],
                MAP,
            )
        };
        assert!(filters("3").is_more_confined_than(&filters("1")));
        assert!(!filters("1").is_more_confined_than(&filters("1")));
    }

    #[test]
    fn a_missing_field_is_no_information() {
        for field in ["NoNewPrivs", "Seccomp:", "NSpid", "CapBnd"] {
            assert!(
                Confinement::parse(&STATUS.replace(field, "Other"), MAP).is_none(),
                "{field}"
            );
        }
    }

    #[test]
    fn a_socket_tells_its_peer() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&a).unwrap();
        assert_eq!(peer.pid, rustix::process::getpid().as_raw_nonzero().get());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        let me = Confinement::of_peer(&peer).unwrap();
        assert!(!me.is_more_confined_than(&Confinement::of_self().unwrap()));
    }

    #[test]
    fn ancestry_ends_at_the_top_and_the_unknown_counts_as_found() {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let above = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!(descends_from(me, |pid| pid == above));
        assert!(!descends_from(me, |pid| pid == i32::MAX));
        assert!(descends_from(i32::MAX, |_| false), "no such process");
    }
}
