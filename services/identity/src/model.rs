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

/// A history far longer than the exhaustive search reaches: at each step one of the possible actions, by
/// the next choice. The first invariant that breaks.
fn walk<M: Model>(model: &M, choices: &[u16]) -> Option<&'static str> {
    let mut state = model.init_states().into_iter().next()?;
    let properties = model.properties();
    for choice in choices {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        if actions.is_empty() {
            return None;
        }
        let action = actions.swap_remove(usize::from(*choice) % actions.len());
        state = model.next_state(&state, action).unwrap_or(state);
        let broken = properties
            .iter()
            .find(|property| !(property.condition)(model, &state));
        if let Some(broken) = broken {
            return Some(broken.name);
        }
    }
    None
}
