//! What people change. Everything that can refuse comes first; then the audit record, then the change.

use std::sync::Arc;

use creel_kit::outbox::Event;
use creel_proto::scheduler::v1::{JobRecord, RunKind, RunRecord, RunState, TombstoneRecord};
use creel_schedule::Schedule;
use creel_wire::{Code, Error};

use super::{Ledger, fire::Due, quoted};
use crate::{
    grpc::MAX_PER_CONTEXT,
    id::{JobId, RunId},
    job::{APPROVAL, Job, OWNER_REVOKED, Plan, Sound, State},
    policy::Overlap,
    run::{Now, Run},
    spec::Spec,
};

/// Rounds of deciding before a change; each looks at 100,000 instants.
const SETTLE_ROUNDS: usize = 20;

/// Who changes what, for rows and for the audit.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) job: JobId,
    pub(crate) principal: String,
    /// The state it must be in, if the client says.
    pub(crate) if_match: Option<u64>,
}

/// A job to make.
#[derive(Debug)]
pub(crate) struct Creation {
    pub(crate) id: JobId,
    pub(crate) record: JobRecord,
    pub(crate) spec: Spec,
    /// Occurrences up to here are none of its.
    pub(crate) cursor_ms: i64,
    pub(crate) principal: String,
}

/// An updated job.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) record: JobRecord,
    pub(crate) spec: Spec,
    /// The version that `record` was made from.
    pub(crate) base: u64,
}

impl Ledger {
    /// Whether one more job of that name fits.
    ///
    /// # Errors
    /// `name_taken`, or the limit that is reached.
    pub(crate) fn may_create(&self, owner: &str, name: &str, context: &str) -> Result<(), Error> {
        if self.resolve(owner, name).is_some() {
            return Err(name_taken(name));
        }
        let limit = |most: usize, whose: &str| {
            Error::new(
                Code::ResourceExhausted,
                "too_many_jobs",
                format!("{most} jobs {whose} is the most"),
            )
            .hint("creel cron list, then creel cron rm NAME")
        };
        if self.jobs.count_of(owner) >= self.config.max_jobs_per_owner {
            return Err(limit(self.config.max_jobs_per_owner, "per owner"));
        }
        if self.jobs.len() >= self.config.max_jobs {
            return Err(limit(self.config.max_jobs, "in all"));
        }
        if self
            .contexts
            .get(context)
            .is_some_and(|count| *count >= MAX_PER_CONTEXT)
        {
            let message = format!("{MAX_PER_CONTEXT} jobs that agents make in one conversation is the most");
            return Err(Error::new(Code::PermissionDenied, "agent_limit", message)
                .hint("ask a person to remove one, or to make this job"));
        }
        Ok(())
    }

    pub(crate) fn create(&mut self, creation: Creation, now: Now) -> Result<(), Error> {
        let Creation {
            id,
            record,
            spec,
            cursor_ms,
            principal,
        } = creation;
        self.may_create(&record.owner, &spec.proto.name, &record.context)?;
        let mut event =
            Event::new("job.created", principal, format!("job/{id}")).with("name", &spec.proto.name);
        let context = Some(record.context.as_str()).filter(|context| !context.is_empty());
        // Nobody has seen yet what an agent made, unless somebody said that this needs none.
        let unseen = context.is_some_and(|context| !self.is_granted(context));
        if context.is_some() {
            event = event.with("approval", if unseen { "waits" } else { "granted" });
        }
        let audit = self.audit(event)?;
        let job = Job {
            incarnation: record.incarnation,
            owner: record.owner.as_str().into(),
            name: spec.proto.name.as_str().into(),
            plan: Plan::Sound(Sound::from(&spec)),
            state: State::new(cursor_ms),
            context: context.map(Arc::from),
            open_skip: None,
            unpruned: 0,
            unlabelled: false,
        };
        let job = if unseen { job.paused(APPROVAL) } else { job };
        self.add(id, job);
        self.changes.record(id, record);
        self.changes.state(id);
        self.changes.extra(id, audit);
        self.decide(id, now, Due::Now);
        self.assign(now);
        Ok(())
    }

