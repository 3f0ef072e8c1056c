//! Everything the service holds in memory, and every way it changes. One task owns it; nothing here waits, reads
//! a clock or touches the store. A step changes the ledger and leaves behind what is to be committed and what
//! follows from the commit ([`Ledger::flush`]): persist, act, answer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use creel_kit::outbox::{Event, Outbox};
use creel_proto::scheduler::v1::{AgentGrantRecord, RunKind, RunRecord, RunState, WorkKind};
use creel_store::Txn;
use creel_wire::Error;

use crate::{
    Config, admission,
    clock::Watch,
    figures::Figures,
    guard::Guards,
    id::{JobId, RunId},
    job::Job,
    lane::Lane,
    lease::Times,
    run::{End, Now, Place, Run, has_ended, state_name},
    shelves::Shelves,
    store::RunRef,
};

mod alert;
mod attempt;
mod backends;
mod backfill;
mod change;
mod explain;
mod fire;
mod flush;
mod grants;
mod jobs;
mod messages;
mod packs;
mod park;
mod queue;
mod room;
mod runs;
mod said;
mod time;
mod view;
mod work;

pub(crate) use backends::{Backend, listed};
pub(crate) use change::{Changed, Creation, Target, late_one_shot, name_taken, run_finished};
pub(crate) use explain::{Known, quoted};
pub(crate) use flush::{Commit, Effect};
pub(crate) use messages::ack_message;
pub(crate) use park::{MAX_APPROVAL_BYTES, was_taken};
pub(crate) use said::{Said, Unknown};
pub(crate) use view::{Query, Retention, View};
pub(crate) use work::{Hello, Prepared};

use fire::MAX_SPREAD_MS;
use flush::Changes;
use jobs::Jobs;
use packs::Pack;
use queue::Queue;
use room::Worker;
use runs::Runs;
use work::MintGate;

/// Where randomness comes from: uniform numbers.
pub(crate) type Random = Box<dyn FnMut() -> u64 + Send>;

pub(crate) struct Ledger {
    config: Config,
    guards: Guards,
    scratch: admission::Scratch,
    random: Random,
    figures: Figures,
    outbox: Outbox,
    jobs: Jobs,
    /// How many jobs agents made in a session.
    contexts: BTreeMap<Arc<str>, usize>,
    /// Conversations whose agents may make jobs that need no approval.
    granted: BTreeMap<Arc<str>, AgentGrantRecord>,
    /// Runs that have not ended, and those whose end is not durable yet.
    runs: Runs,
    /// Free runs that wait for their time, Unix milliseconds.
    delayed: BTreeSet<(i64, RunId)>,
    /// Empty between steps: kept for its memory.
    free: Vec<(i64, RunId)>,
    /// Free runs that wait for a worker, by kind of work.
    ready: BTreeMap<i32, Queue>,
    /// When leases and deadlines end, monotonic milliseconds.
    expiries: BTreeSet<(i64, RunId)>,
    /// When runs are slow, monotonic milliseconds.
    slows: BTreeSet<(i64, RunId)>,
    /// Until when runs wait for a person, Unix milliseconds.
    parked: BTreeSet<(i64, RunId)>,
    /// Jobs whose backfills may go on.
    backfilling: BTreeSet<JobId>,
    workers: BTreeMap<u64, Worker>,
    /// By lane: no run is given a place for those that have just come up before, monotonic milliseconds.
    new_from_ms: [i64; Lane::ALL.len()],
    /// Jobs whose records can't be used.
    invalid: BTreeSet<JobId>,
    mint: MintGate,
    clock: Watch,
    /// Jobs that begin anew after a clock that was set back.
    realign: VecDeque<JobId>,
    /// Missed occurrences are not decided before.
    catch_up_from_ms: i64,
    /// Runs that make up for missed ones are spread over this.
    spread_ms: i64,
    last_tick_ms: Option<i64>,
    /// Packed admissions that are still needed, and the number of the next.
    packs: BTreeMap<u64, Pack>,
    next_pack: u64,
    /// Runs whose records could not be read.
    unreadable: Vec<RunId>,
    /// Runs that only a packed admission names.
    unwritten: Shelves<RunRef>,
    changes: Changes,
}

