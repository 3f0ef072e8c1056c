//! Every row of `tests/corpora/cron-cases.jsonl`, through the same door as `creeld check cron`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at once")]

use std::collections::BTreeMap;

use creel_schedule::{Zones, check};
use serde_json::Value;

const CORPUS: &str = include_str!("../../../../tests/corpora/cron-cases.jsonl");

/// What both cronsim 2.8 and croner-js 11.0.1 answer, drawn at random over the whole grammar, every zone and the
/// hours around clock changes (2000 to 2026): on these there is no dispute. Ranges that end in `SUN` and `FRIL` are
/// not among them: each oracle refuses one of the two, and rule 1 of §3.2 has both.
const AGREED: &str = include_str!("../../../../tests/corpora/cron-agreed.jsonl");

/// The rows of the file on which cronsim and croner-js disagree: class, what decides, rows. The answer is the one
/// of `reference/scheduler.md` §3.2 in each.
const DISPUTED: [(&str, &str, &[&str]); 9] = [
    (
        "star flag",
        "rule 3: a day field that begins with `*` makes the two AND, as Vixie's flag does; croner ORs",
        &["cron-081", "cron-088", "cron-091"],
    ),
    (
        "fixed list or range at a clock change",
        "rule 4: fixed is who names minute and hour, also by list or range; croner wants single values",
        &[
            "cron-098", "cron-100", "cron-114", "cron-120", "cron-122", "cron-360", "cron-365", "cron-375",
            "cron-377", "cron-378", "cron-382", "cron-394",
        ],
    ),
    (
        "asked in the second pass",
        "rule 5: the answer is later than the question; cronsim gives an earlier one",
        &["cron-137", "cron-162"],
    ),
    (
        "half-hour overlap",
        "rule 4: both passes; cronsim counts hours and loses the second",
        &["cron-183"],
    ),
    (
        "day left out",
        "rule 4: a gap over 3 hours swallows; cronsim fires at its end",
        &["cron-213", "cron-215", "cron-220"],
    ),
    (
        "gap up to midnight",
        "rule 4: the first instant after the gap; croner loses it",
        &["cron-253"],
    ),
    (
        "W and ?",
        "rule 2: off unless the syntax is `unix_compat`; croner has them, cron daemons don't",
        &["cron-266", "cron-272", "cron-273", "cron-344"],
    ),
    (
        "spelling",
        "rule 1: a range may end in SUN, a step may exceed its field, nicknames are lower case",
        &["cron-279", "cron-284", "cron-294"],
    ),
    (
        "zone",
        "rule 7: zone names are exact, and there has to be one",
        &["cron-349", "cron-350"],
    ),
];

/// Where the table of disputed rows lies.
const TABLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../tests/corpora/cron-disputed.md"
);

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
        .flat_map(|(class, _, ids)| ids.iter().map(move |id| (*id, *class)))
        .collect();
    for (id, class) in &listed {
        assert_eq!(disputed.get(*id), Some(&true), "{id} ({class})");
    }
    // The corpus exists in a longer edition too; what it adds has no line here.
    assert_eq!(listed.len(), 31);
}

/// One table of all disputed rows: what was asked, what each says, and which rule decides. Rewritten by
/// `CREEL_UPDATE=1 cargo test -p creel-schedule --test corpus`.
#[test]
fn the_disputed_rows_are_written_down_with_what_decides() {
    let zones = Zones::bundled();
    let by_id: BTreeMap<String, (&str, Value)> = rows()
        .map(|(line, row)| (row["id"].as_str().unwrap().to_owned(), (line, row)))
        .collect();
    let mut table = String::from(
        "# Rows of cron-cases.jsonl on which the oracles disagree\n\n\
         Written by `services/lib/schedule/tests/corpus.rs`. Each answer is five instants; shown is\n\
         the first on which they part, in UTC.\n",
    );
    for (class, why, ids) in DISPUTED {
        table.push_str(&format!("\n## {class}\n\n{why}.\n\n"));
        table.push_str("| row | expression | zone | from | of five | creel | cronsim | croner-js |\n");
        table.push_str("|---|---|---|---|---|---|---|---|\n");
        for id in ids {
            let (line, row) = &by_id[*id];
            table.push_str(&disputed_row(id, line, row, &zones));
        }
    }
    if std::env::var_os("CREEL_UPDATE").is_some() {
        std::fs::write(TABLE, &table).unwrap();
    }
    let kept = std::fs::read_to_string(TABLE).unwrap_or_default();
    assert_eq!(kept, table, "CREEL_UPDATE=1 writes it");
}

