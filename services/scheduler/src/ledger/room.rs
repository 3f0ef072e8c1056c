//! A worker, and how many more runs it can be given.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Ledger;
use crate::{
    id::RunId,
    lane::{Lane, NEW_MS},
    run::Now,
};

/// A worker on a stream.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) kinds: BTreeSet<i32>,
    /// What it runs turns with; empty: it does not say.
    pub(super) backends: BTreeSet<Arc<str>>,
    pub(super) capacity: usize,
    pub(super) instance: Arc<str>,
    pub(super) holding: Holding,
}

/// Runs a worker has or will have, with the lanes they came from.
#[derive(Debug, Default)]
pub(super) struct Holding {
    runs: BTreeMap<RunId, Lane>,
    /// Those of [`Lane::Prompt`].
    prompt: usize,
}

impl Holding {
    pub(super) fn insert(&mut self, run: RunId, lane: Lane) {
        self.remove(&run);
        self.runs.insert(run, lane);
        self.prompt += usize::from(lane == Lane::Prompt);
    }

    pub(super) fn remove(&mut self, run: &RunId) {
        let lane = self.runs.remove(run);
        self.prompt -= usize::from(lane == Some(Lane::Prompt));
    }

    pub(super) fn contains(&self, run: &RunId) -> bool {
        self.runs.contains_key(run)
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn into_runs(self) -> impl Iterator<Item = RunId> {
        self.runs.into_keys()
    }

    fn of(&self, lane: Lane) -> usize {
        match lane {
            Lane::Prompt => self.prompt,
            // Only that one is bounded by itself.
            Lane::Alert | Lane::Unknown | Lane::Unruly => 0,
        }
    }
}

/// The last lane it is given runs of, and how many places it has. Ordered by how much it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    pub(super) last: Option<Lane>,
    free: usize,
    /// The lane of which it is given one more that has just come up, and how long after the one before.
    new: Option<(Lane, i64)>,
}

impl Worker {
    pub(super) fn room(&self) -> Room {
        let (places, held) = (self.capacity, self.holding.len());
        let takes =
            |lane: &Lane| held < lane.most_held(places) && self.holding.of(*lane) < lane.most_at_once(places);
        Room {
            last: Lane::ALL.into_iter().rfind(takes),
            free: places.saturating_sub(held),
            new: Lane::new_of(places, held, self.holding.prompt),
        }
    }
}

impl Ledger {
    /// The run of a kind that a worker with such room is given next.
    pub(super) fn next_for(&mut self, kind: i32, room: Room, now: Now) -> Option<RunId> {
        let queue = self.ready.get_mut(&kind)?;
        if let Some(run) = room.last.and_then(|last| queue.pop(last)) {
            return Some(run);
        }
        let (lane, every_ms) = room.new?;
        let from_ms = &mut self.new_from_ms[lane as usize];
        if *from_ms > now.mono_ms {
            return None;
        }
        let run = queue.pop_new(lane, now.wall_ms.saturating_sub(NEW_MS))?;
        *from_ms = now.mono_ms + every_ms;
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(n: usize) -> RunId {
        format!("{n:032x}").parse().unwrap()
    }

    proptest! {
        /// Whatever comes and goes: no worker is given more than it has places for; one of two or more is never
        /// filled by what fails, one of four or more never by what may be anything, one of eight or more never by
        /// what ended soon until now, so that an alert finds a place; and a better lane is open whenever a worse is.
        #[test]
        fn a_worker_of_any_size_keeps_its_last_places(
            capacity in 1_usize..=16,
            acts in prop::collection::vec((0..Lane::ALL.len(), any::<bool>()), 1..200),
        ) {
            let mut worker = Worker {
                kinds: BTreeSet::new(),
                backends: BTreeSet::new(),
                capacity,
                instance: "one".into(),
                holding: Holding::default(),
            };
            prop_assert_eq!(worker.room().last, Some(Lane::Unruly), "it takes all while it has nothing");
            let mut held: Vec<(RunId, Lane)> = Vec::new();
            for (n, (lane, comes)) in acts.into_iter().enumerate() {
                let lane = Lane::ALL[lane];
                if comes && worker.room().last >= Some(lane) {
                    worker.holding.insert(run(n), lane);
                    held.push((run(n), lane));
                } else if !comes && let Some(at) = held.iter().position(|(_, of)| *of == lane) {
                    worker.holding.remove(&held.swap_remove(at).0);
                }
                let count = |lane| held.iter().filter(|(_, of)| *of == lane).count();
                let [alert, prompt, unknown, unruly] = Lane::ALL.map(count);
                prop_assert_eq!(worker.holding.len(), held.len());
                prop_assert_eq!(worker.holding.prompt, prompt);
                prop_assert!(held.len() <= capacity);
                prop_assert!(capacity < 2 || unruly < capacity, "all places fail");
                prop_assert!(capacity < 4 || unknown + unruly < capacity, "none is left for what ends soon");
                prop_assert!(capacity < 8 || prompt < capacity, "none is left for alerts");
                let open = |lane: &Lane| held.len() < lane.most_held(capacity)
                    && worker.holding.of(*lane) < lane.most_at_once(capacity);
                let open: Vec<_> = Lane::ALL.into_iter().filter(open).collect();
                prop_assert!(open.iter().eq(&Lane::ALL[..open.len()]));
                if alert == 0 && unknown + unruly == 0 {
                    prop_assert!(capacity < 8 || worker.room().last.is_some(), "an alert finds a place");
                }
            }
        }
    }
}
