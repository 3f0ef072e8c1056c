//! What holds for every expression, zone and instant, and for every text.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

mod common;

use common::random::Random;
use common::{Rule, SPECIAL_ZONES, walk};
use creel_schedule::{
    Cron, CronExpr, DstPolicy, Every, EveryMode, OccurrenceKind, Reason, Schedule, ScheduleSpec, Syntax,
    Zone, Zones, check, expand_hash, parse_duration, parse_time,
};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

/// Minutes after the question for which the walk decides.
const WINDOW: i64 = 1_500;

const POLICIES: [DstPolicy; 3] = [DstPolicy::Vixie, DstPolicy::Skip, DstPolicy::Both];

/// What happened to one random question, for the statistics of the long run.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    NeverFires,
    InWindow,
    Later,
    NeverInZone,
}

/// One expression, zone and instant from a seed: everything that must hold for it.
fn one(seed: u64, zones: &[Zone], window: i64) -> Outcome {
    let mut random = Random(seed);
    let text = random.expression();
    let rule = Rule::of(&text);
    let expr = match CronExpr::parse(&text, Syntax::Unix) {
        Ok(expr) => expr,
        Err(error) => {
            assert_eq!(error.reason, Reason::NeverFires, "{text}");
            assert!(!rule.ever(), "{text} is refused but fires");
            return Outcome::NeverFires;
        }
    };
    assert_eq!(expr.is_fixed(), rule.fixed, "{text}");
    let zone = zones[random.below(zones.len() as u64) as usize].clone();
    damaged(&mut random, &text, &zone);
    let dst = POLICIES[random.below(6).min(2) as usize];
    let after = random.instant(zone.time_zone());
    let after = after
        .checked_add(SignedDuration::from_millis(random.below(60_000) as i64))
        .unwrap();
    let name = zone.name().to_owned();
    let schedule = Schedule::Cron(Cron {
        expr,
        zone: zone.clone(),
        dst,
    });
    let context = || format!("{text} {dst:?} in {name} after {after}");

    let next = schedule.next(after);
    // Asked a little later, but before the answer, the answer is the same; from the answer on, it is later.
    let found = next.map_or(Timestamp::MAX, |occurrence| occurrence.nominal);
    assert!(found > after, "{}: {found}", context());
    let between = Timestamp::from_second(after.as_second() + random.below(5_000) as i64).unwrap();
    let again = schedule
        .next(between)
        .map_or(Timestamp::MAX, |occurrence| occurrence.nominal);
    assert!(
        again >= found,
        "{}: {found}, but {again} after {between}",
        context()
    );
    assert!(
        between >= found || again == found,
        "{}: {found}, but {again} after {between}",
        context()
    );

    // The walk's first occurrence within the window, if any, is the answer.
    let end = after.as_second() + window * 60;
    let first = first_of_walk(&zone, &rule, dst, after, end);
    let Some(occurrence) = next else {
        assert_eq!(first, None, "{}", context());
        return Outcome::NeverInZone;
    };
    if first.is_some() {
        assert_eq!(first, Some(found.as_second()), "{}", context());
        return Outcome::InWindow;
    }
    assert!(
        found.as_second() >= end / 60 * 60,
        "{}: {found} is not in the walk",
        context()
    );

    // Beyond the window: asked from shortly before the answer, `next` and the walk agree on it as well, and no day
    // between matches.
    let shortly =
        Timestamp::from_second(found.as_second() - 1 - random.below(window as u64 * 60) as i64).unwrap();
    let shortly = shortly.max(after);
    assert_eq!(
        schedule.next(shortly),
        Some(occurrence),
        "{} and {shortly}",
        context()
    );
    let first = first_of_walk(&zone, &rule, dst, shortly, found.as_second() + 60);
    assert_eq!(first, Some(found.as_second()), "{} and {shortly}", context());
    if random.below(8) == 0 {
        no_day_between(&zone, &rule, after, found);
    }
    Outcome::Later
}

/// The first occurrence after an instant and before a second by the rule's walk.
fn first_of_walk(zone: &Zone, rule: &Rule, dst: DstPolicy, after: Timestamp, end: i64) -> Option<i64> {
    let zone = zone.time_zone();
    let start = early(zone, after.as_second().div_euclid(60) * 60, end);
    let mut first = None;
    walk(
        zone,
        &[(rule, dst)],
        start,
        Timestamp::from_second(end).unwrap(),
        |_, at| {
            if Timestamp::from_second(at).unwrap() > after {
                first = first.or(Some(at));
            }
        },
    );
    first
}

