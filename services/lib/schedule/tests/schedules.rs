//! `next`, `preview` and what clock changes do, at the places where they matter.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

use creel_schedule::{
    Cron, CronExpr, DstPolicy, Every, EveryMode, MAX_PREVIEW, Moment, OccurrenceKind, Schedule,
    ScheduleError, SkipReason, Syntax, Zone, Zones,
};
use jiff::Timestamp;
use jiff::civil::date;

fn zone(name: &str) -> Zone {
    Zones::bundled().get(name).unwrap()
}

fn cron(text: &str, name: &str, dst: DstPolicy) -> Schedule {
    Schedule::Cron(Cron {
        expr: CronExpr::parse(text, Syntax::Unix).unwrap(),
        zone: zone(name),
        dst,
    })
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn firsts(schedule: &Schedule, after: &str, count: usize) -> Vec<(String, OccurrenceKind)> {
    let found = schedule.preview(instant(after), count).occurrences;
    found
        .iter()
        .map(|found| (found.nominal.strftime("%d %H:%M").to_string(), found.kind))
        .collect()
}

#[test]
fn the_three_policies_at_a_gap_and_an_overlap() {
    use OccurrenceKind::{AfterGap, FirstPass, Regular, SecondPass};
    let expect = |text: &str, dst, after: &str, expected: &[(&str, OccurrenceKind)]| {
        let found = firsts(&cron(text, "Europe/Berlin", dst), after, expected.len());
        let expected: Vec<_> = expected
            .iter()
            .map(|(time, kind)| ((*time).to_owned(), *kind))
            .collect();
        assert_eq!(found, expected, "{text} {dst:?}");
    };
    // 31 March 2024: 02:00 to 03:00 is left out (01:00Z). Times are shown in UTC.
    let spring = "2024-03-30T12:00:00Z";
    expect(
        "30 2 * * *",
        DstPolicy::Vixie,
        spring,
        &[("31 01:00", AfterGap), ("01 00:30", Regular)],
    );
    expect("30 2 * * *", DstPolicy::Skip, spring, &[("01 00:30", Regular)]);
    expect("30 2 * * *", DstPolicy::Both, spring, &[("01 00:30", Regular)]);
    expect(
        "0 3 * * *",
        DstPolicy::Vixie,
        spring,
        &[("31 01:00", Regular), ("01 01:00", Regular)],
    );
    // 27 October 2024: 02:00 to 03:00 comes twice (00:00Z and 01:00Z).
    let autumn = "2024-10-26T12:00:00Z";
    expect(
        "30 2 * * *",
        DstPolicy::Vixie,
        autumn,
        &[("27 00:30", FirstPass), ("28 01:30", Regular)],
    );
    expect(
        "30 2 * * *",
        DstPolicy::Skip,
        autumn,
        &[("27 00:30", FirstPass), ("28 01:30", Regular)],
    );
    expect(
        "30 2 * * *",
        DstPolicy::Both,
        autumn,
        &[
            ("27 00:30", FirstPass),
            ("27 01:30", SecondPass),
            ("28 01:30", Regular),
        ],
    );
    // Wildcards follow real time under every policy.
    for dst in [DstPolicy::Vixie, DstPolicy::Skip, DstPolicy::Both] {
        expect(
            "*/30 2 * * *",
            dst,
            spring,
            &[("01 00:00", Regular), ("01 00:30", Regular)],
        );
        let passes = [
            ("27 00:00", FirstPass),
            ("27 00:30", FirstPass),
            ("27 01:00", SecondPass),
            ("27 01:30", SecondPass),
        ];
        expect("*/30 2 * * *", dst, autumn, &passes);
    }
}

#[test]
fn a_quartz_second_is_fixed_or_wild_like_a_minute() {
    let quartz = |text: &str| {
        let expr = CronExpr::parse(text, Syntax::Quartz).unwrap();
        Schedule::Cron(Cron {
            expr,
            zone: zone("Europe/Berlin"),
            dst: DstPolicy::Vixie,
        })
    };
    // In the gap all collapse at its end, in the overlap only the first pass fires.
    let spring = firsts(&quartz("0,30 30 2 * * ?"), "2024-03-30T12:00:00Z", 2);
    assert_eq!(
        spring,
        [
            ("31 01:00".to_owned(), OccurrenceKind::AfterGap),
            ("01 00:30".to_owned(), OccurrenceKind::Regular)
        ]
    );
    let autumn = quartz("* 30 2 * * ?")
        .preview(instant("2024-10-27T00:00:00Z"), 121)
        .occurrences;
    assert_eq!(autumn[119].nominal, instant("2024-10-27T01:30:59Z"));
    assert_eq!(autumn[120].nominal, instant("2024-10-28T01:30:00Z"));
    let from_inside = quartz("0 30 2 * * ?")
        .next(instant("2024-10-27T01:10:00Z"))
        .unwrap();
    assert_eq!(from_inside.nominal, instant("2024-10-28T01:30:00Z"));
}

#[test]
fn a_day_left_out_is_reported() {
    let after = instant("2011-12-29T10:00:00-10:00");
    let daily = cron("0,30 12 * * *", "Pacific/Apia", DstPolicy::Vixie).preview(after, 3);
    let [skip] = daily.skips[..] else {
        panic!("{daily:?}")
    };
    assert_eq!(skip.reason, SkipReason::GapTooLong);
    assert!(skip.reason.is_recorded());
    assert_eq!(
        (skip.gap_start, skip.gap_end),
        (
            date(2011, 12, 30).at(0, 0, 0, 0),
            date(2011, 12, 31).at(0, 0, 0, 0)
        )
    );
    assert_eq!((skip.first, skip.count), (date(2011, 12, 30).at(12, 0, 0, 0), 2));
    assert_eq!(skip.at, instant("2011-12-30T10:00:00Z"));

    // Nothing of a weekly job lies in that day; an hourly one was never promised those hours.
    assert_eq!(
        cron("0 12 * * 1", "Pacific/Apia", DstPolicy::Vixie)
            .preview(after, 3)
            .skips,
        []
    );
    let hourly = cron("0 * * * *", "Pacific/Apia", DstPolicy::Vixie).preview(after, 20);
    assert_eq!(hourly.skips.len(), 1);
    assert_eq!(
        (hourly.skips[0].reason, hourly.skips[0].count),
        (SkipReason::Wildcard, 24)
    );
    assert!(!hourly.skips[0].reason.is_recorded());
}

#[test]
fn skips_are_told_once_and_only_where_they_are() {
    let schedule = cron("30 2 * * *", "Europe/Berlin", DstPolicy::Skip);
    let jump = instant("2024-03-31T01:00:00Z");
    let second = jiff::SignedDuration::from_secs(1);
    assert_eq!(schedule.skips(jump - second, jump).len(), 1);
    assert_eq!(schedule.skips(jump, jump + second), []);
    assert_eq!(schedule.skips(jump - second - second, jump - second), []);
    assert_eq!(schedule.skips(jump, jump - second), []);
    assert_eq!(
        schedule
            .skips(instant("2024-01-01T00:00:00Z"), instant("2034-01-01T00:00:00Z"))
            .len(),
        10
    );
    // 64 changes are looked at; a few of the first ones came at another hour.
    assert_eq!(schedule.skips(Timestamp::MIN, Timestamp::MAX).len(), 60);
    // Within the rule's reach a gap moves the time instead.
    let moved = cron("30 2 * * *", "Europe/Berlin", DstPolicy::Vixie);
    assert_eq!(moved.skips(jump - second, jump), []);
    // Only what lies in the gap counts, not the rest of its day.
    assert_eq!(
        cron("30 0-5 * * *", "Europe/Berlin", DstPolicy::Skip).skips(jump - second, jump)[0].count,
        1
    );
    let every_second = Schedule::Cron(Cron {
        expr: CronExpr::parse("* 15-30 2 * * ?", Syntax::Quartz).unwrap(),
        zone: zone("Europe/Berlin"),
        dst: DstPolicy::Vixie,
    });
    assert_eq!(every_second.skips(jump - second, jump)[0].count, 16 * 60);
}

#[test]
fn one_shots() {
    let at = |reading| {
        Schedule::At(Moment::Civil {
            reading,
            zone: zone("Europe/Berlin"),
        })
    };
    let before = instant("2024-01-01T00:00:00Z");
    let next = |schedule: &Schedule| schedule.next(before).map(|found| (found.nominal, found.kind));
    let gap = at(date(2024, 3, 31).at(2, 30, 0, 0));
    assert_eq!(
        next(&gap),
        Some((instant("2024-03-31T01:00:00Z"), OccurrenceKind::AfterGap))
    );
    let overlap = at(date(2024, 10, 27).at(2, 30, 0, 0));
    assert_eq!(
        next(&overlap),
        Some((instant("2024-10-27T00:30:00Z"), OccurrenceKind::FirstPass))
    );
    // A one-shot is never lost, however long the gap.
    let left_out = Moment::Civil {
        reading: date(2011, 12, 30).at(12, 0, 0, 0),
        zone: zone("Pacific/Apia"),
    };
    assert_eq!(left_out.instant(), Some(instant("2011-12-30T10:00:00Z")));

    let plain = Schedule::At(Moment::Instant(instant("2024-05-01T10:00:00.5Z")));
    assert_eq!(
        next(&plain),
        Some((instant("2024-05-01T10:00:00.5Z"), OccurrenceKind::Regular))
    );
    assert_eq!(plain.next(instant("2024-05-01T10:00:00.5Z")), None);
    assert!(matches!(
        plain.first(instant("2024-06-01T00:00:00Z")),
        Err(ScheduleError::Past { .. })
    ));
    let preview = plain.preview(before, 5);
    assert!(preview.ends && preview.occurrences.len() == 1);
}

#[test]
fn intervals() {
    let anchor = instant("2024-01-01T00:00:00.250Z");
    let every = |mode| Schedule::Every(Every::new(90_000, anchor, mode).unwrap());
    let next = |mode, after: &str| every(mode).next(instant(after)).unwrap().nominal;
    assert_eq!(next(EveryMode::FixedRate, "2023-06-01T00:00:00Z"), anchor);
    assert_eq!(
        next(EveryMode::FixedRate, "2024-01-01T00:00:00.250Z"),
        instant("2024-01-01T00:01:30.250Z")
    );
    assert_eq!(
        next(EveryMode::FixedRate, "2024-01-01T00:01:30.249999Z"),
        instant("2024-01-01T00:01:30.250Z")
    );
    // Clock changes are no business of an interval.
    assert_eq!(
        next(EveryMode::FixedRate, "2024-03-31T00:59:59Z"),
        instant("2024-03-31T01:00:00.250Z")
    );
    assert_eq!(
        next(EveryMode::FixedDelay, "2024-01-01T00:00:10.5Z"),
        instant("2024-01-01T00:01:40.5Z")
    );
    assert_eq!(
        next(EveryMode::FixedDelay, "2024-01-01T00:00:10.5000001Z"),
        instant("2024-01-01T00:01:40.501Z")
    );
    assert_eq!(every(EveryMode::FixedRate).next(Timestamp::MAX), None);
    assert_eq!(every(EveryMode::FixedDelay).next(Timestamp::MAX), None);
    assert!(Every::new(1_000, anchor, EveryMode::FixedRate).is_ok());
    assert!(matches!(
        Every::new(999, anchor, EveryMode::FixedRate),
        Err(ScheduleError::Period { period_ms: 999 })
    ));
    assert!(Every::new(u64::MAX, anchor, EveryMode::FixedRate).is_err());
}

#[test]
fn what_never_comes_is_refused_at_creation() {
    let now = instant("2026-11-22T00:00:00Z");
    let lost = cron("30 2 * 3 7L", "Europe/Berlin", DstPolicy::Skip);
    assert!(matches!(lost.first(now), Err(ScheduleError::NeverFires { .. })));
    assert!(lost.preview(now, 5).ends);
    assert!(
        cron("30 2 * 3 7L", "Europe/London", DstPolicy::Skip)
            .first(now)
            .is_ok()
    );
}

#[test]
fn a_preview_is_bounded() {
    let preview = cron("* * * * *", "UTC", DstPolicy::Vixie).preview(Timestamp::UNIX_EPOCH, usize::MAX);
    assert_eq!(preview.occurrences.len(), MAX_PREVIEW);
    assert!(!preview.ends);
    assert_eq!(
        cron("* * * * *", "UTC", DstPolicy::Vixie)
            .preview(Timestamp::UNIX_EPOCH, 0)
            .occurrences,
        []
    );
}

#[test]
fn instants_between_seconds_and_before_1970_count_as_they_should() {
    let minutely = cron("* * * * *", "UTC", DstPolicy::Vixie);
    let next = |after: &str| minutely.next(instant(after)).unwrap().nominal;
    assert_eq!(
        next("2024-01-01T00:00:59.999999999Z"),
        instant("2024-01-01T00:01:00Z")
    );
    assert_eq!(
        next("2024-01-01T00:01:00.000000001Z"),
        instant("2024-01-01T00:02:00Z")
    );
    assert_eq!(next("1969-12-31T23:59:59.5Z"), instant("1970-01-01T00:00:00Z"));
    assert_eq!(next("1969-12-31T23:58:59.5Z"), instant("1969-12-31T23:59:00Z"));
    assert_eq!(next("1969-12-31T23:59:00Z"), instant("1970-01-01T00:00:00Z"));
}

/// Before 1972 some zones were off by odd seconds: minutes begin where their clocks show them.
#[test]
fn offsets_of_odd_seconds() {
    // Brussels before 1892 was 17 minutes and 30 seconds ahead of UTC.
    let minutely = cron("* * * * *", "Europe/Brussels", DstPolicy::Vixie);
    assert_eq!(
        minutely.next(instant("1890-01-01T00:00:00Z")).unwrap().nominal,
        instant("1890-01-01T00:00:30Z")
    );
}
