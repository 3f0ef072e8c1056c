//! One run, two workers, three attempts: taken, sent, begun, lost, retaken, finished; with crashes of the scheduler
//! between every two steps and messages that come late. A run that may have begun and is lost has ended: the world
//! of `on_stuck = fail`.

use crate::{
    guard::Guards,
    lease::{Lease, Start, Times, Verdict},
};

const TIMES: Times = Times {
    lease_ms: 1,
    cancel_ms: 1,
};
const ATTEMPTS: u32 = 3;
/// Longer than the world lasts.
const TIMEOUT_MS: i64 = 1_000;
const END_MS: i64 = 9;

/// What the run's record says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Disk {
    attempt: u32,
    held: bool,
    parked: bool,
    over: bool,
    accepted: Vec<u32>,
}

/// One run, in memory, on disk, and with workers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leases {
    guards: Guards,
    now_ms: i64,
    lease: Lease,
    disk: Disk,
    commits: Vec<Disk>,
    /// The attempt each worker has.
    workers: [Option<u32>; 2],
    /// Results that were taken: (attempt, the newest attempt then).
    counted: Vec<(u32, u32)>,
    /// How often the run ended, on disk.
    ended: u8,
    /// Attempts that went out, and to whom.
    fences: Vec<(u32, u8)>,
    /// Attempts that were let begin: the word is on its way, or was heard.
    let_begin: Vec<(u32, u8)>,
    /// Attempts that began.
    begun: Vec<u32>,
    /// One began before it was known what an earlier one, that had begun, came to.
    doubled: bool,
    /// A lease that was over was looked at, and went on.
    overdue: bool,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The run is given to a worker.
    Take(u8),
    /// The oldest commit is durable.
    Commit,
    /// The work goes out.
    Send,
    /// A worker would begin, and is let.
    Let(u8),
    /// The word arrives: it begins.
    Begin(u8),
    /// A worker that has begun shows that it is there.
    Renew(u8),
    /// The stream of a worker ends.
    Break(u8),
    /// A worker that has not begun what it was sent last attaches again, and does not name it.
    Return(u8),
    /// A worker's result arrives: it succeeded.
    Finish(u8),
    /// A worker's result arrives: it failed, so there is another attempt.
    Fail(u8),
    /// A worker gives the run back to wait for a person.
    Park(u8),
    /// The person answers: there is another attempt.
    Unpark,
    /// Time passes.
    Tick,
    /// Leases are looked at.
    Expire,
    /// The scheduler's memory, and what was on its way, is gone.
    Crash,
}

impl Step {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Take(0),
        Self::Take(1),
        Self::Commit,
        Self::Send,
        Self::Let(0),
        Self::Let(1),
        Self::Begin(0),
        Self::Begin(1),
        Self::Renew(0),
        Self::Renew(1),
        Self::Break(0),
        Self::Break(1),
        Self::Return(0),
        Self::Return(1),
        Self::Finish(0),
        Self::Finish(1),
        Self::Fail(0),
        Self::Fail(1),
        Self::Park(0),
        Self::Park(1),
        Self::Unpark,
        Self::Tick,
        Self::Expire,
        Self::Crash,
    ];
}

impl Leases {
    /// A pending run.
    #[must_use]
    pub fn new(guards: Guards) -> Self {
        Self {
            guards,
            now_ms: 0,
            lease: Lease::default(),
            disk: Disk {
                attempt: 1,
                held: false,
                parked: false,
                over: false,
                accepted: Vec::new(),
            },
            commits: Vec::new(),
            workers: [None; 2],
            counted: Vec::new(),
            ended: 0,
            fences: Vec::new(),
            let_begin: Vec::new(),
            begun: Vec::new(),
            doubled: false,
            overdue: false,
        }
    }

