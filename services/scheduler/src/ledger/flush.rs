//! What a step leaves behind: transactions, and what follows from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use creel_proto::scheduler::v1::{JobRecord, RunRecord, SchedulerMessage, TombstoneRecord};
use creel_store::{Bytes, Cmp, Op, Txn};
use prost::Message as _;

use super::{Ledger, packs::Fresh};
use crate::{
    id::{JobId, RunId},
    name::Name,
    store::{self, RunRef},
};

/// Operations of one transaction, a little below the store's limit.
const MAX_OPS: usize = 96;
/// Operations of a job that leave room for one more change of it, which has 89 at most (`admission::MAX_STEPS`).
const LIGHT: usize = 5;
/// Jobs changed in one step; then what they leave behind is committed.
const MAX_CHANGED: usize = 1_024;
/// Bytes of one transaction, well below the store's limit.
const MAX_BYTES: usize = 768 * 1_024;

/// A transaction and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    /// May be empty: then the effects only wait for the commits before it.
    pub(crate) txn: Txn,
    /// Once it is durable, in order.
    pub(crate) effects: Vec<Effect>,
    /// Audit records may be among it.
    pub(crate) audited: bool,
}

/// What is done once a commit is durable.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The attempt is a worker's: make its work and let it out.
    Prepare(RunId, u32),
    /// To a worker.
    Send(u64, Box<SchedulerMessage>),
    /// A stream ends: another one of the same worker took over.
    Close(u64),
    /// To whoever watches runs: an encoded record, which is read only for those who look.
    Publish(Bytes),
    /// Likewise: these were admitted.
    Admitted(Vec<RunId>),
    /// Likewise: a worker began it. If it has ended by then, its end says so.
    Began(RunId),
    /// To whoever watches jobs: one changed, or is gone.
    Changed {
        id: JobId,
        owner: Arc<str>,
        name: Name,
        deleted: bool,
    },
    /// A run's end is durable.
    Forget(RunId),
    /// Old runs of a job may be removed.
    Prune(JobId),
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    jobs: BTreeMap<JobId, Box<JobChange>>,
    pub(super) packed: Fresh,
    effects: Vec<Effect>,
    /// Some job has as much as one more change of it leaves room for.
    heavy: bool,
    /// Changes that are no job's, and whether audit records are among them.
    general: Txn,
    general_audited: bool,
}

/// The changes of one job: one transaction, so that a cursor never moves without its runs.
#[derive(Debug, Default)]
struct JobChange {
    state: bool,
    record: Option<Box<JobRecord>>,
    gone: Option<TombstoneRecord>,
    runs: BTreeSet<RunId>,
    skips: BTreeMap<RunRef, (RunRecord, bool)>,
    extra: Txn,
    /// Operations that can't be committed before the others.
    weight: usize,
}

impl Changes {
    pub(super) fn state(&mut self, job: JobId) {
        self.jobs.entry(job).or_default().state = true;
    }

    /// Whether something of a job is to be written.
    pub(super) fn touches(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    pub(super) fn record(&mut self, job: JobId, record: JobRecord) {
        self.jobs.entry(job).or_default().record = Some(Box::new(record));
    }

    pub(super) fn gone(&mut self, job: JobId, tombstone: TombstoneRecord) {
        self.jobs.entry(job).or_default().gone = Some(tombstone);
    }

    pub(super) fn run(&mut self, job: JobId, run: RunId) {
        self.jobs.entry(job).or_default().runs.insert(run);
    }

    pub(super) fn new_run(&mut self, job: JobId, run: RunId) {
        self.run(job, run);
        self.weigh(job, 3);
    }

    pub(super) fn skip(&mut self, job: JobId, at: RunRef, record: RunRecord, new: bool) {
        let skips = &mut self.jobs.entry(job).or_default().skips;
        let new = new || skips.get(&at).is_some_and(|(_, new)| *new);
        skips.insert(at, (record, new));
        self.weigh(job, 3);
    }

    /// More for the transaction of a job: audit records, answers.
    pub(super) fn extra(&mut self, job: JobId, more: Txn) {
        let extra = &mut self.jobs.entry(job).or_default().extra;
        extra.when.extend(more.when);
        let count = more.then.len();
        extra.then.extend(more.then);
        self.weigh(job, count);
    }

    /// Whether a job has to be committed before it changes again: all of its changes are one transaction.
    pub(super) fn is_heavy(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|change| change.weight > LIGHT)
    }

    fn weigh(&mut self, job: JobId, more: usize) {
        let weight = &mut self.jobs.entry(job).or_default().weight;
        *weight += more;
        self.heavy |= *weight > LIGHT;
    }

    /// Changes that belong to no job.
    pub(super) fn general(&mut self, more: Txn, audited: bool) {
        self.general.when.extend(more.when);
        self.general.then.extend(more.then);
        self.general_audited |= audited;
    }

