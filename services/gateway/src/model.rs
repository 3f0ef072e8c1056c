//! The machines that ship, in a small world that stateright explores to the end: identity that says who stands and
//! who is revoked, the watch that is late or cut, the gateway's book of connections. Clock, network and devices are
//! made up, guards and transitions are not. Each invariant is one function of a state; each guard left out, here or
//! in identity, breaks exactly the one it stands for (`design/formal.md`, *revocation*).
//!
//! One step of the clock is a second, but for the lives of assertions, which are whole: the world is shorter.

mod world;

use std::collections::{BTreeSet, VecDeque};

use creel_identity::{
    epochs,
    guard::{Guard as IdentityGuard, Guards as IdentityGuards},
};
use proptest::prelude::*;
use stateright::{Checker as _, Model, Property};

use self::world::{
    Call, DEVICE, Event, LIMITS, SECOND_MS, Signed, Stream, Way, World, rev_1, rev_2, rev_3, rev_4,
};
use crate::guard::{Guard, Guards};

const END_MS: i64 = 3 * SECOND_MS;
/// The connection with a certificate, and the one at the door; each is made once.
const CERTIFIED: usize = 0;
const AT_DOOR: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Tick,
    /// What the device holds changes.
    Change,
    Revoke,
    Cut,
    Watch,
    Snapshot,
    Deliver,
    Connect,
    Knock,
    /// Identity judges the device of a connection.
    Judge(usize),
    /// Its word arrives.
    Answer(usize),
    Call(usize),
    /// A connection that was told to close does.
    Close(usize),
    /// A statement is made of a connection's, for a turn.
    Turn(usize),
    /// And of that one, the next.
    Refresh,
}

/// The guard that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Gateway(Guard),
    Identity(IdentityGuard),
}

struct Revocation {
    gateway: Guards,
    identity: IdentityGuards,
}

impl Revocation {
    fn new(out: Option<Out>) -> Self {
        let (mut gateway, mut identity) = (Guards::all(), IdentityGuards::all());
        match out {
            Some(Out::Gateway(guard)) => gateway = Guards::without(guard),
            Some(Out::Identity(guard)) => identity = IdentityGuards::without(guard),
            None => {}
        }
        Self { gateway, identity }
    }

    fn sign(&self, world: &World, epoch: u64, again: bool) -> Signed {
        Signed {
            epoch,
            life_ms: epochs::end_ms(world.now_ms, None, self.identity) - world.now_ms,
            again: again.then_some(world.standing),
        }
    }

    /// Identity's word for a device that proved itself.
    fn vouch(&self, world: &World) -> Option<Signed> {
        epochs::vouch(Some(world.standing), self.identity).ok()?;
        Some(self.sign(world, world.standing.epoch, false))
    }

    /// Identity's word again, for what it said before.
    fn again(&self, world: &World, before: Signed) -> Option<Signed> {
        epochs::vouch_again(Some(world.standing), before.epoch, self.identity).ok()?;
        Some(self.sign(world, before.epoch, true))
    }

