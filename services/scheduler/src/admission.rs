//! Which occurrences of one job are admitted, which are skipped and why, and where the cursor is then
//! (`reference/scheduler.md` §3.3). Pure: the clock and the state are arguments, the answer is a value that is
//! persisted whole before anything follows from it.
//!
//! Invariants: an instant is decided once (FIR-1, guard `slot`); the cursor passes nothing that is neither
//! admitted nor skipped with a reason (FIR-2, guard `cursor`); work per call is bounded.

use creel_schedule::{EveryMode, Schedule};
use jiff::Timestamp;

use crate::{
    guard::{Guard, Guards},
    policy::{CatchUp, MAX_CATCH_UP, Overlap, Policy, spread_ms},
};

/// Occurrences looked at in one call; more are left to the next.
pub const MAX_WALK: usize = 100_000;
/// Runs admitted in one call: what follows from it fits one transaction of the store.
pub const MAX_ADMITS: usize = 16;
/// Steps of one call, for the same reason.
pub const MAX_STEPS: usize = 24;
/// Records of clock changes in one call. Who crosses more of them at once was away for years.
const MAX_SWALLOWED: usize = 4;
/// A job on hold is looked at this often, and what it missed is one record per look.
pub const HOLD_STEP_MS: i64 = 60_000;

const DAY_MS: i64 = 86_400_000;

/// Why an occurrence does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// A later one makes up for it.
    Coalesced,
    /// Another run of the job was not over.
    Overlap,
    /// The job is paused.
    Paused,
    /// It was too late.
    Window,
    /// The job is quarantined.
    Quarantined,
    /// The clock change of its zone swallowed it.
    Dst,
    /// The job waits after failures.
    Backoff,
}

impl SkipReason {
    /// As it stands in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coalesced => "coalesced",
            Self::Overlap => "overlap",
            Self::Paused => "paused",
            Self::Window => "window",
            Self::Quarantined => "quarantined",
            Self::Dst => "dst",
            Self::Backoff => "backoff",
        }
    }
}

/// What is decided about.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// When the job is due.
    pub schedule: &'a Schedule,
    /// Its rules.
    pub policy: &'a Policy,
    /// Its id: the seed of its jitter.
    pub job: [u8; 16],
    /// Up to here everything is decided.
    pub cursor_ms: i64,
    /// When its last run ended; what a fixed delay counts from.
    pub finished_ms: i64,
    /// Nothing is admitted, for this reason.
    pub hold: Option<SkipReason>,
    /// Its runs that have not ended.
    pub active: usize,
    /// Those of them that no worker has.
    pub waiting: usize,
    /// An occurrence this late is not missed.
    pub grace_ms: i64,
    /// Missed ones are not decided before (a clock or a crash loop is watched).
    pub catch_up_from_ms: i64,
    /// After failures: nothing is decided before.
    pub backoff_until_ms: i64,
}

/// One decided occurrence, or a range of skipped ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It runs.
    Admit {
        /// The instant it is for.
        nominal_ms: i64,
        /// It makes up for a missed one: such runs are spread in time.
        late: bool,
    },
    /// They don't.
    Skip {
        /// The first instant.
        first_ms: i64,
        /// The last one.
        last_ms: i64,
        /// How many.
        count: u64,
        /// Why.
        reason: SkipReason,
    },
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// In order of instants.
    pub steps: Vec<Step>,
    /// The runs that are active now are to be cancelled.
    pub replace: bool,
    /// The new cursor.
    pub cursor_ms: i64,
    /// When to ask again; `None`: not before something else happens.
    pub wake_ms: Option<i64>,
}

/// Memory that decisions are made in, one after the other: there are a hundred thousand in a second.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    due: Vec<Due>,
    steps: Vec<Step>,
}

impl Scratch {
    /// Takes back what a decision is made of.
    pub(crate) fn reuse(&mut self, decision: Decision) {
        self.steps = decision.steps;
        self.steps.clear();
    }
}

/// Decides everything that is due at `now_ms`, or as much as fits one call.
#[must_use]
pub fn decide(guards: Guards, now_ms: i64, view: &View<'_>) -> Decision {
    decide_in(&mut Scratch::default(), guards, now_ms, view)
}

/// Likewise.
pub(crate) fn decide_in(scratch: &mut Scratch, guards: Guards, now_ms: i64, view: &View<'_>) -> Decision {
    let walk = Walk::of(std::mem::take(&mut scratch.due), guards, now_ms, view);
    let steps = std::mem::take(&mut scratch.steps);
    let decision = conclude(&walk, steps, guards, now_ms, view);
    scratch.due = walk.due;
    decision
}

