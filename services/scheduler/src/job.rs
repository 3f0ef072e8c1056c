//! A job as the service holds it: the parts of its record that decide when it runs, and its health. Its text
//! stays in the store until a run needs it.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use creel_proto::scheduler::v1::{self as proto, JobSpec, Phase, RunKind, RunRecord, RunState, WorkKind};
use creel_schedule::Schedule;
use jiff::Timestamp;

use crate::{
    admission::SkipReason,
    health::{Recent, expected_ms},
    id::JobId,
    name::Name,
    policy::{Policy, quarantine_ms},
    spec::Spec,
    store::RunRef,
};

mod alert;
mod head;
mod last;
mod load;
mod state;

pub(crate) use alert::{ALERT_REASONS, Alert};
pub(crate) use last::Last;
pub(crate) use load::Reader;
pub(crate) use state::{Quarantine, State};

/// The reason of a pause that the owner's revocation caused.
pub(crate) const OWNER_REVOKED: &str = "owner_revoked";
/// The reason of a pause that the spec's `disabled` caused.
pub(crate) const DISABLED: &str = "disabled";
/// The reason of a pause until a person has approved an agent's job.
pub(crate) const APPROVAL: &str = "approval";

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) incarnation: u64,
    pub(crate) owner: Arc<str>,
    pub(crate) name: Name,
    pub(crate) plan: Plan,
    pub(crate) state: State,
    /// The last record of skipped occurrences, as long as it may grow.
    pub(crate) open_skip: Option<Box<RunRecord>>,
    /// Runs ended since old ones were removed.
    pub(crate) unpruned: u32,
    /// The session of the agent's turn that made it.
    pub(crate) context: Option<Arc<str>>,
    /// Its name came too late for a label of its own in metrics, which stays so.
    pub(crate) unlabelled: bool,
}

/// What it does, or why it can't.
#[derive(Debug)]
pub(crate) enum Plan {
    Sound(Sound),
    /// Its record can't be used: it is named, and left alone.
    Broken(Box<str>),
}

/// When it runs, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sound {
    pub(crate) schedule: Schedule,
    /// Shared by jobs that are the same in all of it: most of a million jobs are one of a few kinds.
    rules: Arc<Rules>,
}

/// All but the schedule, and the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) kind: WorkKind,
    pub(crate) policy: Policy,
    pub(crate) disabled: bool,
    pub(crate) delete_after: DeleteAfter,
}

impl Sound {
    /// Holds the same rules once, if they are those of the job before.
    pub(crate) fn share(&mut self, before: &mut Option<Arc<Rules>>) {
        match before {
            Some(before) if *before == self.rules => self.rules = Arc::clone(before),
            _ => *before = Some(Arc::clone(&self.rules)),
        }
    }
}

impl Deref for Sound {
    type Target = Rules;
    fn deref(&self) -> &Rules {
        &self.rules
    }
}

impl DerefMut for Sound {
    fn deref_mut(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.rules)
    }
}

/// When a job is deleted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeleteAfter {
    Never,
    OnSuccess,
    Always,
}

impl DeleteAfter {
    fn of(spec: &JobSpec) -> Self {
        match spec.delete_after() {
            proto::DeleteAfter::OnSuccess => Self::OnSuccess,
            proto::DeleteAfter::Always => Self::Always,
            proto::DeleteAfter::Unspecified if spec.delete_after_run => Self::OnSuccess,
            proto::DeleteAfter::Unspecified | proto::DeleteAfter::Never => Self::Never,
        }
    }
}

impl From<&Spec> for Sound {
    fn from(spec: &Spec) -> Self {
        Self {
            schedule: spec.schedule.clone(),
            rules: Arc::new(Rules {
                kind: spec.kind,
                policy: spec.policy,
                disabled: spec.proto.disabled,
                delete_after: DeleteAfter::of(&spec.proto),
            }),
        }
    }
}

impl Job {
    /// A job as its record says, without its state.
    fn read(incarnation: u64, owner: Arc<str>, name: &str, plan: Plan, context: &str) -> Self {
        Self {
            incarnation,
            owner,
            name: name.into(),
            plan,
            state: State::default(),
            open_skip: None,
            unpruned: 0,
            context: Some(context).filter(|context| !context.is_empty()).map(Arc::from),
            unlabelled: false,
        }
    }

    /// A job whose record can't be read at all. It is shown under its id.
    pub(crate) fn unreadable(id: JobId, why: String) -> Self {
        Self::read(0, "".into(), &id.to_string(), Plan::Broken(why.into()), "")
    }

    /// The job, held.
    pub(crate) fn paused(mut self, reason: &str) -> Self {
        self.state.pause = Some(reason.to_owned());
        self
    }

    pub(crate) fn sound(&self) -> Option<&Sound> {
        match &self.plan {
            Plan::Sound(sound) => Some(sound),
            Plan::Broken(_) => None,
        }
    }

    /// Why nothing is admitted at present.
    pub(crate) fn hold(&self) -> Option<SkipReason> {
        if self.state.pause.is_some() || self.sound().is_some_and(|sound| sound.disabled) {
            Some(SkipReason::Paused)
        } else {
            self.state.quarantine.map(|_| SkipReason::Quarantined)
        }
    }

