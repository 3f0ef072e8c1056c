//! When a service is started, started again, ended, and given up: one machine per service. Pure: time
//! and chance come in, what to do goes out.
//!
//! Invariants: a start is asked for only when there is no process; no more than [`MAX_FAILURES`] ends
//! within [`WINDOW`] are answered with another start; while what a service needs is down, its end costs
//! it nothing and it is not started.

use std::{collections::VecDeque, time::Duration};

/// The longest first wait; it doubles with each failure.
pub(crate) const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest wait of all.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(30);
/// Readiness this long makes the next failure a first one again.
pub(crate) const HEALTHY: Duration = Duration::from_secs(60);
/// Failures are counted within this time.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// So many failures within [`WINDOW`], and it is given up.
pub(crate) const MAX_FAILURES: usize = 5;
/// A process that stays unready so long is killed. Longer than a service's own drain.
pub(crate) const UNREADY_LIMIT: Duration = Duration::from_secs(15);
/// A process gets so long to its first readiness: recovery of a store or a migration may take a while.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(120);
/// A process gets so long from TERM to its end.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(12);
/// What even KILL does not end (stuck in the kernel) is left behind after this.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No process, since what it needs is down.
    Waiting,
    /// A process that has not been ready yet; killed at `until`, if what it needs is there.
    Starting { until: Option<Duration> },
    /// Ready.
    Ready { since: Duration },
    /// Was ready and isn't; killed at `until`.
    Unready { until: Duration },
    /// Killed for not getting ready; its end is still to come.
    Killed,
    /// Told to end so that it starts anew; killed at `until`.
    Restarting { until: Option<Duration> },
    /// No process; started at `until`.
    Backoff { until: Duration },
    /// Given up.
    Failed,
    /// Told to end for good; `until` it is killed, or left behind if it was.
    Draining { until: Duration, killed: bool },
    /// Gone for good, or not begun.
    Stopped,
}

impl Phase {
    /// As `status.json` and people read it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Unready { .. } | Self::Killed => "unready",
            Self::Restarting { .. } | Self::Draining { .. } => "draining",
            Self::Backoff { .. } => "backoff",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Whether there is a process.
    pub(crate) const fn has_process(self) -> bool {
        match self {
            Self::Starting { .. }
            | Self::Ready { .. }
            | Self::Unready { .. }
            | Self::Killed
            | Self::Restarting { .. }
            | Self::Draining { .. } => true,
            Self::Waiting | Self::Backoff { .. } | Self::Failed | Self::Stopped => false,
        }
    }

    /// Whether it is ready.
    pub(crate) const fn is_ready(self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

/// What happens to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The stack starts. It does not matter whether what it needs is up: it will wait for it.
    Begin,
    /// Time has passed.
    Tick,
    /// Health says it serves.
    Serving,
    /// Health says it doesn't, or nothing any more.
    NotServing(String),
    /// Its process ended, or could not be started.
    Ended(End),
    /// What it needs is ready, or no longer.
    Need(bool),
    /// It should start anew (another config), with a clean record.
    Restart,
    /// It should end for good.
    Drain,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// It said that its config can't be used: starting it again would not help.
    pub(crate) bad_config: bool,
    /// For people.
    pub(crate) reason: String,
}

/// What is to be done to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Start one.
    Start,
    /// Tell it to end (TERM).
    Stop,
    /// End it and its group (KILL).
    Kill,
}

/// The moment of an input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Monotonic, since some fixed point.
    pub(crate) now: Duration,
    /// Uniform in [0, 1).
    pub(crate) chance: f64,
    /// Services wait for the time to be set, so starting takes as long as that.
    pub(crate) clock_plausible: bool,
}

/// One service's machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    phase: Phase,
    need_up: bool,
    /// Times of the last failures, at most [`MAX_FAILURES`].
    recent: VecDeque<Duration>,
    /// Failures since it was last healthy for [`HEALTHY`].
    streak: u32,
    starts: u32,
    reason: String,
}

impl Machine {
    /// A service that has not begun. `need_up`: it needs nothing, or that is ready.
    pub(crate) const fn new(need_up: bool) -> Self {
        let recent = VecDeque::new();
        Self {
            phase: Phase::Stopped,
            need_up,
            recent,
            streak: 0,
            starts: 0,
            reason: String::new(),
        }
    }

    /// Where it stands.
    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    /// Why it is not ready: the last failure. Empty if there was none since it was ready.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    /// How often it was started again.
    pub(crate) const fn restarts(&self) -> u32 {
        self.starts.saturating_sub(1)
    }

