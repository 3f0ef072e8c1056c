//! A job: its spec, and how it fares.

use creel_proto::scheduler::v1::{BackfillStatus, Job};
use creel_schedule::ScheduleSpec;
use serde::Serialize;

use crate::times::Local;

use super::{at, at_ms, lasting_ms, spec::SpecView, text, word};

/// See [`Job`]. The keys of the spec stand beside the others.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobView {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) spec: Option<SpecView>,
    pub(crate) schedule_text: String,
    pub(crate) owner: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) phase: String,
    pub(crate) phase_reason: Option<String>,
    pub(crate) created_at: Option<String>,
    pub(crate) created_at_ms: Option<i64>,
    pub(crate) updated_at: Option<String>,
    pub(crate) updated_at_ms: Option<i64>,
    pub(crate) created_by: Option<String>,
    /// The session of the agent's turn that made it.
    pub(crate) context: Option<String>,
    pub(crate) consecutive_failures: u32,
    /// A run that takes longer is slow.
    pub(crate) slow_after_ms: Option<i64>,
    pub(crate) backoff_until: Option<String>,
    pub(crate) backoff_until_ms: Option<i64>,
    pub(crate) probe_at: Option<String>,
    pub(crate) probe_at_ms: Option<i64>,
    pub(crate) alert: Option<AlertStatusView>,
    pub(crate) backfill: Option<BackfillView>,
    pub(crate) state: StateView,
    pub(crate) etag: String,
}

/// How a job fares, with the original's names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StateView {
    pub(crate) next_run_at: Option<String>,
    pub(crate) next_run_at_ms: Option<i64>,
    pub(crate) last_run_at: Option<String>,
    pub(crate) last_run_at_ms: Option<i64>,
    pub(crate) last_status: Option<String>,
    pub(crate) last_duration_ms: Option<i64>,
    pub(crate) last_error: Option<String>,
}

/// The last alert.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AlertStatusView {
    pub(crate) last_at: Option<String>,
    pub(crate) last_at_ms: Option<i64>,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) error: Option<String>,
    pub(crate) run_id: Option<String>,
}

/// A backfill that is running.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackfillView {
    pub(crate) backfill_id: String,
    pub(crate) from: Option<String>,
    pub(crate) from_ms: Option<i64>,
    pub(crate) until: Option<String>,
    pub(crate) until_ms: Option<i64>,
    pub(crate) admitted: u64,
    pub(crate) total: u64,
    pub(crate) at_once: u32,
}

impl From<&BackfillStatus> for BackfillView {
    fn from(backfill: &BackfillStatus) -> Self {
        Self {
            backfill_id: backfill.backfill_id.clone(),
            from: at(backfill.from.as_ref()),
            from_ms: at_ms(backfill.from.as_ref()),
            until: at(backfill.until.as_ref()),
            until_ms: at_ms(backfill.until.as_ref()),
            admitted: backfill.admitted,
            total: backfill.total,
            at_once: backfill.at_once,
        }
    }
}

impl JobView {
    /// Keys that are not of the spec: `cron add --json-spec` leaves them out.
    pub(crate) const BESIDE_SPEC: &'static [&'static str] = &[
        "id",
        "scheduleText",
        "owner",
        "scopes",
        "phase",
        "phaseReason",
        "createdAt",
        "createdAtMs",
        "updatedAt",
        "updatedAtMs",
        "createdBy",
        "context",
        "consecutiveFailures",
        "slowAfterMs",
        "backoffUntil",
        "backoffUntilMs",
        "probeAt",
        "probeAtMs",
        "alert",
        "backfill",
        "state",
        "etag",
        "unchanged",
        "warnings",
    ];
}

impl JobView {
    /// When it is due, for people: an instant by the clocks of this machine, all else as the scheduler says it.
    pub(crate) fn when(&self, local: &Local) -> String {
        match self.spec.as_ref().and_then(|spec| spec.schedule.as_ref()) {
            Some(ScheduleSpec::At { time, zone: None }) => time.parse::<jiff::Timestamp>().map_or_else(
                |_| self.schedule_text.clone(),
                |at| format!("once, {}", local.show_seconds(at.as_millisecond())),
            ),
            _ => self.schedule_text.clone(),
        }
    }