    pub(crate) fn update(&mut self, target: &Target, changed: Changed, now: Now) -> Result<(), Error> {
        self.check(target)?;
        let id = target.job;
        let Some(job) = self.jobs.get(&id) else {
            return Err(gone());
        };
        if job.state.version != changed.base {
            return Err(stale());
        }
        let name = changed.spec.proto.name.as_str();
        let renamed = name != &*job.name;
        if renamed && self.resolve(&job.owner, name).is_some_and(|other| other != id) {
            return Err(name_taken(name));
        }
        let sound = Sound::from(&changed.spec);
        let rescheduled = job.sound().is_none_or(|before| before.schedule != sound.schedule);
        // Up to now the old rules hold.
        let due = if rescheduled { Due::Instants } else { Due::Settled };
        self.settle(id, due, now)?;
        let event = Event::new("job.updated", &target.principal, format!("job/{id}")).with("name", name);
        let audit = self.audit(event)?;
        let Some(mut job) = self.take(id) else {
            return Err(gone());
        };
        if rescheduled {
            job.state.cursor_ms = job.state.cursor_ms.max(now.wall_ms);
            job.state.completed = false;
            // Its instants were the old schedule's.
            job.state.backfill = None;
        }
        job.name = name.into();
        job.unlabelled = false;
        job.plan = Plan::Sound(sound);
        job.state.version += 1;
        job.state.start_afresh();
        job.open_skip = None;
        self.invalid.remove(&id);
        self.add(id, job);
        self.changes.record(id, changed.record);
        self.changes.extra(id, audit);
        self.restart(id, now);
        Ok(())
    }

    pub(crate) fn delete(&mut self, target: &Target, now: Now) -> Result<(), Error> {
        self.check(target)?;
        let id = target.job;
        let Some(job) = self.jobs.get(&id) else {
            return Err(gone());
        };
        let (name, owner) = (job.name.to_string(), job.owner.to_string());
        let event = Event::new("job.deleted", &target.principal, format!("job/{id}")).with("name", &name);
        let audit = self.audit(event)?;
        self.remove(
            id,
            TombstoneRecord {
                job_id: id.to_string(),
                name,
                deleted_at_unix_ms: now.wall_ms,
                owner,
            },
            now,
        );
        self.changes.extra(id, audit);
        self.assign(now);
        Ok(())
    }

    pub(crate) fn pause(&mut self, target: &Target, reason: &str, now: Now) -> Result<(), Error> {
        self.check(target)?;
        let id = target.job;
        self.settle(id, Due::Settled, now)?;
        let event = Event::new("job.paused", &target.principal, format!("job/{id}")).with("reason", reason);
        let audit = self.audit(event)?;
        let Some(job) = self.jobs.get_mut(&id) else {
            return Err(gone());
        };
        job.state.pause = Some(reason.to_owned());
        job.state.version += 1;
        job.open_skip = None;
        self.changes.extra(id, audit);
        self.restart(id, now);
        Ok(())
    }

    /// Lifts a pause and a quarantine. `enabled` is its record if the spec itself disabled it.
    pub(crate) fn resume(
        &mut self,
        target: &Target,
        enabled: Option<JobRecord>,
        now: Now,
    ) -> Result<(), Error> {
        self.check(target)?;
        let id = target.job;
        // What came up meanwhile is skipped, with the reason, before the hold goes.
        self.settle(id, Due::Settled, now)?;
        let pause = self.jobs.get(&id).and_then(|job| job.state.pause.as_deref());
        let action = if pause == Some(APPROVAL) {
            "job.approved"
        } else {
            "job.resumed"
        };
        let audit = self.audit(Event::new(action, &target.principal, format!("job/{id}")))?;
        let Some(job) = self.jobs.get_mut(&id) else {
            return Err(gone());
        };
        job.state.pause = None;
        job.state.start_afresh();
        job.state.version += 1;
        job.open_skip = None;
        if let (Some(record), Plan::Sound(sound)) = (enabled, &mut job.plan) {
            sound.disabled = false;
            self.changes.record(id, record);
        }
        self.changes.extra(id, audit);
        self.restart(id, now);
        Ok(())
    }

