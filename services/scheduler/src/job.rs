//! A job as the service holds it: the parts of its record that decide when it runs, and its health. Its text
//! stays in the store until a run needs it.

use std::sync::Arc;

use creel_proto::scheduler::v1::{JobRecord, JobStateRecord, Phase, RunKind, RunRecord, RunState, WorkKind};
use creel_schedule::{Schedule, Zones};
use jiff::Timestamp;

use crate::{
    admission::SkipReason,
    id::JobId,
    policy::{Policy, quarantine_ms},
    spec::{Origin, Spec},
    store::RunRef,
};

/// The reason of a pause that the owner's revocation caused.
pub(crate) const OWNER_REVOKED: &str = "owner_revoked";
/// The reason of a pause that the spec's `disabled` caused.
pub(crate) const DISABLED: &str = "disabled";

/// Longest text kept of a last error, in characters.
const MAX_ERROR_CHARS: usize = 256;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) incarnation: u64,
    pub(crate) owner: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) plan: Plan,
    pub(crate) state: State,
    /// When it is looked at next, Unix milliseconds.
    pub(crate) wake_ms: Option<i64>,
    /// The last record of skipped occurrences, as long as it may grow.
    pub(crate) open_skip: Option<Box<RunRecord>>,
    /// Runs ended since old ones were removed.
    pub(crate) unpruned: u32,
}

/// What it does, or why it can't.
#[derive(Debug)]
pub(crate) enum Plan {
    Sound(Box<Sound>),
    /// Its record can't be used: it is named, and left alone.
    Broken(String),
}

#[derive(Debug)]
pub(crate) struct Sound {
    pub(crate) schedule: Schedule,
    pub(crate) kind: WorkKind,
    pub(crate) policy: Policy,
    pub(crate) disabled: bool,
    pub(crate) delete_after_run: bool,
}

impl From<&Spec> for Sound {
    fn from(spec: &Spec) -> Self {
        Self {
            schedule: spec.schedule.clone(),
            kind: spec.kind,
            policy: spec.policy,
            disabled: spec.proto.disabled,
            delete_after_run: spec.proto.delete_after_run,
        }
    }
}

/// How a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Counts changes by people.
    pub(crate) version: u64,
    pub(crate) cursor_ms: i64,
    pub(crate) pause: Option<String>,
    pub(crate) completed: bool,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) failures: u32,
    pub(crate) last: Option<Last>,
    pub(crate) manual_runs: u64,
    /// Runs that have not ended, oldest first.
    pub(crate) active: Vec<RunRef>,
    pub(crate) last_success: Option<RunRef>,
    pub(crate) last_failure: Option<RunRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quarantine {
    pub(crate) until_ms: i64,
    pub(crate) level: u32,
}

/// The last run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) at_ms: i64,
    pub(crate) finished_ms: i64,
    pub(crate) state: RunState,
    pub(crate) error: String,
}

impl Job {
    /// A job of its records. A record that can't be used makes a broken job, never an error.
    pub(crate) fn load(record: &JobRecord, state: Option<&JobStateRecord>, zones: &Zones) -> Self {
        let (name, plan) = match &record.spec {
            Some(spec) => {
                let origin = Origin {
                    zones,
                    anchor_ms: record.anchor_unix_ms,
                };
                let plan = match Spec::check(spec, origin) {
                    Ok(spec) => Plan::Sound(Box::new(Sound::from(&spec))),
                    Err(error) => Plan::Broken(error.message),
                };
                (spec.name.clone(), plan)
            }
            None => (String::new(), Plan::Broken("its record has no spec".to_owned())),
        };
        let plan = if state.is_some() {
            plan
        } else {
            Plan::Broken("its state record is missing".to_owned())
        };
        Self {
            incarnation: record.incarnation,
            owner: record.owner.as_str().into(),
            name: name.into(),
            plan,
            state: state.map(State::of_record).unwrap_or_default(),
            wake_ms: None,
            open_skip: None,
            unpruned: 0,
        }
    }

