//! Three devices, of which one is a node and one a legacy client; two approvers, of whom one loses a scope
//! meanwhile; three requests; time. What was granted is kept with all it was made of.

use creel_proto::identity::v1::Role;
use creel_wire::{Scope, Scopes};
use proptest::prelude::*;
use stateright::{Model, Property};

use crate::{
    device_pairing::{Ask, Asked, Book, Limits},
    grants::{self, Grant, Holder},
    guard::{Guard, Guards},
};

const LIMITS: Limits = Limits {
    strangers: 2,
    per_network: 2,
    known: 2,
    life_ms: 2,
};

/// What a device is: an operator, a node, a client of the original.
const HOLDERS: [Holder; 3] = [
    Holder {
        node: false,
        legacy: false,
    },
    Holder {
        node: true,
        legacy: false,
    },
    Holder {
        node: false,
        legacy: true,
    },
];

fn wants(holder: Holder, wide: bool) -> Grant {
    let mut scopes = Scopes::from([Scope::Read]);
    if wide {
        scopes.insert(Scope::Admin);
    }
    let commands = if holder.node {
        vec!["camera.snap".to_owned()]
    } else {
        vec![]
    };
    Grant {
        scopes,
        commands: commands.into_iter().collect(),
        ..Grant::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Granted {
    device: usize,
    requested: Grant,
    chosen: Grant,
    own: Scopes,
    granted: Grant,
    /// Age of the request, from when it was first made.
    age_ms: i64,
    in_time: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    now_ms: i64,
    asks: u16,
    book: Book,
    demoted: bool,
    /// When each device's waiting request was first made, by the world's own books.
    first_ms: [Option<i64>; 3],
    granted: Vec<Granted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Ask {
        device: usize,
        wide: bool,
    },
    Approve {
        device: usize,
        approver: usize,
        narrow: bool,
    },
    Reject(usize),
    Demote,
    Tick,
}

struct Pairing {
    guards: Guards,
    /// How often devices ask at most, and until when.
    asks: u16,
    end_ms: i64,
}

fn id(device: usize) -> String {
    format!("d{device}")
}

impl World {
    fn own(&self, approver: usize) -> Scopes {
        match (approver, self.demoted) {
            (0, false) => [Scope::Read, Scope::Write, Scope::Admin, Scope::Pairing].into(),
            (0, true) => [Scope::Write, Scope::Pairing].into(),
            _ => [Scope::Read, Scope::Write, Scope::Pairing].into(),
        }
    }

    fn ask(&mut self, device: usize, wide: bool, guards: Guards) -> Option<()> {
        let ask = Ask {
            device: id(device),
            network: "n".into(),
            known: false,
            // As the shell does it: what such a device can't hold is not even asked for.
            wants: HOLDERS[device].most(&wants(HOLDERS[device], wide), guards),
        };
        self.asks += 1;
        match self.book.ask(&ask, &LIMITS, self.now_ms, guards).ok()? {
            Asked::New(waiting) => {
                self.first_ms[device] = Some(self.now_ms);
                self.book.put(&id(device), waiting);
            }
            Asked::Changed(id, waiting) => self.book.put(&id, waiting),
            Asked::Same(_) => {}
        }
        Some(())
    }

    fn approve(&mut self, device: usize, approver: usize, narrow: bool, guards: Guards) -> Option<()> {
        let waiting = self.book.decide(&id(device), self.now_ms, guards).ok()?.clone();
        let own = self.own(approver);
        let chosen = if narrow {
            Grant {
                scopes: [Scope::Read].into(),
                ..Grant::default()
            }
        } else {
            // More than was asked for, to see that it is not given.
            let mut all = wants(HOLDERS[1], true);
            all.scopes.insert(Scope::Write);
            all
        };
        let granted = grants::hand_on(HOLDERS[device], &waiting.wants, &chosen, &own, guards).ok()?;
        let first = self.first_ms[device].take()?;
        self.granted.push(Granted {
            device,
            requested: waiting.wants,
            chosen,
            own,
            granted,
            age_ms: self.now_ms - first,
            in_time: self.now_ms < waiting.expires_at_ms,
        });
        self.book.remove(&id(device));
        Some(())
    }

    fn live(&self) -> usize {
        self.book
            .all()
            .filter(|(_, one)| self.now_ms < one.expires_at_ms)
            .count()
    }
}

fn pai_1(_: &Pairing, world: &World) -> bool {
    world.live() <= LIMITS.strangers
}

fn pai_2(_: &Pairing, world: &World) -> bool {
    world.granted.iter().all(|one| one.in_time)
}

fn pai_3(_: &Pairing, world: &World) -> bool {
    let end = |(id, one): (&String, &crate::device_pairing::Waiting)| {
        let device = usize::from(id.as_bytes()[1] - b'0');
        world.first_ms[device].is_none_or(|first| one.expires_at_ms == first + LIMITS.life_ms)
    };
    world.book.all().all(end)
}

fn att_1_requested(_: &Pairing, world: &World) -> bool {
    world
        .granted
        .iter()
        .all(|one| one.granted.is_within(&one.requested))
}

fn att_1_chosen(_: &Pairing, world: &World) -> bool {
    world.granted.iter().all(|one| one.granted.is_within(&one.chosen))
}

fn att_1_own(_: &Pairing, world: &World) -> bool {
    world
        .granted
        .iter()
        .all(|one| one.granted.scopes.is_subset(&one.own))
}

fn att_3(_: &Pairing, world: &World) -> bool {
    world.granted.iter().all(|one| {
        let holder = HOLDERS[one.device];
        let privileged = [Scope::Admin, Scope::Approvals, Scope::Pairing];
        let none_of = |list: &[Scope]| !list.iter().any(|scope| one.granted.scopes.contains(scope));
        (!holder.node || one.granted.scopes.is_empty())
            && (!holder.legacy || none_of(&privileged))
            && (holder.node || one.granted.commands.is_empty())
    })
}

impl Model for Pairing {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, into: &mut Vec<Step>) {
        for device in 0..HOLDERS.len() {
            if world.asks < self.asks {
                into.push(Step::Ask { device, wide: false });
                into.push(Step::Ask { device, wide: true });
            }
            for approver in 0..2 {
                for narrow in [false, true] {
                    into.push(Step::Approve {
                        device,
                        approver,
                        narrow,
                    });
                }
            }
            into.push(Step::Reject(device));
        }
        if !world.demoted {
            into.push(Step::Demote);
        }
        if world.now_ms < self.end_ms {
            into.push(Step::Tick);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Ask { device, wide } => world.ask(device, wide, self.guards)?,
            Step::Approve {
                device,
                approver,
                narrow,
            } => world.approve(device, approver, narrow, self.guards)?,
            Step::Reject(device) => {
                world.book.decide(&id(device), world.now_ms, self.guards).ok()?;
                world.book.remove(&id(device));
                world.first_ms[device] = None;
            }
            Step::Demote => world.demoted = true,
            Step::Tick => world.now_ms += 1,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("PAI-1", pai_1),
            Property::always("PAI-2", pai_2),
            Property::always("PAI-3", pai_3),
            Property::always("ATT-1 requested", att_1_requested),
            Property::always("ATT-1 chosen", att_1_chosen),
            Property::always("ATT-1 own", att_1_own),
            Property::always("ATT-3", att_3),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.granted.len() <= 1
    }
}

#[test]
fn no_device_gets_in_late_too_many_or_with_more_than_each_of_three_allows() {
    let world = |out: Option<Guard>| Pairing {
        guards: out.map_or(Guards::all(), Guards::without),
        asks: 3,
        end_ms: 3,
    };
    let guards = [
        (Guard::Cap, "PAI-1"),
        (Guard::Ttl, "PAI-2"),
        (Guard::NoExtend, "PAI-3"),
        (Guard::Requested, "ATT-1 requested"),
        (Guard::Chosen, "ATT-1 chosen"),
        (Guard::Own, "ATT-1 own"),
        (Guard::RoleCap, "ATT-3"),
    ];
    super::check(world, 10_000, &guards);
}

#[test]
fn what_a_node_or_a_legacy_device_can_hold_is_what_the_world_thinks() {
    assert_eq!(HOLDERS[1], Holder::of(Role::Node, false));
    assert_eq!(HOLDERS[2], Holder::of(Role::Operator, true));
}

proptest! {
    #[test]
    fn long_histories_of_devices_keep_the_invariants(choices in prop::collection::vec(any::<u16>(), 0..300)) {
        let world = Pairing { guards: Guards::all(), asks: u16::MAX, end_ms: 1_000 };
        prop_assert_eq!(super::walk(&world, &choices), None);
    }
}