impl Ledger {
    pub(crate) fn new(config: Config, random: Random, figures: Figures, outbox: Outbox) -> Self {
        Self {
            config,
            guards: Guards::all(),
            scratch: admission::Scratch::default(),
            random,
            figures,
            outbox,
            jobs: Jobs::default(),
            contexts: BTreeMap::new(),
            granted: BTreeMap::new(),
            runs: Runs::default(),
            delayed: BTreeSet::new(),
            free: Vec::new(),
            ready: BTreeMap::new(),
            expiries: BTreeSet::new(),
            slows: BTreeSet::new(),
            parked: BTreeSet::new(),
            backfilling: BTreeSet::new(),
            workers: BTreeMap::new(),
            new_from_ms: [0; Lane::ALL.len()],
            invalid: BTreeSet::new(),
            mint: MintGate::default(),
            clock: Watch::default(),
            realign: VecDeque::new(),
            catch_up_from_ms: i64::MIN,
            spread_ms: 0,
            last_tick_ms: None,
            packs: BTreeMap::new(),
            next_pack: 0,
            unreadable: Vec::new(),
            unwritten: Shelves::default(),
            changes: Changes::default(),
        }
    }

    /// Adds a job as it was read, and says which runs of it have not ended.
    pub(crate) fn load(&mut self, id: JobId, mut job: Job) -> Vec<RunRef> {
        if let crate::job::Plan::Broken(why) = &job.plan {
            tracing::error!(job = %id, name = %job.name, why, "this job's record is invalid: it is quarantined");
            self.invalid.insert(id);
        }
        let active = job.state.take_active();
        self.add(id, job);
        active
    }

    /// Adds a run as it was read. One whose record can't be used ends with a record that says so.
    pub(crate) fn load_run(&mut self, id: JobId, at: RunRef, record: Option<&RunRecord>, now: Now) {
        if let Some(record) = record
            && (has_ended(record) || self.add_run(id, record, now))
        {
            return;
        }
        let Some(job) = self.jobs.get(&id) else { return };
        tracing::error!(job = %id, name = %job.name, run = %at.run, "a run of this job has no readable record");
        let unknown = RunRecord {
            run_id: at.run.to_string(),
            job_name: job.name.to_string(),
            incarnation: job.incarnation,
            owner: job.owner.to_string(),
            kind: RunKind::Scheduled.into(),
            state: RunState::Pending.into(),
            nominal_unix_ms: at.admitted_ms,
            admitted_at_unix_ms: at.admitted_ms,
            ..RunRecord::default()
        };
        if self.add_run(id, &unknown, now) {
            self.unreadable.push(at.run);
        }
    }

