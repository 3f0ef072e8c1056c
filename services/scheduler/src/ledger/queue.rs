//! Runs that wait for a worker. Owners take turns; of an owner the better lane comes first ([`Lane`]), within bounds;
//! of one lane the run for the oldest instant and the run for the newest one take turns.
//!
//! Invariants: of the turns for which there is the same room, an owner that waits gets one between two of any other, so
//! nobody's wait depends on how much somebody else has waiting. A lane that may be served has one in eight of its owner's
//! turns at least, and every other turn of a lane is its oldest run's: a run with k older ones in its lane is given
//! away within 16 (k + 1) turns, and one that comes alone into a backlog has its lane's second next turn at most.
//! Bounded by the runs that have not ended; an owner without a waiting run costs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use crate::{id::RunId, lane::Lane, run::Turn, shelves::Shelves};

const LANES: usize = Lane::ALL.len();
/// Owners looked at for a run that has just come up.
const MAX_LOOKED_AT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Queue {
    owners: BTreeMap<Arc<str>, Line>,
    /// Owners with a run in a lane.
    waiting: [BTreeSet<Arc<str>>; LANES],
    /// Whose run was given away last, by the last lane it could be of: the next owner by name has the turn.
    served: [Option<Arc<str>>; LANES],
    /// By lane: whose run was given away last because it had just come up.
    came: [Option<Arc<str>>; LANES],
}

/// The runs of an owner.
#[derive(Debug, Default)]
struct Line {
    lanes: [Shelves<(Turn, RunId)>; LANES],
    /// How often each lane was passed over.
    passed: [u8; LANES],
    /// Lanes whose next run is the newest.
    newest: [bool; LANES],
}

