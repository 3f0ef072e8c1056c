//! Memory and processes of a whole run, sampled.
//!
//! RLIMIT_DATA holds each process at once, but not their sum, nor shared memory. RLIMIT_NPROC counts everything the
//! user runs, and root not at all, so it is only a backstop here ([`backstop`]). A cgroup would do both; without
//! privileges there is none. So the run's init looks: often when the run is near a limit, rarely when it is not.

use std::fs;
use std::time::{Duration, Instant};

use crate::exit::Cause;
use crate::profile::Limits;
use crate::sys;
use crate::tree::{self, Member};

const NEAR: Duration = Duration::from_millis(50);
const FAR: Duration = Duration::from_secs(1);
/// Root has no backstop against a burst of forks.
const FAR_ROOT: Duration = Duration::from_millis(100);

/// Room for what the user starts later, outside the run.
const SLACK: u64 = 512;

pub(crate) struct Meter {
    limits: Limits,
    next: Instant,
    every: Duration,
    far: Duration,
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Self {
        let far = if rustix::process::getuid().is_root() {
            FAR_ROOT
        } else {
            FAR
        };
        Self {
            limits,
            next: Instant::now() + NEAR,
            every: NEAR,
            far,
        }
    }

    /// When it wants to look again.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Looks if it is time; the limit that the run exceeds.
    pub(crate) fn exceeded(&mut self, now: Instant) -> Option<Cause> {
        if now < self.next {
            return None;
        }
        // No need to see more than are too many.
        let enough = usize::try_from(self.limits.processes)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let members = tree::members(enough);
        let tasks: u64 = members.iter().map(|m| m.threads).sum();
        let resident: u64 = members.iter().map(|m| m.resident_pages).sum::<u64>() * sys::page_size();
        let near = tasks > u64::from(self.limits.processes) / 2 || resident > self.limits.memory_bytes / 2;
        self.every = if near {
            NEAR
        } else {
            (self.every * 2).min(self.far)
        };
        self.next = now + self.every;
        if tasks > u64::from(self.limits.processes) {
            return Some(Cause::Processes);
        }
        // Resident sizes count shared pages once per process. Only when that sum is too large is the exact and
        // expensive number worth its price.
        let limit = self.limits.memory_bytes;
        (resident > limit && proportional(&members) > limit).then_some(Cause::Memory)
    }
}

/// RLIMIT_NPROC for a run: what it may not exceed even between two samples. It counts all tasks of the user; those
/// are at most all tasks of the system, which is one cheap read.
pub(crate) fn backstop(limits: &Limits) -> u64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let total = load
        .split_ascii_whitespace()
        .nth(3)
        .and_then(|tasks| tasks.split_once('/')?.1.parse().ok());
    total.unwrap_or(u64::from(u16::MAX)) + u64::from(limits.processes) + SLACK
}

fn proportional(members: &[Member]) -> u64 {
    let bytes = |member: &Member| {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", member.pid)).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    members.iter().filter_map(bytes).sum()
}