/// Days without a change of clocks hold every time of day, so none of those passed over may match.
fn no_day_between(zone: &Zone, rule: &Rule, after: Timestamp, found: Timestamp) {
    let (mut day, last) = (zone.at(after).date().tomorrow().unwrap(), zone.at(found).date());
    while day < last {
        let begin = |day: jiff::civil::Date| day.to_zoned_datetime(zone.time_zone().clone()).unwrap();
        let (start, end) = (begin(day), begin(day.tomorrow().unwrap()));
        let plain = start.offset() == end.offset()
            && end.timestamp().duration_since(start.timestamp()).as_hours() == 24;
        assert!(
            !plain || !rule.matches_day(day),
            "{day} matches, but {found} is next after {after} in {zone}"
        );
        day = day.tomorrow().unwrap();
    }
}

/// The same text with a few characters changed: it may mean anything or nothing, but its answers are in order.
fn damaged(random: &mut Random, text: &str, zone: &Zone) {
    const NEW: &[u8] = b"0123456789*/,-LW#?@ SUNwl";
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = NEW[random.below(NEW.len() as u64) as usize];
    }
    let text = String::from_utf8(bytes).unwrap();
    let after = random.instant(zone.time_zone());
    for syntax in [Syntax::Unix, Syntax::UnixCompat] {
        match CronExpr::parse(&text, syntax) {
            Ok(expr) => {
                let schedule = Schedule::Cron(Cron {
                    expr,
                    zone: zone.clone(),
                    dst: DstPolicy::Vixie,
                });
                let next = schedule.next(after);
                assert!(
                    next.is_none_or(|found| found.nominal > after),
                    "{text} in {zone} after {after}"
                );
            }
            Err(error) => assert!(error.position <= text.len(), "{text}: {error}"),
        }
    }
}

/// Every door that takes text from outside.
fn survives(text: &str, zones: &Zones) {
    for syntax in [Syntax::Unix, Syntax::UnixCompat, Syntax::Quartz] {
        if let Err(error) = CronExpr::parse(text, syntax) {
            assert!(text.is_char_boundary(error.position), "{error}");
            assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
        }
    }
    let _ = expand_hash(text, text);
    let _ = parse_duration(text);
    let _ = parse_time(text, Timestamp::UNIX_EPOCH, None);
    let _ = zones.get(text);
    let case =
        serde_json::json!({ "expr": text, "tz": "UTC", "from": "2024-01-01T00:00:00Z", "error": true });
    for line in [text, &case.to_string()] {
        assert!(!check::run(line, 1, zones).json.contains('\n'));
    }
    let _ = serde_json::from_value::<ScheduleSpec>(serde_json::json!({ "at": text, "tz": text }));
}

/// Where a walk over `start..end` has to start to know what was read before: 27 hours earlier if the clocks
/// change at all.
fn early(zone: &TimeZone, start: i64, end: i64) -> Timestamp {
    let known = Timestamp::from_second(start - 27 * 3_600).unwrap();
    let changes = zone
        .following(known)
        .next()
        .is_some_and(|change| change.timestamp().as_second() <= end);
    if changes {
        known
    } else {
        Timestamp::from_second(start).unwrap()
    }
}

