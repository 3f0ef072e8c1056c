//! The memory of a whole run, sampled.
//!
//! RLIMIT_DATA holds each process at once, but not their sum, nor shared memory. A memory cgroup would; without
//! privileges there is none. So the run's init looks: often when the run is near its limit, rarely when it is not.

use std::fs;
use std::time::{Duration, Instant};

use crate::{sys, tree};

const NEAR: Duration = Duration::from_millis(250);
const FAR: Duration = Duration::from_secs(2);

pub(crate) struct Meter {
    limit: u64,
    next: Instant,
    every: Duration,
}

impl Meter {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            next: Instant::now() + NEAR,
            every: NEAR,
        }
    }

    /// When it wants to look again.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Looks if it is time; `true` when the run uses more than its limit.
    pub(crate) fn exceeded(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let used = resident();
        // Resident sizes count shared pages once per process. Only when that sum is too large is the exact and
        // expensive number worth its price.
        let exceeded = used > self.limit && proportional() > self.limit;
        self.every = if used > self.limit / 2 {
            NEAR
        } else {
            (self.every * 2).min(FAR)
        };
        self.next = now + self.every;
        exceeded
    }
}

fn resident() -> u64 {
    let pages = |pid| {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    tree::descendants().into_iter().filter_map(pages).sum::<u64>() * sys::page_size()
}

fn proportional() -> u64 {
    let bytes = |pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    tree::descendants().into_iter().filter_map(bytes).sum()
}
