//! All jobs, and the three ways to them: by id, by owner and name, by when they are looked at.
//!
//! A million jobs have to fit, so a job is kept once, in a slot that never moves, and the three indexes are lists of
//! small numbers: 8 bytes a job for ids, 16 each for names and instants.
//!
//! Invariants: each slot in use is once in `ids` and once in its owner's names, and in `due` exactly if its
//! `wake_ms` is not [`NEVER`]. The key of a slot (id, owner, name) changes only by taking the job out.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashTable;

use crate::{
    id::JobId,
    job::{Job, Plan, Rules},
    name::prefix,
    shelves::{Place, Shelves},
};

/// The instant of a job that waits for none.
const NEVER: i64 = i64::MAX;

#[derive(Debug, Default)]
pub(crate) struct Jobs {
    slots: Vec<Option<Slot>>,
    /// Slots that are free again. No more than there were jobs at once.
    free: Vec<u32>,
    /// Asked, and never gone through: its order is nobody's.
    ids: HashTable<u32>,
    owners: BTreeMap<Arc<str>, Shelves<Named>>,
    /// When jobs are looked at, Unix milliseconds.
    due: Shelves<(i64, u32)>,
    /// Of the job that was added last: most likely the next one's, too.
    rules: Option<Arc<Rules>>,
    /// The slot that was found last. A step does a dozen things to one job, and its id is looked up for each.
    recent: u32,
}

#[derive(Debug)]
struct Slot {
    id: JobId,
    wake_ms: i64,
    job: Job,
}

/// A job among its owner's, by name.
#[derive(Debug, Clone, Copy)]
struct Named {
    /// The start of its name.
    prefix: u64,
    slot: u32,
}

impl Jobs {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn get(&self, id: &JobId) -> Option<&Job> {
        let slot = self.slot_of(*id)?;
        self.slot(slot).map(|slot| &slot.job)
    }

    /// A job to change. Its owner and name are not to be changed so.
    pub(crate) fn get_mut(&mut self, id: &JobId) -> Option<&mut Job> {
        let slot = self.slot_of(*id)?;
        self.recent = slot;
        self.slots
            .get_mut(slot as usize)?
            .as_mut()
            .map(|slot| &mut slot.job)
    }

