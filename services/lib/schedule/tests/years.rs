//! Twenty simulated years against the rule written minute by minute (`common`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use common::{Rule, SPECIAL_ZONES, walk};
use creel_schedule::{Cron, CronExpr, DstPolicy, Schedule, Syntax, Zones};
use jiff::Timestamp;

/// Fixed, wildcard and mixed, around every hour at which clocks change.
const EXPRESSIONS: [(&str, DstPolicy); 9] = [
    ("30 2 * * *", DstPolicy::Vixie),
    ("0,45 0-3,23 * * *", DstPolicy::Vixie),
    ("15 1-4 * 3,4,10-12 0,5L", DstPolicy::Vixie),
    ("59 23 L * *", DstPolicy::Vixie),
    ("30 0-23/1 * * SAT-SUN", DstPolicy::Skip),
    ("*/20 0-4 29-31 * 1#1", DstPolicy::Vixie),
    ("7 * */2 * *", DstPolicy::Vixie),
    ("30 1,2 * * */3", DstPolicy::Both),
    ("30 */2 * * *", DstPolicy::Skip),
];

const DAY: i64 = 86_400;

/// Walks the years and asks `next` for each occurrence in turn; both must tell the same story.
fn compare(zones: &Zones, name: &str, expressions: &[(&str, DstPolicy)], from: &str, years: i64) {
    let zone = zones.get(name).unwrap();
    let start: Timestamp = from.parse().unwrap();
    let end = Timestamp::from_second(start.as_second() + years * 31_557_600 / 60 * 60).unwrap();
    let rules: Vec<Rule> = expressions.iter().map(|(expr, _)| Rule::of(expr)).collect();
    let policies: Vec<(&Rule, DstPolicy)> = rules
        .iter()
        .zip(expressions)
        .map(|(rule, (_, dst))| (rule, *dst))
        .collect();
    let schedules: Vec<Schedule> = expressions
        .iter()
        .map(|(expr, dst)| {
            let expr = CronExpr::parse(expr, Syntax::Unix).unwrap();
            Schedule::Cron(Cron {
                expr,
                zone: zone.clone(),
                dst: *dst,
            })
        })
        .collect();
    let next = |index: usize, after: Timestamp| {
        let schedule: &Schedule = &schedules[index];
        schedule
            .next(after)
            .map_or(i64::MAX, |occurrence| occurrence.nominal.as_second())
    };
    // The occurrence each schedule says comes next, from the last second before the start.
    let before = Timestamp::from_second(start.as_second() - 1).unwrap();
    let mut due: Vec<i64> = (0..schedules.len()).map(|index| next(index, before)).collect();

    let early = Timestamp::from_second(start.as_second() - 2 * DAY).unwrap();
    walk(zone.time_zone(), &policies, early, end, |index, at| {
        if at >= start.as_second() {
            let expr = expressions[index];
            let at_time = Timestamp::from_second(at).unwrap();
            assert_eq!(due[index], at, "{expr:?} in {name}: the rule fires at {at_time}");
            due[index] = next(index, at_time);
        }
    });
    for (expr, due) in expressions.iter().zip(due) {
        assert!(
            due >= end.as_second(),
            "{expr:?} in {name}: an occurrence too many at {due}"
        );
    }
}

#[test]
fn berlin() {
    compare(
        &Zones::bundled(),
        "Europe/Berlin",
        &EXPRESSIONS,
        "2010-01-01T00:00:00Z",
        20,
    );
}

#[test]
fn lord_howe_changes_by_half_an_hour() {
    compare(
        &Zones::bundled(),
        "Australia/Lord_Howe",
        &EXPRESSIONS,
        "2010-01-01T00:00:00Z",
        20,
    );
}

#[test]
fn apia_left_out_a_day() {
    compare(
        &Zones::bundled(),
        "Pacific/Apia",
        &EXPRESSIONS,
        "2002-01-01T00:00:00Z",
        20,
    );
}

#[test]
fn casablanca_changes_for_ramadan() {
    compare(
        &Zones::bundled(),
        "Africa/Casablanca",
        &EXPRESSIONS,
        "2012-01-01T00:00:00Z",
        20,
    );
}

#[test]
fn special_zones_in_short() {
    let zones = Zones::bundled();
    for name in SPECIAL_ZONES {
        compare(&zones, name, &EXPRESSIONS[..6], "2016-01-01T00:00:00Z", 3);
    }
}

/// Every zone, 20 years back and 20 years ahead. Six minutes on one core in release: `make zones`.
#[test]
#[ignore = "minutes of work: make zones"]
fn every_zone_for_forty_years() {
    let zones = Zones::bundled();
    let names = zones.names();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    compare(&zones, name, &EXPRESSIONS, "2006-01-01T00:00:00Z", 40);
                }
            });
        }
    });
    assert!(names.len() > 400);
    println!(
        "{} zones, {} expressions, 40 years each, zone data {}",
        names.len(),
        EXPRESSIONS.len(),
        zones.zone_data_version()
    );
}
