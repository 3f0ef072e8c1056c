//! The machines that ship, in small worlds that stateright explores to the end: clocks, disks and people
//! are made up, guards and transitions are not. Each invariant is one function of a state; each guard left
//! out breaks exactly the one it stands for (`design/formal.md`).

mod devices;
mod nonces;
mod senders;

use std::{collections::BTreeSet, fmt::Debug, hash::Hash};

use stateright::{Checker as _, Model};

use crate::guard::Guard;

/// Explores a world to its end; how many states it has, and the invariants that break in it.
fn explore<M>(model: M) -> (usize, BTreeSet<&'static str>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let checker = model.checker().spawn_bfs().join();
    let broken = checker.discoveries().into_keys().collect();
    (checker.unique_state_count(), broken)
}

/// With all guards nothing breaks, in enough states; without one, exactly what it holds.
fn check<M>(world: impl Fn(Option<Guard>) -> M, least: usize, guards: &[(Guard, &'static str)])
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let (states, broken) = explore(world(None));
    assert!(broken.is_empty(), "{broken:?}");
    assert!(states >= least, "only {states} states");
    for (guard, holds) in guards {
        let (_, broken) = explore(world(Some(*guard)));
        assert_eq!(broken, BTreeSet::from([*holds]), "without {guard:?}");
    }
}
