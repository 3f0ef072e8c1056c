//! Jobs and runs in the original's JSON, both ways. Pure.
//!
//! What the original can say and a job here can't is refused by name, never left out silently.

use creel_proto::{
    scheduler::v1::{
        AgentTurnPayload, At, Cron, Delivery, Every, EveryMode, Job, JobSpec, NoDelivery, Payload, Phase,
        Run, RunState, Schedule, SystemEventPayload, at::When, delivery::To, payload::Kind as PayloadKind,
        schedule::Kind as ScheduleKind,
    },
    time::{duration, duration_ms, timestamp, unix_ms},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ws::failure::Failure;

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum ScheduleIn {
    At {
        /// ISO 8601, or Unix milliseconds as text.
        at: Option<String>,
        at_ms: Option<i64>,
    },
    Every {
        every_ms: i64,
        anchor_ms: Option<i64>,
    },
    Cron {
        expr: String,
        tz: Option<String>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum PayloadIn {
    SystemEvent {
        text: String,
    },
    AgentTurn {
        message: String,
        timeout_seconds: Option<u32>,
        /// Of older clients: whether the summary is delivered.
        deliver: Option<bool>,
        model: Option<String>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryIn {
    mode: String,
}

/// `params` of `cron.add`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    delete_after_run: Option<bool>,
    schedule: ScheduleIn,
    session_target: String,
    payload: PayloadIn,
    #[serde(default)]
    delivery: Option<DeliveryIn>,
}

/// `patch` of `cron.update`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Patch {
    name: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
    delete_after_run: Option<bool>,
    schedule: Option<ScheduleIn>,
    payload: Option<PayloadIn>,
}

fn invalid(why: &str) -> Failure {
    Failure::invalid(why)
}

/// The job that `cron.add` asks for.
pub(super) fn spec_of(add: Add) -> Result<JobSpec, Failure> {
    if add.name.trim().is_empty() {
        return Err(invalid("cron job name is required"));
    }
    match (add.session_target.as_str(), &add.payload) {
        ("main", PayloadIn::SystemEvent { .. }) | ("isolated", PayloadIn::AgentTurn { .. }) => {}
        ("main", _) => return Err(invalid("main cron jobs require payload.kind=\"systemEvent\"")),
        ("isolated", _) => return Err(invalid("isolated cron jobs require payload.kind=\"agentTurn\"")),
        _ => {
            return Err(invalid(
                "invalid cron.add params: sessionTarget must be main or isolated",
            ));
        }
    }
    let silent = match (&add.delivery, &add.payload) {
        (Some(delivery), _) => match delivery.mode.as_str() {
            "none" => true,
            "announce" => false,
            _ => {
                return Err(invalid(
                    "invalid cron.add params: delivery.mode must be none or announce",
                ));
            }
        },
        (None, PayloadIn::AgentTurn { deliver, .. }) => *deliver == Some(false),
        (None, PayloadIn::SystemEvent { .. }) => false,
    };
    Ok(JobSpec {
        name: add.name,
        description: add.description.unwrap_or_default(),
        schedule: Some(schedule_of(add.schedule)?),
        target: "main".to_owned(),
        payload: Some(payload_of(add.payload)?),
        policy: None,
        delivery: silent.then_some(Delivery {
            to: Some(To::None(NoDelivery {})),
        }),
        disabled: add.enabled == Some(false),
        delete_after_run: add.delete_after_run == Some(true),
        ..JobSpec::default()
    })
}

/// The fields that `cron.update` changes, and their names.
pub(super) fn patch_of(patch: Patch) -> Result<(JobSpec, Vec<String>), Failure> {
    let mut spec = JobSpec::default();
    let mut paths = Vec::new();
    let mut changes = |path: &str| paths.push(path.to_owned());
    if let Some(name) = patch.name {
        spec.name = name;
        changes("name");
    }
    if let Some(description) = patch.description {
        spec.description = description;
        changes("description");
    }
    if let Some(enabled) = patch.enabled {
        spec.disabled = !enabled;
        changes("disabled");
    }
    if let Some(delete) = patch.delete_after_run {
        spec.delete_after_run = delete;
        changes("delete_after_run");
    }
    if let Some(schedule) = patch.schedule {
        spec.schedule = Some(schedule_of(schedule)?);
        changes("schedule");
    }
    if let Some(payload) = patch.payload {
        spec.payload = Some(payload_of(payload)?);
        changes("payload");
    }
    Ok((spec, paths))
}

fn schedule_of(schedule: ScheduleIn) -> Result<Schedule, Failure> {
    let kind = match schedule {
        ScheduleIn::At { at, at_ms } => {
            let ms = match (at_ms, at) {
                (Some(ms), _) => ms,
                (None, Some(text)) => {
                    instant(&text).ok_or_else(|| invalid("invalid schedule.at: ISO 8601"))?
                }
                (None, None) => return Err(invalid("invalid cron params: schedule.at is missing")),
            };
            ScheduleKind::At(At {
                when: Some(When::Time(timestamp(ms))),
            })
        }
        ScheduleIn::Every { every_ms, anchor_ms } => ScheduleKind::Every(Every {
            period: Some(duration(every_ms)),
            anchor: anchor_ms.map(timestamp),
            mode: EveryMode::FixedRate.into(),
        }),
        ScheduleIn::Cron { expr, tz } => ScheduleKind::Cron(Cron {
            expression: expr,
            zone: tz.filter(|tz| !tz.is_empty()).unwrap_or_else(host_zone),
            ..Cron::default()
        }),
    };
    Ok(Schedule { kind: Some(kind) })
}

/// The original's rule for what has no zone: the host's.
fn host_zone() -> String {
    let zone = jiff::tz::TimeZone::system();
    zone.iana_name().unwrap_or("UTC").to_owned()
}

/// The original's reading: all digits are milliseconds, a date is its midnight in UTC, no zone is UTC.
fn instant(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_millisecond());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let utc = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
    Some(utc.as_millisecond())
}

fn payload_of(payload: PayloadIn) -> Result<Payload, Failure> {
    let kind = match payload {
        PayloadIn::SystemEvent { text } => PayloadKind::SystemEvent(SystemEventPayload { text }),
        PayloadIn::AgentTurn { model: Some(_), .. } => {
            return Err(invalid(
                "payload.model is not supported here; a backend is chosen in creel.toml",
            ));
        }
        PayloadIn::AgentTurn {
            message,
            timeout_seconds,
            ..
        } => PayloadKind::AgentTurn(AgentTurnPayload {
            message,
            backend: String::new(),
            timeout: timeout_seconds.map(|seconds| duration(i64::from(seconds) * 1_000)),
        }),
    };
    Ok(Payload { kind: Some(kind) })
}

/// Whether a job runs by itself.
pub(super) fn is_enabled(job: &Job) -> bool {
    let disabled = job.spec.as_ref().is_some_and(|spec| spec.disabled);
    !disabled && !matches!(job.phase(), Phase::Paused | Phase::Quarantined | Phase::Completed)
}

/// Names the state of a list: a client that reads it page by page begins again when this changes.
pub(super) fn revision(jobs: &[Job]) -> String {
    let text: String = jobs
        .iter()
        .map(|job| format!("{} {}\n", job.job_id, job.etag))
        .collect();
    creel_wire::names::sha256_hex(text.as_bytes())
}

/// A job as the original shows it.
pub(super) fn job_json(job: &Job) -> Value {
    let spec = job.spec.clone().unwrap_or_default();
    let (payload, target) = payload_json(spec.payload.and_then(|payload| payload.kind));
    let ms = |at: &Option<prost_types::Timestamp>| at.as_ref().map(unix_ms);
    let mut state = json!({ "consecutiveErrors": job.consecutive_failures });
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            state[key] = value;
        }
    };
    set("nextRunAtMs", json!(ms(&job.next_run_at)));
    set("lastRunAtMs", json!(ms(&job.last_run_at)));
    set(
        "lastDurationMs",
        json!(job.last_duration.as_ref().map(duration_ms)),
    );
    let last = (!job.last_status.is_empty()).then(|| status_text(&job.last_status));
    set("lastStatus", json!(last));
    set("lastRunStatus", json!(last));
    set(
        "lastError",
        json!((!job.last_error.is_empty()).then_some(&job.last_error)),
    );
    json!({
        "id": job.job_id,
        "name": spec.name,
        "description": spec.description,
        "enabled": is_enabled(job),
        "deleteAfterRun": spec.delete_after_run,
        "createdAtMs": ms(&job.created_at),
        "updatedAtMs": ms(&job.updated_at),
        "schedule": schedule_json(spec.schedule.and_then(|schedule| schedule.kind), &job.schedule_text),
        "sessionTarget": target,
        "wakeMode": "now",
        "payload": payload,
        "state": state,
    })
}

