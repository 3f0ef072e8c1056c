//! A run: one occurrence of a job.

use creel_proto::scheduler::v1::{Run, RunState};
use serde::Serialize;

use super::{at, at_ms, text, word};

/// See [`Run`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunView {
    pub(crate) run_id: String,
    pub(crate) job_id: String,
    pub(crate) job_name: String,
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) nominal_at: Option<String>,
    pub(crate) nominal_at_ms: Option<i64>,
    pub(crate) admitted_at: Option<String>,
    pub(crate) admitted_at_ms: Option<i64>,
    pub(crate) started_at: Option<String>,
    pub(crate) started_at_ms: Option<i64>,
    pub(crate) finished_at: Option<String>,
    pub(crate) finished_at_ms: Option<i64>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) slow: bool,
    pub(crate) attempt: u32,
    pub(crate) reason: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) summary: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) delivery: Option<DeliveryStatusView>,
    pub(crate) skipped_count: u64,
    pub(crate) skipped_until: Option<String>,
    pub(crate) skipped_until_ms: Option<i64>,
    /// Until then it waits.
    pub(crate) not_before: Option<String>,
    pub(crate) not_before_ms: Option<i64>,
    pub(crate) parking: Option<ParkingView>,
    pub(crate) backfill_id: Option<String>,
}

/// What a parked run waits for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParkingView {
    pub(crate) approval_id: String,
    pub(crate) text: Option<String>,
    pub(crate) parked_at: Option<String>,
    pub(crate) parked_at_ms: Option<i64>,
    pub(crate) expires_at: Option<String>,
    pub(crate) expires_at_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryStatusView {
    pub(crate) state: String,
    pub(crate) to: Option<String>,
    pub(crate) error: Option<String>,
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        Self {
            run_id: run.run_id.clone(),
            job_id: run.job_id.clone(),
            job_name: run.job_name.clone(),
            kind: word(run.kind().as_str_name(), "RUN_KIND_"),
            status: status(run),
            nominal_at: at(run.nominal_at.as_ref()),
            nominal_at_ms: at_ms(run.nominal_at.as_ref()),
            admitted_at: at(run.admitted_at.as_ref()),
            admitted_at_ms: at_ms(run.admitted_at.as_ref()),
            started_at: at(run.started_at.as_ref()),
            started_at_ms: at_ms(run.started_at.as_ref()),
            finished_at: at(run.finished_at.as_ref()),
            finished_at_ms: at_ms(run.finished_at.as_ref()),
            duration_ms: duration_ms(run),
            slow: run.slow,
            attempt: run.attempt,
            reason: text(&run.reason),
            error: text(&run.error),
            summary: text(&run.summary),
            session: text(&run.session),
            delivery: run.delivery.as_ref().map(|delivery| DeliveryStatusView {
                state: delivery.state.clone(),
                to: text(&delivery.to),
                error: text(&delivery.error),
            }),
            skipped_count: run.skipped_count,
            skipped_until: at(run.skipped_until.as_ref()),
            skipped_until_ms: at_ms(run.skipped_until.as_ref()),
            not_before: at(run.not_before.as_ref()),
            not_before_ms: at_ms(run.not_before.as_ref()),
            parking: run.parking.as_ref().map(|parking| ParkingView {
                approval_id: parking.approval_id.clone(),
                text: text(&parking.text),
                parked_at: at(parking.parked_at.as_ref()),
                parked_at_ms: at_ms(parking.parked_at.as_ref()),
                expires_at: at(parking.expires_at.as_ref()),
                expires_at_ms: at_ms(parking.expires_at.as_ref()),
            }),
            backfill_id: text(&run.backfill_id),
        }
    }
}

/// The word of a run's state.
pub(crate) fn status(run: &Run) -> String {
    word(run.state().as_str_name(), "RUN_STATE_")
}

/// From start to end, once it has ended.
pub(crate) fn duration_ms(run: &Run) -> Option<i64> {
    Some(at_ms(run.finished_at.as_ref())?.saturating_sub(at_ms(run.started_at.as_ref())?))
}

/// Whether nothing more happens to a run by itself. A parked one waits for a person.
pub(crate) fn is_over(run: &Run) -> bool {
    match run.state() {
        RunState::Succeeded
        | RunState::Failed
        | RunState::TimedOut
        | RunState::Cancelled
        | RunState::Skipped
        | RunState::Parked => true,
        // A stuck run is decided by its policy: over, or tried again.
        RunState::Stuck => run.finished_at.is_some(),
        RunState::Pending | RunState::Dispatched | RunState::Running | RunState::Unspecified => false,
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::time::timestamp;

    use super::*;

    #[test]
    fn the_json_of_a_run_is_stable() {
        let run = Run {
            run_id: "ab".into(),
            job_name: "tick".into(),
            kind: creel_proto::scheduler::v1::RunKind::Scheduled.into(),
            state: RunState::TimedOut.into(),
            nominal_at: Some(timestamp(60_000)),
            started_at: Some(timestamp(60_010)),
            finished_at: Some(timestamp(61_260)),
            attempt: 1,
            reason: "timeout".into(),
            ..Run::default()
        };
        let view = serde_json::to_value(RunView::from(&run)).unwrap();
        let get = |key: &str| view.get(key).cloned().unwrap();
        assert_eq!(get("status"), "timed_out");
        assert_eq!(get("kind"), "scheduled");
        assert_eq!(get("nominalAt"), "1970-01-01T00:01:00Z");
        assert_eq!(get("nominalAtMs"), 60_000);
        assert_eq!(get("durationMs"), 1_250);
        assert_eq!(get("reason"), "timeout");
        assert!(get("error").is_null() && get("delivery").is_null() && get("skippedUntilMs").is_null());
        assert_eq!(view.as_object().unwrap().len(), 28);
        assert!(is_over(&run));
        assert!(!is_over(&Run {
            state: RunState::Stuck.into(),
            finished_at: None,
            ..run
        }));
    }
}