    /// Whether a job may be run now; its overlap, if it may.
    ///
    /// # Errors
    /// What keeps it from it.
    pub(crate) fn may_trigger(&self, target: &Target) -> Result<Overlap, Error> {
        self.check(target)?;
        let job = self.jobs.get(&target.job).ok_or_else(gone)?;
        let name = quoted(&job.name);
        let sound = match &job.plan {
            Plan::Sound(sound) => sound,
            Plan::Broken(why) => {
                return Err(Error::new(
                    Code::FailedPrecondition,
                    "invalid_record",
                    format!("the job's record is invalid: {why}"),
                )
                .hint(format!("creel cron edit {name}, or creel cron rm {name}")));
            }
        };
        if job.state.pause.as_deref() == Some(OWNER_REVOKED) {
            return Err(Error::new(
                Code::FailedPrecondition,
                OWNER_REVOKED,
                "its owner's grant was revoked",
            ));
        }
        let (active, waiting) = self.overlapping(job);
        let overlap = sound.policy.overlap;
        let admitted = match overlap {
            Overlap::Forbid => active == 0,
            Overlap::BufferOne => active == 0 || waiting == 0,
            Overlap::Allow { max } => active < max as usize,
            Overlap::Replace => true,
        };
        if !admitted {
            let message = "another run of this job is not over, and its policy forbids overlap";
            return Err(Error::new(Code::FailedPrecondition, "overlap", message)
                .hint(format!("creel cron runs --job {name}")));
        }
        Ok(overlap)
    }

    /// Runs a job now, beside its schedule. A `request` that was used before answers the same run.
    pub(crate) fn trigger(&mut self, target: &Target, request: &str, now: Now) -> Result<RunRecord, Error> {
        let overlap = self.may_trigger(target)?;
        let id = target.job;
        let Some(job) = self.jobs.get(&id) else {
            return Err(gone());
        };
        let replaced = if overlap == Overlap::Replace {
            job.state.active.clone()
        } else {
            Vec::new()
        };
        let number = (job.state.manual_runs + 1).to_string();
        let event = Event::new("job.triggered", &target.principal, format!("job/{id}"));
        let audit = self.audit(event)?;
        for at in replaced {
            if self.runs.get(&at.run).is_some_and(Run::overlaps) {
                self.stop(at.run, "overlap", now);
            }
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return Err(gone());
        };
        job.state.manual_runs += 1;
        let request = if request.is_empty() {
            number
        } else {
            format!("request:{request}")
        };
        let Some(run) = self.admit(id, RunKind::Manual, now.wall_ms, Some(&request), 0, now) else {
            return Err(stale());
        };
        self.changes.extra(id, audit);
        self.enqueue(id, now);
        self.assign(now);
        self.runs.get(&run).map(Run::record).ok_or_else(gone)
    }

    /// Ends a run, or asks its worker to end it.
    pub(crate) fn cancel(
        &mut self,
        owner: &str,
        run: RunId,
        reason: &str,
        principal: &str,
        now: Now,
    ) -> Result<(JobId, RunRecord), Error> {
        let known = self.runs.get(&run).filter(|run| &*run.owner == owner);
        let Some(known) = known else {
            return Err(Error::not_found("run that has not ended", &run.to_string()));
        };
        if let Some(end) = &known.end
            && end.state != RunState::Cancelled
        {
            return Err(run_finished());
        }
        let id = known.job;
        if known.end.is_none() && known.cancel.is_none() {
            let event = Event::new("run.cancelled", principal, format!("run/{run}"))
                .with("job", id)
                .with("reason", reason);
            let audit = self.audit(event)?;
            self.stop(run, if reason.is_empty() { "cancelled" } else { reason }, now);
            self.changes.extra(id, audit);
            self.assign(now);
        }
        self.runs.get(&run).map(|run| (id, run.record())).ok_or_else(gone)
    }

