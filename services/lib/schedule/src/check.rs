//! `creeld check cron`: one case a line in, one verdict a line out.
//!
//! A case is `{"expr", "tz", "from"}`, optionally `"id"`, `"syntax"`, `"dst"`, and an expectation: `"next"` (a list
//! of instants, the first ones due after `from`; an empty list means none) or `"error": true`. Other keys are
//! notes and ignored. The verdict is `{"id", "next": [five]}` or `{"id", "error": {field, position, reason}}`, with
//! `"ok"` if the case has an expectation.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::schedule::Schedule;
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

/// A case. `from` is read as text first so that a bad one is reported like every other bad part.
#[derive(Deserialize)]
struct Case {
    id: Option<Value>,
    expr: String,
    #[serde(alias = "zone")]
    tz: String,
    from: String,
    #[serde(default)]
    syntax: Syntax,
    #[serde(default)]
    dst: DstPolicy,
    next: Option<Vec<String>>,
    error: Option<Value>,
}

/// What a case asks for, as far as it can be answered.
enum Answer {
    Next(Zone, Vec<Occurrence>),
    Error {
        field: &'static str,
        position: usize,
        reason: String,
    },
}

/// Answers the line with the given number (from 1), which is the `id` of a case without one. Never panics,
/// whatever the line.
pub fn run(line: &str, number: u64, zones: &Zones) -> Verdict {
    if line.len() > MAX_LINE_BYTES {
        return not_a_case(
            number,
            MAX_LINE_BYTES,
            format!("the line is longer than {MAX_LINE_BYTES} bytes"),
        );
    }
    let case: Case = match serde_json::from_str(line) {
        Ok(case) => case,
        Err(error) => return not_a_case(number, error.column().saturating_sub(1), error.to_string()),
    };
    let id = case.id.clone().unwrap_or_else(|| number.into());
    let answer = answer(&case, zones);
    let ok = expectation(&case, &answer);
    let mut verdict = match answer {
        Answer::Next(zone, found) => {
            let next: Vec<String> = found
                .iter()
                .map(|occurrence| shown(occurrence.nominal, &zone))
                .collect();
            json!({ "id": id, "next": next })
        }
        Answer::Error {
            field,
            position,
            reason,
        } => {
            json!({ "id": id, "error": { "field": field, "position": position, "reason": reason } })
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

fn answer(case: &Case, zones: &Zones) -> Answer {
    let Ok(from) = case.from.parse::<Timestamp>() else {
        return Answer::Error {
            field: "from",
            position: 0,
            reason: "not an RFC 3339 time".to_owned(),
        };
    };
    let spec = ScheduleSpec::Cron {
        expr: case.expr.clone(),
        zone: case.tz.clone(),
        dst: case.dst,
        syntax: case.syntax,
    };
    match spec.resolve(zones, from) {
        Ok(Schedule::Cron(cron)) => {
            let zone = cron.zone.clone();
            Answer::Next(zone, Schedule::Cron(cron).preview(from, ANSWERS).occurrences)
        }
        Ok(_) => Answer::Error {
            field: "expression",
            position: 0,
            reason: "not a calendar schedule".to_owned(),
        },
        Err(ScheduleError::Expression(error)) => Answer::Error {
            field: error.field.as_str(),
            position: error.position,
            reason: error.reason.to_string(),
        },
        Err(other) => Answer::Error {
            field: "zone",
            position: 0,
            reason: other.to_string(),
        },
    }
}

/// Whether the answer is the one the case expects; `None` if it expects nothing.
fn expectation(case: &Case, answer: &Answer) -> Option<bool> {
    let expects_error = case
        .error
        .as_ref()
        .is_some_and(|error| !matches!(error, Value::Null | Value::Bool(false)));
    if expects_error {
        return Some(matches!(answer, Answer::Error { .. }));
    }
    let expected = case.next.as_ref()?;
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

fn not_a_case(number: u64, position: usize, reason: String) -> Verdict {
    let error = json!({ "field": "line", "position": position, "reason": reason });
    Verdict {
        json: json!({ "id": number, "error": error }).to_string(),
        ok: false,
    }
}