    /// The state after a step; `None` if it can't happen now.
    #[must_use]
    pub fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Take(worker) => {
                if !next.lease.take(u64::from(worker)) {
                    return None;
                }
                next.persist();
            }
            Step::Commit if !self.commits.is_empty() => {
                let disk = next.commits.remove(0);
                if disk.held {
                    next.lease.persisted(disk.attempt);
                }
                next.ended += u8::from(disk.over && (!self.disk.over || disk.accepted != self.disk.accepted));
                next.disk = disk;
            }
            Step::Send => {
                let attempt = self.lease.attempt();
                let stream = next
                    .lease
                    .send(self.guards, attempt, self.now_ms, TIMEOUT_MS, TIMES)
                    .ok()?;
                let worker = u8::from(stream == 1);
                next.workers[usize::from(worker)] = Some(attempt);
                next.fences.push((attempt, worker));
            }
            Step::Let(worker) => {
                let attempt = self.workers[usize::from(worker)]?;
                if !next
                    .lease
                    .renew(u64::from(worker), attempt, Start::May, self.now_ms, TIMES)
                {
                    return None;
                }
                if !next.let_begin.contains(&(attempt, worker)) {
                    next.let_begin.push((attempt, worker));
                }
            }
            Step::Begin(worker) => {
                let attempt = self.workers[usize::from(worker)]?;
                if !self.let_begin.contains(&(attempt, worker)) || self.begun.contains(&attempt) {
                    return None;
                }
                let reported = |begun: &u32| self.counted.iter().any(|(attempt, _)| attempt == begun);
                next.doubled |= !self.begun.iter().all(reported);
                next.begun.push(attempt);
            }
            Step::Break(worker) => {
                let held = self.lease.held()?;
                if held.stream != Some(u64::from(worker)) {
                    return None;
                }
                match next.lease.take_back(self.guards) {
                    Ok(()) if next.lease.attempt() <= ATTEMPTS => next.persist(),
                    Ok(()) => return None,
                    Err(_) => drop(next.lease.moved(self.lease.attempt(), None)),
                }
            }
            Step::Return(worker) => {
                let attempt = self.lease.attempt();
                let had = self.lease.held().is_some() && self.fences.last() == Some(&(attempt, worker));
                if !had || self.begun.contains(&attempt) || attempt == ATTEMPTS {
                    return None;
                }
                // What was on its way went with the old stream.
                next.workers[usize::from(worker)] = None;
                next.let_begin.retain(|word| *word != (attempt, worker));
                next.lease.again();
                next.persist();
            }
            Step::Renew(worker) => {
                let attempt =
                    self.workers[usize::from(worker)].filter(|attempt| self.begun.contains(attempt))?;
                // After a crash its worker comes back first.
                if self.lease.held().is_some_and(|held| held.stream.is_none()) {
                    next.lease.moved(attempt, Some(u64::from(worker)));
                }
                if !next
                    .lease
                    .renew(u64::from(worker), attempt, Start::Began, self.now_ms, TIMES)
                {
                    return None;
                }
            }
            Step::Finish(worker) | Step::Fail(worker) => {
                let attempt = self.workers[usize::from(worker)]?;
                // The worker keeps it, since the ack may be lost: the world in which most can go wrong.
                if next.lease.finish(self.guards, attempt) != Verdict::Taken {
                    return None;
                }
                // Who reported does not begin afterwards.
                next.let_begin.retain(|word| *word != (attempt, worker));
                next.counted.push((attempt, self.lease.attempt()));
                if matches!(step, Step::Fail(_)) && self.lease.attempt() < ATTEMPTS && !self.lease.is_over() {
                    next.lease.again();
                } else {
                    next.lease.end();
                }
                next.persist();
            }
            Step::Park(worker) => {
                let attempt = self.workers[usize::from(worker)]?;
                if next.lease.finish(self.guards, attempt) != Verdict::Taken {
                    return None;
                }
                next.let_begin.retain(|word| *word != (attempt, worker));
                next.counted.push((attempt, self.lease.attempt()));
                next.lease.park();
                next.persist();
            }
            Step::Unpark if self.lease.is_parked() => {
                if self.lease.attempt() < ATTEMPTS {
                    next.lease.again()
                } else {
                    next.lease.end()
                }
                next.persist();
            }
            Step::Tick if self.now_ms < END_MS => next.now_ms += 1,
            Step::Expire => {
                if self.lease.expired(self.guards, self.now_ms).is_some() {
                    if next.lease.take_back(self.guards).is_err() || next.lease.attempt() > ATTEMPTS {
                        next.lease.end();
                    }
                    next.persist();
                } else {
                    let over = |held: &crate::lease::Held| held.sent && held.until_ms <= self.now_ms;
                    next.overdue |= self.lease.held().is_some_and(over);
                }
            }
            Step::Crash => {
                next.commits.clear();
                let Disk {
                    attempt,
                    held,
                    parked,
                    over,
                    accepted,
                } = self.disk.clone();
                next.lease = Lease::restored(attempt, accepted, held, TIMEOUT_MS, self.now_ms, TIMES);
                if parked {
                    next.lease.park();
                }
                if over {
                    next.lease.end();
                }
                // What was taken and not durable was never acknowledged: it comes again.
                next.counted
                    .retain(|(attempt, _)| self.disk.accepted.contains(attempt));
            }
            _ => return None,
        }
        let small = next.commits.len() <= 2 && next.counted.len() <= 4 && next.fences.len() <= 4;
        (next != *self && small).then_some(next)
    }

    fn persist(&mut self) {
        self.commits.push(Disk {
            attempt: self.lease.attempt(),
            held: self.lease.held().is_some(),
            parked: self.lease.is_parked(),
            over: self.lease.is_over(),
            accepted: self.lease.accepted().to_vec(),
        });
    }
}

/// INV-LEA-1: only the newest attempt's result counts.
#[must_use]
pub fn lea_1(leases: &Leases) -> bool {
    leases.counted.iter().all(|(attempt, newest)| attempt == newest)
}

/// INV-LEA-2: one end, however often it is reported.
#[must_use]
pub fn lea_2(leases: &Leases) -> bool {
    leases.ended <= 1
}

/// INV-LEA-3: an attempt goes to one worker, and to a later one only a greater attempt.
#[must_use]
pub fn lea_3(leases: &Leases) -> bool {
    leases
        .fences
        .windows(2)
        .all(|pair| pair[0] == pair[1] || pair[0].0 < pair[1].0)
}

/// INV-LEA-4, as a safety property: whoever looks at a lease that is over ends it.
#[must_use]
pub fn lea_4(leases: &Leases) -> bool {
    !leases.overdue
}

/// INV-LEA-5: an attempt begins only if each before it did not, or reported what it came to.
#[must_use]
pub fn lea_5(leases: &Leases) -> bool {
    !leases.doubled
}