fn schedule_json(kind: Option<ScheduleKind>, text: &str) -> Value {
    match kind {
        Some(ScheduleKind::At(At {
            when: Some(When::Time(at)),
        })) => {
            let at = jiff::Timestamp::from_millisecond(unix_ms(&at)).unwrap_or_default();
            json!({ "kind": "at", "at": at.to_string() })
        }
        Some(ScheduleKind::At(At {
            when: Some(When::Civil(civil)),
        })) => json!({ "kind": "at", "at": civil.time, "tz": civil.zone }),
        Some(ScheduleKind::Every(every)) => json!({
            "kind": "every",
            "everyMs": every.period.as_ref().map(duration_ms),
            "anchorMs": every.anchor.as_ref().map(unix_ms),
        }),
        Some(ScheduleKind::Cron(cron)) => json!({ "kind": "cron", "expr": cron.expression, "tz": cron.zone }),
        Some(ScheduleKind::At(_)) | None => json!({ "kind": "at", "at": text }),
    }
}

fn payload_json(kind: Option<PayloadKind>) -> (Value, &'static str) {
    match kind {
        Some(PayloadKind::SystemEvent(event)) => {
            (json!({ "kind": "systemEvent", "text": event.text }), "main")
        }
        Some(PayloadKind::AgentTurn(turn)) => {
            let seconds = turn.timeout.as_ref().map(|timeout| duration_ms(timeout) / 1_000);
            let payload = json!({ "kind": "agentTurn", "message": turn.message, "timeoutSeconds": seconds });
            (payload, "isolated")
        }
        // Kinds that the original's clients don't know are shown as what they are nearest to.
        Some(PayloadKind::Command(command)) => (
            json!({ "kind": "agentTurn", "message": format!("command: {}", command.argv.join(" ")) }),
            "isolated",
        ),
        Some(PayloadKind::Audit(_)) => (
            json!({ "kind": "agentTurn", "message": "security audit" }),
            "isolated",
        ),
        None => (Value::Null, "isolated"),
    }
}

