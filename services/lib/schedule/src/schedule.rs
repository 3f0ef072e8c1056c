//! A resolved schedule and its one question: when next?

use jiff::Timestamp;
use jiff::civil::DateTime;

use crate::calendar::reading_of;
use crate::describe::describe_span;
use crate::expr::{CronExpr, ParseError};
use crate::human::TimeError;
use crate::segments::{Gap, LONGEST_SHIFT_SECONDS, OccurrenceKind};
use crate::zone::Zone;
use crate::zones::ZoneError;

/// Shortest period of an interval, in milliseconds.
pub const MIN_PERIOD_MS: u64 = 1_000;

/// Longest period of an interval, in milliseconds: 100 years.
const MAX_PERIOD_MS: u64 = 100 * 366 * 86_400_000;

/// Most occurrences one preview lists.
pub const MAX_PREVIEW: usize = 1_000;

/// When a job is due. Made by [`crate::ScheduleSpec::resolve`] or from its checked parts; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Once.
    At(Moment),
    /// Again and again, a fixed time apart.
    Every(Every),
    /// By the calendar.
    Cron(Cron),
}

/// The time of a one-shot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An instant, whatever clocks show then.
    Instant(Timestamp),
    /// A clock reading in a zone. It stays a reading: should the zone's rules change before it comes, resolving
    /// again gives the new instant.
    Civil {
        /// What the clock reads; fractions of a second are dropped.
        reading: DateTime,
        /// Where.
        zone: Zone,
    },
}

/// An interval, on a grid of whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    period_ms: i64,
    anchor_ms: i64,
    mode: EveryMode,
}

/// What an interval counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EveryMode {
    /// From the anchor: `anchor + k × period`, whatever the runs take.
    #[default]
    FixedRate,
    /// From the end of the last run, which is the `after` of [`Schedule::next`]; the first is due at the anchor.
    FixedDelay,
}

/// An expression in a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    /// The expression.
    pub expr: CronExpr,
    /// Whose clocks it names.
    pub zone: Zone,
    /// What happens when they change.
    pub dst: DstPolicy,
}

/// What a *fixed* expression (one that names minute and hour, [`CronExpr::is_fixed`]) does when clocks change.
/// Wildcard expressions follow real time under every policy: nothing in a gap, both passes of an overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DstPolicy {
    /// Each civil time once: after a gap of at most 3 hours at its end, in an overlap at the first pass.
    #[default]
    Vixie,
    /// At most once: lost in a gap, at the first pass of an overlap.
    Skip,
    /// As the clock reads it: lost in a gap, at both passes of an overlap.
    Both,
}

/// A point in time at which a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The instant that identifies it: whole seconds for calendar schedules, whole milliseconds for intervals.
    pub nominal: Timestamp,
    /// How it came to be there.
    pub kind: OccurrenceKind,
}

/// Occurrences a clock change swallowed: what a run log records as `skipped(dst)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DstSkip {
    /// The instant the clocks jumped.
    pub at: Timestamp,
    /// First reading that never was.
    pub gap_start: DateTime,
    /// First reading after the jump.
    pub gap_end: DateTime,
    /// The first named time in the gap.
    pub first: DateTime,
    /// How many named times lie in the gap.
    pub count: u64,
    /// Why they were not moved behind it.
    pub reason: SkipReason,
}

/// Why a gap swallowed occurrences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The gap is longer than 3 hours: days that a zone left out when it crossed the date line.
    GapTooLong,
    /// The policy is [`DstPolicy::Skip`] or [`DstPolicy::Both`].
    Policy,
    /// The expression follows real time, which has no such minutes. For explaining, not for the run log.
    Wildcard,
}

impl SkipReason {
    /// Whether the occurrence was promised and belongs in the run log.
    pub fn is_recorded(self) -> bool {
        self != SkipReason::Wildcard
    }
}

/// What [`Schedule::preview`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Occurrences, ascending.
    pub occurrences: Vec<Occurrence>,
    /// What clock changes swallow before the last of them, ascending.
    pub skips: Vec<DstSkip>,
    /// Whether nothing comes after the last one.
    pub ends: bool,
}