impl Line {
    /// The run whose turn it is, and its lane; none of a lane behind `last`.
    fn take(&mut self, last: Lane) -> Option<(Lane, RunId)> {
        let waits = |lane: &Lane| *lane <= last && !self.lanes[*lane as usize].is_empty();
        let waiting = || Lane::ALL.into_iter().filter(waits);
        let impatient = waiting().rfind(|lane| self.passed[*lane as usize] >= lane.patience());
        let lane = impatient.or_else(|| waiting().next())?;
        for other in Lane::ALL.into_iter().filter(waits) {
            let passed = &mut self.passed[other as usize];
            *passed = if other == lane {
                0
            } else {
                passed.saturating_add(1)
            };
        }
        let newest = &mut self.newest[lane as usize];
        let runs = &mut self.lanes[lane as usize];
        let (_, run) = if *newest {
            runs.pop_last()
        } else {
            runs.pop_first()
        }?;
        *newest = !*newest;
        Some((lane, run))
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub(super) fn insert(&mut self, owner: &Arc<str>, lane: Lane, turn: Turn, run: RunId) {
        let line = match self.owners.get_mut(owner) {
            Some(line) => line,
            None => self.owners.entry(Arc::clone(owner)).or_default(),
        };
        let runs = &mut line.lanes[lane as usize];
        if runs.is_empty() {
            self.waiting[lane as usize].insert(Arc::clone(owner));
        }
        runs.add((turn, run));
    }

    pub(super) fn remove(&mut self, owner: &Arc<str>, lane: Lane, turn: Turn, run: RunId) {
        if let Some(line) = self.owners.get_mut(owner) {
            line.lanes[lane as usize].take((turn, run));
            self.tidy(owner, lane);
        }
    }

    /// The run whose turn it is, of those in no lane behind `last`.
    pub(super) fn pop(&mut self, last: Lane) -> Option<RunId> {
        let lanes = || {
            Lane::ALL
                .into_iter()
                .filter(|lane| *lane <= last)
                .map(|lane| &self.waiting[lane as usize])
        };
        let later = self.served[last as usize].as_ref().and_then(|served| {
            let later = (Bound::Excluded(served), Bound::Unbounded);
            lanes()
                .filter_map(|owners| owners.range::<Arc<str>, _>(later).next())
                .min()
        });
        let owner = Arc::clone(later.or_else(|| lanes().filter_map(BTreeSet::first).min())?);
        let (lane, run) = self.owners.get_mut(&owner)?.take(last)?;
        self.tidy(&owner, lane);
        self.served[last as usize] = Some(owner);
        Some(run)
    }

    /// A run in a lane that has just come up: for an instant not before `since_ms`, its owner's newest.
    pub(super) fn pop_new(&mut self, lane: Lane, since_ms: i64) -> Option<RunId> {
        let owners = &self.waiting[lane as usize];
        let newest = |owner: &Arc<str>| Some(self.owners.get(owner)?.lanes[lane as usize].last()?.0.0);
        let came = self.came[lane as usize]
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let later = owners.range::<Arc<str>, _>((came, Bound::Unbounded));
        let mut looked_at = later.chain(owners).take(MAX_LOOKED_AT);
        let owner = Arc::clone(looked_at.find(|owner| newest(owner) >= Some(since_ms))?);
        let (_, run) = self.owners.get_mut(&owner)?.lanes[lane as usize].pop_last()?;
        self.tidy(&owner, lane);
        self.came[lane as usize] = Some(owner);
        Some(run)
    }

    /// Forgets what an owner has none of any more.
    fn tidy(&mut self, owner: &Arc<str>, lane: Lane) {
        let Some(line) = self.owners.get(owner) else {
            return;
        };
        if line.lanes[lane as usize].is_empty() {
            self.waiting[lane as usize].remove(owner);
            if line.lanes.iter().all(Shelves::is_empty) {
                self.owners.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{JobId, Occurrence};

    fn run(n: i64) -> RunId {
        RunId::of(Occurrence {
            job: JobId::new(0, &[0; 10]),
            incarnation: 1,
            kind: creel_proto::scheduler::v1::RunKind::Scheduled,
            request: None,
            nominal_ms: n,
        })
    }

    #[test]
    fn a_flood_of_one_owner_costs_another_one_place() {
        let (mut queue, flood, other) = (Queue::default(), "a".into(), "b".into());
        let pop = |queue: &mut Queue| queue.pop(Lane::Unruly);
        for n in 0..1_000 {
            queue.insert(&flood, Lane::Prompt, (n / 2, n as u64), run(n));
        }
        assert_eq!([pop(&mut queue), pop(&mut queue)], [Some(run(0)), Some(run(999))]);
        queue.insert(&other, Lane::Unruly, (5_001, 0), run(5_001));
        queue.insert(&other, Lane::Unruly, (5_000, 1), run(5_000));
        let next: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).take(5).collect();
        assert_eq!(next, [5_000, 1, 5_001, 998, 2].map(run));
        for n in 0..1_000 {
            queue.remove(&flood, Lane::Prompt, (n / 2, n as u64), run(n));
        }
        assert!(
            queue.is_empty() && queue.waiting.iter().all(BTreeSet::is_empty) && pop(&mut queue).is_none()
        );
    }

    #[test]
    fn a_backlog_of_its_own_owner_costs_a_run_a_turn_or_two() {
        let (mut queue, owner) = (Queue::default(), "a".into());
        for n in 0..1_000 {
            queue.insert(&owner, Lane::Unknown, (n, 0), run(n));
            queue.insert(&owner, Lane::Unruly, (n, 0), run(-1 - n));
        }
        assert_eq!(queue.pop(Lane::Prompt), None, "what is held back is not for them");
        queue.insert(&owner, Lane::Prompt, (2_000, 0), run(2_000));
        assert_eq!(queue.pop(Lane::Prompt), Some(run(2_000)));
        queue.insert(&owner, Lane::Prompt, (2_001, 0), run(2_001));
        queue.insert(&owner, Lane::Unknown, (2_002, 0), run(2_002));
        let next: Vec<_> = std::iter::from_fn(|| queue.pop(Lane::Unknown)).take(3).collect();
        assert_eq!(next, [2_001, 0, 2_002].map(run));
        let next: Vec<_> = std::iter::from_fn(|| queue.pop(Lane::Unruly)).take(8).collect();
        assert_eq!(next, [1, 999, 2, 998, 3, 997, 4, -1].map(run));
    }

    #[test]
    fn what_has_just_come_up_is_found_and_owners_take_turns() {
        let (mut queue, names) = (Queue::default(), ["a", "b", "c"].map(Arc::from));
        for n in 0..10 {
            queue.insert(&names[0], Lane::Unknown, (n, 0), run(n));
            queue.insert(&names[1], Lane::Prompt, (n, 0), run(100 + n));
        }
        queue.insert(&names[2], Lane::Unknown, (8, 0), run(208));
        assert_eq!(queue.pop_new(Lane::Unknown, 10), None);
        assert_eq!(
            [(); 4].map(|()| queue.pop_new(Lane::Unknown, 7)),
            [9, 208, 8, 7].map(|n| Some(run(n)))
        );
        assert_eq!(queue.pop_new(Lane::Unknown, 7), None, "the rest waits for longer");
        assert_eq!(queue.pop(Lane::Prompt), Some(run(100)));
        assert_eq!(queue.pop_new(Lane::Prompt, 9), Some(run(109)), "of its lane");
    }

    proptest! {
        /// Whatever comes and goes: none is lost; no owner that waits all the time is passed over while another is
        /// served twice; the oldest run of each lane of an owner has its turn among sixteen it could have had.
        #[test]
        fn owners_and_lanes_take_turns(
            acts in prop::collection::vec((0..4_usize, 0..LANES, 0..5_u8), 1..400),
        ) {
            let names: [Arc<str>; 4] = ["a", "b", "c", "d"].map(Into::into);
            let mut queue = Queue::default();
            let mut waiting: [[BTreeSet<i64>; LANES]; 4] = Default::default();
            // How many of others were served since, while it waited and could have been; of owners by the room.
            let mut passed = [[0_usize; 4]; LANES];
            let mut missed = [[0_usize; LANES]; 4];
            let rest = (0..400).map(|_| (0, LANES - 1, 3));
            for (n, (who, lane, act)) in (0_i64..).zip(acts.into_iter().chain(rest)) {
                match act {
                    0 | 1 => {
                        queue.insert(&names[who], Lane::ALL[lane], (n, 0), run(n));
                        waiting[who][lane].insert(n);
                    }
                    2 => {
                        if let Some(gone) = waiting[who][lane].pop_last() {
                            queue.remove(&names[who], Lane::ALL[lane], (gone, 0), run(gone));
                        }
                    }
                    _ => {
                        let last = lane;
                        let could = |runs: &[BTreeSet<i64>; LANES]| runs[..=last].iter().any(|runs| !runs.is_empty());
                        let Some(given) = queue.pop(Lane::ALL[last]) else {
                            prop_assert!(!waiting.iter().any(could), "one that waits is given away");
                            continue;
                        };
                        let places = (0..4).flat_map(|who| (0..LANES).map(move |lane| (who, lane)));
                        let found = places.into_iter().find_map(|(who, lane)| {
                            let n = waiting[who][lane].iter().find(|n| run(**n) == given)?;
                            Some((who, lane, *n))
                        });
                        let (whose, of, n) = found.expect("it waited");
                        prop_assert!(of <= last);
                        for (other, passed) in passed[last].iter_mut().enumerate() {
                            let waits = other != whose && could(&waiting[other]);
                            *passed = if waits { *passed + 1 } else { 0 };
                            prop_assert!(*passed < names.len(), "passed over");
                        }
                        for (lane, missed) in missed[whose][..=last].iter_mut().enumerate() {
                            let oldest = lane == of && waiting[whose][of].first() == Some(&n);
                            *missed = if oldest { 0 } else { *missed + 1 };
                            prop_assert!(*missed <= 16, "starved");
                        }
                        waiting[whose][of].remove(&n);
                    }
                }
                for (who, runs) in waiting.iter().enumerate() {
                    for (lane, runs) in runs.iter().enumerate() {
                        if runs.is_empty() {
                            missed[who][lane] = 0;
                        }
                    }
                }
            }
            prop_assert!(queue.is_empty(), "all have had their turn");
        }
    }
}
