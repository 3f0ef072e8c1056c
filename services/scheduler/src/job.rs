//! A job as the service holds it: the parts of its record that decide when it runs, and its health. Its text
//! stays in the store until a run needs it.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use creel_proto::scheduler::v1::{
    self as proto, AlertRecord, JobRecord, JobSpec, JobStateRecord, Phase, RunKind, RunRecord, RunState,
    WorkKind,
};
use creel_schedule::{Schedule, Zones};
use jiff::Timestamp;
use prost::Message as _;

use crate::{
    admission::SkipReason,
    backfill::Backfill,
    health::{Durations, Recent, expected_ms},
    id::{JobId, RunId},
    policy::{Policy, quarantine_ms},
    spec::{Origin, Spec},
    store::RunRef,
};

/// The reason of a pause that the owner's revocation caused.
pub(crate) const OWNER_REVOKED: &str = "owner_revoked";
/// The reason of a pause that the spec's `disabled` caused.
pub(crate) const DISABLED: &str = "disabled";
/// The reason of a pause until a person has approved an agent's job.
pub(crate) const APPROVAL: &str = "approval";

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
    /// The session of the agent's turn that made it.
    pub(crate) context: Option<Arc<str>>,
    /// It is deleted once whoever is told of its failure is told.
    pub(crate) doomed: bool,
}

/// What it does, or why it can't.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Shared by jobs that are the same in all of it: most of a million jobs are one of a few kinds.
    Sound(Arc<Sound>),
    /// Its record can't be used: it is named, and left alone.
    Broken(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sound {
    pub(crate) schedule: Schedule,
    pub(crate) kind: WorkKind,
    pub(crate) policy: Policy,
    pub(crate) disabled: bool,
    pub(crate) delete_after: DeleteAfter,
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
            kind: spec.kind,
            policy: spec.policy,
            disabled: spec.proto.disabled,
            delete_after: DeleteAfter::of(&spec.proto),
        }
    }
}

/// How a job is: what every job needs, and through [`Deref`] what only a job needs that ran or was held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Counts changes by people.
    pub(crate) version: u64,
    pub(crate) cursor_ms: i64,
    pub(crate) completed: bool,
    /// Runs that have not ended, oldest first.
    pub(crate) active: Vec<RunRef>,
    rare: Option<Box<Rare>>,
}

/// What a job that never ran, and is not held, has none of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rare {
    pub(crate) pause: Option<String>,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) failures: u32,
    pub(crate) last: Option<Last>,
    pub(crate) manual_runs: u64,
    pub(crate) last_success: Option<RunRef>,
    pub(crate) last_failure: Option<RunRef>,
    pub(crate) recent: Recent,
    pub(crate) durations: Durations,
    /// After failures: no scheduled run before.
    pub(crate) backoff_until_ms: Option<i64>,
    pub(crate) alert: Option<Box<Alert>>,
    pub(crate) backfill: Option<Box<Backfill>>,
    /// Counts how often the job began anew after a clock that was set back.
    pub(crate) bumps: u64,
}

impl Rare {
    const NONE: Self = Self {
        pause: None,
        quarantine: None,
        failures: 0,
        last: None,
        manual_runs: 0,
        last_success: None,
        last_failure: None,
        recent: Recent::NONE,
        durations: Durations::NONE,
        backoff_until_ms: None,
        alert: None,
        backfill: None,
        bumps: 0,
    };
}

impl Deref for State {
    type Target = Rare;
    fn deref(&self) -> &Rare {
        static NONE: Rare = Rare::NONE;
        self.rare.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for State {
    fn deref_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Box::new(Rare::NONE))
    }
}

/// The last alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) at_ms: i64,
    pub(crate) reason: &'static str,
    /// Under way as long as it is `None`; then whether it was delivered, or why not.
    pub(crate) outcome: Option<Result<(), String>>,
    pub(crate) run: RunId,
}

