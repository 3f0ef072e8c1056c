//! Runs that wait for a worker. Owners take turns; of one owner, the run for the oldest instant comes first.
//!
//! Invariant: between two runs of an owner at most one of every other owner that waits is given away, so nobody's
//! wait depends on how much somebody else has waiting. Bounded by the runs that have not ended; an owner without a
//! waiting run costs nothing.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use crate::{id::RunId, run::Turn};

#[derive(Debug, Default)]
pub(super) struct Queue {
    owners: BTreeMap<Arc<str>, BTreeMap<Turn, RunId>>,
    /// Whose run was given away last: the next owner by name has the turn.
    served: Option<Arc<str>>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub(super) fn insert(&mut self, owner: &Arc<str>, turn: Turn, run: RunId) {
        let runs = match self.owners.get_mut(owner) {
            Some(runs) => runs,
            None => self.owners.entry(Arc::clone(owner)).or_default(),
        };
        runs.insert(turn, run);
    }

    pub(super) fn remove(&mut self, owner: &Arc<str>, turn: Turn) {
        if let Some(runs) = self.owners.get_mut(owner) {
            runs.remove(&turn);
            if runs.is_empty() {
                self.owners.remove(owner);
            }
        }
    }

    /// The run whose turn it is.
    pub(super) fn pop(&mut self) -> Option<RunId> {
        let after = self.served.as_ref().and_then(|served| {
            let later = (Bound::Excluded(Arc::clone(served)), Bound::Unbounded);
            self.owners.range::<Arc<str>, _>(later).next()
        });
        let owner = Arc::clone(after.or_else(|| self.owners.first_key_value())?.0);
        let runs = self.owners.get_mut(&owner)?;
        let (_, run) = runs.pop_first()?;
        if runs.is_empty() {
            self.owners.remove(&owner);
        }
        self.served = Some(owner);
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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
        for n in 0..1_000 {
            queue.insert(&flood, (n / 2, n as u64), run(n));
        }
        assert_eq!([queue.pop(), queue.pop()], [Some(run(0)), Some(run(1))]);
        queue.insert(&other, (5_001, 0), run(5_001));
        queue.insert(&other, (5_000, 1), run(5_000));
        let next: Vec<_> = std::iter::from_fn(|| queue.pop()).take(5).collect();
        assert_eq!(next, [5_000, 2, 5_001, 3, 4].map(run));
        for n in 0..1_000 {
            queue.remove(&flood, (n / 2, n as u64));
        }
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    proptest! {
        /// Whatever comes and goes: each owner's runs leave oldest first, none is lost, and no owner that waits
        /// all the time is passed over while another is served twice.
        #[test]
        fn owners_take_turns(acts in prop::collection::vec((0..4_usize, 0..3_u8), 1..300)) {
            let names: [Arc<str>; 4] = ["a", "b", "c", "d"].map(Into::into);
            let mut queue = Queue::default();
            let mut waiting: [VecDeque<i64>; 4] = Default::default();
            // How many of others were served since, while it waited.
            let mut passed = [0_usize; 4];
            for (n, (who, act)) in (0_i64..).zip(acts) {
                match act {
                    0 => {
                        queue.insert(&names[who], (n, 0), run(n));
                        waiting[who].push_back(n);
                    }
                    1 => {
                        if let Some(gone) = waiting[who].pop_back() {
                            queue.remove(&names[who], (gone, 0));
                        }
                    }
                    _ => match queue.pop() {
                        None => prop_assert!(waiting.iter().all(VecDeque::is_empty)),
                        Some(given) => {
                            let whose = waiting.iter().position(|runs| runs.front().is_some_and(|n| run(*n) == given));
                            let whose = whose.expect("the oldest of somebody");
                            waiting[whose].pop_front();
                            for (other, runs) in waiting.iter().enumerate() {
                                passed[other] = if other == whose || runs.is_empty() { 0 } else { passed[other] + 1 };
                                prop_assert!(passed[other] < names.len(), "passed over");
                            }
                        }
                    },
                }
                for (other, runs) in waiting.iter().enumerate() {
                    if runs.is_empty() {
                        passed[other] = 0;
                    }
                }
            }
        }
    }
}
