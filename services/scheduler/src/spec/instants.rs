//! The instants of a schedule as people are shown them: with what becomes of each, and why.

use creel_proto::{scheduler::v1::Instant, time::timestamp};
use creel_schedule::{OccurrenceKind, Schedule, Zone};
use jiff::Timestamp;

use crate::admission;

/// What decides about the instants of a job.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) schedule: Schedule,
    /// Its id, for its jitter.
    pub(crate) job: [u8; 16],
    pub(crate) jitter_ms: i64,
    /// Why nothing is admitted at present.
    pub(crate) hold: Option<&'static str>,
    pub(crate) backoff_until_ms: Option<i64>,
}

impl Sample {
    /// A schedule that is nobody's.
    pub(crate) fn of(schedule: Schedule) -> Self {
        Self {
            schedule,
            job: [0; 16],
            jitter_ms: 0,
            hold: None,
            backoff_until_ms: None,
        }
    }

    /// The next instants after one, and the civil times among them that a clock change takes.
    pub(crate) fn preview(&self, after: Timestamp, count: usize) -> (Vec<Instant>, Vec<Instant>) {
        let preview = self.schedule.preview(after, count);
        let due = preview
            .occurrences
            .iter()
            .map(|at| self.instant(at.nominal, at.kind))
            .collect();
        let skipped = preview.skips.iter().map(|skip| Instant {
            nominal_at: Some(timestamp(skip.at.as_millisecond())),
            fires_at: None,
            civil: skip.first.to_string(),
            reason: "dst".to_owned(),
            text: format!(
                "{} of its times from {} to {} do not exist on that day: the clocks jump over them",
                skip.count, skip.gap_start, skip.gap_end
            ),
        });
        (due, skipped.collect())
    }

    fn instant(&self, nominal: Timestamp, kind: OccurrenceKind) -> Instant {
        let nominal_ms = nominal.as_millisecond();
        let jitter_ms = admission::jitter_ms(&self.schedule, self.job, self.jitter_ms, nominal_ms);
        let fires_ms = nominal_ms
            .saturating_add(jitter_ms)
            .max(self.backoff_until_ms.unwrap_or(i64::MIN));
        let (reason, text) = match (self.hold, kind) {
            (Some(reason), _) => (reason, format!("the job is {reason}")),
            (None, OccurrenceKind::AfterGap) => (
                "moved",
                "its time does not exist on that day: the first instant after the clocks jump".to_owned(),
            ),
            (None, OccurrenceKind::FirstPass) => (
                "repeated",
                "the clocks show this time twice on that day; this is the first".to_owned(),
            ),
            (None, OccurrenceKind::SecondPass) => (
                "repeated",
                "the clocks show this time twice on that day; this is the second".to_owned(),
            ),
            (None, OccurrenceKind::Regular) if fires_ms > nominal_ms.saturating_add(jitter_ms) => {
                ("due", "after the wait that follows failures".to_owned())
            }
            (None, OccurrenceKind::Regular) if jitter_ms > 0 => {
                ("due", format!("{jitter_ms} ms later by its jitter"))
            }
            (None, OccurrenceKind::Regular) => ("due", String::new()),
        };
        Instant {
            nominal_at: Some(timestamp(nominal_ms)),
            fires_at: Some(timestamp(fires_ms)),
            civil: self.zone().map(|zone| civil(zone, nominal)).unwrap_or_default(),
            reason: reason.to_owned(),
            text,
        }
    }

    fn zone(&self) -> Option<&Zone> {
        match &self.schedule {
            Schedule::Cron(cron) => Some(&cron.zone),
            Schedule::At(creel_schedule::Moment::Civil { zone, .. }) => Some(zone),
            Schedule::At(_) | Schedule::Every(_) => None,
        }
    }
}