    /// `None` if it can't happen now.
    fn after(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.call = None;
        match step {
            Step::Tick if world.now_ms < END_MS => {
                next.now_ms += SECOND_MS;
                next.send(false);
                let close = next.book.expire(next.now_ms, self.gateway);
                next.closing.extend(close);
                let open = |id: u64| !next.closing.contains(&id);
                next.left_open = next.dark_ms() >= LIMITS.close_ms && next.stands().any(open);
                // Left, as the shell leaves what is silent or too late.
                if next.book.dark_ms(next.now_ms) >= LIMITS.refuse_ms {
                    next.stream = Stream::None;
                }
            }
            Step::Change if world.standing.epoch == 1 => {
                next.standing = world.standing.changed();
                next.send(true);
            }
            Step::Revoke if !world.standing.revoked => {
                next.standing = world.standing.revoked();
                next.revoked_ms = Some(world.now_ms);
                next.send(true);
            }
            Step::Cut => match &mut next.stream {
                Stream::Open { fed, .. } if *fed => *fed = false,
                _ => return None,
            },
            Step::Watch if world.stream == Stream::None => {
                next.stream = Stream::Asked { at_ms: world.now_ms };
            }
            Step::Snapshot => {
                let Stream::Asked { at_ms } = world.stream else {
                    return None;
                };
                let event = Event {
                    sent_ms: world.now_ms,
                    changed: world.standing.revoked,
                };
                next.stream = Stream::Open {
                    asked_ms: at_ms,
                    taken_ms: world.now_ms,
                    fed: true,
                    heard: false,
                    events: VecDeque::from([event]),
                };
            }
            Step::Deliver => {
                let Stream::Open {
                    asked_ms,
                    taken_ms,
                    heard,
                    events,
                    ..
                } = &mut next.stream
                else {
                    return None;
                };
                let event = events.pop_front()?;
                *heard = true;
                let known_ms = *asked_ms + (event.sent_ms - *taken_ms);
                next.told_ms = next.told_ms.max(event.sent_ms);
                let changed: &[u8] = if event.changed { &[DEVICE] } else { &[] };
                if event.changed {
                    let stood = |way: &Way| !matches!(way, Way::Away | Way::Knocked { .. } | Way::Gone);
                    let at_door = |way: &Way| matches!(way, Way::Vouched { seen: Some(_), .. });
                    let touched = world.ways.iter().enumerate();
                    let touched = touched.filter(|(_, way)| stood(way) && !at_door(way));
                    next.touched.extend(touched.map(|(id, _)| id as u64));
                }
                let close = next.book.heard(changed, known_ms, self.gateway);
                next.closing.extend(close);
            }
            Step::Connect if world.ways[CERTIFIED] == Way::Away => {
                next.book.open(&DEVICE, CERTIFIED as u64).ok()?;
                next.ways[CERTIFIED] = Way::Certified;
            }
            Step::Knock if world.ways[AT_DOOR] == Way::Away => {
                world.book.sees(world.now_ms, self.gateway).ok()?;
                next.ways[AT_DOOR] = Way::Knocked {
                    seen: world.book.changes(),
                };
            }
            Step::Judge(id) => {
                let word = match world.ways[id] {
                    Way::Certified => {
                        world.book.sees(world.now_ms, self.gateway).ok()?;
                        self.vouch(world).map(|signed| (signed, None))
                    }
                    Way::Knocked { seen } => self.vouch(world).map(|signed| (signed, Some(seen))),
                    Way::Outdated(signed) => self.again(world, signed).map(|signed| (signed, None)),
                    _ => return None,
                };
                match word {
                    Some((signed, seen)) => next.ways[id] = Way::Vouched { signed, seen },
                    // It may ask again, for as long as it stays open; the door closes.
                    None if world.ways[id] == Way::Certified => return None,
                    None => next.gone(id),
                }
            }
            Step::Answer(id) => {
                let Way::Vouched { signed, seen } = world.ways[id] else {
                    return None;
                };
                next.ways[id] = Way::Proven(signed);
                if let Some(seen) = seen {
                    next.book.open(&DEVICE, id as u64).ok()?;
                    if next.book.is_outdated(seen, self.gateway) {
                        next.ways[id] = Way::Outdated(signed);
                    }
                }
            }
            Step::Call(id) => {
                let Way::Proven(_) = world.ways[id] else {
                    return None;
                };
                world
                    .book
                    .admit(&DEVICE, id as u64, world.now_ms, self.gateway)
                    .ok()?;
                next.call = Some(Call {
                    revoked_for_ms: world.revoked_ms.map(|at| (world.now_ms - at).min(SECOND_MS)),
                    dark_ms: world.dark_ms().min(LIMITS.refuse_ms),
                    live: world.is_live(),
                });
            }
            Step::Close(id) if world.closing.contains(&(id as u64)) => next.gone(id),
            Step::Turn(id) => {
                let Way::Proven(signed) = world.ways[id] else {
                    return None;
                };
                next.turn = Some(self.again(world, signed)?);
            }
            Step::Refresh => next.turn = Some(self.again(world, world.turn?)?),
            _ => return None,
        }
        (next != *world).then_some(next)
    }
}

