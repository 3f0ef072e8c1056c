use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::guard::{Guard, Guards};

const MOST: usize = 400_000;

/// An invariant of a world.
type Holds<S> = fn(&S) -> bool;

/// Which guard holds which invariant.
const OF_FIRES: [(Guard, Holds<Fires>); 3] = [
    (Guard::Slot, fir_1),
    (Guard::Cursor, fir_2),
    (Guard::SyncFirst, fir_3),
];
const OF_LEASES: [(Guard, Holds<Leases>); 5] = [
    (Guard::Fence, lea_1),
    (Guard::TerminalOnce, lea_2),
    (Guard::FenceDurable, lea_3),
    (Guard::Expire, lea_4),
    (Guard::NotBegun, lea_5),
];

/// Visits every state that can be reached, at most `most`; answers how many, and the first that `good` refuses.
fn explore<S: Clone + Ord>(
    start: S,
    next: impl Fn(&S) -> Vec<S>,
    good: impl Fn(&S) -> bool,
) -> (usize, Option<S>) {
    let mut seen = BTreeSet::from([start.clone()]);
    let mut queue = VecDeque::from([start]);
    while let Some(state) = queue.pop_front() {
        if !good(&state) {
            return (seen.len(), Some(state));
        }
        for after in next(&state) {
            if seen.len() < MOST && seen.insert(after.clone()) {
                queue.push_back(after);
            }
        }
    }
    (seen.len(), None)
}

fn fires_after(fires: &Fires) -> Vec<Fires> {
    Fire::ALL.iter().filter_map(|fire| fires.after(*fire)).collect()
}

fn leases_after(leases: &Leases) -> Vec<Leases> {
    Step::ALL.iter().filter_map(|step| leases.after(*step)).collect()
}

#[test]
fn no_reachable_state_breaks_a_fire_invariant() {
    let good = |fires: &Fires| OF_FIRES.iter().all(|(_, holds)| holds(fires));
    let (states, broken) = explore(Fires::new(Guards::all()), fires_after, good);
    assert_eq!(broken, None);
    assert!(
        (10_000..MOST).contains(&states),
        "{states} states: all of them, and enough"
    );
}

#[test]
fn no_reachable_state_breaks_a_lease_invariant() {
    let good = |leases: &Leases| OF_LEASES.iter().all(|(_, holds)| holds(leases));
    let (states, broken) = explore(Leases::new(Guards::all()), leases_after, good);
    assert_eq!(broken, None);
    assert!(
        (10_000..MOST).contains(&states),
        "{states} states: all of them, and enough"
    );
}

#[test]
fn each_guard_left_out_breaks_what_it_holds() {
    for (guard, holds) in OF_FIRES {
        let (_, broken) = explore(Fires::new(Guards::without(guard)), fires_after, holds);
        assert!(broken.is_some(), "{} holds nothing", guard.name());
    }
    for (guard, holds) in OF_LEASES {
        let (_, broken) = explore(Leases::new(Guards::without(guard)), leases_after, holds);
        assert!(broken.is_some(), "{} holds nothing", guard.name());
    }
    assert_eq!(Guard::ALL.len(), OF_FIRES.len() + OF_LEASES.len());
}

proptest! {
    // Longer histories than the exhaustive search reaches by breadth.
    #[test]
    fn long_histories_keep_the_invariants(
        fires in prop::collection::vec(prop::sample::select(Fire::ALL), 0..200),
        steps in prop::collection::vec(prop::sample::select(Step::ALL), 0..200),
    ) {
        let mut world = Fires::new(Guards::all());
        for fire in fires {
            world = world.after(fire).unwrap_or(world);
            for (guard, holds) in OF_FIRES {
                prop_assert!(holds(&world), "{} {:?} {:?}", guard.name(), fire, world);
            }
        }
        let mut world = Leases::new(Guards::all());
        for step in steps {
            world = world.after(step).unwrap_or(world);
            for (guard, holds) in OF_LEASES {
                prop_assert!(holds(&world), "{} {:?} {:?}", guard.name(), step, world);
            }
        }
    }
}
