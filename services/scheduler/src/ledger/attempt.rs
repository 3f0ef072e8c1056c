//! Attempts end: stopped, timed out, lost, failed; and the next one follows, or the end of the run.

use creel_kit::outbox::Event;
use creel_proto::scheduler::v1::{RunKind, RunRecord, RunState};
use creel_wire::Error;

use super::{Ledger, change::run_finished, flush::Effect};
use crate::{
    admission,
    id::{JobId, RunId},
    lease::Expiry,
    policy::{MAX_INTERRUPTIONS, OnStuck, Overlap},
    run::{End, Now, cut},
};

impl Ledger {
    /// Ends a run that no worker has begun; asks the worker of any other to stop.
    pub(super) fn stop(&mut self, run_id: RunId, reason: &str, now: Now) {
        let times = self.times();
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        if run.end.is_some() {
            return;
        }
        self.give_back(run_id);
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        if run.lease.is_free() || run.lease.is_parked() {
            return self.end(run_id, End::new(RunState::Cancelled, &cut(reason, 64), ""), now);
        }
        if run.cancel.is_none() {
            run.cancel = Some(cut(reason, 64));
        }
        let stream = run.lease.cancel(now.mono_ms, times).flatten();
        let id = run.job;
        if let Some(stream) = stream {
            let message = super::messages::cancel_message(run);
            self.changes.effect(Effect::Send(stream, Box::new(message)));
        }
        self.changes.run(id, run_id);
        self.watch(run_id);
    }

    /// Takes a run away from whoever has it, without waiting for an answer.
    pub(crate) fn reset(
        &mut self,
        owner: &str,
        run_id: RunId,
        retry: bool,
        principal: &str,
        now: Now,
    ) -> Result<(JobId, RunRecord), Error> {
        let known = self.runs.get(&run_id).filter(|run| &*run.owner == owner);
        let Some(known) = known.filter(|run| run.end.is_none()) else {
            return Err(run_finished());
        };
        let id = known.job;
        let holder = known
            .lease
            .held()
            .filter(|held| held.sent)
            .and_then(|held| held.stream);
        let attempt = known.lease.attempt();
        let event = Event::new("run.reset", principal, format!("run/{run_id}"))
            .with("job", id)
            .with("retry", retry);
        let audit = self.audit(event)?;
        if let Some(stream) = holder {
            let message = super::messages::fenced_message(run_id, attempt);
            self.changes.effect(Effect::Send(stream, Box::new(message)));
        }
        if retry {
            self.unqueue(run_id);
            self.leave_parking(run_id);
            self.again(run_id, 0, now);
        } else {
            self.end(run_id, End::new(RunState::Cancelled, "reset", ""), now);
        }
        self.changes.extra(id, audit);
        self.assign(now);
        let run = self.runs.get(&run_id).ok_or_else(run_finished)?;
        Ok((id, run.record()))
    }

    /// A lease or a deadline is over.
    pub(super) fn expire(&mut self, run_id: RunId, now: Now) {
        let guards = self.guards;
        let Some(run) = self.runs.get(&run_id) else { return };
        let cancel = run.cancel.clone();
        match run.lease.expired(guards, now.mono_ms) {
            None => self.watch(run_id),
            Some(_) if self.give_back(run_id) => {
                tracing::warn!(run = %run_id, "a worker has not begun what it was sent: it is given away again");
            }
            Some(Expiry::TimedOut) => self.stop(run_id, "timeout", now),
            Some(Expiry::Lost | Expiry::Unanswered) => match cancel.as_deref() {
                Some("timeout") => {
                    self.failed(run_id, End::new(RunState::TimedOut, "timeout", ""), true, now)
                }
                Some(reason) => self.end(run_id, End::new(RunState::Cancelled, reason, ""), now),
                None => self.lost(run_id, now),
            },
        }
    }

    /// A worker is gone with a run.
    pub(super) fn lost(&mut self, run_id: RunId, now: Now) {
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        run.interruptions += 1;
        let spent = run.interruptions > MAX_INTERRUPTIONS;
        match self.policy_of(run_id).map(|policy| policy.on_stuck) {
            Some(OnStuck::Retry) if !spent => self.again(run_id, 0, now),
            Some(OnStuck::Retry) => {
                let error = "its workers were lost again and again";
                self.end(run_id, End::new(RunState::Failed, "interrupted", error), now);
            }
            _ => {
                let error = "its worker is gone; how far it came is not known";
                self.end(run_id, End::new(RunState::Stuck, "lost", error), now);
            }
        }
    }

    /// An attempt failed: the next one, or the end. `unsure`: it may still be running somewhere.
    pub(super) fn failed(&mut self, run_id: RunId, end: End, unsure: bool, now: Now) {
        let random = (self.random)();
        let Some(policy) = self.policy_of(run_id) else {
            return self.end(run_id, end, now);
        };
        let Some(run) = self.runs.get(&run_id) else { return };
        let attempt = run.attempts_used();
        let wait_ms = policy.retry.wait_ms(attempt, random);
        let doubled = unsure && policy.on_stuck == OnStuck::Fail;
        let replaced = policy.overlap == Overlap::Replace && run.cancel.as_deref() == Some("overlap");
        // A retry never outlives the next occurrence.
        let next = self.jobs.get(&run.job).and_then(|job| {
            let sound = job
                .sound()
                .filter(|sound| !admission::is_fixed_delay(&sound.schedule))?;
            admission::next_ms(&sound.schedule, job.state.cursor_ms.max(run.nominal_ms))
        });
        let in_time = policy.retry.past_next || next.is_none_or(|next| now.wall_ms + wait_ms < next);
        if attempt < policy.retry.attempts && in_time && !doubled && !replaced && run.kind != RunKind::Probe {
            self.again(run_id, wait_ms, now);
        } else {
            self.end(run_id, end, now);
        }
    }

    pub(super) fn policy_of(&self, run_id: RunId) -> Option<crate::policy::Policy> {
        let run = self.runs.get(&run_id)?;
        let policy = self.jobs.get(&run.job)?.sound()?.policy;
        Some(match run.kind {
            RunKind::Alert => policy.of_alert(),
            _ => policy,
        })
    }

    /// The next attempt of a run, not before `wait_ms` from now.
    pub(super) fn again(&mut self, run_id: RunId, wait_ms: i64, now: Now) {
        self.pace(run_id, None);
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        if let Some(worker) = run
            .lease
            .held()
            .and_then(|held| held.stream)
            .and_then(|s| self.workers.get_mut(&s))
        {
            worker.holding.remove(&run_id);
        }
        run.lease.again();
        run.slow = false;
        run.cancel = None;
        run.started_ms = 0;
        run.session.clear();
        run.not_before_ms = if wait_ms > 0 { now.wall_ms + wait_ms } else { 0 };
        let id = run.job;
        self.watch(run_id);
        self.changes.run(id, run_id);
        self.enqueue(id, now);
    }
}
