//! Runs by id. Each is kept once, in a slot that never moves, and slots come by the chunk: a herd adds hundreds of
//! thousands of runs in a second, and a tree or a growing list would move its neighbours about for each of them.
//!
//! Invariant: each slot in use is once in `ids`, every other one is once in `free`. Bounded by the runs that have not
//! ended; a chunk of which none is left takes no memory.

use hashbrown::{HashTable, hash_table::Entry};

use crate::{id::RunId, run::Run};

/// Slots of a chunk.
const CHUNK: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Runs {
    chunks: Vec<Chunk>,
    free: Vec<u32>,
    /// Asked, and never gone through: its order is nobody's.
    ids: HashTable<u32>,
    /// How many ever came.
    count: u64,
    /// The slot that was added or changed last: most likely it is asked for next, too.
    recent: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    /// As many as a chunk has, or none at all.
    slots: Vec<Option<Run>>,
    used: usize,
}

impl Chunk {
    /// Puts a run into a slot.
    fn put(&mut self, place: usize, run: Run) {
        if self.slots.is_empty() {
            self.slots.resize_with(CHUNK, || None);
        }
        if let Some(slot) = self.slots.get_mut(place) {
            self.used += usize::from(slot.is_none());
            *slot = Some(run);
        }
    }

    fn take(&mut self, place: usize) -> Option<Run> {
        let run = self.slots.get_mut(place)?.take()?;
        self.used -= 1;
        if self.used == 0 {
            self.slots = Vec::new();
        }
        Some(run)
    }
}

impl Runs {
    pub(super) fn get(&self, id: &RunId) -> Option<&Run> {
        run_at(&self.chunks, self.slot_of(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &RunId) -> Option<&mut Run> {
        let slot = self.slot_of(id)?;
        self.recent = slot;
        self.at_mut(slot)
    }

    /// The run that is in a slot.
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Run> {
        let chunk = self.chunks.get_mut(slot as usize / CHUNK)?;
        chunk.slots.get_mut(slot as usize % CHUNK)?.as_mut()
    }

    /// Makes room for so many more at once: a table that grows as they come looks at each of them again.
    pub(super) fn reserve(&mut self, more: usize) {
        let chunks = &self.chunks;
        self.ids.reserve(more, |slot| {
            run_at(chunks, *slot).map_or(0, |run| run.id().hash())
        });
    }

    pub(super) fn contains(&self, id: &RunId) -> bool {
        self.slot_of(id).is_some()
    }

    /// In no order that means something, but always the same.
    pub(super) fn values(&self) -> impl Iterator<Item = &Run> {
        self.chunks.iter().flat_map(|chunk| &chunk.slots).flatten()
    }

    /// Adds a run, in the place of one that has its id.
    pub(super) fn insert(&mut self, mut run: Run) {
        self.count += 1;
        run.number = self.count;
        let (id, chunks) = (run.id(), &self.chunks);
        let is = |slot: &u32| run_at(chunks, *slot).is_some_and(|run| run.id() == id);
        let hash = |slot: &u32| run_at(chunks, *slot).map_or(0, |run| run.id().hash());
        self.recent = match self.ids.entry(id.hash(), is, hash) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let slot = free_slot(&mut self.chunks, &mut self.free);
                new.insert(slot);
                slot
            }
        };
        let slot = self.recent as usize;
        if let Some(chunk) = self.chunks.get_mut(slot / CHUNK) {
            chunk.put(slot % CHUNK, run);
        }
    }

    pub(super) fn remove(&mut self, id: &RunId) -> Option<Run> {
        let slot = self.slot_of(id)?;
        if let Ok(known) = self.ids.find_entry(id.hash(), |one| *one == slot) {
            known.remove();
        }
        self.free.push(slot);
        self.chunks
            .get_mut(slot as usize / CHUNK)?
            .take(slot as usize % CHUNK)
    }

    /// Where a run is. It stays there.
    pub(super) fn slot_of(&self, id: &RunId) -> Option<u32> {
        let is = |slot: &u32| run_at(&self.chunks, *slot).is_some_and(|run| run.id() == *id);
        if is(&self.recent) {
            return Some(self.recent);
        }
        self.ids.find(id.hash(), is).copied()
    }
}

fn free_slot(chunks: &mut Vec<Chunk>, free: &mut Vec<u32>) -> u32 {
    free.pop().unwrap_or_else(|| {
        let first = (chunks.len() * CHUNK) as u32;
        chunks.push(Chunk::default());
        // In their order, one after the other.
        free.extend((first + 1..first + CHUNK as u32).rev());
        first
    })
}

fn run_at(chunks: &[Chunk], slot: u32) -> Option<&Run> {
    let slot = slot as usize;
    chunks.get(slot / CHUNK)?.slots.get(slot % CHUNK)?.as_ref()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use creel_proto::scheduler::v1::{RunKind, RunRecord, WorkKind};
    use proptest::prelude::*;

    use super::*;
    use crate::{id::JobId, lease::Times, run::Now};

    fn run(n: u8, nominal_ms: i64) -> Run {
        let record = RunRecord {
            run_id: id(n).to_string(),
            state: creel_proto::scheduler::v1::RunState::Pending.into(),
            nominal_unix_ms: nominal_ms,
            ..RunRecord::default()
        };
        let now = Now {
            wall_ms: 0,
            mono_ms: 0,
        };
        let times = Times {
            lease_ms: 1,
            cancel_ms: 1,
        };
        Run::load(
            &record,
            JobId::new(0, &[0; 10]),
            (RunKind::Scheduled, WorkKind::AgentTurn),
            1,
            now,
            times,
        )
        .unwrap()
    }

    fn id(n: u8) -> RunId {
        // Few hashes, so that they collide.
        format!("{n:016x}{:016x}", n % 4).parse().unwrap()
    }

    proptest! {
        #[test]
        fn they_hold_what_a_map_holds(changes in prop::collection::vec((0_u8..200, prop::option::weighted(0.8, 0_i64..9)), 0..200)) {
            let (mut runs, mut model) = (Runs::default(), BTreeMap::new());
            let mut most = 0;
            for (n, change) in changes {
                match change {
                    Some(nominal_ms) => {
                        runs.insert(run(n, nominal_ms));
                        model.insert(id(n), nominal_ms);
                    }
                    None => {
                        let removed = runs.remove(&id(n)).map(|run| run.nominal_ms);
                        prop_assert_eq!(removed, model.remove(&id(n)));
                    }
                }
                most = most.max(model.len());
                for n in (0..200).step_by(23) {
                    let known = model.get(&id(n)).copied();
                    prop_assert_eq!(runs.get(&id(n)).map(|run| run.nominal_ms), known);
                    prop_assert_eq!(runs.get_mut(&id(n)).map(|run| run.nominal_ms), known);
                    prop_assert_eq!(runs.contains(&id(n)), known.is_some());
                }
            }
            let all: BTreeMap<_, _> = runs.values().map(|run| (run.id(), run.nominal_ms)).collect();
            prop_assert_eq!(&all, &model);
            prop_assert!(runs.chunks.len() <= most.div_ceil(CHUNK), "slots are used again");
            let used = runs.chunks.iter().map(|chunk| chunk.used).sum::<usize>();
            prop_assert_eq!((used, runs.free.len()), (model.len(), runs.chunks.len() * CHUNK - used));
            for n in 0..200 {
                runs.remove(&id(n));
            }
            prop_assert!(runs.chunks.iter().all(|chunk| chunk.slots.capacity() == 0), "nothing is left of it");
        }
    }
}
