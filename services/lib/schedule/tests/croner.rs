//! Differential run against croner, an independent implementation with a rule of its own. Every difference must
//! fall into one of the classes below, each of which `reference/scheduler.md` §3.2 decides the other way.
//!
//! The years are 2000 to 2023: croner reads zones from chrono-tz, whose data is compiled in and older than ours.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use std::collections::BTreeMap;

use chrono_tz::Tz;
use common::random::Random;
use common::{Rule, SPECIAL_ZONES};
use creel_schedule::{Cron, CronExpr, DstPolicy, Schedule, Syntax, Zone, Zones};
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds};
use jiff::{SignedDuration, Timestamp};

const QUESTIONS: u64 = 30_000;

const FROM_2000: i64 = 946_684_800;
const TO_2024: i64 = 1_704_067_200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// croner refuses `*` as one item of several; §3.2 has lists of any items.
    StarInList,
    /// A day field begins with `*` without being `*`: AND by the star flag (rule 3), OR in croner.
    StarFlag,
    /// croner takes a time as fixed only if minute and hour are one value each; by rule 4 lists and ranges are
    /// too. Seen where the clocks change near question or answer.
    FixedList,
    /// croner gives up on a gap of more than two hours; by rule 4 it is passed over.
    LongGap,
}

fn croner(text: &str, zone: &str, after: Timestamp) -> Result<Timestamp, CronError> {
    let cron = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .build()
        .parse(text)?;
    cron.find_next_occurrence(&chrono_time(after, zone), false)
        .map(jiff_time)
}

fn chrono_time(instant: Timestamp, zone: &str) -> chrono::DateTime<Tz> {
    let zone: Tz = zone.parse().unwrap();
    chrono::DateTime::from_timestamp(instant.as_second(), 0)
        .unwrap()
        .with_timezone(&zone)
}

fn jiff_time(time: chrono::DateTime<Tz>) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap()
}

/// The class a difference belongs to, if any.
fn explain(
    text: &str,
    zone: &Zone,
    after: Timestamp,
    ours: Timestamp,
    theirs: &Result<Timestamp, CronError>,
) -> Option<Difference> {
    let fields: Vec<&str> = text.split(' ').collect();
    let rule = Rule::of(text);
    // croner goes by how the field is written as well: what has a step is not one value.
    let many = |field: &str| field.parse::<u8>().is_err();
    let starred = |field: &str| field.starts_with('*') && field != "*";
    let last = theirs.as_ref().map_or(ours, |theirs| ours.max(*theirs));
    // An overlap that began before the question may still last.
    let since = after.checked_sub(SignedDuration::from_hours(24)).unwrap();
    let changed = zone
        .time_zone()
        .following(since)
        .next()
        .is_some_and(|change| change.timestamp() <= last);
    match theirs {
        Err(CronError::TimeSearchLimitExceeded) if changed => Some(Difference::LongGap),
        Err(_) => fields
            .iter()
            .any(|field| field.split(',').count() > 1 && field.split(',').any(|item| item == "*"))
            .then_some(Difference::StarInList),
        Ok(_) if (starred(fields[2]) && fields[4] != "*") || (starred(fields[4]) && fields[2] != "*") => {
            Some(Difference::StarFlag)
        }
        Ok(_) if rule.fixed && (many(fields[0]) || many(fields[1])) && changed => Some(Difference::FixedList),
        Ok(_) => None,
    }
}

#[test]
fn every_difference_is_explained() {
    let zones = Zones::bundled();
    let mut classes: BTreeMap<Option<Difference>, u64> = BTreeMap::new();
    let mut ask = |text: &str, zone: &str, after: Timestamp| {
        let Ok(expr) = CronExpr::parse(text, Syntax::Unix) else {
            return;
        };
        let zone = zones.get(zone).unwrap();
        let schedule = Schedule::Cron(Cron {
            expr,
            zone: zone.clone(),
            dst: DstPolicy::Vixie,
        });
        let Some(ours) = schedule.next(after).map(|found| found.nominal) else {
            return;
        };
        let theirs = croner(text, zone.name(), after);
        let class = if theirs.as_ref().ok() == Some(&ours) {
            None
        } else {
            let class = explain(text, &zone, after, ours, &theirs);
            assert!(
                class.is_some(),
                "{text} in {zone} after {after}: {ours}, croner {theirs:?}"
            );
            class
        };
        *classes.entry(class).or_default() += 1;
    };
    for seed in 0..QUESTIONS {
        let mut random = Random(seed ^ 0xc0_ffee);
        let text = random.expression();
        let zone = random.pick(&SPECIAL_ZONES);
        let after = random.instant(zones.get(zone).unwrap().time_zone());
        if (FROM_2000..TO_2024).contains(&after.as_second()) {
            ask(&text, zone, after);
        }
    }
    // The one long gap of these years is too rare to be drawn.
    ask(
        "0 12 * * *",
        "Pacific/Apia",
        "2011-12-30T00:00:00Z".parse().unwrap(),
    );

    println!("{classes:?}");
    let met: Vec<Difference> = classes.keys().copied().flatten().collect();
    let all = [
        Difference::StarInList,
        Difference::StarFlag,
        Difference::FixedList,
        Difference::LongGap,
    ];
    assert_eq!(met, all, "a class that no longer occurs should go");
    assert!(classes[&None] > 3_000, "too few answers agree");
}
