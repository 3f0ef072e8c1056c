//! Workers: who is attached, which runs they hold, what is given to them and what they say about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use creel_proto::scheduler::v1::{
    RunState, SchedulerMessage, Work, WorkFinished, WorkResumed, scheduler_message::Message,
};

use super::{
    Ledger,
    flush::Effect,
    messages::{ack_message, begin_message, cancel_message, fenced_message},
    room::{Holding, Room, Worker},
    said::Named,
};
use crate::{
    dispatch::Made,
    id::RunId,
    job::OWNER_REVOKED,
    lane::Lane,
    lease::{Start, Verdict},
    mint::MintError,
    run::{End, Now, Place, Run, cut},
};

/// What a worker says first, checked.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) kinds: BTreeSet<i32>,
    /// Empty: it does not say.
    pub(crate) backends: BTreeSet<Arc<str>>,
    pub(crate) capacity: usize,
    pub(crate) instance: Arc<str>,
    pub(crate) holding: Vec<(RunId, u32)>,
}

/// How making the work of an attempt ended.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// It may go out. The payload's own limit of its time, if it has one, in milliseconds.
    Ready(Box<Work>, Option<i64>),
    /// The job's record could not be read.
    NoJob,
    /// There is no assertion for it.
    Refused(MintError),
}

/// Holds work back while identity can't be reached.
#[derive(Debug, Default)]
pub(super) struct MintGate {
    /// Monotonic milliseconds.
    from_ms: i64,
    wait_ms: i64,
}

impl MintGate {
    pub(super) fn wait_ms(&self, mono_ms: i64) -> Option<i64> {
        (self.from_ms > mono_ms).then(|| self.from_ms - mono_ms)
    }

    /// Identity could not be reached when it was asked last.
    pub(super) const fn is_shut(&self) -> bool {
        self.wait_ms > 0
    }

    fn shut(&mut self, mono_ms: i64) {
        // Many runs fail together; they are one failure.
        if self.from_ms <= mono_ms {
            self.wait_ms = (self.wait_ms * 2).clamp(500, 10_000);
            self.from_ms = mono_ms + self.wait_ms;
        }
    }
}