fn status_text(status: &str) -> &'static str {
    match status {
        "succeeded" => "ok",
        "skipped" => "skipped",
        _ => "error",
    }
}

/// A finished run as a line of the original's run log; none while it isn't finished.
pub(super) fn run_json(run: &Run) -> Option<Value> {
    let status = match run.state() {
        RunState::Succeeded => "ok",
        RunState::Skipped => "skipped",
        RunState::Failed | RunState::TimedOut | RunState::Cancelled | RunState::Stuck => "error",
        RunState::Unspecified
        | RunState::Pending
        | RunState::Dispatched
        | RunState::Running
        | RunState::Parked => return None,
    };
    let (start, end) = (
        run.started_at.as_ref().map(unix_ms),
        run.finished_at.as_ref().map(unix_ms),
    );
    let error = if run.error.is_empty() {
        &run.reason
    } else {
        &run.error
    };
    Some(json!({
        "ts": end.or(start).or(run.admitted_at.as_ref().map(unix_ms)).unwrap_or(0),
        "jobId": run.job_id,
        "runId": run.run_id,
        "action": "finished",
        "status": status,
        "error": (!error.is_empty() && status != "ok").then_some(error),
        "summary": run.summary,
        "sessionKey": run.session,
        "runAtMs": start,
        "durationMs": start.zip(end).map(|(start, end)| end - start),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: Value) -> Result<JobSpec, String> {
        let add: Add = serde_json::from_value(value).map_err(|error| error.to_string())?;
        spec_of(add).map_err(|failure| failure.message)
    }

    fn sample() -> Value {
        json!({
            "name": "morning", "schedule": {"kind":"cron","expr":"0 7 * * *","tz":"Europe/Berlin"},
            "sessionTarget": "isolated", "wakeMode": "now", "payload": {"kind":"agentTurn","message":"hello","timeoutSeconds":60},
        })
    }

    #[test]
    fn a_job_survives_both_ways() {
        let spec = spec(sample()).unwrap();
        let job = Job {
            job_id: "j".to_owned(),
            spec: Some(spec),
            next_run_at: Some(timestamp(5)),
            last_status: "timed_out".to_owned(),
            phase: Phase::Scheduled.into(),
            ..Job::default()
        };
        let shown = job_json(&job);
        for key in ["name", "sessionTarget", "payload", "schedule"] {
            assert_eq!(shown[key], sample()[key], "{key}");
        }
        assert_eq!(
            (&shown["enabled"], &shown["state"]["nextRunAtMs"]),
            (&json!(true), &json!(5))
        );
        assert_eq!(shown["state"]["lastStatus"], "error");
        assert!(shown["state"].get("lastError").is_none());
    }

    #[test]
    fn targets_and_payloads_belong_together() {
        let mut wrong = sample();
        wrong["sessionTarget"] = json!("main");
        assert_eq!(
            spec(wrong.clone()).unwrap_err(),
            "main cron jobs require payload.kind=\"systemEvent\""
        );
        wrong["payload"] = json!({"kind":"systemEvent","text":"x"});
        assert!(spec(wrong.clone()).is_ok());
        wrong["sessionTarget"] = json!("isolated");
        assert_eq!(
            spec(wrong).unwrap_err(),
            "isolated cron jobs require payload.kind=\"agentTurn\""
        );
    }

    #[test]
    fn what_a_job_here_cannot_do_is_refused_by_name() {
        let mut job = sample();
        job["payload"]["model"] = json!("x");
        assert!(spec(job).unwrap_err().contains("payload.model"));
        let mut job = sample();
        job["schedule"] = json!({"kind":"on-exit","command":"x"});
        assert!(spec(job).unwrap_err().contains("on-exit"));
        let mut job = sample();
        job["delivery"] = json!({"mode":"webhook"});
        assert!(spec(job).unwrap_err().contains("delivery.mode"));
    }

    #[test]
    fn instants_are_read_as_the_original_reads_them() {
        assert_eq!(instant("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(instant("1970-01-02"), Some(86_400_000));
        assert_eq!(instant("1970-01-01T00:00:01"), Some(1_000));
        assert_eq!(instant("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(instant("tomorrow"), None);
    }

    #[test]
    fn a_patch_names_what_it_changes_and_nothing_else() {
        let patch: Patch =
            serde_json::from_value(json!({"enabled": false, "name": "x", "agentId": null})).unwrap();
        let (spec, paths) = patch_of(patch).unwrap();
        assert_eq!(paths, ["name", "disabled"]);
        assert!(spec.disabled && spec.name == "x");
    }

    #[test]
    fn only_finished_runs_are_in_the_log() {
        let run = |state: RunState| {
            run_json(&Run {
                state: state.into(),
                started_at: Some(timestamp(10)),
                finished_at: Some(timestamp(30)),
                reason: "timeout".to_owned(),
                ..Run::default()
            })
        };
        assert_eq!(run(RunState::Running), None);
        let failed = run(RunState::TimedOut).unwrap();
        assert_eq!(
            (&failed["status"], &failed["error"], &failed["durationMs"]),
            (&json!("error"), &json!("timeout"), &json!(20))
        );
        assert_eq!(run(RunState::Succeeded).unwrap()["error"], Value::Null);
    }
}
