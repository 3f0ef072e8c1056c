//! One job of somebody else's as a spec of ours, and what was changed on the way. Pure: nothing is asked.

use creel_schedule::{CronExpr, EveryMode, ScheduleSpec, Syntax};
use creel_wire::error::printable;
use jiff::{Timestamp, civil};
use serde_json::{Map, Value};

use crate::views::{
    job::JobView,
    spec::{PayloadView, PolicyView, SpecView},
};

/// What is taken for granted where a job says nothing.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) zone: String,
    pub(super) zone_is_ours: bool,
    pub(super) now: Timestamp,
    pub(super) late_ok: bool,
}

/// A job as it is taken over.
#[derive(Debug, PartialEq)]
pub(super) struct Taken {
    pub(super) spec: SpecView,
    pub(super) notes: Vec<String>,
}

type Object = Map<String, Value>;

/// A job may stand in `data` or `job`, as its calls carry it.
pub(super) fn unwrapped(mut object: Object) -> Object {
    for key in ["data", "job"] {
        if let Some(Value::Object(inner)) = object.get_mut(key) {
            return std::mem::take(inner);
        }
    }
    object
}

/// The name it has, or gets.
pub(super) fn name(entry: &Object, number: usize) -> String {
    let named = |key| text(entry, key).map(str::trim).filter(|name| !name.is_empty());
    match (named("name"), named("id")) {
        (Some(name), _) => printable(name, 128),
        // An id of the original's would read like one of ours, which no name may.
        (None, Some(id)) => printable(&format!("job {}", id.split('-').next().unwrap_or(id)), 128),
        (None, None) => format!("job {number}"),
    }
}

/// A job, read as one of ours or as one of the original's.
///
/// # Errors
/// Why it can't be taken, for people.
pub(super) fn job(entry: &Object, number: usize, origin: &Origin) -> Result<Taken, String> {
    let foreign = ["sessionTarget", "wakeMode", "agentId", "isolation"];
    if !foreign.iter().any(|key| entry.contains_key(*key))
        && let Some(taken) = own(entry, number, origin)
    {
        return Ok(taken);
    }
    original(entry, number, origin)
}

/// As `cron list --json` prints it, or as the seed writes it.
fn own(entry: &Object, number: usize, origin: &Origin) -> Option<Taken> {
    let mut object = entry.clone();
    for key in JobView::BESIDE_SPEC {
        object.remove(*key);
    }
    let mut notes = Vec::new();
    if let Some(schedule) = object.get_mut("schedule").and_then(Value::as_object_mut)
        && schedule.contains_key("expr")
        && !["tz", "zone"].iter().any(|key| schedule.contains_key(*key))
    {
        schedule.insert("zone".to_owned(), origin.zone.clone().into());
        notes.extend(zone_note(origin));
    }
    let mut spec: SpecView = serde_json::from_value(Value::Object(object)).ok()?;
    if spec.schedule.is_none() || spec.payload.is_none() {
        return None;
    }
    if spec.name.is_empty() {
        spec.name = name(entry, number);
    }
    Some(Taken { spec, notes })
}

/// As Clawdbot and OpenClaw keep it.
fn original(entry: &Object, number: usize, origin: &Origin) -> Result<Taken, String> {
    let mut notes = Vec::new();
    if let Some(agent) = text(entry, "agentId")
        .map(str::trim)
        .filter(|agent| !agent.is_empty())
        && !["main", "default"].contains(&agent)
    {
        return Err(format!(
            "it belongs to the agent `{}`; here there is one agent",
            printable(agent, 64)
        ));
    }
    let enabled = flag(entry, "enabled").unwrap_or(true);
    let (payload, timeout_ms) = payload(entry, &mut notes)?;
    let schedule = schedule(entry, enabled, origin, &mut notes)?;
    if let Some(isolation) = entry.get("isolation").and_then(Value::as_object)
        && !isolation.is_empty()
    {
        notes.push("how its summary is cut is left out".to_owned());
    }
    const KNOWN: [&str; 16] = [
        "id",
        "agentId",
        "name",
        "description",
        "enabled",
        "deleteAfterRun",
        "createdAtMs",
        "updatedAtMs",
        "schedule",
        "sessionTarget",
        "wakeMode",
        "payload",
        "isolation",
        "state",
        "notify",
        "sessionKey",
    ];
    left_out(entry, &KNOWN, &mut notes);
    let spec = SpecView {
        name: name(entry, number),
        description: text(entry, "description")
            .map(str::to_owned)
            .filter(|text| !text.is_empty()),
        schedule: Some(schedule),
        target: None,
        payload: Some(payload),
        policy: PolicyView {
            timeout_ms,
            ..PolicyView::default()
        },
        delivery: None,
        enabled,
        delete_after_run: flag(entry, "deleteAfterRun").unwrap_or(false),
        delete_after: None,
    };
    Ok(Taken { spec, notes })
}

