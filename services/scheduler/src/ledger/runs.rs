//! Runs by id. Each is kept once, in a box that never moves: a herd adds hundreds of thousands in a second, and a
//! tree would move its neighbours about for each of them.
//!
//! Invariant: each slot in use is once in `ids`. Bounded by the runs that have not ended.

use hashbrown::{HashTable, hash_table::Entry};

use crate::{id::RunId, run::Run};

#[derive(Debug, Default)]
pub(super) struct Runs {
    slots: Vec<Option<(RunId, Box<Run>)>>,
    /// Slots that are free again. No more than there were runs at once.
    free: Vec<u32>,
    /// Asked, and never gone through: its order is nobody's.
    ids: HashTable<u32>,
    /// How many ever came.
    count: u64,
}

impl Runs {
    pub(super) fn get(&self, id: &RunId) -> Option<&Run> {
        let (_, run) = self.slots.get(self.slot_of(*id)?)?.as_ref()?;
        Some(run)
    }

    pub(super) fn get_mut(&mut self, id: &RunId) -> Option<&mut Run> {
        let slot = self.slot_of(*id)?;
        let (_, run) = self.slots.get_mut(slot)?.as_mut()?;
        Some(run)
    }

    pub(super) fn contains(&self, id: &RunId) -> bool {
        self.slot_of(*id).is_some()
    }

    /// In no order that means something, but always the same.
    pub(super) fn values(&self) -> impl Iterator<Item = &Run> {
        self.slots.iter().flatten().map(|(_, run)| &**run)
    }

    /// Adds a run, in the place of one that has its id.
    pub(super) fn insert(&mut self, mut run: Run) {
        self.count += 1;
        run.number = self.count;
        let (id, slots) = (run.id(), &self.slots);
        let slot = |slot: &u32| slots.get(*slot as usize).and_then(Option::as_ref);
        let is = |number: &u32| slot(number).is_some_and(|(of, _)| *of == id);
        let hash = |number: &u32| slot(number).map_or(0, |(of, _)| of.hash());
        let number = match self.ids.entry(id.hash(), is, hash) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let number = self.free.pop().unwrap_or(slots.len() as u32);
                new.insert(number);
                number
            }
        };
        let slot = Some((id, Box::new(run)));
        match self.slots.get_mut(number as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
    }

    pub(super) fn remove(&mut self, id: &RunId) -> Option<Box<Run>> {
        let number = self.slot_of(*id)?;
        if let Ok(known) = self.ids.find_entry(id.hash(), |slot| *slot as usize == number) {
            known.remove();
        }
        self.free.push(number as u32);
        self.slots.get_mut(number)?.take().map(|(_, run)| run)
    }

    fn slot_of(&self, id: RunId) -> Option<usize> {
        let is = |slot: &u32| matches!(self.slots.get(*slot as usize), Some(Some((of, _))) if *of == id);
        self.ids.find(id.hash(), is).map(|slot| *slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use creel_proto::scheduler::v1::{RunRecord, WorkKind};
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
            WorkKind::AgentTurn,
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
        fn they_hold_what_a_map_holds(changes in prop::collection::vec((0_u8..40, prop::option::of(0_i64..9)), 0..300)) {
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
                let all: BTreeMap<_, _> = runs.values().map(|run| (run.id(), run.nominal_ms)).collect();
                prop_assert_eq!(&all, &model);
                for n in 0..40 {
                    let known = model.get(&id(n)).copied();
                    prop_assert_eq!(runs.get(&id(n)).map(|run| run.nominal_ms), known);
                    prop_assert_eq!(runs.get_mut(&id(n)).map(|run| run.nominal_ms), known);
                    prop_assert_eq!(runs.contains(&id(n)), known.is_some());
                }
            }
            prop_assert!(runs.slots.len() <= most, "slots are used again");
        }
    }
}
