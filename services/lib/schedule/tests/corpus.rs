//! Every row of `tests/corpora/cron-cases.jsonl`, through the same door as `creeld check cron`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

use std::collections::BTreeMap;

use creel_schedule::{Zones, check};
use serde_json::Value;

const CORPUS: &str = include_str!("../../../../tests/corpora/cron-cases.jsonl");

/// The rows of the file on which cronsim and croner-js disagree, by why. The answer is the one of
/// `reference/scheduler.md` §3.2 in each.
const DISPUTED: [(&str, &[&str]); 9] = [
    // A day field that begins with `*` makes the two AND (Vixie's star flag); croner ORs.
    ("star flag", &["cron-081", "cron-088", "cron-091"]),
    // Fixed is who names minute and hour, also by list or range; croner wants single values.
    (
        "fixed list or range at a clock change",
        &[
            "cron-098", "cron-100", "cron-114", "cron-120", "cron-122", "cron-360", "cron-365", "cron-375",
            "cron-377", "cron-378", "cron-382", "cron-394",
        ],
    ),
    // Asked inside the second pass, cronsim answers a time before the question.
    ("asked in the second pass", &["cron-137", "cron-162"]),
    // cronsim counts hours and loses the second pass of a half-hour overlap.
    ("half-hour overlap", &["cron-183"]),
    // A gap over 3 hours swallows; cronsim fires at its end.
    ("day left out", &["cron-213", "cron-215", "cron-220"]),
    // croner loses a time in a gap that ends at midnight.
    ("gap up to midnight", &["cron-253"]),
    // On in croner, off in cron daemons: off unless `unix_compat` is asked for.
    ("W and ?", &["cron-266", "cron-272", "cron-273", "cron-344"]),
    // A range may end in SUN; a step may exceed its field; nicknames are lower case.
    ("spelling", &["cron-279", "cron-284", "cron-294"]),
    // Zone names are exact, and there has to be one.
    ("zone", &["cron-349", "cron-350"]),
];

fn rows() -> impl Iterator<Item = (&'static str, Value)> {
    CORPUS
        .lines()
        .map(|line| (line, serde_json::from_str(line).unwrap()))
}