    /// False: its record makes no sense, or its job's.
    fn add_run(&mut self, id: JobId, record: &RunRecord, now: Now) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let Some(sound) = job.sound() else { return false };
        let times = Times {
            lease_ms: self.config.lease_ms,
            cancel_ms: self.config.cancel_ms,
        };
        let kind = RunKind::try_from(record.kind).unwrap_or(RunKind::Scheduled);
        let (work, policy) = match kind {
            RunKind::Alert => (WorkKind::SystemEvent, sound.policy.of_alert()),
            _ => (sound.kind, sound.policy),
        };
        let Some(run) = Run::load(record, id, (kind, work), policy.timeout_ms, now, times) else {
            return false;
        };
        job.state.active.push(run.at);
        let run_id = run.id();
        self.runs.insert(run);
        self.wait_for_person(run_id, now);
        self.watch(run_id);
        true
    }

    /// All is loaded: jobs are looked at from now on. `catch_up_from_ms` holds back what was missed.
    pub(crate) fn open(&mut self, now: Now, catch_up_from_ms: i64) {
        self.catch_up_from_ms = catch_up_from_ms;
        for run_id in std::mem::take(&mut self.unreadable) {
            let error = "its record can't be read: how far it came is not known";
            self.end(run_id, End::new(RunState::Stuck, "invalid_record", error), now);
        }
        let mut running = Vec::new();
        for (id, job) in self.jobs.iter() {
            if !job.state.active.is_empty() {
                running.push(id);
            }
            if job.state.backfill.is_some() {
                self.backfilling.insert(id);
            }
        }
        for id in running {
            self.enqueue(id, now);
        }
        self.wake_all();
    }

    /// Looks at every job when its state says.
    fn wake_all(&mut self) {
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.wake_all(|id, job| self.first_wake(id, job));
        self.jobs = jobs;
    }

    /// The end of waiting, if nothing happens before: milliseconds from now, at most `most_ms`.
    pub(crate) fn wait_ms(&self, now: Now, held_ms: Option<i64>, most_ms: i64) -> i64 {
        let due = match held_ms {
            Some(held) => Some(held),
            None => self.jobs.first_due().map(|(at, _)| at - now.wall_ms),
        };
        let delayed = self.delayed.first().map(|(at, _)| at - now.wall_ms);
        let parked = self.parked.first().map(|(at, _)| at - now.wall_ms);
        let expiry = self.expiries.first().map(|(at, _)| at - now.mono_ms);
        let slow = self.slows.first().map(|(at, _)| at - now.mono_ms);
        let at_once = !self.backfilling.is_empty() || !self.realign.is_empty();
        let backfill = at_once.then_some(0);
        let ready = self.ready.values().any(|queue| !queue.is_empty());
        let mint = ready.then(|| self.mint.wait_ms(now.mono_ms)).flatten();
        let new = self.new_from_ms.iter().map(|from| from - now.mono_ms);
        let new = new.filter(|wait| ready && *wait > 0).min();
        // What only a believed wall clock ends waits for that, too.
        let [delayed, parked] = [delayed, parked].map(|wait| wait.filter(|_| held_ms.is_none()));
        let waits = [due, delayed, parked, expiry, slow, backfill, mint, new];
        waits
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(most_ms)
            .clamp(0, most_ms)
    }

    fn times(&self) -> Times {
        Times {
            lease_ms: self.config.lease_ms,
            cancel_ms: self.config.cancel_ms,
        }
    }

    /// Adds a job, and counts it to the session whose agent made it.
    fn add(&mut self, id: JobId, job: Job) {
        if let Some(context) = &job.context {
            *self.contexts.entry(Arc::clone(context)).or_insert(0) += 1;
        }
        self.jobs.insert(id, job);
    }

    /// Takes a job out.
    fn take(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        if let Some(context) = &job.context
            && let Some(count) = self.contexts.get_mut(context)
        {
            *count -= 1;
            if *count == 0 {
                self.contexts.remove(context);
            }
        }
        Some(job)
    }

    /// Keeps a run's place among the leases.
    fn watch(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        let next = run.lease.next_ms().filter(|_| run.end.is_none());
        if run.expiry_ms == next {
            return;
        }
        if let Some(before) = run.expiry_ms {
            self.expiries.remove(&(before, run_id));
        }
        run.expiry_ms = next;
        if let Some(at) = next {
            self.expiries.insert((at, run_id));
        }
    }

    /// Takes a run out of wherever it waits.
    fn unqueue(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        match run.place {
            Place::None => {}
            Place::Delayed => {
                self.delayed.remove(&(run.not_before_ms, run_id));
            }
            Place::Ready(lane) => {
                if let Some(queue) = self.ready.get_mut(&(run.work as i32)) {
                    queue.remove(&run.owner, lane, run.turn(), run_id);
                }
            }
        }
        run.place = Place::None;
    }

    /// Lets the free runs of a job wait for a worker, as many as may run at once.
    fn enqueue(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(sound) = job.sound() else { return };
        let at_once = sound.policy.overlap.at_once();
        let runs = || job.state.active.iter().filter_map(|at| self.runs.get(&at.run));
        // A parked run holds no slot, and what the overlap does not count needs none.
        let taken = runs()
            .filter(|run| run.overlaps() && !run.lease.is_parked())
            .filter(|run| !run.lease.is_free() || matches!(run.place, Place::Ready(_)))
            .count();
        let mut free = std::mem::take(&mut self.free);
        free.extend(
            runs()
                .filter(|run| run.lease.is_free() && run.place == Place::None)
                .map(|run| (run.nominal_ms, run.id())),
        );
        free.sort_unstable();
        let mut room = at_once.saturating_sub(taken);
        let lane = Lane::of(job);
        for (_, run_id) in free.drain(..) {
            self.bring_forward(run_id, now);
            let Some(run) = self.runs.get_mut(&run_id) else {
                continue;
            };
            if run.not_before_ms > now.wall_ms {
                run.place = Place::Delayed;
                self.delayed.insert((run.not_before_ms, run_id));
            } else if room > 0 || !run.overlaps() {
                room = room.saturating_sub(usize::from(run.overlaps()));
                self.line_up(run_id, lane);
            }
        }
        self.free = free;
    }

    /// The clock may have been set back since it was said when a run goes on.
    fn bring_forward(&mut self, run_id: RunId, now: Now) {
        let waits = |run: &Run| run.not_before_ms > now.wall_ms;
        if !self.runs.get(&run_id).is_some_and(waits) {
            return;
        }
        let longest_ms = self
            .policy_of(run_id)
            .map_or(0, |policy| policy.retry.max_backoff_ms.max(MAX_SPREAD_MS));
        if let Some(run) = self.runs.get_mut(&run_id) {
            run.not_before_ms = run.not_before_ms.min(now.wall_ms.saturating_add(longest_ms));
        }
    }

    /// Lets a free run wait for a worker.
    fn line_up(&mut self, run_id: RunId, lane: Lane) {
        if let Some(run) = self.runs.get_mut(&run_id) {
            let lane = lane.for_run(run);
            run.place = Place::Ready(lane);
            let queue = self.ready.entry(run.work as i32).or_default();
            queue.insert(&run.owner, lane, run.turn(), run_id);
        }
    }

    /// Ends a run. Its job's health follows, and what waited for its end.
    fn end(&mut self, run_id: RunId, mut end: End, now: Now) {
        self.unqueue(run_id);
        self.pace(run_id, None);
        if self.runs.get(&run_id).is_some_and(|run| run.lease.is_parked()) {
            self.leave_parking(run_id);
        }
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        if run.end.is_some() {
            return;
        }
        if let Some(stream) = run.lease.held().and_then(|held| held.stream)
            && let Some(worker) = self.workers.get_mut(&stream)
        {
            worker.holding.remove(&run_id);
        }
        run.lease.end();
        end.finished_ms = now.wall_ms.max(run.at.admitted_ms);
        let began_ms = if run.started_ms == 0 {
            run.at.admitted_ms
        } else {
            run.started_ms
        };
        let (id, at, kind) = (run.job, run.at, run.kind);
        let job = self.jobs.get_mut(&id);
        let expected_ms = job.as_ref().and_then(|job| job.expected_ms());
        let over = run.started_ms != 0 && expected_ms.is_some_and(|most| end.finished_ms - began_ms > most);
        end.slow = run.slow || (over && run.overlaps());
        let state = end.state;
        let last = crate::job::Last::new(began_ms, end.finished_ms, state, &end.error);
        run.end = Some(Box::new(end.clone()));
        self.figures.run_ended(
            &run.job_name,
            state_name(state),
            now.wall_ms,
            state == RunState::Succeeded,
        );
        self.watch(run_id);
        self.changes.run(id, run_id);
        self.changes.effect(Effect::Forget(run_id));
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let told = job.ended(at, kind, last);
        job.unpruned += 1;
        self.changes.state(id);
        if kind == RunKind::Alert {
            self.told(id, run_id, &end);
        }
        if let Some(reason) = told {
            self.tell(id, reason, now);
        }
        self.after_run(id, kind, state, now);
    }

    /// The audit record of a change, to be committed with it. Asked for when nothing can refuse any more.
    fn audit(&self, event: Event) -> Result<Txn, Error> {
        let mut txn = Txn::new();
        self.outbox.push(&mut txn, event)?;
        Ok(txn)
    }
}