    /// In no order that means something, but always the same.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.slots.iter().flatten().map(|slot| (slot.id, &slot.job))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (JobId, &mut Job)> {
        self.slots
            .iter_mut()
            .flatten()
            .map(|slot| (slot.id, &mut slot.job))
    }

    /// Adds a job, in the place of one that has its id. It waits for no instant.
    pub(crate) fn insert(&mut self, id: JobId, mut job: Job) {
        self.remove(&id);
        let named = Named {
            prefix: job.name.prefix(),
            slot: self.free.last().copied().unwrap_or(self.slots.len() as u32),
        };
        match self.owners.get_key_value(&job.owner) {
            // One text for all of an owner's jobs.
            Some((owner, _)) => job.owner = Arc::clone(owner),
            None => drop(self.owners.insert(Arc::clone(&job.owner), Shelves::default())),
        }
        if let Plan::Sound(sound) = &mut job.plan {
            sound.share(&mut self.rules);
        }
        let place = self.place(&job.owner, (&job.name, named.slot));
        if let Some(names) = self.owners.get_mut(&job.owner) {
            names.insert(place, named);
        }
        let slot = Some(Slot {
            id,
            wake_ms: NEVER,
            job,
        });
        match self.free.pop().and_then(|free| self.slots.get_mut(free as usize)) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        let slots = &self.slots;
        self.ids
            .insert_unique(hash(id), named.slot, |slot| hash_of(slots, *slot));
    }

    pub(crate) fn remove(&mut self, id: &JobId) -> Option<Job> {
        let number = self.slot_of(*id)?;
        self.wake(*id, None);
        let job = self.get(id)?;
        let (owner, place) = (
            Arc::clone(&job.owner),
            self.place(&job.owner, (&job.name, number)),
        );
        if let Some(names) = self.owners.get_mut(&owner) {
            names.remove(place);
            if names.is_empty() {
                self.owners.remove(&owner);
            }
        }
        if let Ok(known) = self.ids.find_entry(hash(*id), |one| *one == number) {
            known.remove();
        }
        self.free.push(number);
        self.slots.get_mut(number as usize)?.take().map(|slot| slot.job)
    }

    /// Looks at a job at `wake_ms` and not before; `None`: at no time.
    pub(crate) fn wake(&mut self, id: JobId, wake_ms: Option<i64>) {
        let Some(number) = self.slot_of(id) else { return };
        let Some(slot) = self.slots.get_mut(number as usize).and_then(Option::as_mut) else {
            return;
        };
        let at = wake_ms.unwrap_or(NEVER);
        let before = std::mem::replace(&mut slot.wake_ms, at);
        if before == at {
            return;
        }
        if before != NEVER {
            self.due.take((before, number));
        }
        if at != NEVER {
            self.due.add((at, number));
        }
    }

    /// Likewise for every job, as `wake_ms` says.
    pub(crate) fn wake_all(&mut self, wake_ms: impl Fn(JobId, &Job) -> Option<i64>) {
        let mut due = Vec::new();
        for (number, slot) in (0..).zip(&mut self.slots) {
            let Some(slot) = slot else { continue };
            slot.wake_ms = wake_ms(slot.id, &slot.job).unwrap_or(NEVER);
            if slot.wake_ms != NEVER {
                due.push((slot.wake_ms, number));
            }
        }
        due.sort_unstable();
        self.due = due.into_iter().collect();
    }

    /// When a job is looked at next.
    pub(crate) fn wake_ms(&self, id: JobId) -> Option<i64> {
        let slot = self.slot(self.slot_of(id)?)?;
        Some(slot.wake_ms).filter(|at| *at != NEVER)
    }

    /// When the next job is looked at, and which one.
    pub(crate) fn first_due(&self) -> Option<(i64, JobId)> {
        let (at, slot) = self.due.first()?;
        Some((at, self.slot(slot)?.id))
    }

    /// The first job whose time has come at an instant.
    pub(crate) fn next_due(&mut self, now_ms: i64) -> Option<JobId> {
        let (_, slot) = self.due.first().filter(|(at, _)| *at <= now_ms)?;
        self.recent = slot;
        Some(self.slot(slot)?.id)
    }

    /// How many jobs are looked at before an instant.
    pub(crate) fn due_before(&self, ms: i64) -> usize {
        self.due.count_before(self.due.place(|(at, _)| *at < ms))
    }

    /// How many jobs an owner has.
    pub(crate) fn count_of(&self, owner: &str) -> usize {
        self.owners.get(owner).map_or(0, Shelves::len)
    }

    /// The job of an owner's name.
    pub(crate) fn resolve(&self, owner: &str, name: &str) -> Option<JobId> {
        self.named(owner, name)
            .next()
            .filter(|(_, job)| *job.name == *name)
            .map(|(id, _)| id)
    }

    /// The jobs of an owner by name, from a name on.
    pub(crate) fn named<'a>(
        &'a self,
        owner: &str,
        from: &str,
    ) -> impl Iterator<Item = (JobId, &'a Job)> + use<'a> {
        let place = self.place(owner, (from, 0));
        let names = self.owners.get(owner).map(|names| names.from(place));
        names
            .into_iter()
            .flatten()
            .filter_map(|named| self.slot(named.slot))
            .map(|slot| (slot.id, &slot.job))
    }

    /// Where a name is, or would be, among its owner's.
    fn place(&self, owner: &str, key: (&str, u32)) -> Place {
        let start = prefix(key.0);
        let before = |one: &Named| {
            if one.prefix != start {
                return one.prefix < start;
            }
            self.slot(one.slot)
                .is_some_and(|slot| (slot.job.name.bytes(), one.slot) < (key.0.as_bytes(), key.1))
        };
        self.owners
            .get(owner)
            .map_or_else(Place::default, |names| names.place(before))
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn slot_of(&self, id: JobId) -> Option<u32> {
        let is = |slot: &u32| self.slot(*slot).is_some_and(|slot| slot.id == id);
        if is(&self.recent) {
            return Some(self.recent);
        }
        self.ids.find(hash(id), is).copied()
    }
}

fn hash_of(slots: &[Option<Slot>], slot: u32) -> u64 {
    let slot = slots.get(slot as usize).and_then(Option::as_ref);
    slot.map_or(0, |slot| hash(slot.id))
}

/// Ids are made here, half of random bits, so nobody chooses them to collide: one multiplication mixes enough.
fn hash(id: JobId) -> u64 {
    let [high, low] = id.halves();
    let wide = u128::from(low ^ high.rotate_left(32)) * 0x9e37_79b9_7f4a_7c15;
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Change {
        Insert(u8, u8, String),
        Remove(u8),
        Wake(u8, Option<i64>),
        WakeAll,
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            30 => (0_u8..60, 0_u8..3, "(same-start-)?[ab]{1,2}").prop_map(|(n, owner, name)| Change::Insert(n, owner, name)),
            10 => (0_u8..60).prop_map(Change::Remove),
            1 => Just(Change::WakeAll),
            30 => (0_u8..60, prop::option::of(0_i64..20)).prop_map(|(n, at)| Change::Wake(n, at)),
        ]
    }

    fn id(n: u8) -> JobId {
        JobId::new(1_000 + i64::from(n % 4), &[n; 10])
    }

    fn job(id: JobId, owner: &str, name: &str) -> Job {
        let mut job = Job::unreadable(id, String::new());
        (job.owner, job.name) = (owner.into(), name.into());
        job
    }

    /// What a job's owner, name and instant are, by id.
    type Model = BTreeMap<JobId, (String, String, Option<i64>)>;

    fn check(jobs: &mut Jobs, model: &Model) {
        assert_eq!(jobs.len(), model.len());
        assert_eq!(jobs.iter().count(), model.len());
        let mut due: Vec<_> = model.values().filter_map(|(_, _, at)| *at).collect();
        due.sort_unstable();
        let first = jobs.first_due();
        assert_eq!(first.map(|(at, _)| at), due.first().copied());
        let (first_ms, first) = first.unzip();
        assert_eq!(jobs.next_due(first_ms.unwrap_or_default()), first);
        assert_eq!(jobs.next_due(first_ms.unwrap_or_default() - 1), None);
        assert_eq!(jobs.due_before(10), due.iter().filter(|at| **at < 10).count());
        for (id, (owner, name, at)) in model {
            let job = jobs.get(id).unwrap();
            assert_eq!((&*job.owner, &*job.name), (owner.as_str(), name.as_str()));
            assert_eq!(jobs.wake_ms(*id), *at);
            let found = jobs.resolve(owner, name).unwrap();
            assert_eq!(&model[&found].1, name, "one of those of that name");
        }
        for owner in ["0", "1", "2"] {
            let mut names: Vec<_> = model
                .values()
                .filter(|one| one.0 == owner)
                .map(|one| one.1.as_str())
                .collect();
            names.sort_unstable();
            assert_eq!(jobs.count_of(owner), names.len());
            for from in ["", "b", "same-start-", "same-start-ab", "z"] {
                let listed: Vec<_> = jobs.named(owner, from).map(|(_, job)| &*job.name).collect();
                let from = names.partition_point(|name| *name < from);
                assert_eq!(listed, names[from..]);
            }
        }
        assert_eq!(jobs.resolve("0", "no-such"), None);
    }

    proptest! {
        #[test]
        fn every_way_leads_to_the_same_jobs(changes in prop::collection::vec(change(), 0..200)) {
            let (mut jobs, mut model) = (Jobs::default(), Model::new());
            for change in changes {
                match change {
                    Change::Insert(n, owner, name) => {
                        jobs.insert(id(n), job(id(n), &owner.to_string(), &name));
                        model.insert(id(n), (owner.to_string(), name, None));
                    }
                    Change::Remove(n) => {
                        prop_assert_eq!(jobs.remove(&id(n)).is_some(), model.remove(&id(n)).is_some());
                    }
                    Change::WakeAll => {
                        jobs.wake_all(|id, _| Some(id.halves()[1] as i64 % 20).filter(|at| at % 3 > 0));
                        for (id, one) in &mut model {
                            one.2 = Some(id.halves()[1] as i64 % 20).filter(|at| at % 3 > 0);
                        }
                    }
                    Change::Wake(n, at) => {
                        jobs.wake(id(n), at);
                        if let Some(one) = model.get_mut(&id(n)) {
                            one.2 = at;
                        }
                    }
                }
            }
            check(&mut jobs, &model);
        }
    }

    #[test]
    fn a_million_jobs_that_never_ran_stay_small() {
        assert!(
            size_of::<Option<Slot>>() <= 168,
            "{} bytes",
            size_of::<Option<Slot>>()
        );
        assert_eq!((size_of::<Named>(), size_of::<(i64, u32)>()), (16, 16));
    }

    #[test]
    fn a_slot_is_used_again_and_an_owner_has_one_text() {
        let mut jobs = Jobs::default();
        for n in 0..50 {
            jobs.insert(id(n), job(id(n), "owner", &n.to_string()));
        }
        let owner = Arc::clone(&jobs.get(&id(0)).unwrap().owner);
        assert!(jobs.iter().all(|(_, job)| Arc::ptr_eq(&job.owner, &owner)));
        for n in 0..50 {
            jobs.remove(&id(n));
        }
        assert!(jobs.owners.is_empty());
        for n in 50..100 {
            jobs.insert(id(n), job(id(n), "other", &n.to_string()));
        }
        assert_eq!(jobs.slots.len(), 50);
    }
}