#[test]
fn every_row_is_answered_as_the_rule_says() {
    let zones = Zones::bundled();
    let mut wrong = Vec::new();
    for (number, (line, row)) in (1..).zip(rows()) {
        let verdict = check::run(line, number, &zones);
        let answer: Value = serde_json::from_str(&verdict.json).unwrap();
        // Instants are equal by `ok`; the text of the answer has the corpus' form as well.
        let expected = row.get("next").and_then(Value::as_array);
        let given = answer.get("next").and_then(Value::as_array);
        let same_text =
            expected.is_none_or(|expected| given.is_some_and(|given| given.starts_with(expected)));
        let whole = given.is_none_or(|given| given.len() == 5);
        if !verdict.ok || answer["id"] != row["id"] || answer["ok"] != true || !same_text || !whole {
            wrong.push(format!("{} {}: {}", row["id"], row["expr"], verdict.json));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} rows differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(CORPUS.lines().count() > 200);
}

#[test]
fn the_table_of_disputed_rows_is_that_of_the_corpus() {
    let disputed: BTreeMap<String, bool> = rows()
        .map(|(_, row)| (row["id"].as_str().unwrap().to_owned(), row["disputed"] == true))
        .collect();
    let listed: BTreeMap<&str, &str> = DISPUTED
        .iter()
        .flat_map(|(class, ids)| ids.iter().map(move |id| (*id, *class)))
        .collect();
    for (id, class) in &listed {
        assert_eq!(disputed.get(*id), Some(&true), "{id} ({class})");
    }
    // The corpus exists in a longer edition too; what it adds has no line here.
    assert_eq!(listed.len(), 31);
}

#[test]
fn the_data_of_this_machine_gives_the_same_answers() {
    let zones = Zones::load(&creel_schedule::ZoneSources::of_this_machine());
    for (number, (line, row)) in (1..).zip(rows()) {
        assert!(
            check::run(line, number, &zones).ok,
            "{} with zone data {}",
            row["id"],
            zones.zone_data_version()
        );
    }
}

#[test]
fn errors_say_where() {
    let zones = Zones::bundled();
    let cases = [
        ("60 * * * *", "minute", 0),
        ("* 24 * * *", "hour", 2),
        ("0 0 1,32 * *", "day_of_month", 6),
        ("0 0 * 1-13 *", "month", 8),
        ("  0 0 * * MON#6", "day_of_week", 14),
        ("0 0 31 4 *", "day_of_month", 4),
        ("* * * *", "expression", 7),
        ("0 0 * * * /bin/true", "expression", 10),
        ("@fortnightly", "expression", 0),
        ("1-10/2/3 * * * *", "minute", 5),
        ("1,,2 * * * *", "minute", 2),
        ("0\u{a0}0 * x *", "month", 7),
    ];
    for (expr, field, position) in cases {
        let line =
            serde_json::json!({ "expr": expr, "tz": "UTC", "from": "2024-01-01T00:00:00Z" }).to_string();
        let answer: Value = serde_json::from_str(&check::run(&line, 7, &zones).json).unwrap();
        assert_eq!(answer["id"], 7);
        assert_eq!(
            (&answer["error"]["field"], &answer["error"]["position"]),
            (&field.into(), &position.into()),
            "{expr}"
        );
        assert!(answer["error"]["reason"].as_str().unwrap().len() > 5);
        assert!(answer.get("ok").is_none(), "{expr} has no expectation");
    }
    let zone = r#"{"expr":"0 0 * * *","tz":"Europe/Berln","from":"2024-01-01T00:00:00Z","next":[]}"#;
    let verdict = check::run(zone, 1, &zones);
    assert!(!verdict.ok && verdict.json.contains(r#""field":"zone""#));
}

#[test]
fn expectations_decide() {
    let zones = Zones::bundled();
    let ok = |rest: &str| {
        let line = format!(r#"{{"expr":"0 0 * * *","tz":"UTC","from":"2024-01-01T00:00:00Z"{rest}}}"#);
        check::run(&line, 1, &zones).ok
    };
    assert!(ok(""));
    assert!(ok(r#","next":["2024-01-02T00:00:00Z"]"#));
    assert!(ok(
        r#","next":["2024-01-02T01:00:00+01:00","2024-01-03T00:00:00Z"]"#
    ));
    assert!(ok(r#","error":false,"next":["2024-01-02T00:00:00Z"]"#));
    assert!(!ok(r#","next":["2024-01-02T00:00:01Z"]"#));
    assert!(!ok(r#","next":["2024-01-02T00:00:00Z","2024-01-04T00:00:00Z"]"#));
    assert!(!ok(r#","next":[]"#));
    assert!(!ok(r#","error":true"#));
    assert!(!ok(r#","next":["soon"]"#));
}

#[test]
fn lines_that_are_no_cases_get_an_answer() {
    let zones = Zones::bundled();
    let long = format!(r#"{{"expr":"{}"}}"#, "*".repeat(100_000));
    for line in [
        "",
        "{",
        "[]",
        "null",
        "7",
        r#"{"expr":7}"#,
        r#"{"expr":"* * * * *"}"#,
        "\u{feff}{}",
        &long,
    ] {
        let verdict = check::run(line, 3, &zones);
        let answer: Value = serde_json::from_str(&verdict.json).unwrap();
        assert_eq!(
            (&answer["id"], &answer["error"]["field"]),
            (&3.into(), &"line".into()),
            "{line:.40}"
        );
        assert!(!verdict.ok);
    }
    let from = r#"{"expr":"* * * * *","tz":"UTC","from":"yesterday"}"#;
    assert!(check::run(from, 1, &zones).json.contains(r#""field":"from""#));
}