fn disputed_row(id: &str, line: &str, row: &Value, zones: &Zones) -> String {
    // An answer as instants; `None`: refused.
    let instants = |value: &Value| {
        let list = value.as_array().or_else(|| value["next"].as_array())?;
        let parsed = list
            .iter()
            .filter_map(|at| at.as_str()?.parse::<jiff::Timestamp>().ok());
        Some(parsed.collect::<Vec<_>>())
    };
    let answer: Value = serde_json::from_str(&check::run(line, 1, zones).json).unwrap();
    let answers = [&answer["next"], &row["cronsim"], &row["croner_js"]].map(instants);
    let said = |at: usize| {
        answers.each_ref().map(|answer| match answer {
            None => "refused".to_owned(),
            Some(list) => list
                .get(at)
                .map_or_else(|| "none".to_owned(), ToString::to_string),
        })
    };
    let at = (0..5)
        .find(|at| said(*at).iter().any(|one| *one != said(*at)[0]))
        .unwrap_or_else(|| panic!("{id}: where is the dispute? {answers:?}"));
    let [ours, cronsim, croner] = said(at);
    let text = |key: &str| row[key].as_str().unwrap().replace('|', "\\|");
    format!(
        "| {id} | `{}` | {} | {} | {} | {ours} | {cronsim} | {croner} |\n",
        text("expr"),
        text("tz"),
        text("from"),
        at + 1,
    )
}

#[test]
fn what_both_oracles_say_is_what_we_say() {
    let zones = Zones::bundled();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(AGREED.lines()) {
        let verdict = check::run(line, number, &zones);
        if !verdict.ok {
            wrong.push(format!("{line}\n  {}", verdict.json));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} rows differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(AGREED.lines().count(), 600);
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
    assert!(
        verdict.json.contains("did you mean `Europe/Berlin`?"),
        "{}",
        verdict.json
    );
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
    // Six are as good as five.
    let days = |days: std::ops::RangeInclusive<u32>| {
        let days: Vec<String> = days.map(|day| format!("2024-01-{day:02}T00:00:00Z")).collect();
        format!(r#","next":{}"#, serde_json::json!(days))
    };
    assert!(ok(&days(2..=9)));
    assert!(!ok(&days(3..=10)));
}

#[test]
fn lines_that_are_no_cases_get_an_answer() {
    let zones = Zones::bundled();
    let long = format!(r#"{{"expr":"{}"}}"#, "*".repeat(100_000));
    let answered = |line: &str| -> Value {
        let verdict = check::run(line, 3, &zones);
        assert!(!verdict.ok, "{line:.40}");
        let answer: Value = serde_json::from_str(&verdict.json).unwrap();
        assert_eq!(answer["ok"], false, "what fails the check says so: {answer}");
        answer
    };
    for line in ["", "{", "[]", "null", "7", "\u{feff}{}", &long] {
        let answer = answered(line);
        assert_eq!(
            (&answer["id"], &answer["error"]["field"]),
            (&3.into(), &"line".into()),
            "{line:.40}"
        );
        let reason = answer["error"]["reason"].as_str().unwrap();
        assert!(
            !reason.contains("line 1") && !reason.contains("struct"),
            "{reason}"
        );
    }
    for (line, field) in [
        (r#"{"id":"a","expr":7}"#, "expression"),
        (r#"{"id":"a","expr":"* * * * *"}"#, "zone"),
        (r#"{"id":"a","expr":"* * * * *","tz":null}"#, "zone"),
        (r#"{"id":"a","expr":"* * * * *","tz":"UTC"}"#, "from"),
        (r#"{"id":"a","expr":"","tz":"","from":"","dst":"never"}"#, "dst"),
        (r#"{"id":"a","expr":"","tz":"","from":"","syntax":5}"#, "syntax"),
        (r#"{"id":"a","expr":"","tz":"","from":"","next":"soon"}"#, "next"),
    ] {
        let answer = answered(line);
        assert_eq!(
            (&answer["id"], &answer["error"]["field"]),
            (&"a".into(), &field.into()),
            "{line}"
        );
    }
    assert!(check::run(r#"{"expr":"* * * * *","error":true}"#, 3, &zones).ok);
    let from = r#"{"expr":"* * * * *","tz":"UTC","from":"yesterday"}"#;
    assert!(check::run(from, 1, &zones).json.contains(r#""field":"from""#));
}