fn special_zones() -> Vec<Zone> {
    let zones = Zones::bundled();
    SPECIAL_ZONES
        .iter()
        .map(|name| zones.get(name).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn next_is_the_first_of_the_walk(seeds in prop::array::uniform4(any::<u64>())) {
        thread_local! { static ZONES: Vec<Zone> = special_zones(); }
        ZONES.with(|zones| seeds.map(|seed| one(seed, zones, WINDOW)));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}", cronish in "[0-9*/,\\-LWlw#?@HJANSUMONa-c \\t\u{a0}٥]{0,40}") {
        thread_local! { static ZONES: Zones = Zones::bundled(); }
        ZONES.with(|zones| [text, cronish].iter().for_each(|text| survives(text, zones)));
    }

    #[test]
    fn intervals_stay_on_their_grid(
        period_ms in 1_000u64..10_000_000_000, anchor in any::<i32>(), after in any::<i32>(), nanosecond in 0i64..1_000_000_000,
    ) {
        let anchor = Timestamp::from_second(i64::from(anchor)).unwrap();
        let after = Timestamp::from_second(i64::from(after)).unwrap() + SignedDuration::from_nanos(nanosecond);
        let rate = Schedule::Every(Every::new(period_ms, anchor, EveryMode::FixedRate).unwrap());
        let next = rate.next(after).unwrap().nominal;
        prop_assert!(next > after);
        let steps = next.as_millisecond() - anchor.as_millisecond();
        prop_assert!(steps >= 0 && steps % period_ms as i64 == 0);
        prop_assert!(next == anchor || next.as_millisecond() - period_ms as i64 <= after.as_millisecond());

        let delay = Schedule::Every(Every::new(period_ms, anchor, EveryMode::FixedDelay).unwrap());
        let next = delay.next(after).unwrap().nominal;
        prop_assert!(next > after && next >= anchor);
        let waited = next.duration_since(after).as_millis();
        prop_assert!(next == anchor || (waited >= i128::from(period_ms) && waited <= i128::from(period_ms) + 1));
    }
}

#[test]
fn years_without_end_and_the_ends_of_time() {
    let zones = special_zones();
    let expressions = [
        "* * * * *",
        "30 2 * * *",
        "0 0 29 2 */7",
        "30 2 25-31 3 */7",
        "0 0 1 1 *",
    ];
    for zone in &zones {
        for text in expressions {
            for dst in POLICIES {
                let expr = CronExpr::parse(text, Syntax::Unix).unwrap();
                let schedule = Schedule::Cron(Cron {
                    expr,
                    zone: zone.clone(),
                    dst,
                });
                for year in [
                    -9998i16, -1, 1_600, 1_900, 2_099, 2_101, 2_102, 2_501, 2_502, 5_000, 9_990, 9_999,
                ] {
                    let after = jiff::civil::date(year, 12, 30)
                        .at(0, 0, 0, 0)
                        .to_zoned_datetime(TimeZone::UTC)
                        .unwrap();
                    let after = after.timestamp();
                    if let Some(next) = schedule.next(after) {
                        assert!(next.nominal > after, "{text} {dst:?} {zone} {after}");
                    }
                }
                assert_eq!(schedule.next(Timestamp::MAX), None);
                assert!(schedule.next(Timestamp::MIN).is_some());
            }
        }
    }
}

/// Rules repeat every 400 years, so the answers of the years after 2102 are those of a simulated century as well.
#[test]
fn far_centuries_follow_the_rule() {
    let berlin = Zones::bundled().get("Europe/Berlin").unwrap();
    let rule = Rule::of("30 2 * * *");
    let expr = CronExpr::parse("30 2 * * *", Syntax::Unix).unwrap();
    let schedule = Schedule::Cron(Cron {
        expr,
        zone: berlin.clone(),
        dst: DstPolicy::Vixie,
    });
    for year in [2_101, 2_501, 2_502, 2_600, 7_777] {
        let start: Timestamp = format!("{year}-01-01T00:00:00Z").parse().unwrap();
        let end: Timestamp = format!("{}-01-01T00:00:00Z", year + 2).parse().unwrap();
        let mut at = start;
        walk(
            berlin.time_zone(),
            &[(&rule, DstPolicy::Vixie)],
            start,
            end,
            |_, fires| {
                at = schedule.next(at).unwrap().nominal;
                assert_eq!(at.as_second(), fires);
            },
        );
    }
}

/// An expression whose every time falls into a gap: `None`, after a bounded search.
#[test]
fn times_that_no_clock_shows_end_the_search() {
    let berlin = Zones::bundled().get("Europe/Berlin").unwrap();
    let after: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let next = |text: &str, dst: DstPolicy| {
        let expr = CronExpr::parse(text, Syntax::Unix).unwrap();
        Schedule::Cron(Cron {
            expr,
            zone: berlin.clone(),
            dst,
        })
        .next(after)
    };
    assert_eq!(next("*/15 2 * 3 7L", DstPolicy::Vixie), None);
    assert_eq!(next("30 2 * 3 7L", DstPolicy::Skip), None);
    assert_eq!(next("30 2 * 3 7L", DstPolicy::Both), None);
    assert!(
        next("30 2 * 3 7L", DstPolicy::Vixie).is_some_and(|found| found.kind == OccurrenceKind::AfterGap)
    );
    assert!(
        next("*/15 2 * 10 7L", DstPolicy::Vixie).is_some_and(|found| found.kind == OccurrenceKind::FirstPass)
    );
}

/// Ten million random expressions, zones and instants: `make zones` (release, 11 minutes on two cores).
#[test]
#[ignore = "minutes of work: make zones"]
fn ten_million_random_expressions() {
    const COUNT: u64 = 10_000_000;
    let zones = special_zones();
    let totals: Vec<[u64; 4]> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|half| {
                let zones = &zones;
                scope.spawn(move || {
                    let mut totals = [0; 4];
                    for seed in (half * COUNT / 2)..((half + 1) * COUNT / 2) {
                        totals[one(seed, zones, 300) as usize] += 1;
                    }
                    totals
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let total = |outcome: Outcome| {
        let index = outcome as usize;
        totals.iter().map(|half| half[index]).sum::<u64>()
    };
    println!(
        "{COUNT} expressions: {} decided by the walk, {} later, {} refused as never firing, {} never in their zone",
        total(Outcome::InWindow),
        total(Outcome::Later),
        total(Outcome::NeverFires),
        total(Outcome::NeverInZone)
    );
}
