//! Somebody is told when a job goes wrong. An alert is a run like any other, so that it survives crashes, is tried
//! again when its session can't be reached, and is on record.

use creel_proto::scheduler::v1::{RunKind, RunState, WorkKind};

use super::Ledger;
use crate::{
    id::{JobId, RunId},
    job::{ALERT_REASONS, Alert, Job},
    run::{End, Extra, Now},
};

impl Ledger {
    /// Tells of a job, unless its owner was told a short time ago.
    pub(super) fn tell(&mut self, id: JobId, reason: &'static str, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        let under_way = job
            .state
            .alert
            .as_ref()
            .is_some_and(|alert| self.runs.get(&alert.run).is_some_and(|run| run.end.is_none()));
        if under_way || !job.may_alert(now.wall_ms) {
            return;
        }
        let text = words(job, reason);
        let Some(run_id) = self.admit(id, RunKind::Alert, now.wall_ms, Some(reason), 0, now) else {
            return;
        };
        if let Some(run) = self.runs.get_mut(&run_id) {
            run.work = WorkKind::SystemEvent;
            run.extra = Some(Box::new(Extra::Alert { text }));
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state.alert = Some(Box::new(Alert {
            at_ms: now.wall_ms,
            reason,
            outcome: None,
            run: run_id,
        }));
        self.figures.alerted(&job.name, reason);
        self.enqueue(id, now);
    }

    /// The run that carried an alert has ended.
    pub(super) fn told(&mut self, id: JobId, run_id: RunId, end: &End) {
        let alert = self.jobs.get_mut(&id).and_then(|job| job.state.alert.as_mut());
        if let Some(alert) = alert.filter(|alert| alert.run == run_id) {
            alert.outcome = Some(match end.state {
                RunState::Succeeded => Ok(()),
                _ if end.reason.is_empty() => Err("no reason was given".to_owned()),
                _ => Err(end.reason.clone()),
            });
        }
    }

    /// A run takes longer than its job's runs do.
    pub(super) fn slow(&mut self, run_id: RunId, now: Now) {
        self.pace(run_id, None);
        let Some(run) = self
            .runs
            .get_mut(&run_id)
            .filter(|run| run.end.is_none() && !run.slow)
        else {
            return;
        };
        run.slow = true;
        let id = run.job;
        self.changes.run(id, run_id);
        self.tell(id, ALERT_REASONS[2], now);
    }

    /// Keeps the moment from which a run is slow: counted from its start while a worker has it, `None` otherwise.
    pub(super) fn pace(&mut self, run_id: RunId, now: Option<Now>) {
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        if let Some(before) = run.slow_at_ms.take() {
            self.slows.remove(&(before, run_id));
        }
        let Some(now) = now.filter(|_| run.overlaps() && !run.slow && run.end.is_none()) else {
            return;
        };
        let expected_ms = self.jobs.get(&run.job).and_then(Job::expected_ms);
        if let Some(expected_ms) = expected_ms {
            let used_ms = now.wall_ms.saturating_sub(run.started_ms).max(0);
            let at = now
                .mono_ms
                .saturating_add(expected_ms.saturating_sub(used_ms).max(0));
            run.slow_at_ms = Some(at);
            self.slows.insert((at, run_id));
        }
    }
}

/// What is said. No text of a run or its errors is in it: an alert goes into a conversation, and what a job read
/// somewhere has no business there.
fn words(job: &Job, reason: &str) -> String {
    let name = &job.name;
    let failures = job.state.failures;
    let what = match reason {
        "slow" => format!("The scheduled job `{name}` takes longer than usual."),
        "quarantined" => format!(
            "The scheduled job `{name}` failed {failures} times in a row and is quarantined: it is tried again once \
             in a while, and not at its times."
        ),
        _ if failures == 1 => format!("The scheduled job `{name}` failed."),
        _ => format!("The scheduled job `{name}` failed {failures} times in a row."),
    };
    format!("{what} `creel cron explain {name}` says why.")
}