    /// Its owner may not have it run any more.
    pub(super) fn hold_for_owner(&mut self, id: JobId, now: Now) {
        if self.jobs.get(&id).is_none_or(|job| job.state.pause.is_some()) {
            return;
        }
        let event =
            Event::new("job.paused", "service/scheduler", format!("job/{id}")).with("reason", OWNER_REVOKED);
        // No change without its record: the next run is refused as well, and then it is paused.
        let Ok(audit) = self.audit(event) else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        tracing::warn!(job = %id, name = %job.name, "paused: its owner was revoked");
        job.state.pause = Some(OWNER_REVOKED.to_owned());
        job.state.version += 1;
        job.open_skip = None;
        self.changes.extra(id, audit);
        self.restart(id, now);
    }

    /// The version of a job, for etags.
    pub(crate) fn check(&self, target: &Target) -> Result<(), Error> {
        let job = self.jobs.get(&target.job).ok_or_else(gone)?;
        match target.if_match {
            Some(version) if version != job.state.version => Err(stale()),
            _ => Ok(()),
        }
    }

    /// Decides all that is due of a job before its rules change.
    fn settle(&mut self, id: JobId, due: Due, now: Now) -> Result<(), Error> {
        for _ in 0..SETTLE_ROUNDS {
            self.decide(id, now, due);
            if self.jobs.wake_ms(id).is_none_or(|at| at > now.wall_ms) {
                return Ok(());
            }
            if self.changes.is_heavy(id) {
                break;
            }
        }
        let message = "the job is catching up with what it missed; try again";
        Err(Error::new(Code::Unavailable, "catching_up", message))
    }

    /// Takes the job's own runs that nobody has out of their queues: whether they may wait for a worker, how many, and
    /// for one of which kind, is the new rules' to say. What was on its way to a worker of another kind comes back.
    fn line_up_anew(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(kind) = job.sound().map(|sound| sound.kind) else {
            return;
        };
        for at in job.state.active.clone() {
            self.unqueue(at.run);
            let own = |run: &&mut Run| run.kind != RunKind::Alert && run.end.is_none();
            if let Some(run) = self.runs.get_mut(&at.run).filter(own)
                && std::mem::replace(&mut run.work, kind) != kind
                && self.give_back(at.run)
            {
                self.unqueue(at.run);
            }
        }
    }

    /// Looks at a changed job anew.
    pub(super) fn restart(&mut self, id: JobId, now: Now) {
        self.changes.state(id);
        if self.jobs.get(&id).is_some_and(|job| job.state.backfill.is_some()) {
            self.backfilling.insert(id);
        }
        let wake = self.jobs.get(&id).and_then(|job| self.first_wake(id, job));
        self.jobs.wake(id, wake);
        self.show_next(id, now);
        self.line_up_anew(id);
        self.enqueue(id, now);
        self.assign(now);
    }

    /// The job of an owner's name.
    pub(crate) fn resolve(&self, owner: &str, name: &str) -> Option<JobId> {
        self.jobs.resolve(owner, name)
    }
}

pub(crate) fn name_taken(name: &str) -> Error {
    let shown = creel_wire::error::printable(name, 128);
    Error::new(
        Code::Conflict,
        "name_taken",
        format!("there is another job named `{shown}`"),
    )
    .field("spec.name")
    .hint(format!(
        "creel cron edit {} changes it; another name makes another job",
        quoted(name)
    ))
}

pub(crate) fn run_finished() -> Error {
    Error::new(Code::FailedPrecondition, "run_finished", "the run has ended")
}

pub(super) fn gone() -> Error {
    Error::new(Code::NotFound, "not_found", "there is no such job any more")
}

pub(crate) fn stale() -> Error {
    Error::new(Code::Conflict, "changed", "the job was changed by someone else")
        .field("if_match")
        .hint("read it again and repeat the change")
}

/// Whether a one-shot's time is over: such a job runs once, late, if its author allows that.
pub(crate) fn late_one_shot(schedule: &Schedule, now_ms: i64) -> Option<i64> {
    match schedule {
        Schedule::At(moment) => moment
            .instant()
            .map(|at| at.as_millisecond())
            .filter(|at| *at <= now_ms),
        Schedule::Every(_) | Schedule::Cron(_) => None,
    }
}
