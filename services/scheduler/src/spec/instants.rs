//! The instants of a schedule as people are shown them: with what becomes of each, and why.

use creel_proto::{scheduler::v1::Instant, time::timestamp};
use creel_schedule::{OccurrenceKind, Schedule, Zone, describe_span};
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
        let preview = self.schedule.preview(self.past_backoff(after), count);
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

    /// What comes up while a job waits after failures is left out but for the newest, which runs when the wait is over
    /// ([`admission::decide`]): the instant before that one, if the wait lasts until then.
    fn past_backoff(&self, after: Timestamp) -> Timestamp {
        let after_ms = after.as_millisecond();
        let Some(until_ms) = self
            .backoff_until_ms
            .filter(|until| *until > after_ms && self.hold.is_none())
        else {
            return after;
        };
        if admission::is_fixed_delay(&self.schedule) {
            return after;
        }
        let waits = |nominal_ms: &i64| {
            let jitter_ms = admission::jitter_ms(&self.schedule, self.job, self.jitter_ms, *nominal_ms);
            nominal_ms.saturating_add(jitter_ms) < until_ms
        };
        let last = |end_ms: i64| last_until(&self.schedule, after_ms.saturating_add(1), end_ms);
        // By its jitter the last one may start after the wait; the one before it never does.
        let newest =
            last(until_ms).and_then(|newest| Some(newest).filter(waits).or_else(|| last(newest - 1)));
        newest
            .and_then(|newest| Timestamp::from_millisecond(newest - 1).ok())
            .unwrap_or(after)
    }

    fn instant(&self, nominal: Timestamp, kind: OccurrenceKind) -> Instant {
        let nominal_ms = nominal.as_millisecond();
        let jitter_ms = admission::jitter_ms(&self.schedule, self.job, self.jitter_ms, nominal_ms);
        // Of a held job none runs, so none waits.
        let backoff_ms = self.backoff_until_ms.filter(|_| self.hold.is_none());
        let fires_ms = nominal_ms
            .saturating_add(jitter_ms)
            .max(backoff_ms.unwrap_or(i64::MIN));
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

/// Instants looked at for the shortest time between two.
const MAX_GAPS: usize = 100;

/// What is to be told of a jitter that reaches past the next instant: it ends before it, so that runs keep their
/// order ([`admission::jitter_ms`]).
pub(crate) fn cut_short(schedule: &Schedule, jitter_ms: i64, after_ms: i64) -> Option<String> {
    let instants = std::iter::successors(admission::next_ms(schedule, after_ms), |at| {
        admission::next_ms(schedule, *at)
    });
    let mut before = None;
    let gaps = instants
        .take(MAX_GAPS)
        .filter_map(|at| Some(at - before.replace(at)?));
    let shortest_ms = gaps.min().filter(|gap_ms| *gap_ms <= jitter_ms)?;
    let words = |ms: i64| describe_span(ms.unsigned_abs());
    Some(format!(
        "a jitter of {} does not fit between all its times, which are {} apart at the shortest: a run never waits for \
         longer than until the next is due",
        words(jitter_ms),
        words(shortest_ms)
    ))
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
    fn a_jitter_that_reaches_past_the_next_instant_is_told() {
        let told = |schedule: &Schedule, jitter_ms| cut_short(schedule, jitter_ms, 0);
        let twice = berlin("0 9,10 * * MON-FRI");
        assert_eq!(told(&twice, 3_599_999), None);
        let text = told(&twice, 2 * 3_600_000).unwrap();
        assert!(
            text.contains("a jitter of 2 h") && text.contains("1 h apart"),
            "{text}"
        );
        let every = schedule(r#"{"kind":"interval","everyMs":90000}"#);
        assert!(told(&every, 90_000).unwrap().contains("1 min 30 s apart"));
        assert_eq!(told(&every, 89_999), None);
        let once = schedule(r#"{"at":"2027-01-01T00:00:00Z"}"#);
        assert_eq!(told(&once, 86_400_000), None, "there is none to reach");
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
            backoff_until_ms: Some(90_000),
            ..every.clone()
        };
        assert_eq!(
            (first(&held).reason.as_str(), ms(&first(&held))),
            ("paused", 60_000)
        );
        let waits = Sample {
            backoff_until_ms: Some(90_000),
            ..every.clone()
        };
        assert_eq!(ms(&first(&waits)), 90_000);
        // Of those that come up meanwhile the newest runs.
        let long = Sample {
            backoff_until_ms: Some(630_000),
            ..every.clone()
        };
        let nominal = |at: &Instant| creel_proto::time::unix_ms(&at.nominal_at.unwrap());
        let (due, _) = long.preview(Timestamp::UNIX_EPOCH, 2);
        let due: Vec<_> = due.iter().map(|at| (nominal(at), ms(at))).collect();
        assert_eq!(due, [(600_000, 630_000), (660_000, 660_000)]);
        // One that its jitter brings to after the wait keeps its own time; the one before it runs.
        let late = Sample {
            backoff_until_ms: Some(600_001),
            jitter_ms: 50_000,
            job: [7; 16],
            ..every.clone()
        };
        let (due, _) = late.preview(Timestamp::UNIX_EPOCH, 2);
        let due: Vec<_> = due.iter().map(nominal).collect();
        assert_eq!(due, [540_000, 600_000]);
        assert!(ms(&late.preview(Timestamp::UNIX_EPOCH, 2).0[1]) > 600_001);
        let jittered = Sample {
            jitter_ms: 30_000,
            job: [7; 16],
            ..every
        };
        assert!((60_000..=90_000).contains(&ms(&first(&jittered))));
    }
}