    /// A job whose record can't be read at all. It is shown under its id.
    pub(crate) fn unreadable(id: JobId, why: String) -> Self {
        Self {
            incarnation: 0,
            owner: "".into(),
            name: id.to_string().into(),
            plan: Plan::Broken(why),
            state: State::default(),
            wake_ms: None,
            open_skip: None,
            unpruned: 0,
        }
    }

    pub(crate) const fn sound(&self) -> Option<&Sound> {
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
        crate::admission::next_ms(&sound.schedule, after)
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
        let last = state.last.as_ref().map(|last| last.state);
        let phase = match last {
            _ if !state.active.is_empty() => Phase::Running,
            Some(RunState::Stuck) => Phase::Stuck,
            _ if state.completed => Phase::Completed,
            Some(RunState::Succeeded) => Phase::Succeeded,
            Some(RunState::Failed | RunState::TimedOut) => Phase::Failed,
            _ => Phase::Scheduled,
        };
        (phase, String::new())
    }

    /// Takes the end of a run into account.
    pub(crate) fn ended(&mut self, at: RunRef, kind: RunKind, last: Last) {
        let state = &mut self.state;
        state.active.retain(|one| one.run != at.run);
        let (quarantine_after, one_shot) = match &self.plan {
            Plan::Sound(sound) => (
                sound.policy.quarantine_after,
                matches!(sound.schedule, Schedule::At(_)),
            ),
            Plan::Broken(_) => (u32::MAX, true),
        };
        match last.state {
            RunState::Succeeded => {
                state.failures = 0;
                state.quarantine = None;
                state.last_success = Some(at);
            }
            RunState::Failed | RunState::TimedOut | RunState::Stuck => {
                state.failures = state.failures.saturating_add(1);
                state.last_failure = Some(at);
                let level = match state.quarantine {
                    Some(quarantine) if kind == RunKind::Probe => Some(quarantine.level + 1),
                    Some(_) => None,
                    None => (state.failures >= quarantine_after && !one_shot).then_some(0),
                };
                if let Some(level) = level {
                    let until_ms = last.finished_ms.saturating_add(quarantine_ms(level));
                    state.quarantine = Some(Quarantine { until_ms, level });
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
    }
}

impl Last {
    pub(crate) fn new(at_ms: i64, finished_ms: i64, state: RunState, error: &str) -> Self {
        Self {
            at_ms,
            finished_ms,
            state,
            error: error.chars().take(MAX_ERROR_CHARS).collect(),
        }
    }

    pub(crate) const fn duration_ms(&self) -> i64 {
        let duration = self.finished_ms - self.at_ms;
        if duration < 0 { 0 } else { duration }
    }
}

impl State {
    pub(crate) fn record(&self) -> JobStateRecord {
        let last = self.last.as_ref();
        JobStateRecord {
            version: self.version,
            cursor_unix_ms: self.cursor_ms,
            paused: self.pause.is_some(),
            paused_reason: self.pause.clone().unwrap_or_default(),
            completed: self.completed,
            quarantined_until_unix_ms: self.quarantine.map_or(0, |quarantine| quarantine.until_ms),
            quarantine_level: self.quarantine.map_or(0, |quarantine| quarantine.level),
            consecutive_failures: self.failures,
            last_run_at_unix_ms: last.map_or(0, |last| last.at_ms),
            last_state: last.map_or(0, |last| last.state.into()),
            last_duration_ms: last.map_or(0, Last::duration_ms),
            last_error: last.map(|last| last.error.clone()).unwrap_or_default(),
            last_finished_at_unix_ms: last.map_or(0, |last| last.finished_ms),
            manual_runs: self.manual_runs,
            active: self.active.iter().map(|one| one.record()).collect(),
            last_success: self.last_success.map(RunRef::record),
            last_failure: self.last_failure.map(RunRef::record),
        }
    }

    pub(crate) fn of_record(record: &JobStateRecord) -> Self {
        let reference = |one: &Option<_>| one.as_ref().and_then(RunRef::of_record);
        Self {
            version: record.version,
            cursor_ms: record.cursor_unix_ms,
            pause: record.paused.then(|| record.paused_reason.clone()),
            completed: record.completed,
            quarantine: (record.quarantined_until_unix_ms != 0).then_some(Quarantine {
                until_ms: record.quarantined_until_unix_ms,
                level: record.quarantine_level,
            }),
            failures: record.consecutive_failures,
            last: (record.last_state != 0).then(|| Last {
                at_ms: record.last_run_at_unix_ms,
                finished_ms: record.last_finished_at_unix_ms,
                state: RunState::try_from(record.last_state).unwrap_or(RunState::Unspecified),
                error: record.last_error.clone(),
            }),
            manual_runs: record.manual_runs,
            active: record.active.iter().filter_map(RunRef::of_record).collect(),
            last_success: reference(&record.last_success),
            last_failure: reference(&record.last_failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(quarantine_after: u32) -> Job {
        let schedule = creel_schedule::Every::new(1_000, Timestamp::UNIX_EPOCH, Default::default()).unwrap();
        let sound = Sound {
            schedule: Schedule::Every(schedule),
            kind: WorkKind::AgentTurn,
            policy: Policy {
                quarantine_after,
                ..Policy::default()
            },
            disabled: false,
            delete_after_run: false,
        };
        let mut job = Job::unreadable(JobId::new(0, &[0; 10]), String::new());
        job.plan = Plan::Sound(Box::new(sound));
        job
    }

    fn end(job: &mut Job, kind: RunKind, state: RunState, at_ms: i64) {
        let at = RunRef {
            admitted_ms: at_ms,
            run: format!("{at_ms:032x}").parse().unwrap(),
        };
        job.ended(at, kind, Last::new(at_ms, at_ms, state, ""));
    }

    #[test]
    fn failures_in_a_row_quarantine_and_a_good_probe_releases() {
        const HOUR: i64 = 3_600_000;
        let mut job = job(2);
        end(&mut job, RunKind::Scheduled, RunState::Failed, 1);
        end(&mut job, RunKind::Scheduled, RunState::Cancelled, 2);
        assert_eq!(job.hold(), None);
        end(&mut job, RunKind::Scheduled, RunState::Stuck, 3);
        assert_eq!(
            job.state.quarantine,
            Some(Quarantine {
                until_ms: 3 + HOUR,
                level: 0
            })
        );
        assert_eq!(
            (job.hold(), job.phase().0),
            (Some(SkipReason::Quarantined), Phase::Quarantined)
        );
        end(&mut job, RunKind::Manual, RunState::Failed, 4);
        assert_eq!(
            job.state.quarantine.map(|q| q.level),
            Some(0),
            "only a probe makes it longer"
        );
        end(&mut job, RunKind::Probe, RunState::TimedOut, 5);
        assert_eq!(
            job.state.quarantine,
            Some(Quarantine {
                until_ms: 5 + 2 * HOUR,
                level: 1
            })
        );
        end(&mut job, RunKind::Probe, RunState::Cancelled, 6);
        assert_eq!(
            job.state.quarantine,
            Some(Quarantine {
                until_ms: 6 + 2 * HOUR,
                level: 1
            })
        );
        end(&mut job, RunKind::Probe, RunState::Succeeded, 7);
        assert_eq!(
            (job.state.quarantine, job.state.failures, job.phase().0),
            (None, 0, Phase::Succeeded)
        );
    }

    #[test]
    fn a_state_survives_its_record() {
        let mut job = job(1);
        end(&mut job, RunKind::Scheduled, RunState::Failed, 1);
        end(&mut job, RunKind::Manual, RunState::Succeeded, 2);
        job.state.pause = Some("because".to_owned());
        job.state.active.push(RunRef {
            admitted_ms: 9,
            run: "000000000000000000000000000000aa".parse().unwrap(),
        });
        job.state.cursor_ms = 77;
        assert_eq!(State::of_record(&job.state.record()), job.state);
    }

    #[test]
    fn records_that_make_no_sense_make_broken_jobs() {
        let record = JobRecord {
            job_id: "x".into(),
            owner: "owner".into(),
            ..JobRecord::default()
        };
        let job = Job::load(&record, Some(&JobStateRecord::default()), &Zones::bundled());
        assert!(job.sound().is_none());
        assert_eq!(job.phase().0, Phase::Quarantined);
        assert!(job.phase().1.contains("no spec"));
    }
}
