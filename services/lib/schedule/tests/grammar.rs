//! What each syntax reads and refuses, and with what words.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

use creel_schedule::{
    Cron, CronExpr, DstPolicy, Field, MAX_EXPRESSION_BYTES, ParseError, Reason, Schedule, Syntax, Warning,
    Zones, expand_hash, has_hash,
};
use jiff::Timestamp;

fn unix(text: &str) -> Result<CronExpr, ParseError> {
    CronExpr::parse(text, Syntax::Unix)
}

/// The first `count` times in UTC after 2024-01-15 (a Monday).
fn times(text: &str, syntax: Syntax, count: usize) -> Vec<String> {
    let expr = CronExpr::parse(text, syntax).unwrap();
    let schedule = Schedule::Cron(Cron {
        expr,
        zone: Zones::bundled().get("UTC").unwrap(),
        dst: DstPolicy::Vixie,
    });
    let after: Timestamp = "2024-01-15T00:00:00Z".parse().unwrap();
    schedule
        .preview(after, count)
        .occurrences
        .iter()
        .map(|found| found.nominal.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .collect()
}

fn same(one: &str, other: &str) {
    assert_eq!(
        times(one, Syntax::Unix, 40),
        times(other, Syntax::Unix, 40),
        "{one} | {other}"
    );
}

#[test]
fn spellings_of_the_same_thing() {
    same("0 0 * * 7", "0 0 * * SUN");
    same("0 0 * * 0", "0 0 * * sun");
    same("0 0 * * SAT-SUN", "0 0 * * 6,0");
    same("0 0 * * MON-SUN", "0 0 * * 0-6");
    same("0 0 * * SUN-SUN", "0 0 * * 0");
    same("0 0 * * SUN-TUE", "0 0 * * 0-2");
    same("0 0 * * 5-7", "0 0 * * FRI-SUN");
    same("0 0 * * FRI-SUN/2", "0 0 * * 5,0");
    same("0 0 * * */7", "0 0 * * 0");
    same("0 0 * * 1-5/9", "0 0 * * 1");
    same("0 0 * jan-Mar *", "0 0 * 1,2,3 *");
    same("007 00 * * *", "7 0 * * *");
    same("5-5 0 * * *", "5 0 * * *");
    same("*/99999999999999999999999 0 * * *", "0 0 * * *");
    same("\u{a0}0\u{2003}0 *\t*\u{3000}*\r\n", "0 0 * * *");
    same("0 0 l * *", "0 0 L * *");
    same("0 0 lw * *", "0 0 LW * *");
    same("0 0 * * FRIl", "0 0 * * 5L");
    same("0 0 * * 7L", "0 0 * * SUNL");
    same("0 0 * * mon#2", "0 0 * * 1#2");
    same("@yearly", "0 0 1 1 *");
    same("@annually", "0 0 1 1 *");
    same("@monthly", "0 0 1 * *");
    same("@weekly", "0 0 * * 0");
    same(" @daily\n", "0 0 * * *");
    same("@midnight", "0 0 * * *");
    same("@hourly", "0 * * * *");
}

#[test]
fn extensions_mix_with_lists() {
    assert_eq!(
        times("0 0 1,L * *", Syntax::Unix, 3),
        [
            "2024-01-31 00:00:00",
            "2024-02-01 00:00:00",
            "2024-02-29 00:00:00"
        ]
    );
    assert_eq!(
        times("0 0 * * 1#1,5L", Syntax::Unix, 3),
        [
            "2024-01-26 00:00:00",
            "2024-02-05 00:00:00",
            "2024-02-23 00:00:00"
        ]
    );
    // Both fields restricted: either.
    assert_eq!(
        times("0 0 L * 1#1", Syntax::Unix, 3),
        [
            "2024-01-31 00:00:00",
            "2024-02-05 00:00:00",
            "2024-02-29 00:00:00"
        ]
    );
}

#[test]
fn compat_adds_what_croner_reads() {
    let w = |text: &str| times(text, Syntax::UnixCompat, 3);
    // 15 June 2024 is a Saturday, 15 September a Sunday.
    assert_eq!(
        w("0 0 15W 6,9 *"),
        [
            "2024-06-14 00:00:00",
            "2024-09-16 00:00:00",
            "2025-06-16 00:00:00"
        ]
    );
    // Never into another month: 1 June 2024 is a Saturday, 30 June a Sunday.
    assert_eq!(w("0 0 1w 6 *")[0], "2024-06-03 00:00:00");
    assert_eq!(w("0 0 30W 6 *")[0], "2024-06-28 00:00:00");
    // A day the month lacks has no nearest weekday.
    assert_eq!(
        w("0 0 31W 2,3 *"),
        [
            "2024-03-29 00:00:00",
            "2025-03-31 00:00:00",
            "2026-03-31 00:00:00"
        ]
    );
    assert_eq!(w("0 0 ? * 1"), times("0 0 * * 1", Syntax::Unix, 3));
    assert_eq!(w("0 0 1 * ?"), times("0 0 1 * *", Syntax::Unix, 3));
    let refused = CronExpr::parse("0 0 ? ? ?", Syntax::UnixCompat).unwrap_err();
    assert_eq!((refused.field, refused.position), (Field::Month, 6));
    assert!(
        CronExpr::parse("0 0 31W 2 *", Syntax::UnixCompat)
            .is_err_and(|error| error.reason == Reason::NeverFires)
    );
}

#[test]
fn refusals() {
    let unreadable = |text: &str| Reason::Unreadable(text.to_owned());
    let range = |value: &str, min, max| Reason::OutOfRange {
        value: value.to_owned(),
        min,
        max,
    };
    let misplaced = |name: &str, belongs| Reason::MisplacedName {
        name: name.to_owned(),
        belongs,
    };
    let cases = [
        ("", Field::Expression, 0, Reason::Empty),
        (
            "* * * * * *",
            Field::Expression,
            10,
            Reason::FieldCount {
                found: 6,
                wanted: "5",
            },
        ),
        (
            "@daily now",
            Field::Expression,
            10,
            Reason::FieldCount {
                found: 2,
                wanted: "5",
            },
        ),
        (
            "@reboot",
            Field::Expression,
            0,
            Reason::Nickname("@reboot".to_owned()),
        ),
        (
            "@DAILY",
            Field::Expression,
            0,
            Reason::Nickname("@DAILY".to_owned()),
        ),
        (
            "5/10 * * * *",
            Field::Minute,
            0,
            Reason::StepNeedsRange("5".to_owned()),
        ),
        ("*/0 * * * *", Field::Minute, 2, Reason::ZeroStep),
        ("*/ * * * *", Field::Minute, 2, unreadable("")),
        ("/5 * * * *", Field::Minute, 0, unreadable("")),
        ("**/2 * * * *", Field::Minute, 0, unreadable("**")),
        ("*-5 * * * *", Field::Minute, 0, unreadable("*")),
        ("*5 * * * *", Field::Minute, 0, unreadable("*5")),
        ("5- * * * *", Field::Minute, 2, unreadable("")),
        ("1--2 * * * *", Field::Minute, 2, unreadable("-2")),
        ("0 0 0 * *", Field::DayOfMonth, 4, range("0", 1, 31)),
        ("0 0 * 0 *", Field::Month, 6, range("0", 1, 12)),
        ("0 0 * * 1,8", Field::DayOfWeek, 10, range("8", 0, 7)),
        (
            "0 0 * * 6-0",
            Field::DayOfWeek,
            8,
            Reason::Reversed { start: 6, end: 0 },
        ),
        (
            "0 22-2 * * *",
            Field::Hour,
            2,
            Reason::Reversed { start: 22, end: 2 },
        ),
        (
            "0 0 * * L",
            Field::DayOfWeek,
            8,
            Reason::Unsupported("L".to_owned()),
        ),
        ("0 0 L-3 * *", Field::DayOfMonth, 4, unreadable("L")),
        ("0 0 L/2 * *", Field::DayOfMonth, 4, unreadable("L")),
        ("L 0 * * *", Field::Minute, 0, unreadable("L")),
        (
            "0 0 15W * *",
            Field::DayOfMonth,
            4,
            Reason::Unsupported("15W".to_owned()),
        ),
        ("0 0 * * 5#0", Field::DayOfWeek, 10, Reason::Nth("0".to_owned())),
        ("0 0 * * 5#", Field::DayOfWeek, 10, Reason::Nth(String::new())),
        ("0 0 * * #2", Field::DayOfWeek, 8, unreadable("")),
        ("0 0 * * 1-5#2", Field::DayOfWeek, 8, unreadable("1-5")),
        ("0 0 * * 1-5L", Field::DayOfWeek, 8, unreadable("1-5")),
        ("0 0 * * 8L", Field::DayOfWeek, 8, range("8", 0, 7)),
        (
            "mon * * * *",
            Field::Minute,
            0,
            misplaced("mon", Field::DayOfWeek),
        ),
        ("0 0 * mon *", Field::Month, 6, misplaced("mon", Field::DayOfWeek)),
        (
            "0 0 * * 1,jan",
            Field::DayOfWeek,
            10,
            misplaced("jan", Field::Month),
        ),
        (
            "0 0 * * Monday",
            Field::DayOfWeek,
            8,
            Reason::LongName("Monday".to_owned()),
        ),
        ("0 0 * TUES *", Field::Month, 6, unreadable("TUES")),
        ("0 0 30 2 *", Field::DayOfMonth, 4, Reason::NeverFires),
        ("0 0 30,31 2 *", Field::DayOfMonth, 4, Reason::NeverFires),
        ("0 0 30 2 */2", Field::DayOfMonth, 4, Reason::NeverFires),
        ("H H * * *", Field::Minute, 0, unreadable("H")),
        ("٥ * * * *", Field::Minute, 0, unreadable("٥")),
        ("\u{7} * * * *", Field::Minute, 0, unreadable("\u{fffd}")),
    ];
    for (text, field, position, reason) in cases {
        let error = unix(text).unwrap_err();
        assert_eq!(
            (error.field, error.position, &error.reason),
            (field, position, &reason),
            "{text}"
        );
    }
    assert!(unix("0 0 29 2 *").is_ok());
    assert!(unix("0 0 30 2 1").is_ok(), "30 February or Monday");
}

#[test]
fn hints_say_what_to_write() {
    let cases = [
        ("0 22-2 * * *", "write `22-23,0-2`"),
        ("0 0 * * 6-0", "write `6,0`"),
        ("5/10 * * * *", "from 5 on: `5-59/10`"),
        ("0 0 ? * 1", "write `*`"),
        ("0 0 * * MONDAY", "write `MON`"),
        ("@Daily", "write `@daily`"),
        ("0 0 0 1 1 *", "with seconds first it is the syntax `quartz`"),
        (
            "TZ=UTC 0 0 * * *",
            "the zone is given beside the expression, not in it",
        ),
    ];
    for (text, hint) in cases {
        assert_eq!(unix(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
    }
    assert_eq!(
        unix("0 0 * * 1,8").unwrap_err().to_string(),
        "day of week: 8 is not in 0-7 (at byte 10)"
    );
    let wide = "1".repeat(200) + " * * * *";
    assert!(unix(&wide).unwrap_err().to_string().len() < 100);
}

#[test]
fn the_length_has_a_limit() {
    let list = |max: u32, min: u32| {
        (min..=max)
            .map(|value| value.to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let full = format!(
        "{} {} {} {} {}",
        list(59, 0),
        list(23, 0),
        list(31, 1),
        list(12, 1),
        list(7, 0)
    );
    assert!(unix(&full).is_ok());
    let at_limit = format!("{}0 0 * * *", " ".repeat(MAX_EXPRESSION_BYTES - 9));
    assert!(unix(&at_limit).is_ok());
    let above = unix(&format!(" {at_limit}")).unwrap_err();
    assert_eq!(
        above.reason,
        Reason::TooLong {
            bytes: MAX_EXPRESSION_BYTES + 1,
            max: MAX_EXPRESSION_BYTES
        }
    );
}

#[test]
fn fixed_and_wildcard_go_by_the_first_character() {
    for (text, fixed) in [
        ("0 0 * * *", true),
        ("0-59 0-23 * * *", true),
        ("5,* 0 * * *", true),
        ("*,5 0 * * *", false),
        ("0 * * * *", false),
        ("0 */2 * * *", false),
        ("@hourly", false),
        ("@daily", true),
    ] {
        assert_eq!(unix(text).unwrap().is_fixed(), fixed, "{text}");
    }
}

#[test]
fn days_that_must_both_match_are_pointed_out() {
    let starred = |text: &str| unix(text).unwrap().warning();
    let warned = |starred| Some(Warning::DaysMustBothMatch { starred });
    assert_eq!(starred("0 0 1 * */2"), warned(Field::DayOfWeek));
    assert_eq!(starred("0 0 */2 * 1"), warned(Field::DayOfMonth));
    assert_eq!(starred("0 0 *,10 * 1"), warned(Field::DayOfMonth));
    for text in ["0 0 1 * 1", "0 0 * * */2", "0 0 */2 * *", "0 0 1 * *", "@weekly"] {
        assert_eq!(starred(text), None, "{text}");
    }
}

#[test]
fn quartz_is_read_by_its_own_rules() {
    let quartz = |text: &str| times(text, Syntax::Quartz, 3);
    // Weekdays count from Sunday = 1, and both day fields must match.
    assert_eq!(
        quartz("0 0 12 ? * 2"),
        [
            "2024-01-15 12:00:00",
            "2024-01-22 12:00:00",
            "2024-01-29 12:00:00"
        ]
    );
    assert_eq!(
        quartz("0 0 12 13 * FRI"),
        [
            "2024-09-13 12:00:00",
            "2024-12-13 12:00:00",
            "2025-06-13 12:00:00"
        ]
    );
    assert_eq!(
        quartz("*/20 59 23 * * ?"),
        [
            "2024-01-15 23:59:00",
            "2024-01-15 23:59:20",
            "2024-01-15 23:59:40"
        ]
    );
    assert_eq!(
        quartz("0 0 0 1 1 ? 2025,2030"),
        ["2025-01-01 00:00:00", "2030-01-01 00:00:00"]
    );
    assert_eq!(quartz("0 0 0 1 1 ? 2020"), [""; 0]);
    assert_eq!(
        quartz("0 30/10 8 * * Mon-Fri")[..2],
        ["2024-01-15 08:30:00", "2024-01-15 08:40:00"]
    );
    assert_eq!(quartz("@daily")[0], "2024-01-16 00:00:00");
    let fixed = |text: &str| CronExpr::parse(text, Syntax::Quartz).unwrap().is_fixed();
    assert!(fixed("0 0 7 * * ?") && fixed("@daily"));
    assert!(!fixed("* 0 7 * * ?") && !fixed("0 * 7 * * ?") && !fixed("0 0 * * * ?") && !fixed("@hourly"));
}

#[test]
fn quartz_refusals_name_the_field() {
    let cases = [
        ("", Field::Expression, 0),
        ("0 7 * * *", Field::Expression, 9),
        ("0 0 0 1 1 ? 2025 x", Field::Expression, 17),
        ("60 0 0 1 1 ?", Field::Second, 0),
        ("0 0 24 1 1 ?", Field::Hour, 4),
        ("0 0 0 32 1 ?", Field::DayOfMonth, 6),
        ("0 0 0 ? 1 0", Field::DayOfWeek, 10),
        ("0 0 0 L * ?", Field::DayOfMonth, 6),
        ("0 0 0 1 1 ? 1066", Field::Year, 12),
        ("0 0 0 1 1 ? 99999999999999999999", Field::Year, 12),
        // The crate alone would join these with their neighbours.
        ("0 1, 2 3 1 1 ?", Field::Minute, 2),
        ("0 1 -2 3 1 1 ?", Field::Hour, 4),
        ("0 0 0 31 4 ?", Field::DayOfMonth, 6),
        ("0 0 0 29 2 ? 2023,2025", Field::DayOfMonth, 6),
        ("@reboot", Field::Expression, 0),
    ];
    for (text, field, position) in cases {
        let error = CronExpr::parse(text, Syntax::Quartz).unwrap_err();
        assert_eq!(
            (error.field, error.position),
            (field, position),
            "{text}: {error}"
        );
    }
}

#[test]
fn hash_spreads_by_seed_and_stays() {
    assert_eq!(
        expand_hash("H H * * *", "briefing").unwrap(),
        expand_hash("H  H * * *", "briefing").unwrap()
    );
    assert_eq!(expand_hash("0 7 * * MON", "briefing").unwrap(), "0 7 * * MON");
    let mut minutes = [0; 60];
    for job in 0..6_000 {
        let seed = format!("job-{job}");
        let text = expand_hash("H H(9-17) H H/5 H", &seed).unwrap();
        assert!(unix(&text).is_ok(), "{text}");
        let fields: Vec<&str> = text.split(' ').collect();
        assert!((9..=17).contains(&fields[1].parse::<u32>().unwrap()));
        assert!((1..=28).contains(&fields[2].parse::<u32>().unwrap()));
        assert!(fields[3].ends_with("-12/5"));
        minutes[fields[0].parse::<usize>().unwrap()] += 1;
        let quarter = expand_hash("H/15 * * * *", &seed).unwrap();
        assert!(
            quarter.split('-').next().unwrap().parse::<u32>().unwrap() < 15 && quarter.contains("-59/15 ")
        );
    }
    // 100 expected in each; far outliers would mean a bad hash.
    assert!(
        minutes.iter().all(|count| (50..160).contains(count)),
        "{minutes:?}"
    );
    for (text, position) in [
        ("Hx 0 * * *", 0),
        ("0,H(9-60) 0 * * *", 2),
        ("0 H/0 * * *", 2),
        ("H(5-1) 0 * * *", 0),
        ("H 0 * *", 7),
    ] {
        assert_eq!(expand_hash(text, "x").unwrap_err().position, position, "{text}");
    }
}

#[test]
fn where_a_hash_stands_is_found_and_elsewhere_it_is_told() {
    for text in ["H 7 * * *", "0 H(1-5) * * *", "0 7 1,H * *"] {
        assert!(has_hash(text), "{text}");
        assert!(
            unix(text).unwrap_err().hint.unwrap().contains("name of a job"),
            "{text}"
        );
    }
    for text in ["0 7 * MAR THU", "0 7 * * thu", "@hourly", "7H * * * *", ""] {
        assert!(!has_hash(text), "{text}");
    }
    let years = CronExpr::parse("0 0 0 1 1 ? 2099-2101", Syntax::Quartz).unwrap_err();
    assert_eq!(years.hint.as_deref(), Some("years go from 1970 to 2100"));
}

/// Written into stored expressions, so they may never change.
#[test]
fn hash_values_are_fixed() {
    assert_eq!(expand_hash("H H H H H", "briefing").unwrap(), "39 16 16 1 4");
}