/// What follows from what is due.
fn conclude(walk: &Walk, steps: Vec<Step>, guards: Guards, now_ms: i64, view: &View<'_>) -> Decision {
    let mut plan = Plan {
        steps,
        cursor_ms: view.cursor_ms,
        replace: false,
        admits: 0,
        now_ms,
        view,
    };
    let missed = walk.due.partition_point(|at| now_ms - at.fire_ms > view.grace_ms);
    if missed > 0 && now_ms < view.catch_up_from_ms {
        let cursor_ms = if guards.on(Guard::Cursor) {
            view.cursor_ms
        } else {
            now_ms
        };
        return Decision {
            steps: Vec::new(),
            replace: false,
            cursor_ms,
            wake_ms: Some(view.catch_up_from_ms),
        };
    }
    let backoff_ms = view.backoff_until_ms;
    if view.hold.is_none() && now_ms < backoff_ms {
        let next = walk.due.first().map(|at| at.fire_ms).or(walk.next_fire_ms);
        return Decision {
            steps: Vec::new(),
            replace: false,
            cursor_ms: view.cursor_ms,
            wake_ms: next.map(|at| at.max(backoff_ms)),
        };
    }
    let done = match view.hold {
        Some(reason) => plan.skip(&walk.due, reason),
        None if walk.cut => plan.thin(&walk.due),
        None => {
            // The next run after a backoff is the newest that came up meanwhile.
            let waited = walk.due.partition_point(|at| at.fire_ms < backoff_ms);
            let passed = waited.min(walk.due.len().saturating_sub(1));
            let (passed, rest) = walk.due.split_at(passed);
            plan.skip(passed, SkipReason::Backoff);
            plan.admit(rest, missed.saturating_sub(passed.len()))
        }
    };
    plan.note_swallowed();
    let wake_ms = if !done || walk.cut {
        Some(now_ms)
    } else if view.hold.is_some() {
        walk.next_fire_ms.map(|at| at.max(now_ms + HOLD_STEP_MS))
    } else if plan.admits > 0 && is_fixed_delay(view.schedule) {
        None
    } else {
        walk.next_fire_ms
    };
    let Plan {
        steps,
        replace,
        cursor_ms,
        ..
    } = plan;
    Decision {
        steps,
        replace,
        cursor_ms,
        wake_ms,
    }
}

/// The instant a job is due next after what is decided, for showing.
#[must_use]
pub fn next_ms(schedule: &Schedule, after_ms: i64) -> Option<i64> {
    let after = Timestamp::from_millisecond(after_ms).ok()?;
    schedule
        .next(after)
        .map(|occurrence| occurrence.nominal.as_millisecond())
}

/// Whether the schedule counts from the end of runs.
#[must_use]
pub fn is_fixed_delay(schedule: &Schedule) -> bool {
    matches!(schedule, Schedule::Every(every) if every.mode() == EveryMode::FixedDelay)
}

#[derive(Debug, Clone, Copy)]
struct Due {
    nominal_ms: i64,
    fire_ms: i64,
}

struct Walk {
    due: Vec<Due>,
    next_fire_ms: Option<i64>,
    /// There is more than [`MAX_WALK`].
    cut: bool,
}

impl Walk {
    /// With `due` for its memory.
    fn of(mut due: Vec<Due>, guards: Guards, now_ms: i64, view: &View<'_>) -> Self {
        due.clear();
        let mut walk = Self {
            due,
            next_fire_ms: None,
            cut: false,
        };
        let fixed_delay = is_fixed_delay(view.schedule) && view.hold.is_none();
        if fixed_delay && view.active > 0 {
            return walk;
        }
        // Never from the clock: it may have been set back.
        let start = if guards.on(Guard::Slot) {
            view.cursor_ms
        } else {
            view.cursor_ms.min(now_ms - 1)
        };
        let mut at = if fixed_delay {
            start.max(view.finished_ms)
        } else {
            start
        };
        while let Some(nominal_ms) = next_ms(view.schedule, at) {
            let jitter_ms = jitter_ms(view.schedule, view.job, view.policy.jitter_ms, nominal_ms);
            let mut fire_ms = nominal_ms + jitter_ms;
            if fixed_delay {
                // What waits after failures is not late by that.
                fire_ms = fire_ms.max(view.backoff_until_ms);
            }
            if fire_ms > now_ms {
                walk.next_fire_ms = Some(fire_ms);
                break;
            }
            if walk.due.len() == MAX_WALK {
                walk.cut = true;
                break;
            }
            walk.due.push(Due { nominal_ms, fire_ms });
            at = nominal_ms;
        }
        walk
    }
}

/// By how much an occurrence comes later, of at most `most_ms`. Stays below the next nominal instant, so that fires
/// keep their order.
pub(crate) fn jitter_ms(schedule: &Schedule, job: [u8; 16], most_ms: i64, nominal_ms: i64) -> i64 {
    if most_ms == 0 {
        return 0;
    }
    let room = next_ms(schedule, nominal_ms).map_or(i64::MAX, |next| next - nominal_ms - 1);
    spread_ms(job, nominal_ms, most_ms.min(room))
}

struct Plan<'a> {
    steps: Vec<Step>,
    cursor_ms: i64,
    replace: bool,
    admits: usize,
    now_ms: i64,
    view: &'a View<'a>,
}