/// Why a schedule was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The expression.
    #[error(transparent)]
    Expression(#[from] ParseError),
    /// The zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// The time of a one-shot.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// An interval below 1 s or above 100 years.
    #[error("a period of {} is not in 1 s to 100 years", describe_span(*period_ms))]
    Period {
        /// The period asked for.
        period_ms: u64,
    },
    /// A one-shot that lies in the past.
    #[error("{at} is in the past")]
    Past {
        /// When it would have been.
        at: Timestamp,
    },
    /// Nothing comes: every named time falls into a clock change of its zone, or its years are over.
    #[error("`{expression}` never fires again in {zone}")]
    NeverFires {
        /// The expression.
        expression: String,
        /// Its zone.
        zone: String,
    },
}

impl ScheduleError {
    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            ScheduleError::Expression(error) => error.hint.clone(),
            ScheduleError::Zone(error) => Some(error.hint()),
            ScheduleError::Time(error) => Some(error.hint()),
            ScheduleError::Period { .. } => Some("write it as `30s`, `5m` or `2h30m`".to_owned()),
            ScheduleError::Past { .. } => Some("give a time to come, or allow a late run".to_owned()),
            ScheduleError::NeverFires { .. } => None,
        }
    }
}

impl Every {
    /// An interval of `period_ms` milliseconds. The anchor is cut to whole milliseconds.
    ///
    /// # Errors
    /// [`ScheduleError::Period`] below 1 s or above 100 years.
    pub fn new(period_ms: u64, anchor: Timestamp, mode: EveryMode) -> Result<Every, ScheduleError> {
        match i64::try_from(period_ms) {
            Ok(period) if (MIN_PERIOD_MS..=MAX_PERIOD_MS).contains(&period_ms) => Ok(Every {
                period_ms: period,
                anchor_ms: floor(anchor.as_nanosecond(), 1_000_000),
                mode,
            }),
            _ => Err(ScheduleError::Period { period_ms }),
        }
    }

    /// Milliseconds from one to the next.
    pub fn period_ms(&self) -> u64 {
        self.period_ms.unsigned_abs()
    }

    /// The instant the grid starts at, in milliseconds since 1970.
    pub fn anchor_ms(&self) -> i64 {
        self.anchor_ms
    }

    /// What it counts from.
    pub fn mode(&self) -> EveryMode {
        self.mode
    }

    fn next(&self, after: Timestamp) -> Option<i64> {
        let now = floor(after.as_nanosecond(), 1_000_000);
        if now < self.anchor_ms {
            return Some(self.anchor_ms);
        }
        match self.mode {
            EveryMode::FixedRate => {
                let passed = (now - self.anchor_ms) / self.period_ms;
                (passed + 1)
                    .checked_mul(self.period_ms)?
                    .checked_add(self.anchor_ms)
            }
            EveryMode::FixedDelay => {
                // Rounded up, so that a full period passes after a run that ended between milliseconds.
                let fraction = after.as_nanosecond() != i128::from(now) * 1_000_000;
                now.checked_add(self.period_ms)?.checked_add(i64::from(fraction))
            }
        }
    }
}

impl Moment {
    /// The instant meant, or `None` at the ends of time. A reading in a gap of any length means the first instant
    /// after it (a one-shot is never lost), one in an overlap the first pass.
    pub fn instant(&self) -> Option<Timestamp> {
        match self {
            Moment::Instant(instant) => Some(*instant),
            Moment::Civil { reading, zone } => zone.instant(*reading),
        }
    }
}

