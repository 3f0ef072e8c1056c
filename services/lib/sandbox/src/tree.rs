//! The process tree below this process, as `/proc` shows it, and the ways to end it.
//!
//! A subreaper's descendants all become its children as their parents die. So killing direct children until there
//! are none ends every descendant, and a direct child's pid can't be reused before this process reaps it: no signal
//! ever goes to a stranger.

use std::collections::BTreeSet;
use std::fs;
use std::io;
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
    loop {
        let alive: Vec<Pid> = children()?.into_iter().filter(|pid| !is_dead(*pid)).collect();
        let elapsed = start.elapsed();
        let (signal, until) = if elapsed < grace {
            (Signal::TERM, grace)
        } else {
            (Signal::KILL, grace + KILL_PATIENCE)
        };
        if alive.is_empty() || elapsed >= grace + KILL_PATIENCE {
            return Ok(alive.len());
        }
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
    children_of(me).or_else(|_| children_by_scan(me))
}

/// Processes and threads below this process.
pub(crate) fn count_tasks() -> u32 {
    let mut tasks = 0;
    for pid in descendants() {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        tasks += u32::try_from(threads).unwrap_or(u32::MAX / 2);
    }
    tasks
}

/// Every living process below this one, in no particular order; what changes meanwhile may be missed.
pub(crate) fn descendants() -> Vec<Pid> {
    let mut found = children().unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(children_of(pid).unwrap_or_default());
    }
    found.retain(|pid| !is_dead(*pid));
    found
}

/// From `children` of every thread: cheap, but a kernel option.
fn children_of(pid: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(task?.path().join("children"))?;
        found.extend(
            list.split_ascii_whitespace()
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
        .filter(|pid| stat(*pid).is_some_and(|(_, ppid)| ppid == parent.as_raw_nonzero().get()))
        .collect())
}

pub(crate) fn is_dead(pid: Pid) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// State and parent from `/proc/PID/stat`; the name in between may contain anything, so count from its last `)`.
fn stat(pid: Pid) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
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
        assert!(children_of(parent).unwrap().contains(&me));
    }

    #[test]
    fn a_living_process_is_not_dead_and_a_missing_one_is() {
        assert!(!is_dead(rustix::process::getpid()));
        assert!(is_dead(Pid::from_raw(i32::MAX).unwrap()));
    }
}