    /// When a job that was not on hold would be due next.
    pub(crate) fn next_run_ms(&self, now_ms: i64) -> Option<i64> {
        let sound = self.sound()?;
        if self.state.completed || self.hold().is_some() {
            return None;
        }
        let fixed_delay = crate::admission::is_fixed_delay(&sound.schedule);
        if fixed_delay && !self.state.active.is_empty() {
            return None;
        }
        let finished = if fixed_delay { self.finished_ms() } else { i64::MIN };
        let one_shot = matches!(sound.schedule, Schedule::At(_));
        let after = self
            .state
            .cursor_ms
            .max(finished)
            .max(if one_shot || fixed_delay { i64::MIN } else { now_ms });
        // After failures the next run is the newest that came up meanwhile, when the wait is over.
        let least = self.state.backoff_until_ms.unwrap_or(i64::MIN);
        crate::admission::next_ms(&sound.schedule, after).map(|at| at.max(least))
    }

    pub(crate) fn finished_ms(&self) -> i64 {
        self.state.last.as_ref().map_or(i64::MIN, |last| last.finished_ms)
    }

    /// The one word for how it is, and why. `running` if a run of it is with a worker or waits for one.
    pub(crate) fn phase(&self) -> (Phase, String) {
        let state = &self.state;
        if let Plan::Broken(why) = &self.plan {
            return (Phase::Quarantined, format!("invalid record: {why}"));
        }
        if let Some(quarantine) = state.quarantine {
            let until = Timestamp::from_millisecond(quarantine.until_ms).unwrap_or_default();
            return (
                Phase::Quarantined,
                format!("{} failures in a row; one try at {until}", state.failures),
            );
        }
        if let Some(reason) = &state.pause {
            return (Phase::Paused, reason.clone());
        }
        if self.sound().is_some_and(|sound| sound.disabled) {
            return (Phase::Paused, DISABLED.to_owned());
        }
        let phase = if state.active.is_empty() {
            self.resting_phase()
        } else {
            Phase::Running
        };
        (phase, String::new())
    }

    /// The phase of a job that is neither held nor running.
    pub(crate) fn resting_phase(&self) -> Phase {
        match self.state.last.as_ref().map(|last| last.state) {
            Some(RunState::Stuck) => Phase::Stuck,
            _ if self.state.completed => Phase::Completed,
            Some(RunState::Succeeded) => Phase::Succeeded,
            Some(RunState::Failed | RunState::TimedOut) => Phase::Failed,
            _ => Phase::Scheduled,
        }
    }

    /// Takes the end of a run into account. Answers what somebody should be told, if anything.
    pub(crate) fn ended(&mut self, at: RunRef, kind: RunKind, last: Last) -> Option<&'static str> {
        let state = &mut self.state;
        state.active.retain(|one| one.run != at.run);
        if state.active.is_empty() {
            // It has none most of the time: no room is kept for the next.
            state.active = Vec::new();
        }
        // A backfill looks at the past, and an alert is not the job's own.
        if matches!(kind, RunKind::Backfill | RunKind::Alert) {
            return None;
        }
        let (policy, one_shot) = match &self.plan {
            Plan::Sound(sound) => (&sound.policy, matches!(sound.schedule, Schedule::At(_))),
            Plan::Broken(_) => (&Policy::default(), true),
        };
        let mut told = None;
        match last.state {
            RunState::Succeeded => {
                if state.quarantine.take().is_some() {
                    state.recent = Recent::default();
                }
                state.failures = 0;
                state.backoff_until_ms = None;
                state.recent.note(false);
                state.durations.note(last.duration_ms());
                state.last_success = Some(at);
            }
            RunState::Failed | RunState::TimedOut | RunState::Stuck => {
                state.failures = state.failures.saturating_add(1);
                state.recent.note(true);
                state.last_failure = Some(at);
                // What a person tries by hand is beside the schedule, and keeps none of its occurrences back. A
                // failure it is all the same: it counts towards the quarantine and the alert.
                if !one_shot && kind != RunKind::Manual {
                    let wait_ms = policy.retry.ladder_ms(state.failures);
                    state.backoff_until_ms =
                        (wait_ms > 0).then_some(last.finished_ms.saturating_add(wait_ms));
                }
                let too_many = state.failures >= policy.quarantine_after || state.recent.is_bad();
                let level = match state.quarantine {
                    Some(quarantine) if kind == RunKind::Probe => Some(quarantine.level + 1),
                    Some(_) => None,
                    None => (too_many && !one_shot).then_some(0),
                };
                if let Some(level) = level {
                    let until_ms = last.finished_ms.saturating_add(quarantine_ms(level));
                    state.quarantine = Some(Quarantine { until_ms, level });
                    told = Some("quarantined");
                }
                // Nothing comes after the only run of a one-shot.
                let enough = policy.alert.is_some_and(|alert| state.failures >= alert.after) || one_shot;
                if enough && told.is_none() {
                    told = Some("failures");
                }
            }
            // Cancelled: it says nothing about the job; a probe is tried again later.
            _ => {
                if let Some(quarantine) = state.quarantine.as_mut().filter(|_| kind == RunKind::Probe) {
                    quarantine.until_ms = last.finished_ms.saturating_add(quarantine_ms(quarantine.level));
                }
            }
        }
        state.last = Some(last);
        told
    }

    /// A run that takes longer is slow.
    pub(crate) fn expected_ms(&self) -> Option<i64> {
        expected_ms(&self.sound()?.policy, &self.state.durations)
    }

    /// Whether somebody may be told again.
    pub(crate) fn may_alert(&self, now_ms: i64) -> bool {
        let Some(alert) = self.sound().and_then(|sound| sound.policy.alert) else {
            return false;
        };
        self.state
            .alert
            .as_ref()
            .is_none_or(|last| now_ms.saturating_sub(last.at_ms) >= alert.cool_down_ms)
    }
}

#[cfg(test)]
mod tests;