    /// An instant by the clocks of this machine and, where those of the job show something else, by them.
    pub(crate) fn on_its_clock(&self, unix_ms: i64, local: &Local) -> String {
        // `every 5 s` and `in 4m` don't keep to whole minutes.
        let show = |local: &Local| match unix_ms % 60_000 {
            0 => local.show(unix_ms),
            _ => local.show_seconds(unix_ms),
        };
        let here = show(local);
        let zone = match self.spec.as_ref().and_then(|spec| spec.schedule.as_ref()) {
            Some(ScheduleSpec::Cron { zone, .. } | ScheduleSpec::At { zone: Some(zone), .. }) => zone,
            _ => return here,
        };
        match jiff::tz::TimeZone::get(zone) {
            Ok(zone) => {
                let there = show(&Local { zone, now: local.now });
                // `UTC` and `Etc/UTC` are the same clock.
                if there == here {
                    here
                } else {
                    format!("{here} ({there})")
                }
            }
            Err(_) => here,
        }
    }
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        Self {
            id: job.job_id.clone(),
            spec: job.spec.as_ref().map(SpecView::from),
            schedule_text: job.schedule_text.clone(),
            owner: job.owner.clone(),
            scopes: job.scopes.clone(),
            phase: word(job.phase().as_str_name(), "PHASE_"),
            phase_reason: text(&job.phase_reason),
            created_at: at(job.created_at.as_ref()),
            created_at_ms: at_ms(job.created_at.as_ref()),
            updated_at: at(job.updated_at.as_ref()),
            updated_at_ms: at_ms(job.updated_at.as_ref()),
            created_by: text(&job.created_by),
            context: text(&job.context),
            consecutive_failures: job.consecutive_failures,
            slow_after_ms: lasting_ms(job.expected.as_ref()),
            backoff_until: at(job.backoff_until.as_ref()),
            backoff_until_ms: at_ms(job.backoff_until.as_ref()),
            probe_at: at(job.probe_at.as_ref()),
            probe_at_ms: at_ms(job.probe_at.as_ref()),
            alert: job.alert.as_ref().map(|alert| AlertStatusView {
                last_at: at(alert.last_at.as_ref()),
                last_at_ms: at_ms(alert.last_at.as_ref()),
                state: alert.state.clone(),
                reason: alert.reason.clone(),
                error: text(&alert.error),
                run_id: text(&alert.run_id),
            }),
            backfill: job.backfill.as_ref().map(BackfillView::from),
            state: StateView {
                next_run_at: at(job.next_run_at.as_ref()),
                next_run_at_ms: at_ms(job.next_run_at.as_ref()),
                last_run_at: at(job.last_run_at.as_ref()),
                last_run_at_ms: at_ms(job.last_run_at.as_ref()),
                last_status: text(&job.last_status),
                last_duration_ms: lasting_ms(job.last_duration.as_ref()),
                last_error: text(&job.last_error),
            },
            etag: job.etag.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use creel_proto::{
        scheduler::v1::{Cron, JobSpec, Payload, Phase, Schedule, SystemEventPayload, payload, schedule},
        time,
    };

    use super::*;

    #[test]
    fn another_clock_is_shown_beside_ones_own() {
        use crate::times::{Local, tests::berlin};
        let view = JobView::from(&job());
        let at_ms = 1_806_195_600_000; // 2027-03-28 01:00 UTC, when clocks there jump
        assert_eq!(view.on_its_clock(at_ms, &berlin()), "Sun 28 Mar 2027 03:00 CEST");
        assert_eq!(
            view.on_its_clock(at_ms + 5_000, &berlin()),
            "Sun 28 Mar 2027 03:00:05 CEST"
        );
        let utc = Local {
            zone: jiff::tz::TimeZone::UTC,
            ..berlin()
        };
        assert_eq!(
            view.on_its_clock(at_ms, &utc),
            "Sun 28 Mar 2027 01:00 UTC (Sun 28 Mar 2027 03:00 CEST)"
        );
    }

    pub(crate) fn job() -> Job {
        let cron = Cron {
            expression: "* * * * *".into(),
            zone: "Europe/Berlin".into(),
            ..Cron::default()
        };
        let event = SystemEventPayload { text: "tick".into() };
        Job {
            job_id: "j1".into(),
            spec: Some(JobSpec {
                name: "tick".into(),
                schedule: Some(Schedule {
                    kind: Some(schedule::Kind::Cron(cron)),
                }),
                target: "agent:default:main".into(),
                payload: Some(Payload {
                    kind: Some(payload::Kind::SystemEvent(event)),
                }),
                ..JobSpec::default()
            }),
            owner: "owner".into(),
            scopes: vec!["operator.write".into()],
            phase: Phase::Succeeded.into(),
            next_run_at: Some(time::timestamp(1_769_583_600_000)),
            last_run_at: Some(time::timestamp(1_769_490_000_000)),
            last_status: "succeeded".into(),
            last_duration: Some(time::duration(45_000)),
            etag: "7".into(),
            schedule_text: "every minute".into(),
            ..Job::default()
        }
    }

    #[test]
    fn the_json_of_a_job_is_stable_and_carries_the_originals_state() {
        let expected = serde_json::json!({
            "id": "j1", "name": "tick", "description": null,
            "schedule": { "kind": "cron", "expr": "* * * * *", "zone": "Europe/Berlin", "dst": "vixie", "syntax": "unix" },
            "target": "agent:default:main", "payload": { "kind": "systemEvent", "text": "tick" },
            "policy": {}, "delivery": null, "enabled": true, "deleteAfterRun": false,
            "scheduleText": "every minute", "owner": "owner", "scopes": ["operator.write"],
            "phase": "succeeded", "phaseReason": null,
            "createdAt": null, "createdAtMs": null, "updatedAt": null, "updatedAtMs": null,
            "createdBy": null, "context": null, "consecutiveFailures": 0, "slowAfterMs": null,
            "backoffUntil": null, "backoffUntilMs": null, "probeAt": null, "probeAtMs": null,
            "alert": null, "backfill": null,
            "state": {
                "nextRunAt": "2026-01-28T07:00:00Z", "nextRunAtMs": 1_769_583_600_000_i64,
                "lastRunAt": "2026-01-27T05:00:00Z", "lastRunAtMs": 1_769_490_000_000_i64,
                "lastStatus": "succeeded", "lastDurationMs": 45_000, "lastError": null,
            },
            "etag": "7",
        });
        let mut view = serde_json::to_value(JobView::from(&job())).unwrap();
        assert_eq!(view, expected);
        // What stands beside the spec is known, so the view can be given back as a spec.
        let object = view.as_object_mut().unwrap();
        for key in JobView::BESIDE_SPEC {
            // The last two come with `cron add` alone.
            assert!(
                object.remove(*key).is_some() || ["unchanged", "warnings"].contains(key),
                "{key}"
            );
        }
        serde_json::from_value::<SpecView>(view).unwrap();
    }
}
