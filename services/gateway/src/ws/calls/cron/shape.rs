//! Jobs and runs as the original shows them. Pure.

use creel_proto::{
    scheduler::v1::{
        At, Job, Phase, Run, RunState, at::When, delivery::To, payload::Kind as PayloadKind,
        schedule::Kind as ScheduleKind,
    },
    time::{duration_ms, unix_ms},
};
use serde_json::{Value, json};

use crate::ws::{calls::without_nulls, chat::AGENT};

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
    without_nulls(json!({
        "id": job.job_id,
        "agentId": AGENT,
        "name": spec.name,
        "description": spec.description,
        "enabled": is_enabled(job),
        "deleteAfterRun": spec.delete_after_run,
        "createdAtMs": ms(&job.created_at),
        "updatedAtMs": ms(&job.updated_at),
        "configRevision": (!job.etag.is_empty()).then_some(&job.etag),
        "schedule": without_nulls(schedule_json(spec.schedule.and_then(|schedule| schedule.kind), &job.schedule_text)),
        "sessionTarget": target,
        "wakeMode": "now",
        "payload": without_nulls(payload),
        "delivery": delivery_json(spec.delivery.and_then(|delivery| delivery.to), target),
        "state": state,
    }))
}

/// Where the summary of a turn goes; events have none.
fn delivery_json(to: Option<To>, target: &str) -> Value {
    match to {
        _ if target == "main" => Value::Null,
        Some(To::None(_)) => json!({ "mode": "none" }),
        Some(To::Webhook(webhook)) => json!({ "mode": "webhook", "to": webhook.url }),
        Some(To::Session(_)) | None => json!({ "mode": "announce", "channel": "last" }),
    }
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
        Some(PayloadKind::Command(command)) => {
            (json!({ "kind": "command", "argv": command.argv }), "isolated")
        }
        // A kind that the original's clients don't know is shown as what it is nearest to.
        Some(PayloadKind::Audit(_)) => (
            json!({ "kind": "agentTurn", "message": "security audit" }),
            "isolated",
        ),
        None => (Value::Null, "isolated"),
    }
}

pub(super) fn status_text(status: &str) -> &'static str {
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
    let delivery = run
        .delivery
        .as_ref()
        .and_then(|delivery| match delivery.state.as_str() {
            "none" => Some("not-requested"),
            "delivered" => Some("delivered"),
            "failed" => Some("not-delivered"),
            _ => None,
        });
    // A run that did its work and could not tell of it has not succeeded.
    let completion = match (status, delivery) {
        ("ok", Some("not-delivered")) | ("error" | "skipped", _) => "failed",
        _ => "succeeded",
    };
    Some(without_nulls(json!({
        "ts": end.or(start).or(run.admitted_at.as_ref().map(unix_ms)).unwrap_or(0),
        "jobId": run.job_id,
        "jobName": (!run.job_name.is_empty()).then_some(&run.job_name),
        "runId": run.run_id,
        "action": "finished",
        "status": status,
        "completionStatus": completion,
        "deliveryStatus": delivery,
        "error": (!error.is_empty() && status != "ok").then_some(error),
        "summary": run.summary,
        "sessionKey": (!run.session.is_empty()).then_some(&run.session),
        "runAtMs": start,
        "durationMs": start.zip(end).map(|(start, end)| (end - start).max(0)),
    })))
}

#[cfg(test)]
mod tests {
    use creel_proto::time::timestamp;

    use super::{
        super::spec::tests::{sample, spec},
        *,
    };

    #[test]
    fn a_job_survives_both_ways() {
        let spec = spec(&sample()).unwrap();
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
        let succeeded = run(RunState::Succeeded).unwrap();
        assert!(succeeded.get("error").is_none());
        assert_eq!(succeeded["completionStatus"], "succeeded");
    }
}