/// Why somebody is told.
pub(crate) const ALERT_REASONS: [&str; 3] = ["failures", "quarantined", "slow"];

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
    pub(crate) fn load(
        record: &JobRecord,
        state: Option<&JobStateRecord>,
        zones: &Zones,
        sounds: &mut Sounds,
    ) -> Self {
        let (name, plan) = match &record.spec {
            Some(spec) => {
                let origin = Origin {
                    zones,
                    anchor_ms: record.anchor_unix_ms,
                };
                let plan = match Spec::check(spec, origin) {
                    Ok(spec) => Plan::Sound(sounds.share(Sound::from(&spec), &spec.proto)),
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
            incarnation: record
                .incarnation
                .wrapping_add(state.map_or(0, |state| state.incarnation_bumps)),
            owner: record.owner.as_str().into(),
            name: name.into(),
            plan,
            state: state.map(State::of_record).unwrap_or_default(),
            wake_ms: None,
            open_skip: None,
            unpruned: 0,
            context: Some(record.context.as_str())
                .filter(|context| !context.is_empty())
                .map(Arc::from),
            doomed: false,
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
            context: None,
            doomed: false,
        }
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
                if !one_shot {
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

impl Alert {
    pub(crate) fn record(&self) -> AlertRecord {
        let (state, error) = self.shown();
        AlertRecord {
            at_unix_ms: self.at_ms,
            reason: self.reason.to_owned(),
            state: state.to_owned(),
            error: error.to_owned(),
            run_id: self.run.to_string(),
        }
    }

    /// The state and the error as they are shown.
    pub(crate) fn shown(&self) -> (&'static str, &str) {
        match &self.outcome {
            None => ("pending", ""),
            Some(Ok(())) => ("delivered", ""),
            Some(Err(error)) => ("failed", error),
        }
    }

    fn of_record(record: &AlertRecord) -> Option<Self> {
        let outcome = match record.state.as_str() {
            "pending" => None,
            "delivered" => Some(Ok(())),
            _ => Some(Err(record.error.clone())),
        };
        Some(Self {
            at_ms: record.at_unix_ms,
            reason: ALERT_REASONS.iter().find(|reason| **reason == record.reason)?,
            outcome,
            run: record.run_id.parse().ok()?,
        })
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
    /// A person changed or released the job: its failures so far say nothing any more.
    pub(crate) fn start_afresh(&mut self) {
        self.failures = 0;
        self.quarantine = None;
        self.recent = Recent::default();
        self.backoff_until_ms = None;
    }

    pub(crate) fn record(&self) -> JobStateRecord {
        let last = self.last.as_ref();
        let (recent_failures, recent_count) = self.recent.record();
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
            recent_failures,
            recent_count,
            durations_ms: self.durations.record(),
            backoff_until_unix_ms: self.backoff_until_ms.unwrap_or(0),
            alert: self.alert.as_ref().map(|alert| alert.record()),
            backfill: self.backfill.as_ref().map(|backfill| backfill.record()),
            incarnation_bumps: self.bumps,
        }
    }

    /// A job that was just made.
    pub(crate) fn new(cursor_ms: i64) -> Self {
        Self {
            version: 1,
            cursor_ms,
            ..Self::default()
        }
    }

    pub(crate) fn of_record(record: &JobStateRecord) -> Self {
        let reference = |one: &Option<_>| one.as_ref().and_then(RunRef::of_record);
        let rare = Rare {
            pause: record.paused.then(|| record.paused_reason.clone()),
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
            last_success: reference(&record.last_success),
            last_failure: reference(&record.last_failure),
            recent: Recent::of_record(record.recent_failures, record.recent_count),
            durations: Durations::of_record(&record.durations_ms),
            backoff_until_ms: Some(record.backoff_until_unix_ms).filter(|until| *until != 0),
            alert: record.alert.as_ref().and_then(Alert::of_record).map(Box::new),
            backfill: record.backfill.as_ref().map(Backfill::of_record).map(Box::new),
            bumps: record.incarnation_bumps,
        };
        Self {
            version: record.version,
            cursor_ms: record.cursor_unix_ms,
            completed: record.completed,
            active: record.active.iter().filter_map(RunRef::of_record).collect(),
            rare: Some(rare).filter(|rare| *rare != Rare::NONE).map(Box::new),
        }
    }
}

/// Plans that are the same are one. As many as there are different ones among the jobs that were loaded.
#[derive(Debug, Default)]
pub(crate) struct Sounds(BTreeMap<Vec<u8>, Arc<Sound>>);

impl Sounds {
    /// The plan itself, or the same one of another job.
    pub(crate) fn share(&mut self, sound: Sound, spec: &JobSpec) -> Arc<Sound> {
        let key = JobSpec {
            schedule: spec.schedule.clone(),
            policy: spec.policy.clone(),
            ..JobSpec::default()
        };
        let known = self
            .0
            .entry(key.encode_to_vec())
            .or_insert_with(|| Arc::new(sound.clone()));
        // The key leaves out what seldom differs, such as the anchor of an interval.
        if **known == sound {
            Arc::clone(known)
        } else {
            Arc::new(sound)
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
            delete_after: DeleteAfter::Never,
        };
        let mut job = Job::unreadable(JobId::new(0, &[0; 10]), String::new());
        job.plan = Plan::Sound(Arc::new(sound));
        job
    }

    #[test]
    fn a_million_jobs_that_never_ran_stay_small() {
        let job = job(1);
        assert!(size_of::<Job>() <= 176, "{} bytes", size_of::<Job>());
        assert_eq!(job.state.rare, None, "nothing is held for what it does not have");
        let Plan::Sound(sound) = job.plan else {
            panic!("it is sound")
        };
        let (mut sounds, spec) = (Sounds::default(), JobSpec::default());
        let one = sounds.share((*sound).clone(), &spec);
        let same = sounds.share((*sound).clone(), &spec);
        assert!(Arc::ptr_eq(&one, &same));
        let other = Sound {
            disabled: true,
            ..(*sound).clone()
        };
        assert_eq!(*sounds.share(other.clone(), &spec), other);
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
        let job = Job::load(
            &record,
            Some(&JobStateRecord::default()),
            &Zones::bundled(),
            &mut Sounds::default(),
        );
        assert!(job.sound().is_none());
        assert_eq!(job.phase().0, Phase::Quarantined);
        assert!(job.phase().1.contains("no spec"));
    }
}
