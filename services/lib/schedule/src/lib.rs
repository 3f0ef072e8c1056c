//! Schedule arithmetic: when a job is due, in civil time, across clock changes.
//!
//! The scheduler fires by it, the CLI previews by it (`creel cron next`) and `creeld check cron` answers by it.
//! Semantics are those of `reference/scheduler.md` §3.2; crontab(5) as Debian and cronsim read it, with each civil
//! time fired once.
//!
//! **Not here:** clocks, timers, catch-up, overlap, jitter, storage. Every function is pure: the only files read
//! are zone files, when [`Zones`] are loaded or a zone is first named.
//!
//! Invariants, each held by a property test:
//! - [`Schedule::next`] answers strictly after the instant given, and a later question never gets an earlier answer.
//! - Every search is bounded, whatever the expression, zone and year; one that can't fire by the calendar is
//!   refused by [`CronExpr::parse`], one that can't in its zone answers `None`.
//! - No text panics: expressions, durations, times and case lines are untrusted input.
//!
//! ```
//! use creel_schedule::{ScheduleSpec, Zones};
//!
//! let zones = Zones::bundled();
//! let spec: ScheduleSpec = serde_json::from_str(r#"{"kind":"cron","expr":"0 7 * * *","tz":"Europe/Berlin"}"#)?;
//! let created = "2026-11-22T10:00:00Z".parse()?;
//! let schedule = spec.resolve(&zones, created)?;
//! assert_eq!(schedule.describe(), "daily 07:00 Europe/Berlin");
//! let next = schedule.next(created).map(|occurrence| occurrence.nominal);
//! assert_eq!(next, Some("2026-11-23T06:00:00Z".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calendar;
pub mod check;
mod describe;
mod expr;
mod fields;
mod human;
mod schedule;
mod segments;
mod spec;
mod suggest;
mod zone;
mod zones;

pub use describe::describe_span;
pub use expr::{
    CronExpr, Field, MAX_EXPRESSION_BYTES, ParseError, Reason, Syntax, Warning, expand_hash, has_hash,
};
pub use human::{DurationError, TimeError, parse_duration, parse_time, spell_duration};
pub use schedule::{
    Cron, DstPolicy, DstSkip, Every, EveryMode, MAX_PREVIEW, MIN_PERIOD_MS, Moment, Occurrence, Preview,
    Schedule, ScheduleError, SkipReason,
};
pub use segments::OccurrenceKind;
pub use spec::ScheduleSpec;
pub use suggest::nearest;
pub use zone::Zone;
pub use zones::{
    BUNDLED_VERSION, MAX_ZONE_NAME_BYTES, ZoneDataVersion, ZoneError, ZoneOrigin, ZoneSources, Zones,
};