fn payload(entry: &Object, notes: &mut Vec<String>) -> Result<(PayloadView, Option<i64>), String> {
    let payload = entry
        .get("payload")
        .and_then(Value::as_object)
        .ok_or("it has no `payload`")?;
    let target = text(entry, "sessionTarget");
    let kind = match text(payload, "kind") {
        Some(kind) => kind,
        None if payload.contains_key("text") => "systemEvent",
        None if payload.contains_key("message") => "agentTurn",
        None => return Err("its `payload` has no kind".to_owned()),
    };
    match (kind, target) {
        ("systemEvent", None | Some("main")) => {
            let event = text(payload, "text").filter(|text| !text.trim().is_empty());
            let event = event.ok_or("its text is empty")?;
            if text(entry, "wakeMode") == Some("next-heartbeat") {
                notes.push("runs at its time, not with the next heartbeat".to_owned());
            }
            left_out(payload, &["kind", "text"], notes);
            let text = event.to_owned();
            Ok((PayloadView::SystemEvent { text }, None))
        }
        ("agentTurn", None | Some("isolated")) => {
            let message = text(payload, "message").filter(|text| !text.trim().is_empty());
            let message = message.ok_or("its message is empty")?.to_owned();
            let timeout_ms = payload
                .get("timeoutSeconds")
                .and_then(Value::as_i64)
                .filter(|seconds| *seconds > 0)
                .map(|seconds| seconds.saturating_mul(1_000));
            delivery(entry, payload, notes);
            const KNOWN: [&str; 9] = [
                "kind",
                "message",
                "timeoutSeconds",
                "deliver",
                "channel",
                "provider",
                "to",
                "bestEffortDeliver",
                "allowUnsafeExternalContent",
            ];
            left_out(payload, &KNOWN, notes);
            let turn = PayloadView::AgentTurn {
                message,
                backend: None,
                timeout_ms: None,
            };
            Ok((turn, timeout_ms))
        }
        ("systemEvent" | "agentTurn", Some(target)) => Err(format!(
            "a {kind} does not go to the session `{}`",
            printable(target, 64)
        )),
        (other, _) => Err(format!("`{}` is no kind of payload here", printable(other, 64))),
    }
}

/// Summaries go to the main session; a channel of the original's is not one of ours.
fn delivery(entry: &Object, payload: &Object, notes: &mut Vec<String>) {
    let newer = entry.get("delivery").and_then(Value::as_object);
    let to = [Some(payload), newer].into_iter().flatten().find_map(|object| {
        Some((
            text(object, "channel").or_else(|| text(object, "provider")),
            text(object, "to")?,
        ))
    });
    let wanted = flag(payload, "deliver") == Some(true) || to.is_some();
    if wanted {
        let to = to.map_or_else(String::new, |(channel, to)| {
            format!(
                " to {} {}",
                printable(channel.unwrap_or("last"), 32),
                printable(to, 64)
            )
        });
        notes.push(format!(
            "delivery{to} is left out: the summary goes to main (--deliver)"
        ));
    }
}

fn schedule(
    entry: &Object,
    enabled: bool,
    origin: &Origin,
    notes: &mut Vec<String>,
) -> Result<ScheduleSpec, String> {
    let schedule = entry
        .get("schedule")
        .and_then(Value::as_object)
        .ok_or("it has no `schedule`")?;
    let kind = match text(schedule, "kind") {
        Some(kind) => kind,
        None if schedule.contains_key("atMs") || schedule.contains_key("at") => "at",
        None if schedule.contains_key("everyMs") => "every",
        None if schedule.contains_key("expr") => "cron",
        None => return Err("its `schedule` has no kind".to_owned()),
    };
    let state = entry.get("state").and_then(Value::as_object);
    match kind {
        "at" => {
            let at_ms = ["atMs", "at"]
                .iter()
                .find_map(|key| schedule.get(*key).and_then(instant))
                .ok_or("its time can't be read")?;
            let ran = state.and_then(|state| text(state, "lastStatus")) == Some("ok");
            if at_ms <= origin.now.as_millisecond() {
                let at = crate::times::rfc3339(at_ms).unwrap_or_default();
                if ran {
                    return Err(format!("it has run: it was due at {at}"));
                }
                if !origin.late_ok || !enabled {
                    return Err(format!("it was due at {at}; --late ok runs it now"));
                }
            }
            let time = crate::times::rfc3339(at_ms).ok_or("its time is beyond the year 9999")?;
            Ok(ScheduleSpec::At { time, zone: None })
        }
        "every" | "interval" => {
            let every = schedule
                .get("everyMs")
                .and_then(Value::as_u64)
                .ok_or("it has no `everyMs`")?;
            // Where it named no anchor its next run keeps the rhythm.
            let anchor_ms = schedule
                .get("anchorMs")
                .or_else(|| state.and_then(|state| state.get("nextRunAtMs")))
                .and_then(Value::as_i64);
            Ok(ScheduleSpec::Every {
                period_ms: every,
                anchor_ms,
                mode: EveryMode::default(),
            })
        }
        "cron" => {
            let expr = text(schedule, "expr").ok_or("it has no `expr`")?;
            let expr = expression(expr, notes)?;
            let zone = text(schedule, "tz").or_else(|| text(schedule, "zone"));
            let zone = match zone.map(str::trim).filter(|zone| !zone.is_empty()) {
                Some(zone) => zone.to_owned(),
                None => {
                    notes.extend(zone_note(origin));
                    origin.zone.clone()
                }
            };
            Ok(ScheduleSpec::Cron {
                expr,
                zone,
                dst: creel_schedule::DstPolicy::default(),
                syntax: Syntax::Unix,
            })
        }
        other => Err(format!("`{}` is no kind of schedule here", printable(other, 64))),
    }
}

