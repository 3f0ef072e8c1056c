//! The process tree below this process, as `/proc` shows it, and the ways to end it.
//!
//! A subreaper's descendants all become its children as their parents die. So killing direct children until there
//! are none ends every descendant, and a direct child's pid can't be reused before this process reaps it: no signal
//! ever goes to a stranger.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, set_child_subreaper, waitid,
};

/// Makes orphaned descendants become children of this process instead of init's, across threads and for good.
///
/// # Errors
/// None on Linux ≥ 3.4; the system's otherwise.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// What [`reap_strays`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strays {
    /// Dead children collected.
    pub reaped: usize,
    /// Living ones that were sent SIGKILL; their end raises another SIGCHLD.
    pub killed: usize,
}

/// Kills and collects every child that is not in `known`: processes inherited from helpers that died. Does not
/// wait. Call it on every SIGCHLD; a killed stray hands its own children up, which the next call finds.
///
/// # Errors
/// When `/proc` can't be read.
pub fn reap_strays(known: &[i32]) -> io::Result<Strays> {
    let mut strays = Strays::default();
    for child in children()?
        .into_iter()
        .filter(|pid| !known.contains(&pid.as_raw_nonzero().get()))
    {
        if collect(child) {
            strays.reaped += 1;
        } else if kill_process(child, Signal::KILL).is_ok() {
            strays.killed += 1;
        }
    }
    Ok(strays)
}

/// Ends every descendant: TERM to the children, after `grace` SIGKILL, and again for whatever that orphans.
/// Returns how many still live after SIGKILL had one second (uninterruptible IO); normally 0.
///
/// For the last act of a service or the supervisor: blocks for up to `grace` + 1 s. The process must be a subreaper.
/// Drop a [`Spawner`](crate::Spawner) first, it ends its runs itself and ignores TERM. Exit statuses of children are
/// left for whoever waits for them.
///
/// # Errors
/// When `/proc` can't be read.
pub fn kill_descendants(grace: Duration) -> io::Result<usize> {
    let start = Instant::now();
    let mut told = BTreeSet::new();
    let mut dead = Vec::new();
    loop {
        let children = children()?;
        let alive: Vec<Pid> = children.iter().copied().filter(|pid| !is_dead(*pid)).collect();
        let elapsed = start.elapsed();
        if elapsed >= grace + KILL_PATIENCE {
            return Ok(alive.len());
        }
        if alive.is_empty() {
            // A child that died between the two looks has left its own children to this process, and the list is
            // older than that. Only a list of the dead that does not grow is the end.
            if children == dead {
                return Ok(0);
            }
            dead = children;
            continue;
        }
        let (signal, until) = if elapsed < grace {
            (Signal::TERM, grace)
        } else {
            (Signal::KILL, grace + KILL_PATIENCE)
        };
        for pid in &alive {
            // One TERM each; SIGKILL can't be too often.
            if signal == Signal::KILL || told.insert(pid.as_raw_nonzero()) {
                // A child that died meanwhile is what we want.
                let _ = kill_process(*pid, signal);
            }
        }
        wait_for_any(&alive, until.saturating_sub(elapsed))?;
    }
}

/// How long SIGKILL may take.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// Direct children, dead ones included.
pub(crate) fn children() -> io::Result<Vec<Pid>> {
    let me = rustix::process::getpid();
    children_of(me, usize::MAX).or_else(|_| children_by_scan(me))
}

/// One living process below this one.
pub(crate) struct Member {
    pub(crate) pid: Pid,
    pub(crate) threads: u64,
    pub(crate) resident_pages: u64,
}

/// Living processes below this one, up to `enough`, parents before their children; what changes meanwhile may be
/// missed.
pub(crate) fn members(enough: usize) -> Vec<Member> {
    let mut pids = children_of(rustix::process::getpid(), enough)
        .or_else(|_| children())
        .unwrap_or_default();
    let mut members = Vec::new();
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        members.extend(member(pid));
        if members.len() >= enough {
            break;
        }
        pids.extend(children_of(pid, enough).unwrap_or_default());
    }
    members
}

/// `None` when it is dead or gone.
fn member(pid: Pid) -> Option<Member> {
    let stat = stat(pid).filter(|stat| !stat.is_dead())?;
    Some(Member {
        pid,
        threads: stat.threads,
        resident_pages: stat.resident_pages,
    })
}

/// From `children` of every thread: cheap, but a kernel option. Stops near `enough`.
fn children_of(pid: Pid, enough: usize) -> io::Result<Vec<Pid>> {
    // A pid and its blank are at most 8 bytes.
    let bytes = u64::try_from(enough.saturating_mul(8)).unwrap_or(u64::MAX);
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let mut list = String::new();
        fs::File::open(task?.path().join("children"))?
            .take(bytes)
            .read_to_string(&mut list)?;
        // The last one may be cut short; every whole one has a blank behind it.
        let whole = list.rfind(' ').map_or("", |end| &list[..end]);
        found.extend(
            whole
                .split(' ')
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?)),
        );
    }
    Ok(found)
}

/// From the parent field of every process of the system: always there.
fn children_by_scan(parent: Pid) -> io::Result<Vec<Pid>> {
    let pids = fs::read_dir("/proc")?
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
    Ok(pids
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent.as_raw_nonzero().get()))
        .collect())
}

fn is_dead(pid: Pid) -> bool {
    stat(pid).is_none_or(|stat| stat.is_dead())
}

/// What is read of `/proc/PID/stat`.
struct Stat {
    state: char,
    parent: i32,
    threads: u64,
    resident_pages: u64,
}

impl Stat {
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may contain anything, so count from its last parenthesis, which ends it.
    let (_, fields) = text.rsplit_once(')')?;
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3);
    Some(Stat {
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        resident_pages: field(24)?.parse().ok()?,
    })
}

/// Collects one child if it is dead.
fn collect(pid: Pid) -> bool {
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).is_ok_and(|s| s.is_some())
}

fn wait_for_any(pids: &[Pid], patience: Duration) -> io::Result<()> {
    let handles: Vec<_> = pids
        .iter()
        .filter_map(|pid| pidfd_open(*pid, PidfdFlags::empty()).ok())
        .collect();
    let mut polled: Vec<_> = handles.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    match poll(&mut polled, timespec(patience).as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A poll timeout, rounded up so that a deadline has passed when it fires.
pub(crate) fn timespec(duration: Duration) -> Option<Timespec> {
    Timespec::try_from(duration + Duration::from_micros(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_list_children_agree() {
        // Another test may start children meanwhile, so compare what can't change: init's list holds no stranger,
        // and this process is among its parent's children by either way.
        let me = rustix::process::getpid();
        let parent = rustix::process::getppid().unwrap();
        assert!(children_by_scan(parent).unwrap().contains(&me));
        assert!(children_of(parent, usize::MAX).unwrap().contains(&me));
    }

    #[test]
    fn a_living_process_is_not_dead_and_a_missing_one_is() {
        assert!(!is_dead(rustix::process::getpid()));
        assert!(is_dead(Pid::from_raw(i32::MAX).unwrap()));
    }
}
