//! `creeld check cron`: one case a line in, one verdict a line out.
//!
//! A case is `{"expr", "tz", "from"}`, optionally `"id"`, `"syntax"`, `"dst"`, and an expectation: `"next"` (a list
//! of instants, the first ones due after `from`; an empty list means none) or `"error": true`. Other keys are
//! notes and ignored. The verdict is `{"id", "next": [five, or as many as expected]}` or
//! `{"id", "error": {field, position, reason, hint?}}`, with `"ok"` if the case has an expectation or can't be read.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::schedule::{MAX_PREVIEW, Schedule};
use crate::zone::Zone;
use crate::{DstPolicy, Occurrence, ScheduleError, ScheduleSpec, Syntax, Zones};

/// Occurrences in an answer.
const ANSWERS: usize = 5;

/// Longest line read, in bytes.
const MAX_LINE_BYTES: usize = 65_536;

/// The verdict on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One JSON object, without a line break.
    pub json: String,
    /// False if the answer differs from the expectation, or the line is not a case.
    pub ok: bool,
}

/// A case, as far as its parts have the right shape.
struct Case {
    expr: String,
    tz: String,
    from: String,
    syntax: Syntax,
    dst: DstPolicy,
    next: Option<Vec<String>>,
}

/// What a case asks for, or the part that is wrong.
enum Answer {
    Next(Zone, Vec<Occurrence>),
    Error(Wrong),
}

struct Wrong {
    field: &'static str,
    position: usize,
    reason: String,
    hint: Option<String>,
}

/// Answers the line with the given number (from 1), which is the `id` of a case without one. Never panics,
/// whatever the line.
pub fn run(line: &str, number: u64, zones: &Zones) -> Verdict {
    let object: Map<String, Value> = match read(line) {
        Ok(object) => object,
        Err(wrong) => return verdict(number.into(), Answer::Error(wrong), Some(false)),
    };
    let id = object
        .get("id")
        .filter(|id| !id.is_null())
        .cloned()
        .unwrap_or_else(|| number.into());
    let case = case(&object);
    let expected = case.as_ref().ok().and_then(|case| case.next.clone());
    let readable = case.is_ok();
    let answer = match case.and_then(|case| answer(&case, zones)) {
        Ok((zone, found)) => Answer::Next(zone, found),
        Err(wrong) => Answer::Error(wrong),
    };
    let expects_error = object
        .get("error")
        .is_some_and(|error| !matches!(error, Value::Null | Value::Bool(false)));
    let ok = expectation(expects_error, expected.as_deref(), &answer);
    // What is no case is wrong even where nothing is expected of it.
    let ok = if readable { ok } else { Some(ok.unwrap_or(false)) };
    verdict(id, answer, ok)
}

fn verdict(id: Value, answer: Answer, ok: Option<bool>) -> Verdict {
    let mut verdict = match answer {
        Answer::Next(zone, found) => {
            let next: Vec<String> = found
                .iter()
                .map(|occurrence| shown(occurrence.nominal, &zone))
                .collect();
            json!({ "id": id, "next": next })
        }
        Answer::Error(wrong) => {
            let mut error =
                json!({ "field": wrong.field, "position": wrong.position, "reason": wrong.reason });
            if let Some(hint) = wrong.hint {
                error["hint"] = hint.into();
            }
            json!({ "id": id, "error": error })
        }
    };
    if let Some(ok) = ok {
        verdict["ok"] = ok.into();
    }
    Verdict {
        json: verdict.to_string(),
        ok: ok.unwrap_or(true),
    }
}

/// The line as an object.
fn read(line: &str) -> Result<Map<String, Value>, Wrong> {
    let wrong = |position, reason: String| Wrong {
        hint: Some(
            r#"one object a line: {"expr":"0 7 * * *","tz":"Europe/Berlin","from":"2026-11-22T10:00:00Z"}"#
                .to_owned(),
        ),
        ..Wrong::new("line", position, reason)
    };
    if line.len() > MAX_LINE_BYTES {
        let reason = format!("the line is longer than {MAX_LINE_BYTES} bytes");
        return Err(wrong(MAX_LINE_BYTES, reason));
    }
    match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(wrong(0, "not a JSON object".to_owned())),
        Err(error) => {
            let told = error.to_string();
            // The place stands beside it.
            let reason = told.rsplit_once(" at line ").map_or(&*told, |(reason, _)| reason);
            Err(wrong(error.column().saturating_sub(1), reason.to_owned()))
        }
    }
}