    /// One change that belongs to no job.
    pub(super) fn op(&mut self, op: Op) {
        self.general.then.push(op);
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

impl Ledger {
    /// What the steps since the last call left behind, in the order it is to be committed.
    pub(crate) fn flush(&mut self) -> Vec<Commit> {
        let Changes {
            jobs,
            packed: fresh,
            effects,
            general,
            general_audited,
            ..
        } = std::mem::take(&mut self.changes);
        let mut packed = Packed::default();
        if !general.then.is_empty() {
            packed.add(general.then, general.when);
            packed.audited |= general_audited;
        }
        let mut published = Vec::new();
        for (id, change) in jobs {
            let mut change = *change;
            let (mut unit, mut late) = (Vec::with_capacity(LIGHT), Vec::new());
            // A packed run and its job's cursor become records together.
            if let Some(run) = self.packed_run(id) {
                change.runs.insert(run);
                change.state = true;
            }
            for run_id in &change.runs {
                unit.extend(self.unpack(*run_id));
                let Some(run) = self.runs.get_mut(run_id) else {
                    continue;
                };
                let record = Bytes::from(run.record().encode_to_vec());
                let ops = if run.new { &mut unit } else { &mut late };
                store::put_run(ops, run.at, id, record.clone(), run.new);
                run.new = false;
                published.push(Effect::Publish(record));
            }
            for (at, (record, new)) in change.skips {
                let record = Bytes::from(record.encode_to_vec());
                store::put_run(&mut unit, at, id, record.clone(), new);
                published.push(Effect::Publish(record));
            }
            let who = match (&change.gone, self.jobs.get(&id)) {
                (Some(tombstone), _) => {
                    Some((tombstone.owner.as_str().into(), tombstone.name.as_str().into()))
                }
                (None, Some(job)) if change.state || change.record.is_some() => {
                    Some((Arc::clone(&job.owner), job.name.clone()))
                }
                (None, _) => None,
            };
            if let Some((owner, name)) = who {
                let deleted = change.gone.is_some();
                published.push(Effect::Changed {
                    id,
                    owner,
                    name,
                    deleted,
                });
            }
            if let Some(record) = &change.record {
                unit.push(store::put_job(id, record));
            }
            if let Some(tombstone) = &change.gone {
                unit.extend(store::delete_job(id, tombstone));
            } else if change.state
                && let Some(job) = self.jobs.get(&id)
            {
                unit.push(store::put_state(id, &job.state.record()));
            }
            let audited = !change.extra.then.is_empty();
            unit.extend(change.extra.then);
            // Known runs change with their job, unless they are too many for that: then before it, so that the
            // job still names each that has not ended.
            while !late.is_empty() && unit.len() + late.len() > MAX_OPS {
                let rest = late.split_off(late.len().min(MAX_OPS));
                packed.add(std::mem::replace(&mut late, rest), Vec::new());
            }
            late.extend(unit);
            packed.add(late, change.extra.when);
            packed.audited |= audited;
        }
        for op in self.flush_packs(fresh, &mut published) {
            packed.add(vec![op], Vec::new());
        }
        let mut commits = packed.done();
        if commits.is_empty() && (!effects.is_empty() || !published.is_empty()) {
            commits.push(Commit::default());
        }
        if let Some(last) = commits.last_mut() {
            last.effects = published;
            last.effects.extend(effects);
        }
        commits
    }

    /// Whether what is left behind has to be committed before anything else changes.
    pub(crate) fn is_full(&self) -> bool {
        self.changes.heavy || self.changes.jobs.len() >= MAX_CHANGED
    }

    /// Adds to the transaction of what is no job's.
    pub(crate) fn attach_general(&mut self, more: Txn) {
        self.changes.general(more, false);
    }

    /// Adds to the transaction of a job what an answer to its change needs.
    pub(crate) fn attach(&mut self, job: JobId, more: Txn) {
        self.changes.extra(job, more);
    }
}

/// Units in as few transactions as they fit.
#[derive(Default)]
struct Packed {
    full: Vec<Commit>,
    open: Txn,
    bytes: usize,
    audited: bool,
}

impl Packed {
    fn add(&mut self, ops: Vec<Op>, when: Vec<Cmp>) {
        let bytes: usize = ops.iter().map(size).sum();
        let crowded =
            self.open.then.len() + ops.len() > MAX_OPS || self.open.when.len() + when.len() > MAX_OPS;
        if !self.open.then.is_empty() && (crowded || self.bytes + bytes > MAX_BYTES) {
            self.close();
        }
        self.bytes += bytes;
        if self.open.then.capacity() == 0 {
            self.open.then.reserve_exact(MAX_OPS);
        }
        self.open.then.extend(ops);
        self.open.when.extend(when);
    }

    fn close(&mut self) {
        let txn = std::mem::take(&mut self.open);
        self.bytes = 0;
        self.full.push(Commit {
            txn,
            effects: Vec::new(),
            audited: std::mem::take(&mut self.audited),
        });
    }

    fn done(mut self) -> Vec<Commit> {
        if !self.open.then.is_empty() {
            self.close();
        }
        self.full
    }
}

fn size(op: &Op) -> usize {
    match op {
        Op::Put(key, value) => key.as_ref().len() + value.len(),
        Op::Delete(key) => key.as_ref().len(),
        Op::DeleteRange(range) => range.start().len() + range.end().map_or(0, <[u8]>::len),
    }
}
