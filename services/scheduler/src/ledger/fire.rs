//! Time passes: occurrences are admitted or skipped, delayed runs come up, leases end.

use creel_kit::outbox::Event;
use creel_proto::scheduler::v1::{RunKind, RunRecord, RunState, TombstoneRecord};
use creel_schedule::Schedule;

use super::{Ledger, flush::Effect};
use crate::{
    admission::{self, Decision, SkipReason, Step},
    id::{JobId, Occurrence, RunId},
    job::{DeleteAfter, Job},
    lease::Lease,
    policy::{Policy, spread_ms},
    run::{End, Now, Place, Run},
    store::RunRef,
};

/// Jobs decided in one step; between steps others get their turn.
const MAX_DUE: usize = 4_096;
/// Runs handled of each other kind in one step.
const MAX_EACH: usize = 1_024;
/// What was missed is made up for within this.
pub(super) const MAX_SPREAD_MS: i64 = 60_000;

/// What is decided of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// What is due now.
    Now,
    /// Whatever waits holds back, too, so that a change of the rules can follow.
    Settled,
    /// And what only its jitter holds back, so that another schedule can follow: its instant is over, and is none of that.
    Instants,
}

impl Ledger {
    /// Does what is due, or as much as fits a step. With `held`, the wall clock is not believed: nothing is
    /// admitted and no cursor moves.
    pub(crate) fn tick(&mut self, now: Now, held: bool) {
        if !held {
            self.measure_backlog(now);
            self.runs.reserve(self.jobs.due_before(now.wall_ms + 1));
            for _ in 0..MAX_DUE {
                match self.jobs.next_due(now.wall_ms) {
                    Some(id) if !self.changes.is_heavy(id) => self.decide(id, now, Due::Now),
                    _ => break,
                }
            }
            for _ in 0..MAX_EACH {
                match self.delayed.first() {
                    Some((at, run_id)) if *at <= now.wall_ms => self.delay_over(*run_id, now),
                    _ => break,
                }
            }
            for _ in 0..MAX_EACH {
                match self.parked.first() {
                    Some((at, run_id)) if *at <= now.wall_ms => self.parking_over(*run_id, now),
                    _ => break,
                }
            }
        }
        self.realign(now);
        self.advance_backfills(now);
        for _ in 0..MAX_EACH {
            match self.slows.first() {
                Some((at, run_id)) if *at <= now.mono_ms => self.slow(*run_id, now),
                _ => break,
            }
        }
        for _ in 0..MAX_EACH {
            match self.expiries.first() {
                Some((at, run_id)) if *at <= now.mono_ms => self.expire(*run_id, now),
                _ => break,
            }
        }
        self.assign(now);
    }

    /// When a loaded or changed job is looked at first.
    pub(super) fn first_wake(&self, id: JobId, job: &Job) -> Option<i64> {
        let sound = job.sound()?;
        if job.state.completed {
            return None;
        }
        let view = self.view_of(id, job)?;
        let decision = admission::decide(self.guards, i64::MIN / 2, &view);
        let probe = job.state.quarantine.map(|quarantine| quarantine.until_ms);
        let wake = decision.wake_ms.map(|at| at.max(job.state.cursor_ms));
        let done = wake.is_none() && matches!(sound.schedule, Schedule::At(_));
        // A one-shot whose run is over, cut off before that was noted: the next look notes it.
        let wake = if done && job.state.active.is_empty() {
            Some(job.state.cursor_ms)
        } else {
            wake
        };
        [wake, probe].into_iter().flatten().min()
    }