impl Plan<'_> {
    /// Skips all; true since nothing is left.
    fn skip(&mut self, due: &[Due], reason: SkipReason) -> bool {
        let (Some(first), Some(last)) = (due.first(), due.last()) else {
            return true;
        };
        self.cursor_ms = last.nominal_ms;
        let more = due.len() as u64;
        if let Some(Step::Skip {
            last_ms,
            count,
            reason: before,
            ..
        }) = self.steps.last_mut()
            && *before == reason
        {
            *last_ms = last.nominal_ms;
            *count += more;
        } else {
            let (first_ms, last_ms) = (first.nominal_ms, last.nominal_ms);
            self.steps.push(Step::Skip {
                first_ms,
                last_ms,
                count: more,
                reason,
            });
        }
        true
    }

    /// More is due than one call looks at: the older ones can't be among those that are made up for.
    fn thin(&mut self, due: &[Due]) -> bool {
        let older = &due[..due.len().saturating_sub(MAX_CATCH_UP as usize)];
        let late = older.partition_point(|at| self.is_too_late(at));
        self.skip(&older[..late], SkipReason::Window);
        self.skip(&older[late..], SkipReason::Coalesced)
    }

    /// The rules of catching up for what was missed, those of overlap for the rest. False: there is more.
    fn admit(&mut self, due: &[Due], missed: usize) -> bool {
        let (missed, mut fresh) = due.split_at(missed);
        let mut catch_up = self.view.policy.catch_up;
        if is_fixed_delay(self.view.schedule) {
            // One instant is due after an end. Those that would have followed it, had it not run, make up for it if it
            // was missed, and are none otherwise.
            fresh = &fresh[..fresh.len().min(1)];
            if matches!(catch_up, CatchUp::All { .. }) {
                catch_up = CatchUp::Last;
            }
        }
        let too_late = missed.partition_point(|at| self.is_too_late(at));
        self.skip(&missed[..too_late], SkipReason::Window);
        let missed = &missed[too_late..];
        let made_up = match catch_up {
            CatchUp::Skip => {
                self.skip(missed, SkipReason::Window);
                missed.len()
            }
            // One that is due now makes up for all.
            CatchUp::Last => missed.len() - usize::from(fresh.is_empty() && !missed.is_empty()),
            CatchUp::All { max } => missed.len().saturating_sub(max as usize),
        };
        if !matches!(catch_up, CatchUp::Skip) {
            self.skip(&missed[..made_up], SkipReason::Coalesced);
        }
        let queued = matches!(catch_up, CatchUp::All { .. });
        self.each(&missed[made_up..], true, queued) && self.each(fresh, false, false)
    }

    fn is_too_late(&self, at: &Due) -> bool {
        let window = match (self.view.policy.window_ms, self.view.schedule) {
            (Some(window), _) => window,
            (None, Schedule::At(_)) => return false,
            (None, Schedule::Every(every)) => i64::try_from(every.period_ms()).unwrap_or(DAY_MS).min(DAY_MS),
            (None, Schedule::Cron(_)) => DAY_MS,
        };
        self.now_ms - at.fire_ms > window
    }

    /// Decides one after the other. `queued` ones wait for their turn instead of overlapping.
    fn each(&mut self, due: &[Due], late: bool, queued: bool) -> bool {
        let overlap = self.view.policy.overlap;
        for (place, at) in due.iter().enumerate() {
            if self.admits == MAX_ADMITS || self.steps.len() >= MAX_STEPS {
                return false;
            }
            let active = self.view.active + self.admits;
            // Of those admitted here the first may start at once.
            let waiting = self.view.waiting + self.admits.saturating_sub(usize::from(self.view.active == 0));
            let admitted = queued
                || match overlap {
                    Overlap::Forbid => active == 0,
                    Overlap::BufferOne => active == 0 || waiting == 0,
                    Overlap::Allow { max } => active < max as usize,
                    Overlap::Replace => place + 1 == due.len(),
                };
            if admitted {
                self.replace |= overlap == Overlap::Replace && !queued && active > 0;
                self.steps.push(Step::Admit {
                    nominal_ms: at.nominal_ms,
                    late,
                });
                self.cursor_ms = at.nominal_ms;
                self.admits += 1;
            } else {
                self.skip(std::slice::from_ref(at), SkipReason::Overlap);
            }
        }
        true
    }

    /// Occurrences that a clock change took, between the old cursor and the new one.
    fn note_swallowed(&mut self) {
        let instant = |ms| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MIN);
        let swallowed = self
            .view
            .schedule
            .skips(instant(self.view.cursor_ms), instant(self.cursor_ms));
        let steps = swallowed
            .iter()
            .filter(|skip| skip.reason.is_recorded())
            .map(|skip| {
                let at = skip.at.as_millisecond();
                Step::Skip {
                    first_ms: at,
                    last_ms: at,
                    count: skip.count,
                    reason: SkipReason::Dst,
                }
            });
        self.steps.extend(steps.take(MAX_SWALLOWED));
    }
}

#[cfg(test)]
mod tests;