/// The last values of the five fields, as croner counts them.
const ENDS: [u32; 5] = [59, 23, 31, 12, 7];

/// A field with `5/15` written as `5-59/15`.
fn stepped(field: &str, end: u32) -> String {
    let item = |item: &str| match item.split_once('/') {
        Some((start, step)) if !start.is_empty() && start.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{start}-{end}/{step}")
        }
        _ => item.to_owned(),
    };
    field.split(',').map(item).collect::<Vec<_>>().join(",")
}

/// An expression of croner's dialect in ours.
fn expression(text: &str, notes: &mut Vec<String>) -> Result<String, String> {
    let parse = |text: &str| CronExpr::parse(text, Syntax::Unix);
    let trimmed = text.trim();
    let Err(error) = parse(trimmed) else {
        return Ok(trimmed.to_owned());
    };
    let mut fields: Vec<String> = trimmed.split_whitespace().map(str::to_owned).collect();
    let mut changes = Vec::new();
    if let [nickname] = fields.as_mut_slice()
        && nickname.starts_with('@')
    {
        *nickname = nickname.to_ascii_lowercase();
        changes.push("the nickname is spelled small");
    }
    if fields.len() == 6 && fields[0].bytes().all(|byte| byte == b'0') {
        fields.remove(0);
        changes.push("its seconds, 0, are left out");
    }
    if fields.iter().any(|field| field == "?") {
        for field in &mut fields {
            if field == "?" {
                "*".clone_into(field);
            }
        }
        changes.push("`?` is written `*`");
    }
    if fields.len() == ENDS.len() {
        let before = fields.clone();
        for (field, end) in fields.iter_mut().zip(ENDS) {
            *field = stepped(field, end);
        }
        if fields != before {
            changes.push("a step from a value on is written with the end of its range");
        }
    }
    let mended = fields.join(" ");
    if changes.is_empty() || parse(&mended).is_err() {
        return Err(format!("`{}`: {error}", printable(trimmed, 64)));
    }
    notes.extend(changes.into_iter().map(str::to_owned));
    Ok(mended)
}

/// A time as the original reads it: milliseconds, or a text that is in UTC unless it says otherwise.
fn instant(value: &Value) -> Option<i64> {
    if let Some(ms) = value.as_i64() {
        return Some(ms);
    }
    let text = value.as_str()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_millisecond());
    }
    let reading: civil::DateTime = text.parse().ok()?;
    // The only offset that text of that shape has there.
    let at: Timestamp = format!("{reading}Z").parse().ok()?;
    Some(at.as_millisecond())
}

fn zone_note(origin: &Origin) -> Option<String> {
    origin
        .zone_is_ours
        .then(|| format!("zone {} (from this machine)", origin.zone))
}

/// Notes the keys of an object that mean nothing here.
fn left_out(object: &Object, known: &[&str], notes: &mut Vec<String>) {
    let strange: Vec<String> = object
        .iter()
        .filter(|(key, value)| !known.contains(&key.as_str()) && !value.is_null())
        .take(8)
        .map(|(key, _)| format!("`{}`", printable(key, 32)))
        .collect();
    if !strange.is_empty() {
        notes.push(format!("left out: {}", strange.join(", ")));
    }
}

fn text<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// A boolean, also as text.
fn flag(object: &Object, key: &str) -> Option<bool> {
    match object.get(key)? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