    fn view_of<'a>(&self, id: JobId, job: &'a Job) -> Option<admission::View<'a>> {
        let sound = job.sound()?;
        let (active, waiting) = self.overlapping(job);
        Some(admission::View {
            schedule: &sound.schedule,
            policy: &sound.policy,
            job: id.bytes(),
            cursor_ms: job.state.cursor_ms,
            finished_ms: job.finished_ms(),
            hold: job.hold(),
            active,
            waiting,
            grace_ms: self.config.grace_ms,
            catch_up_from_ms: self.catch_up_from_ms,
            backoff_until_ms: job.state.backoff_until_ms.unwrap_or(i64::MIN),
        })
    }

    /// How many runs of a job its overlap counts, and how many of them no worker has.
    pub(super) fn overlapping(&self, job: &Job) -> (usize, usize) {
        let runs = job.state.active.iter().filter_map(|at| self.runs.get(&at.run));
        runs.filter(|run| run.overlaps())
            .fold((0, 0), |(active, waiting), run| {
                (active + 1, waiting + usize::from(run.lease.is_free()))
            })
    }

    /// Decides what is due of one job.
    pub(super) fn decide(&mut self, id: JobId, now: Now, what: Due) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.state.completed {
            return self.jobs.wake(id, None);
        }
        let Some(mut view) = self.view_of(id, job) else {
            return self.jobs.wake(id, None);
        };
        if what != Due::Now {
            view.catch_up_from_ms = i64::MIN;
            if now.wall_ms < std::mem::replace(&mut view.backoff_until_ms, i64::MIN) {
                view.hold = view.hold.or(Some(SkipReason::Backoff));
            }
        }
        let prompt;
        if what == Due::Instants {
            prompt = Policy {
                jitter_ms: 0,
                ..*view.policy
            };
            view.policy = &prompt;
        }
        let decision = admission::decide_in(&mut self.scratch, self.guards, now.wall_ms, &view);
        self.apply(id, &decision, now);
        self.scratch.reuse(decision);
    }

    fn apply(&mut self, id: JobId, decision: &Decision, now: Now) {
        if decision.replace {
            let active = self
                .jobs
                .get(&id)
                .map(|job| job.state.active.clone())
                .unwrap_or_default();
            for at in active {
                if self.runs.get(&at.run).is_some_and(Run::overlaps) {
                    self.stop(at.run, SkipReason::Overlap.as_str(), now);
                }
            }
        }
        let mut admitted = false;
        // The common case, and the one that comes in thousands: one run, on time, and nothing else to write.
        let packed = match decision.steps.as_slice() {
            [
                Step::Admit {
                    nominal_ms,
                    late: false,
                },
            ] if !decision.replace && decision.cursor_ms == *nominal_ms => self.pack(id, *nominal_ms, now),
            _ => false,
        };
        for step in decision.steps.iter().filter(|_| !packed) {
            match *step {
                Step::Admit { nominal_ms, late } => {
                    let delay = if late {
                        spread_ms(id.bytes(), nominal_ms, self.spread_ms)
                    } else {
                        0
                    };
                    admitted |= self
                        .admit(id, RunKind::Scheduled, nominal_ms, None, delay, now)
                        .is_some();
                }
                Step::Skip {
                    first_ms,
                    last_ms,
                    count,
                    reason,
                } => {
                    self.skip(id, first_ms, last_ms, count, reason, now);
                }
            }
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // It never moves back: what was decided once stays decided.
        if decision.cursor_ms > job.state.cursor_ms {
            job.state.cursor_ms = decision.cursor_ms;
            self.changes.state(id);
        }
        let mut wake = decision.wake_ms;
        if let Some(quarantine) = job.state.quarantine {
            // Whatever runs may end the quarantine; its end has this looked at again.
            let busy = job
                .state
                .active
                .iter()
                .any(|at| self.runs.get(&at.run).is_some_and(Run::overlaps));
            if !busy && job.hold() == Some(SkipReason::Quarantined) {
                if now.wall_ms >= quarantine.until_ms && !admitted {
                    self.admit(id, RunKind::Probe, quarantine.until_ms, None, 0, now);
                } else {
                    wake = Some(wake.map_or(quarantine.until_ms, |at| at.min(quarantine.until_ms)));
                }
            }
        }
        self.complete_if_over(id, wake);
        self.jobs.wake(id, wake);
        self.enqueue(id, now);
        self.show_next(id, now);
    }

    /// A job that is never due again is completed when its last run has ended.
    fn complete_if_over(&mut self, id: JobId, wake: Option<i64>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if wake.is_none() && job.state.active.is_empty() && !job.state.completed {
            job.state.completed = true;
            self.changes.state(id);
        }
    }

    /// Deletes a job that is not to outlive its run. False: it stays.
    fn delete_if_over(&mut self, id: JobId, kind: RunKind, state: RunState, now: Now) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let Some(sound) = job.sound() else { return false };
        let over = match (sound.delete_after, kind) {
            (DeleteAfter::OnSuccess, RunKind::Scheduled) => state == RunState::Succeeded,
            (DeleteAfter::Always, RunKind::Scheduled) => true,
            (DeleteAfter::Never, _) | (_, _) => false,
        };
        if over {
            job.state.doomed = true;
            self.changes.state(id);
        }
        // Whoever is told of its failure is told first.
        let telling = |at: &RunRef| {
            self.runs
                .get(&at.run)
                .is_some_and(|run| run.kind == RunKind::Alert)
        };
        if !job.state.doomed || job.state.active.iter().any(telling) {
            return false;
        }
        let (name, owner) = (job.name.to_string(), job.owner.to_string());
        let event = Event::new("job.deleted", format!("job/{id}"), format!("job/{id}")).with("name", &name);
        // Without its record it stays, completed.
        let Ok(audit) = self.audit(event.with("reason", "delete_after")) else {
            return false;
        };
        let tombstone = TombstoneRecord {
            job_id: id.to_string(),
            name,
            deleted_at_unix_ms: now.wall_ms,
            owner,
        };
        self.remove(id, tombstone, now);
        self.changes.extra(id, audit);
        true
    }

    /// A run ended: its job may be over, or may be due again.
    pub(super) fn after_run(&mut self, id: JobId, kind: RunKind, state: RunState, now: Now) {
        if self.delete_if_over(id, kind, state, now) {
            return;
        }
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(sound) = job.sound() else { return };
        if job.unpruned > sound.policy.keep_runs.div_ceil(4)
            && let Some(job) = self.jobs.get_mut(&id)
        {
            job.unpruned = 0;
            self.changes.effect(Effect::Prune(id));
        }
        let Some(job) = self.jobs.get(&id) else { return };
        if job.state.backfill.is_some() {
            self.backfilling.insert(id);
        }
        // The next look decides; in the past of a clock that was set back there is nothing to do.
        let wake = self.first_wake(id, job);
        self.complete_if_over(id, wake);
        self.jobs.wake(id, wake);
        self.enqueue(id, now);
        self.show_next(id, now);
    }

    /// Forgets a job and ends its runs: their workers are told, what they still say is fenced. The records of
    /// the runs stay until the tombstone goes.
    pub(super) fn remove(&mut self, id: JobId, tombstone: TombstoneRecord, now: Now) {
        let Some(job) = self.take(id) else { return };
        self.invalid.remove(&id);
        self.backfilling.remove(&id);
        self.figures.job_gone(&job.name);
        self.changes.gone(id, tombstone);
        for at in &job.state.active {
            let Some(run) = self.runs.get_mut(&at.run).filter(|run| run.end.is_none()) else {
                continue;
            };
            run.cancel = Some("job_deleted".to_owned());
            if let Some(stream) = run
                .lease
                .held()
                .filter(|held| held.sent)
                .and_then(|held| held.stream)
            {
                let message = super::messages::cancel_message(run);
                self.changes.effect(Effect::Send(stream, Box::new(message)));
            }
            self.end(at.run, End::new(RunState::Cancelled, "job_deleted", ""), now);
        }
    }

    /// Admits a run, `delay_ms` from now at the earliest. `None`: there is no such job, or the very run is there.
    pub(super) fn admit(
        &mut self,
        id: JobId,
        kind: RunKind,
        nominal_ms: i64,
        request: Option<&str>,
        delay_ms: i64,
        now: Now,
    ) -> Option<RunId> {
        let run = self.make_run(id, kind, nominal_ms, request, delay_ms, now)?;
        self.changes.new_run(id, run);
        self.changes.state(id);
        Some(run)
    }

    /// Makes a run, and writes nothing.
    pub(super) fn make_run(
        &mut self,
        id: JobId,
        kind: RunKind,
        nominal_ms: i64,
        request: Option<&str>,
        delay_ms: i64,
        now: Now,
    ) -> Option<RunId> {
        let job = self.jobs.get_mut(&id)?;
        let incarnation = job.incarnation;
        let run = RunId::of(Occurrence {
            job: id,
            incarnation,
            kind,
            request,
            nominal_ms,
        });
        if self.runs.contains(&run) {
            return None;
        }
        let at = RunRef {
            admitted_ms: now.wall_ms,
            run,
        };
        let work = job.sound()?.kind;
        // Most have one: room for four would be most of what a waiting job takes.
        job.state.active.reserve_exact(1);
        job.state.active.push(at);
        job.open_skip = None;
        let mut made = Run {
            at,
            job: id,
            incarnation,
            owner: job.owner.clone(),
            job_name: job.name.clone(),
            kind,
            work,
            nominal_ms,
            lease: Lease::default(),
            end: None,
            new: true,
            pack: None,
            place: Place::None,
            number: 0,
            course: None,
        };
        if delay_ms > 0 {
            made.not_before_ms = now.wall_ms + delay_ms;
        }
        self.runs.insert(made);
        Some(run)
    }

    /// Records skipped occurrences: one record as long as the reason stays and nothing runs in between.
    fn skip(&mut self, id: JobId, first_ms: i64, last_ms: i64, count: u64, reason: SkipReason, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.figures.skipped(&job.name, reason.as_str(), count);
        let grown = job
            .open_skip
            .as_mut()
            .filter(|open| open.reason == reason.as_str());
        let (record, new) = if let Some(open) = grown {
            open.skipped_count += count;
            open.skipped_until_unix_ms = last_ms;
            open.finished_at_unix_ms = now.wall_ms;
            (open.as_ref().clone(), false)
        } else {
            // The id of the first occurrence: it has no other. A swallowed one has a name of its own, since
            // the instant of the clock change may be another occurrence's.
            let request = (reason == SkipReason::Dst).then_some("dst");
            let kind = RunKind::Scheduled;
            let occurrence = Occurrence {
                job: id,
                incarnation: job.incarnation,
                kind,
                request,
                nominal_ms: first_ms,
            };
            let record = RunRecord {
                run_id: RunId::of(occurrence).to_string(),
                job_id: id.to_string(),
                job_name: job.name.to_string(),
                incarnation: job.incarnation,
                kind: kind.into(),
                state: RunState::Skipped.into(),
                nominal_unix_ms: first_ms,
                admitted_at_unix_ms: now.wall_ms,
                finished_at_unix_ms: now.wall_ms,
                reason: reason.as_str().to_owned(),
                skipped_count: count,
                skipped_until_unix_ms: last_ms,
                owner: job.owner.to_string(),
                ..RunRecord::default()
            };
            job.open_skip = Some(Box::new(record.clone()));
            job.unpruned += 1;
            (record, true)
        };
        let Ok(run) = record.run_id.parse() else { return };
        self.changes.skip(
            id,
            RunRef {
                admitted_ms: record.admitted_at_unix_ms,
                run,
            },
            record,
            new,
        );
        self.changes.state(id);
    }

    fn delay_over(&mut self, run_id: RunId, now: Now) {
        self.unqueue(run_id);
        if let Some(id) = self.runs.get(&run_id).map(|run| run.job) {
            self.enqueue(id, now);
        }
    }

    /// After a gap, what was missed is made up for slowly: 200 runs a second, over a minute at most.
    fn measure_backlog(&mut self, now: Now) {
        let gap = self
            .last_tick_ms
            .is_none_or(|last| now.wall_ms - last > self.config.grace_ms);
        self.last_tick_ms = Some(now.wall_ms);
        if gap {
            let late = self.jobs.due_before(now.wall_ms - self.config.grace_ms);
            let late = i64::try_from(late).unwrap_or(i64::MAX);
            self.spread_ms = late.saturating_mul(5).min(MAX_SPREAD_MS);
        }
    }

    pub(super) fn show_next(&mut self, id: JobId, now: Now) {
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.unlabelled) {
            let next_ms = || job.next_run_ms(now.wall_ms);
            job.unlabelled = !self.figures.next_run(&job.name, next_ms);
        }
    }
}