impl Ledger {
    /// A worker attaches. Its stream gets the welcome, then cancellations of what it holds in vain.
    pub(crate) fn attach_worker(&mut self, stream: u64, hello: Hello, welcome: SchedulerMessage, now: Now) {
        self.changes.effect(Effect::Send(stream, Box::new(welcome)));
        let before: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| !hello.instance.is_empty() && worker.instance == hello.instance)
            .map(|(stream, _)| *stream)
            .collect();
        for old in before {
            self.detach_worker(old, now);
            self.changes.effect(Effect::Close(old));
        }
        let Hello {
            kinds,
            backends,
            capacity,
            instance,
            holding,
        } = hello;
        let mut worker = Worker {
            kinds,
            backends,
            capacity,
            instance,
            holding: Holding::default(),
        };
        let times = self.times();
        for &(run_id, attempt) in &holding {
            let run = self.runs.get_mut(&run_id).filter(|run| run.end.is_none());
            match run.and_then(|run| run.lease.moved(attempt, Some(stream)).then_some(run)) {
                Some(run) => {
                    run.lease.renew(stream, attempt, Start::Began, now.mono_ms, times);
                    run.instance = Some(Arc::clone(&worker.instance));
                    let lane = self.jobs.get(&run.job).map_or(Lane::Unknown, Lane::of);
                    worker.holding.insert(run_id, lane.for_run(run));
                    if run.cancel.is_some() {
                        let message = cancel_message(run);
                        self.changes.effect(Effect::Send(stream, Box::new(message)));
                    }
                    self.watch(run_id);
                    self.pace(run_id, Some(now));
                }
                // It may have finished it before the ack was lost: stopping what is over does nothing, and its
                // repeated result gets its answer.
                None => {
                    let message = fenced_message(run_id, attempt);
                    self.changes.effect(Effect::Send(stream, Box::new(message)));
                }
            }
        }
        self.redeliver(&worker, now);
        self.workers.insert(stream, worker);
        self.assign(now);
    }

    /// What this very worker was sent and does not have, it never began.
    fn redeliver(&mut self, worker: &Worker, now: Now) {
        if worker.instance.is_empty() {
            return;
        }
        let missing: Vec<_> = self
            .runs
            .values()
            .filter(|run| run.end.is_none() && run.instance.as_ref() == Some(&worker.instance))
            .filter(|run| run.lease.held().is_some_and(|held| held.stream.is_none()))
            .map(Run::id)
            .filter(|run_id| !worker.holding.contains(run_id))
            .collect();
        for run_id in missing {
            let Some(run) = self.runs.get_mut(&run_id) else {
                continue;
            };
            match run.cancel.clone() {
                Some(reason) => self.end(run_id, End::new(RunState::Cancelled, &reason, ""), now),
                None => {
                    run.lease.again();
                    run.returned += 1;
                    self.freed(run_id);
                }
            }
        }
    }

    /// A stream ended. What it may have begun stays its worker's for a lease; all else is free again.
    pub(crate) fn detach_worker(&mut self, stream: u64, now: Now) {
        let Some(worker) = self.workers.remove(&stream) else {
            return;
        };
        for run_id in worker.holding.into_runs() {
            if !self.give_back(run_id)
                && let Some(run) = self.runs.get_mut(&run_id)
            {
                let attempt = run.lease.attempt();
                run.lease.moved(attempt, None);
            }
        }
        self.assign(now);
    }

    /// Frees an attempt that nobody began. False: it may have begun, or nobody had it.
    pub(super) fn give_back(&mut self, run_id: RunId) -> bool {
        let guards = self.guards;
        let Some(run) = self.runs.get_mut(&run_id) else {
            return false;
        };
        let (stream, sent) = run
            .lease
            .held()
            .map_or((None, false), |held| (held.stream, held.sent));
        let attempt = run.lease.attempt();
        if run.lease.take_back(guards).is_err() {
            return false;
        }
        run.returned += 1;
        if let Some(stream) = stream {
            if let Some(worker) = self.workers.get_mut(&stream) {
                worker.holding.remove(&run_id);
            }
            if sent {
                let message = fenced_message(run_id, attempt);
                self.changes.effect(Effect::Send(stream, Box::new(message)));
            }
        }
        self.freed(run_id);
        true
    }

    /// A run is nobody's again, and first of its owner's.
    fn freed(&mut self, run_id: RunId) {
        self.pace(run_id, None);
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        run.instance = None;
        run.started_ms = 0;
        let job = run.job;
        self.watch(run_id);
        self.changes.run(job, run_id);
        let Some(job) = self.jobs.get(&job) else { return };
        self.line_up(run_id, Lane::of(job));
    }

    /// Gives waiting runs to workers with room: the record says so before the work goes out.
    pub(super) fn assign(&mut self, now: Now) {
        if self.mint.wait_ms(now.mono_ms).is_some() {
            return;
        }
        let kinds: Vec<i32> = self
            .ready
            .iter()
            .filter(|(_, queue)| !queue.is_empty())
            .map(|(kind, _)| *kind)
            .collect();
        for kind in kinds {
            // Whoever has most room comes first; a handful of workers at most.
            let mut rooms: BTreeMap<u64, Room> = self
                .workers
                .iter()
                .filter(|(_, worker)| worker.kinds.contains(&kind))
                .map(|(stream, worker)| (*stream, worker.room()))
                .collect();
            while let Some((stream, room)) = rooms.iter_mut().max_by_key(|(_, room)| **room)
                && let Some(run_id) = self.next_for(kind, *room, now)
            {
                if self.give(run_id, *stream, now)
                    && let Some(worker) = self.workers.get(stream)
                {
                    *room = worker.room();
                }
            }
        }
    }

    fn give(&mut self, run_id: RunId, stream: u64, now: Now) -> bool {
        let Some(run) = self.runs.get_mut(&run_id) else {
            return false;
        };
        let lane = match std::mem::replace(&mut run.place, Place::None) {
            Place::Ready(lane) => lane,
            Place::None | Place::Delayed => Lane::Unknown,
        };
        let Some(worker) = self.workers.get_mut(&stream).filter(|_| run.lease.take(stream)) else {
            return false;
        };
        worker.holding.insert(run_id, lane);
        run.instance = Some(Arc::clone(&worker.instance));
        // Counts from here until the worker says that it began.
        run.started_ms = now.wall_ms;
        let (job, attempt) = (run.job, run.lease.attempt());
        self.figures.lateness(&run.job_name, now.wall_ms - run.nominal_ms);
        self.changes.run(job, run_id);
        self.changes.effect(Effect::Prepare(run_id, attempt));
        true
    }

    /// The record that gives an attempt away is durable. What to make its work from; `None` if it was taken back.
    pub(crate) fn persisted(&mut self, run_id: RunId, attempt: u32) -> Option<&Run> {
        let run = self.runs.get_mut(&run_id)?;
        run.lease.persisted(attempt);
        let waits = run.end.is_none()
            && run.lease.attempt() == attempt
            && run.lease.held().is_some_and(|held| !held.sent);
        waits.then_some(run)
    }

    /// The works of attempts are made, or can't be.
    pub(crate) fn prepared(&mut self, made: Vec<Made>, now: Now) {
        for (run_id, attempt, prepared) in made {
            self.send_out(run_id, attempt, prepared, now);
        }
        self.assign(now);
    }

    fn send_out(&mut self, run_id: RunId, attempt: u32, prepared: Prepared, now: Now) {
        let times = self.times();
        let guards = self.guards;
        let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.end.is_none()) else {
            return;
        };
        if run.lease.attempt() != attempt || run.lease.held().is_none_or(|held| held.sent) {
            return;
        }
        match prepared {
            Prepared::Ready(mut work, limit_ms) => {
                self.mint.wait_ms = 0;
                let policy_ms = self
                    .policy_of(run_id)
                    .map_or(i64::MAX, |policy| policy.timeout_ms);
                let timeout_ms = policy_ms.min(limit_ms.unwrap_or(i64::MAX));
                work.timeout = Some(creel_proto::time::duration(timeout_ms));
                let Some(run) = self.runs.get_mut(&run_id) else {
                    return;
                };
                work.kind = run.kind.into();
                work.resumed = run.parking.as_ref().map(|parking| WorkResumed {
                    approval_id: parking.approval.clone(),
                    attempt: parking.attempt,
                });
                // A refusal here means that it was taken back: whoever did that goes on with it.
                if let Ok(stream) = run.lease.send(guards, attempt, now.mono_ms, timeout_ms, times) {
                    let message = SchedulerMessage {
                        message: Some(Message::Work(*work)),
                    };
                    self.changes.effect(Effect::Send(stream, Box::new(message)));
                }
                self.watch(run_id);
                self.pace(run_id, Some(now));
            }
            Prepared::NoJob => {
                let end = End::new(RunState::Failed, "no_job", "the record of its job can't be read");
                self.end(run_id, end, now);
            }
            Prepared::Refused(MintError::Unavailable(error)) => {
                tracing::warn!(run = %run_id, error, "no assertion for a run yet; identity is asked again");
                self.mint.shut(now.mono_ms);
                self.give_back(run_id);
            }
            Prepared::Refused(MintError::OwnerRevoked) => {
                let id = run.job;
                self.end(run_id, End::new(RunState::Cancelled, OWNER_REVOKED, ""), now);
                self.hold_for_owner(id, now);
            }
            Prepared::Refused(MintError::Refused { reason, message }) => {
                self.end(
                    run_id,
                    End::new(RunState::Failed, &cut(&reason, 64), &message),
                    now,
                );
            }
        }
    }

    /// A worker would begin: it may, or the attempt is no longer its own.
    pub(super) fn work_ready(&mut self, stream: u64, (run_id, attempt): Named, now: Now) {
        let times = self.times();
        let run = self.runs.get_mut(&run_id).filter(|run| run.end.is_none());
        // Not written: after a crash every attempt that was given away may have begun.
        let may = run.is_some_and(|run| run.lease.renew(stream, attempt, Start::May, now.mono_ms, times));
        self.watch(run_id);
        let answer = if may { begin_message } else { fenced_message };
        let message = Box::new(answer(run_id, attempt));
        self.changes.effect(Effect::Send(stream, message));
    }

    /// A worker began.
    pub(super) fn work_started(&mut self, stream: u64, run_id: RunId, attempt: u32, session: &str, now: Now) {
        let times = self.times();
        let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.end.is_none()) else {
            return;
        };
        let known = run.lease.held().is_some_and(|held| held.start == Start::Began);
        if !run.lease.renew(stream, attempt, Start::Began, now.mono_ms, times) {
            return;
        }
        if !known {
            run.started_ms = now.wall_ms;
        }
        run.session = cut(session, 1_024);
        // Not written: after a crash the worker says it again, and the outcome carries it.
        self.changes.effect(Effect::Began(run_id));
        self.watch(run_id);
        self.pace(run_id, Some(now));
    }

    /// A worker is alive and holds these.
    pub(super) fn heartbeat(&mut self, stream: u64, refs: &[(RunId, u32)], now: Now) {
        let times = self.times();
        for &(run_id, attempt) in refs {
            let Some(run) = self.runs.get_mut(&run_id) else {
                continue;
            };
            if run.lease.renew(stream, attempt, Start::Waits, now.mono_ms, times) {
                self.watch(run_id);
            }
        }
    }

    /// A result. False: the run is not known here; the store knows how it ended, if it ever was.
    pub(super) fn work_finished(
        &mut self,
        stream: u64,
        (run_id, attempt): Named,
        finished: &WorkFinished,
        now: Now,
    ) -> bool {
        let guards = self.guards;
        let Some(run) = self.runs.get_mut(&run_id) else {
            return false;
        };
        let verdict = run.lease.finish(guards, attempt);
        let accepted = match verdict {
            Verdict::Taken => {
                if !finished.session.is_empty() {
                    run.session = cut(&finished.session, 1_024);
                }
                let mut end = End::reported(finished);
                let cancel = run.cancel.clone();
                match (cancel.as_deref(), end.state) {
                    (_, RunState::Succeeded) => self.end(run_id, end, now),
                    (Some("timeout"), _) => {
                        (end.state, end.reason) = (RunState::TimedOut, "timeout".to_owned());
                        self.failed(run_id, end, false, now);
                    }
                    (Some(reason), _) => {
                        (end.state, end.reason) = (RunState::Cancelled, reason.to_owned());
                        self.end(run_id, end, now);
                    }
                    (None, RunState::Cancelled) => self.end(run_id, end, now),
                    (None, _) => self.failed(run_id, end, false, now),
                }
                true
            }
            Verdict::Repeated { accepted } => accepted,
            Verdict::Fenced => false,
        };
        // After the commits before it, so never before the result is durable.
        self.changes.effect(Effect::Send(
            stream,
            Box::new(ack_message(run_id, attempt, accepted)),
        ));
        true
    }

    /// A run's end is durable: nothing refers to it any more.
    pub(crate) fn forget(&mut self, run_id: RunId) {
        if self
            .runs
            .get(&run_id)
            .is_some_and(|run| run.end.is_some() && run.lease.is_over())
        {
            self.runs.remove(&run_id);
        }
    }
}