    /// When it wants the next [`Input::Tick`].
    pub(crate) const fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Starting { until } | Phase::Restarting { until } => until,
            Phase::Unready { until } | Phase::Backoff { until } | Phase::Draining { until, .. } => {
                Some(until)
            }
            Phase::Waiting | Phase::Ready { .. } | Phase::Killed | Phase::Failed | Phase::Stopped => None,
        }
    }

    /// Takes an input.
    pub(crate) fn handle(&mut self, input: Input, at: Moment) -> Option<Act> {
        match input {
            Input::Begin if self.phase == Phase::Stopped => Some(self.start(at)),
            Input::Begin => None,
            Input::Tick => self.tick(at),
            Input::Serving => self.serving(at),
            Input::NotServing(why) => self.not_serving(why, at),
            Input::Ended(end) => self.ended(end, at),
            Input::Need(up) => self.need(up, at),
            Input::Restart => self.restart(at),
            Input::Drain => self.drain(at),
        }
    }

    fn tick(&mut self, at: Moment) -> Option<Act> {
        if self.deadline().is_none_or(|deadline| at.now < deadline) {
            return None;
        }
        match self.phase {
            Phase::Backoff { .. } => self.start_or_wait(at),
            Phase::Starting { .. } if !at.clock_plausible => {
                self.phase = Phase::Starting {
                    until: Some(at.now + START_LIMIT),
                };
                None
            }
            Phase::Starting { .. } => {
                self.reason = format!("not ready within {} s", START_LIMIT.as_secs());
                self.phase = Phase::Killed;
                Some(Act::Kill)
            }
            Phase::Unready { .. } => {
                self.phase = Phase::Killed;
                Some(Act::Kill)
            }
            Phase::Restarting { .. } => {
                self.phase = Phase::Restarting { until: None };
                Some(Act::Kill)
            }
            Phase::Draining { killed: false, .. } => {
                self.phase = Phase::Draining {
                    until: at.now + KILL_LIMIT,
                    killed: true,
                };
                Some(Act::Kill)
            }
            Phase::Draining { killed: true, .. } => {
                self.phase = Phase::Stopped;
                None
            }
            Phase::Waiting | Phase::Ready { .. } | Phase::Killed | Phase::Failed | Phase::Stopped => None,
        }
    }

    fn serving(&mut self, at: Moment) -> Option<Act> {
        if matches!(self.phase, Phase::Starting { .. } | Phase::Unready { .. }) {
            self.phase = Phase::Ready { since: at.now };
            self.reason.clear();
        }
        None
    }

    fn not_serving(&mut self, why: String, at: Moment) -> Option<Act> {
        if let Phase::Ready { since } = self.phase {
            self.note_health(since, at.now);
            self.phase = Phase::Unready {
                until: at.now + UNREADY_LIMIT,
            };
            self.reason = why;
        }
        None
    }

    fn ended(&mut self, end: End, at: Moment) -> Option<Act> {
        match self.phase {
            Phase::Waiting | Phase::Backoff { .. } | Phase::Failed | Phase::Stopped => None,
            Phase::Draining { .. } => {
                self.phase = Phase::Stopped;
                None
            }
            Phase::Restarting { .. } => self.start_or_wait(at),
            Phase::Starting { .. } | Phase::Ready { .. } | Phase::Unready { .. } | Phase::Killed => {
                if let Phase::Ready { since } = self.phase {
                    self.note_health(since, at.now);
                }
                self.failed(end, at);
                None
            }
        }
    }

    fn failed(&mut self, end: End, at: Moment) {
        // Killed by us: why we did says more than how it ended.
        if self.phase != Phase::Killed || self.reason.is_empty() {
            self.reason = end.reason;
        }
        if end.bad_config {
            self.phase = Phase::Failed;
            return;
        }
        if !self.need_up {
            self.phase = Phase::Waiting;
            return;
        }
        self.recent.retain(|time| at.now.saturating_sub(*time) < WINDOW);
        self.recent.push_back(at.now);
        if self.recent.len() >= MAX_FAILURES {
            self.reason = format!(
                "{MAX_FAILURES} failures in {} s, the last: {}",
                WINDOW.as_secs(),
                self.reason
            );
            self.phase = Phase::Failed;
            return;
        }
        self.phase = Phase::Backoff {
            until: at.now + delay(self.streak, at.chance),
        };
        self.streak = self.streak.saturating_add(1);
    }

    fn need(&mut self, up: bool, at: Moment) -> Option<Act> {
        self.need_up = up;
        match self.phase {
            Phase::Waiting if up => Some(self.start(at)),
            Phase::Starting { .. } => {
                self.phase = Phase::Starting {
                    until: up.then(|| at.now + START_LIMIT),
                };
                None
            }
            _ => None,
        }
    }

    fn restart(&mut self, at: Moment) -> Option<Act> {
        self.recent.clear();
        self.streak = 0;
        match self.phase {
            Phase::Waiting | Phase::Backoff { .. } | Phase::Failed => self.start_or_wait(at),
            Phase::Starting { .. } | Phase::Ready { .. } | Phase::Unready { .. } => {
                self.phase = Phase::Restarting {
                    until: Some(at.now + STOP_LIMIT),
                };
                Some(Act::Stop)
            }
            // It is on its way to a new start already.
            Phase::Killed => {
                self.phase = Phase::Restarting { until: None };
                None
            }
            Phase::Restarting { .. } | Phase::Draining { .. } | Phase::Stopped => None,
        }
    }

    fn drain(&mut self, at: Moment) -> Option<Act> {
        let told = matches!(self.phase, Phase::Restarting { .. } | Phase::Killed);
        match self.phase {
            Phase::Draining { .. } => None,
            phase if phase.has_process() => {
                self.phase = Phase::Draining {
                    until: at.now + STOP_LIMIT,
                    killed: false,
                };
                (!told).then_some(Act::Stop)
            }
            _ => {
                self.phase = Phase::Stopped;
                None
            }
        }
    }

    fn start_or_wait(&mut self, at: Moment) -> Option<Act> {
        if self.need_up {
            return Some(self.start(at));
        }
        self.phase = Phase::Waiting;
        None
    }

    fn start(&mut self, at: Moment) -> Act {
        self.starts = self.starts.saturating_add(1);
        self.phase = Phase::Starting {
            until: self.need_up.then(|| at.now + START_LIMIT),
        };
        Act::Start
    }

    fn note_health(&mut self, since: Duration, now: Duration) {
        if now.saturating_sub(since) >= HEALTHY {
            self.streak = 0;
        }
    }
}

/// Full jitter: anything from nothing to the doubled, capped wait, so that services that fell together
/// do not rise together.
fn delay(streak: u32, chance: f64) -> Duration {
    let longest = FIRST_DELAY.saturating_mul(1 << streak.min(16)).min(MAX_DELAY);
    longest.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