impl Model for Revocation {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, into: &mut Vec<Step>) {
        let mut all = vec![
            Step::Tick,
            Step::Change,
            Step::Revoke,
            Step::Cut,
            Step::Watch,
            Step::Snapshot,
            Step::Deliver,
            Step::Connect,
            Step::Knock,
            Step::Turn(CERTIFIED),
            Step::Refresh,
        ];
        for id in [CERTIFIED, AT_DOOR] {
            all.extend([Step::Judge(id), Step::Answer(id), Step::Call(id), Step::Close(id)]);
        }
        into.extend(all.into_iter().filter(|step| self.after(world, *step).is_some()));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        self.after(world, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("REV-1", |_, world| rev_1(world)),
            Property::always("REV-2", |_, world| rev_2(world)),
            Property::always("REV-3", |_, world| rev_3(world)),
            Property::always("REV-4", |_, world| rev_4(world)),
        ]
    }
}

/// How many states, and which invariants break in them.
fn explore(out: Option<Out>) -> (usize, BTreeSet<&'static str>) {
    let checker = Revocation::new(out).checker().spawn_bfs().join();
    let broken = checker.discoveries().into_keys().collect();
    (checker.unique_state_count(), broken)
}

#[test]
fn revoked_means_revoked_in_every_state_that_can_be_reached() {
    let (states, broken) = explore(None);
    assert_eq!(broken, BTreeSet::new());
    assert!(states >= 10_000, "only {states} states");
}

#[test]
fn each_guard_left_out_breaks_exactly_what_it_holds() {
    for (out, holds) in [
        (Out::Gateway(Guard::Epoch), "REV-1"),
        (Out::Identity(IdentityGuard::Standing), "REV-1"),
        (Out::Gateway(Guard::Deadline), "REV-2"),
        (Out::Identity(IdentityGuard::AssertionTtl), "REV-3"),
        (Out::Identity(IdentityGuard::NoReissue), "REV-3"),
        (Out::Gateway(Guard::Close), "REV-4"),
    ] {
        let (_, broken) = explore(Some(out));
        assert_eq!(broken, BTreeSet::from([holds]), "without {out:?}");
    }
}

/// What an invariant is about does happen: it does not hold for want of cases.
#[test]
fn the_world_reaches_what_the_invariants_are_about() {
    let revocation = Revocation::new(None);
    let reach = |steps: &[Step]| {
        steps.iter().fold(World::new(), |world, step| {
            revocation
                .after(&world, *step)
                .unwrap_or_else(|| panic!("{step:?} in {world:?}"))
        })
    };
    let let_in = [
        Step::Watch,
        Step::Snapshot,
        Step::Deliver,
        Step::Connect,
        Step::Judge(0),
        Step::Answer(0),
        Step::Turn(0),
        Step::Call(0),
    ];
    let world = reach(&let_in);
    assert!(world.call.is_some_and(|call| call.live) && world.turn.is_some());
    let revoked = [&let_in[..], &[Step::Revoke, Step::Deliver]].concat();
    let world = reach(&revoked);
    assert!(world.touched.contains(&0) && world.closing.contains(&0));
    for refused in [Step::Call(0), Step::Refresh, Step::Turn(0)] {
        assert_eq!(revocation.after(&world, refused), None, "{refused:?}");
    }
    let dark = [&let_in[..], &[Step::Cut, Step::Tick, Step::Tick]].concat();
    assert_eq!(revocation.after(&reach(&dark), Step::Call(0)), None);
    let closed = reach(&[&dark[..], &[Step::Tick]].concat());
    assert!(closed.closing.contains(&0));
    let raced = [
        Step::Watch,
        Step::Snapshot,
        Step::Knock,
        Step::Judge(1),
        Step::Revoke,
        Step::Deliver,
        Step::Deliver,
        Step::Answer(1),
    ];
    assert!(matches!(reach(&raced).ways[1], Way::Outdated(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Histories far longer than the exhaustive search's.
    #[test]
    fn no_history_breaks_an_invariant(choices in prop::collection::vec(any::<u16>(), 1..120)) {
        let revocation = Revocation::new(None);
        let mut world = World::new();
        for choice in choices {
            let mut steps = Vec::new();
            revocation.actions(&world, &mut steps);
            if steps.is_empty() {
                break;
            }
            let step = steps[usize::from(choice) % steps.len()];
            world = revocation.next_state(&world, step).unwrap();
            prop_assert!(rev_1(&world) && rev_2(&world) && rev_3(&world) && rev_4(&world), "{step:?}: {world:?}");
        }
    }
}
