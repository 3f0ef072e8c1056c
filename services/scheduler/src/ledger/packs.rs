//! Packed admissions: runs that wait and have no record of their own yet.
//!
//! Invariant: a job has at most one such run, and whenever its state is written the run's record is written with it.
//! So a job whose durable cursor is before the instant of a pack has its run there and nowhere else, and one whose
//! cursor is not has it in the run log.

use std::collections::BTreeMap;

use creel_proto::scheduler::v1::{AdmissionRecord, RunKind, RunRecord};
use creel_store::{Key, Op};
use prost::Message as _;

use super::{Ledger, flush::Effect};
use crate::{
    id::{JobId, RunId},
    pack::{self, Entry, MAX_JOBS},
    run::{Now, Run},
    store::{RunRef, admission_key},
};

/// Waiting runs looked at for a page of runs.
const MAX_LOOKED_AT: usize = 50_000;

/// A record of packed admissions that some job still needs.
#[derive(Debug)]
pub(super) struct Pack {
    key: Key,
    /// Runs that have no record of their own.
    left: usize,
}

/// Runs that were admitted in this step, by their instant: where they are, in the order they came. None is forgotten
/// before the step is committed.
pub(super) type Fresh = BTreeMap<i64, Vec<u32>>;

impl Ledger {
    /// Admits the one run that a look at a job came to, without a record of its own. False: the job has something
    /// to write anyway, or a packed run already.
    pub(super) fn pack(&mut self, id: JobId, nominal_ms: i64, now: Now) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let packed = |at: &RunRef| self.runs.get(&at.run).is_some_and(|run| run.new);
        if self.changes.touches(id) || job.state.quarantine.is_some() || job.state.active.iter().any(packed) {
            return false;
        }
        let Some(run) = self.make_run(id, RunKind::Scheduled, nominal_ms, None, 0, now) else {
            return false;
        };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state.cursor_ms = job.state.cursor_ms.max(nominal_ms);
        }
        let slot = self.runs.slot_of(&run);
        self.changes.packed.entry(nominal_ms).or_default().extend(slot);
        true
    }

    /// The records of what was packed in this step. Runs that began at once have records of their own by now.
    pub(super) fn flush_packs(&mut self, fresh: Fresh, effects: &mut Vec<Effect>) -> Vec<Op> {
        let mut ops = Vec::new();
        for (nominal_ms, slots) in fresh {
            for some in slots.chunks(MAX_JOBS) {
                let number = self.next_pack;
                let (mut entries, mut admitted) =
                    (Vec::with_capacity(some.len()), Vec::with_capacity(some.len()));
                for slot in some {
                    let Some(run) = self.runs.at_mut(*slot).filter(|run| run.new) else {
                        continue;
                    };
                    run.pack = Some(number);
                    admitted.push(run.at);
                    entries.push(Entry {
                        job: run.job,
                        incarnation: run.incarnation,
                    });
                }
                let (Some(first), Some(RunRef { admitted_ms, .. })) = (entries.first(), admitted.first())
                else {
                    continue;
                };
                self.next_pack += 1;
                let key = admission_key(*admitted_ms, nominal_ms, first.job);
                let record = pack::record(nominal_ms, *admitted_ms, &entries);
                ops.push(Op::Put(key.clone(), record.encode_to_vec().into()));
                let left = entries.len();
                self.packs.insert(number, Pack { key, left });
                // In the order they are kept in: so each is added next to the one before.
                admitted.sort_unstable();
                admitted.iter().for_each(|at| self.unwritten.add(*at));
                effects.push(Effect::Admitted(admitted.into_iter().map(|at| at.run).collect()));
            }
        }
        ops
    }

    /// A run gets a record of its own: the pack loses it, and goes when it was the last.
    pub(super) fn unpack(&mut self, run_id: RunId) -> Option<Op> {
        let run = self.runs.get_mut(&run_id)?;
        let number = run.pack.take()?;
        self.unwritten.take(run.at);
        let pack = self.packs.get_mut(&number)?;
        pack.left -= 1;
        if pack.left > 0 {
            return None;
        }
        self.packs.remove(&number).map(|pack| Op::Delete(pack.key))
    }

    /// The packed run of a job, if it has one.
    pub(super) fn packed_run(&self, id: JobId) -> Option<RunId> {
        let job = self.jobs.get(&id)?;
        let packed = |run: &RunId| self.runs.get(run).is_some_and(|run| run.new);
        job.state.active.iter().map(|at| at.run).find(packed)
    }

    /// Takes up what a record of packed admissions says and no other record does.
    pub(crate) fn load_pack(&mut self, key: Key, record: &AdmissionRecord, now: Now) {
        let number = self.next_pack;
        self.next_pack += 1;
        let mut left = 0;
        for entry in pack::entries(record) {
            let known = self.jobs.get(&entry.job).filter(|job| {
                job.incarnation == entry.incarnation
                    && job.sound().is_some()
                    && job.state.cursor_ms < record.nominal_unix_ms
            });
            if known.is_none() {
                continue;
            }
            let admitted = Now {
                wall_ms: record.admitted_at_unix_ms,
                ..now
            };
            let nominal_ms = record.nominal_unix_ms;
            let Some(run_id) = self.make_run(entry.job, RunKind::Scheduled, nominal_ms, None, 0, admitted)
            else {
                continue;
            };
            if let Some(job) = self.jobs.get_mut(&entry.job) {
                job.state.cursor_ms = nominal_ms;
            }
            if let Some(run) = self.runs.get_mut(&run_id) {
                run.pack = Some(number);
                self.unwritten.add(run.at);
                left += 1;
            }
        }
        if left == 0 {
            // Its last run got a record of its own, and the crash came before that was all.
            self.changes.op(Op::Delete(key));
        } else {
            self.packs.insert(number, Pack { key, left });
        }
    }

    /// Runs without a record of their own, newest first, of a job or of all of an owner; older than `before`.
    pub(crate) fn unwritten(
        &self,
        owner: &str,
        job: Option<JobId>,
        before: Option<RunRef>,
        size: usize,
    ) -> Vec<(RunRef, RunRecord)> {
        let fits = |run: &Run| run.pack.is_some() && run.end.is_none() && *run.owner == *owner;
        let shown = |run: &Run| (run.at, run.record());
        if let Some(id) = job {
            let run = self.packed_run(id).and_then(|run| self.runs.get(&run));
            let run = run.filter(|run| fits(run) && before.is_none_or(|before| run.at < before));
            return run.map(shown).into_iter().collect();
        }
        let place = match before {
            Some(before) => self.unwritten.place(|at| *at < before),
            None => self.unwritten.end(),
        };
        self.unwritten
            .before(place)
            .take(MAX_LOOKED_AT)
            .filter_map(|at| self.runs.get(&at.run))
            .filter(|run| fits(run))
            .take(size)
            .map(shown)
            .collect()
    }

    /// The record of a run as it is, if it is here and durable.
    pub(crate) fn shown_run(&self, run_id: RunId) -> Option<RunRecord> {
        let run = self.runs.get(&run_id)?;
        let durable = !run.new || run.pack.is_some();
        (run.end.is_none() && durable).then(|| run.record())
    }
}