impl Schedule {
    /// The first occurrence strictly after an instant, or `None` if none comes.
    ///
    /// Pure and monotone: asked about a later instant it never answers earlier. For [`EveryMode::FixedDelay`],
    /// `after` is the end of the last run.
    pub fn next(&self, after: Timestamp) -> Option<Occurrence> {
        match self {
            Schedule::At(moment) => {
                let kind = match moment {
                    Moment::Instant(_) => OccurrenceKind::Regular,
                    Moment::Civil { reading, zone } => {
                        zone.segments()
                            .instant_of(crate::calendar::civil_second(*reading))
                            .1
                    }
                };
                let nominal = moment.instant()?;
                (nominal > after).then_some(Occurrence { nominal, kind })
            }
            Schedule::Every(every) => {
                let nominal = Timestamp::from_millisecond(every.next(after)?).ok()?;
                Some(Occurrence {
                    nominal,
                    kind: OccurrenceKind::Regular,
                })
            }
            Schedule::Cron(cron) => {
                let (second, kind) =
                    cron.zone
                        .segments()
                        .next(cron.expr.fields(), cron.dst, floor_second(after))?;
                Some(Occurrence {
                    nominal: Timestamp::from_second(second).ok()?,
                    kind,
                })
            }
        }
    }

    /// The first occurrence after `now`, for a schedule about to be saved.
    ///
    /// # Errors
    /// [`ScheduleError::Past`] for a one-shot that is over, [`ScheduleError::NeverFires`] if nothing comes.
    pub fn first(&self, now: Timestamp) -> Result<Occurrence, ScheduleError> {
        self.next(now).ok_or_else(|| match self {
            Schedule::At(moment) => match moment.instant() {
                Some(at) => ScheduleError::Past { at },
                None => TimeError::OutOfRange.into(),
            },
            Schedule::Cron(cron) => ScheduleError::NeverFires {
                expression: cron.expr.text().to_owned(),
                zone: cron.zone.name().to_owned(),
            },
            // Only past the year 9999.
            Schedule::Every(every) => ScheduleError::Period {
                period_ms: every.period_ms(),
            },
        })
    }

    /// The next `count` occurrences after an instant (at most [`MAX_PREVIEW`]) and what clock changes swallow
    /// among them.
    pub fn preview(&self, after: Timestamp, count: usize) -> Preview {
        let wanted = count.min(MAX_PREVIEW);
        let mut occurrences: Vec<Occurrence> = Vec::new();
        let mut at = after;
        while occurrences.len() < wanted
            && let Some(occurrence) = self.next(at)
        {
            at = occurrence.nominal;
            occurrences.push(occurrence);
        }
        Preview {
            skips: self.skips(after, at),
            ends: self.next(at).is_none(),
            occurrences,
        }
    }

    /// What clock changes swallowed in `after < change <= until`, oldest first, at most 64. Costs a table look-up
    /// when no clock changed.
    pub fn skips(&self, after: Timestamp, until: Timestamp) -> Vec<DstSkip> {
        match self {
            Schedule::Cron(cron) if after < until => {
                let gaps = cron
                    .zone
                    .segments()
                    .gaps(floor_second(after), floor_second(until));
                gaps.into_iter().filter_map(|gap| cron.skip(gap)).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Cron {
    fn skip(&self, gap: Gap) -> Option<DstSkip> {
        let reason = match (self.expr.is_fixed(), self.dst) {
            (false, _) => SkipReason::Wildcard,
            (true, DstPolicy::Vixie) if gap.seconds <= LONGEST_SHIFT_SECONDS => return None,
            (true, DstPolicy::Vixie) => SkipReason::GapTooLong,
            (true, DstPolicy::Skip | DstPolicy::Both) => SkipReason::Policy,
        };
        let fields = self.expr.fields();
        let first = fields.next(gap.from).filter(|first| *first < gap.until)?;
        Some(DstSkip {
            at: Timestamp::from_second(gap.at).ok()?,
            gap_start: reading_of(gap.from)?,
            gap_end: reading_of(gap.until)?,
            first: reading_of(first)?,
            count: fields.count(gap.from, gap.until),
            reason,
        })
    }
}

/// Whole units at or below a count of nanoseconds; fits i64 for every `Timestamp` and unit of 1,000,000 or more.
fn floor(nanoseconds: i128, unit: i128) -> i64 {
    nanoseconds.div_euclid(unit) as i64
}

/// The second that holds an instant. (`as_second` rounds towards 1970.)
fn floor_second(instant: Timestamp) -> i64 {
    instant.as_second() - i64::from(instant.subsec_nanosecond() < 0)
}