/// Its parts. A wrong one is named like every other wrong part of a case.
fn case(object: &Map<String, Value>) -> Result<Case, Wrong> {
    let text = |field, keys: &[&str]| match keys.iter().find_map(|key| object.get(*key)) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Wrong::new(field, 0, format!("`{}` is not a text", keys[0]))),
        None => Err(Wrong::new(field, 0, format!("`{}` is missing", keys[0]))),
    };
    Ok(Case {
        expr: text("expression", &["expr"])?,
        tz: text("zone", &["tz", "zone"])?,
        from: text("from", &["from"])?,
        syntax: optional(object, "syntax")?.unwrap_or_default(),
        dst: optional(object, "dst")?.unwrap_or_default(),
        next: optional(object, "next")?,
    })
}

fn optional<T: DeserializeOwned>(object: &Map<String, Value>, key: &'static str) -> Result<Option<T>, Wrong> {
    object.get(key).map_or(Ok(None), |value| {
        serde_json::from_value(value.clone()).map_err(|error| Wrong::new(key, 0, error.to_string()))
    })
}

fn answer(case: &Case, zones: &Zones) -> Result<(Zone, Vec<Occurrence>), Wrong> {
    let from: Timestamp = case.from.parse().map_err(|_| Wrong {
        hint: Some("write it as 2026-11-22T10:00:00Z; the last one is 9999-12-30T22:00:00Z".to_owned()),
        ..Wrong::new("from", 0, "not an RFC 3339 time that can be counted".to_owned())
    })?;
    let spec = ScheduleSpec::Cron {
        expr: case.expr.clone(),
        zone: case.tz.clone(),
        dst: case.dst,
        syntax: case.syntax,
    };
    let wanted = case
        .next
        .as_ref()
        .map_or(ANSWERS, |next| next.len().clamp(ANSWERS, MAX_PREVIEW));
    match spec.resolve(zones, from) {
        Ok(Schedule::Cron(cron)) => {
            let zone = cron.zone.clone();
            Ok((zone, Schedule::Cron(cron).preview(from, wanted).occurrences))
        }
        Ok(_) => Err(Wrong::new("expression", 0, "not a calendar schedule".to_owned())),
        Err(ScheduleError::Expression(error)) => Err(Wrong {
            hint: error.hint,
            ..Wrong::new(error.field.as_str(), error.position, error.reason.to_string())
        }),
        Err(other) => Err(Wrong {
            hint: other.hint(),
            ..Wrong::new("zone", 0, other.to_string())
        }),
    }
}

/// Whether the answer is the one expected; `None` if nothing is.
fn expectation(expects_error: bool, expected: Option<&[String]>, answer: &Answer) -> Option<bool> {
    if expects_error {
        return Some(matches!(answer, Answer::Error(_)));
    }
    let expected = expected?;
    let Answer::Next(_, found) = answer else {
        return Some(false);
    };
    if expected.is_empty() {
        return Some(found.is_empty());
    }
    // Oracles with a shorter horizon list fewer than five; what they list has to be the start of ours.
    let mut pairs = expected.iter().zip(found);
    let same = pairs.all(|(expected, found)| {
        expected
            .parse()
            .is_ok_and(|expected: Timestamp| expected == found.nominal)
    });
    Some(same && expected.len() <= found.len())
}

/// RFC 3339 with the zone's offset, `Z` for UTC itself.
fn shown(instant: Timestamp, zone: &Zone) -> String {
    let offset = zone.time_zone().to_offset(instant);
    if zone.name() == "UTC" {
        instant.to_string()
    } else {
        instant.display_with_offset(offset).to_string()
    }
}

impl Wrong {
    fn new(field: &'static str, position: usize, reason: String) -> Wrong {
        Wrong {
            field,
            position,
            reason,
            hint: None,
        }
    }
}
