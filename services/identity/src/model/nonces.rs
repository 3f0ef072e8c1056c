//! Two connections, three nonces, whoever listens on the wire says any of them anywhere; time.

use stateright::{Model, Property};

use crate::{
    guard::{Guard, Guards},
    nonces::{LIFE_MS, Nonces},
};

const CONNECTIONS: [&str; 2] = ["a", "b"];
const OPENS: u8 = 3;
const STEP_MS: i64 = LIFE_MS / 3;
const END_MS: i64 = 5 * STEP_MS;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    now_ms: i64,
    nonces: Nonces,
    /// Each nonce: whose it was, and since when.
    given: Vec<(usize, i64)>,
    /// What let a connection in: the nonce, the connection, when.
    opened: Vec<(usize, usize, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Challenge(usize),
    Prove { connection: usize, nonce: usize },
    Tick,
}

struct Proving(Guards);

fn one_use(_: &Proving, world: &World) -> bool {
    let nth = |n: usize| world.opened.iter().filter(|(nonce, ..)| *nonce == n).count();
    (0..world.given.len()).all(|n| nth(n) <= 1)
}

fn in_time(_: &Proving, world: &World) -> bool {
    world
        .opened
        .iter()
        .all(|(nonce, _, at)| at - world.given[*nonce].1 < LIFE_MS)
}

fn own_connection(_: &Proving, world: &World) -> bool {
    world
        .opened
        .iter()
        .all(|(nonce, connection, _)| world.given[*nonce].0 == *connection)
}

impl Model for Proving {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, into: &mut Vec<Step>) {
        for connection in 0..CONNECTIONS.len() {
            if world.given.len() < usize::from(OPENS) {
                into.push(Step::Challenge(connection));
            }
            into.extend((0..world.given.len()).map(|nonce| Step::Prove { connection, nonce }));
        }
        if world.now_ms < END_MS {
            into.push(Step::Tick);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Challenge(connection) => {
                let text = format!("n{}", world.given.len());
                world
                    .nonces
                    .open(CONNECTIONS[connection], text, world.now_ms)
                    .ok()?;
                world.given.push((connection, world.now_ms));
            }
            Step::Prove { connection, nonce } => {
                let said = format!("n{nonce}");
                let used = world
                    .nonces
                    .redeem(CONNECTIONS[connection], &said, world.now_ms, self.0);
                if used.is_ok() {
                    world.opened.push((nonce, connection, world.now_ms));
                }
            }
            Step::Tick => world.now_ms += STEP_MS,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one use", one_use),
            Property::always("in time", in_time),
            Property::always("own connection", own_connection),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.opened.len() <= 2
    }
}

#[test]
fn a_nonce_opens_one_connection_its_own_in_time() {
    let world = |out: Option<Guard>| Proving(out.map_or(Guards::all(), Guards::without));
    let guards = [
        (Guard::OneUse, "one use"),
        (Guard::NonceTtl, "in time"),
        (Guard::BindConnection, "own connection"),
    ];
    super::check(world, 10_000, &guards);
}