/// As the clock on the wall shows it.
fn civil(zone: &Zone, at: Timestamp) -> String {
    zone.at(at).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// The last occurrence at or before an instant, not before `floor_ms`. Halves the range until one is left, since a
/// later question never gets an earlier answer.
pub(crate) fn last_until(schedule: &Schedule, floor_ms: i64, at_ms: i64) -> Option<i64> {
    let next = |after_ms| admission::next_ms(schedule, after_ms).filter(|next| *next <= at_ms);
    let mut last = next(floor_ms.saturating_sub(1))?;
    let mut end = at_ms;
    while last < end {
        let middle = last + (end - last) / 2;
        match next(middle) {
            Some(later) => last = later,
            None => end = middle,
        }
    }
    Some(last)
}

/// When clocks last jumped over an occurrence that is recorded as skipped, after one instant and up to another.
pub(crate) fn swallowed(schedule: &Schedule, after_ms: i64, until_ms: i64) -> Option<i64> {
    let instant = |ms| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MIN);
    let skips = schedule.skips(instant(after_ms), instant(until_ms));
    let recorded = skips.iter().rev().find(|skip| skip.reason.is_recorded());
    recorded.map(|skip| skip.at.as_millisecond())
}

#[cfg(test)]
mod tests {
    use creel_schedule::{ScheduleSpec, Zones};
    use proptest::prelude::*;

    use super::*;

    fn schedule(json: &str) -> Schedule {
        let spec: ScheduleSpec = serde_json::from_str(json).unwrap();
        spec.resolve(&Zones::bundled(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn berlin(expr: &str) -> Schedule {
        schedule(&format!(r#"{{"expr":"{expr}","tz":"Europe/Berlin"}}"#))
    }

    proptest! {
        #[test]
        fn the_last_one_has_none_between_it_and_the_instant(
            expr in prop::sample::select(vec!["* * * * *", "30 2 * * *", "0 0 29 2 *", "*/7 3 * 1 1"]),
            at in 0_i64..4_000_000_000_000,
        ) {
            let schedule = berlin(expr);
            match last_until(&schedule, 0, at) {
                Some(last) => {
                    prop_assert!(last <= at && last >= 0);
                    prop_assert_eq!(admission::next_ms(&schedule, last - 1), Some(last));
                    prop_assert!(admission::next_ms(&schedule, last).is_none_or(|next| next > at));
                }
                None => prop_assert!(admission::next_ms(&schedule, -1).is_none_or(|next| next > at)),
            }
        }
    }

    #[test]
    fn nights_of_clock_changes_are_said_in_words() {
        let of = |expr: &str, after: &str| {
            let (due, skipped) = Sample::of(berlin(expr)).preview(after.parse().unwrap(), 2);
            let due: Vec<_> = due.into_iter().map(|at| (at.civil, at.reason)).collect();
            (due, skipped.len())
        };
        let at = |civil: &str, reason: &str| (civil.to_owned(), reason.to_owned());
        let (due, _) = of("30 2 * * *", "2026-03-28T12:00:00Z");
        assert_eq!(
            due,
            [
                at("2026-03-29 03:00 CEST", "moved"),
                at("2026-03-30 02:30 CEST", "due")
            ]
        );
        let (due, _) = of("30 2 * * *", "2026-10-24T12:00:00Z");
        assert_eq!(
            due,
            [
                at("2026-10-25 02:30 CEST", "repeated"),
                at("2026-10-26 02:30 CET", "due")
            ]
        );
        let (due, skipped) = of("*/30 2 * * *", "2026-03-28T12:00:00Z");
        assert_eq!((due.len(), skipped), (2, 1), "a wildcard loses its hour");
    }

    #[test]
    fn holds_backoff_and_jitter_are_said() {
        let every = Sample::of(schedule(r#"{"kind":"interval","everyMs":60000}"#));
        let first = |sample: &Sample| sample.preview(Timestamp::UNIX_EPOCH, 1).0.remove(0);
        let ms = |at: &Instant| creel_proto::time::unix_ms(&at.fires_at.unwrap());
        assert_eq!(
            (ms(&first(&every)), first(&every).reason.as_str()),
            (60_000, "due")
        );
        let held = Sample {
            hold: Some("paused"),
            ..every.clone()
        };
        assert_eq!(first(&held).reason, "paused");
        let waits = Sample {
            backoff_until_ms: Some(90_000),
            ..every.clone()
        };
        assert_eq!(ms(&first(&waits)), 90_000);
        let jittered = Sample {
            jitter_ms: 30_000,
            job: [7; 16],
            ..every
        };
        assert!((60_000..=90_000).contains(&ms(&first(&jittered))));
    }
}
