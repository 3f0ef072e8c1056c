//! Four senders of one channel and one of another, whose codes an approver says, in time and late; time in
//! steps after which the oldest gives way. And, in a world of its own, an approver who guesses.

use creel_proto::identity::v1::RecoveryRecord;
use proptest::prelude::*;
use stateright::{Model, Property};

use crate::{
    guard::{Guard, Guards},
    guesses::{self, MAX_FAILURES, PAUSE_MS},
    sender_pairing::{self, Asked, GIVE_WAY_MS, LIFE_MS, MAX_PENDING, Pending},
};

/// (channel, sender); each has one code.
const SENDERS: [(usize, &str); 5] = [(0, "a"), (0, "b"), (0, "c"), (0, "d"), (1, "a")];
const STEP_MS: i64 = 2 * GIVE_WAY_MS;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    now_ms: i64,
    pending: [Vec<Pending>; 2],
    /// Who was let in, whose code was said, its age then.
    let_in: Vec<(usize, usize, i64)>,
    /// A sender was given another code while it had one.
    renewed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Write(usize),
    Approve(usize),
    Tick,
}

struct Letting {
    guards: Guards,
    end_ms: i64,
}

fn code(sender: usize) -> String {
    format!("CODEABC{sender}")
}

impl World {
    fn write(&mut self, sender: usize, guards: Guards) -> Option<()> {
        let (channel, name) = SENDERS[sender];
        let good = |one: &Pending| one.platform_id == name && self.now_ms - one.requested_at_ms < LIFE_MS;
        let had = self.pending[channel].iter().any(good);
        let Asked::New { remove, .. } =
            sender_pairing::ask(&self.pending[channel], name, self.now_ms, guards)
        else {
            return None;
        };
        self.renewed |= had;
        let pending = &mut self.pending[channel];
        pending.retain(|one| !remove.contains(&one.platform_id) && one.platform_id != name);
        pending.push(Pending {
            platform_id: name.to_owned(),
            salt: [0; 16],
            code_hash: sender_pairing::hash(&[0; 16], &code(sender)),
            requested_at_ms: self.now_ms,
        });
        pending.sort();
        Some(())
    }

    fn approve(&mut self, sender: usize, guards: Guards) -> Option<()> {
        let (channel, _) = SENDERS[sender];
        let pending = &self.pending[channel];
        let found = sender_pairing::find(pending, &code(sender), self.now_ms, guards)?;
        let (name, age) = (found.platform_id.clone(), self.now_ms - found.requested_at_ms);
        let who = SENDERS.iter().position(|one| *one == (channel, name.as_str()))?;
        self.let_in.push((who, sender, age));
        self.pending[channel].retain(|one| one.platform_id != name);
        Some(())
    }
}

fn pai_1(_: &Letting, world: &World) -> bool {
    let live = |one: &&Pending| world.now_ms - one.requested_at_ms < LIFE_MS;
    world
        .pending
        .iter()
        .all(|pending| pending.iter().filter(live).count() <= MAX_PENDING)
}

fn pai_2(_: &Letting, world: &World) -> bool {
    world.let_in.iter().all(|(_, _, age)| *age < LIFE_MS)
}

fn pai_3(_: &Letting, world: &World) -> bool {
    !world.renewed
}

fn pai_4(_: &Letting, world: &World) -> bool {
    world.let_in.iter().all(|(who, said, _)| who == said)
}

impl Model for Letting {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, into: &mut Vec<Step>) {
        into.extend((0..SENDERS.len()).map(Step::Write));
        into.extend((0..SENDERS.len()).map(Step::Approve));
        if world.now_ms < self.end_ms {
            into.push(Step::Tick);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Write(sender) => world.write(sender, self.guards)?,
            Step::Approve(sender) => world.approve(sender, self.guards)?,
            Step::Tick => world.now_ms += STEP_MS,
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("PAI-1", pai_1),
            Property::always("PAI-2", pai_2),
            Property::always("PAI-3", pai_3),
            Property::always("PAI-4", pai_4),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.let_in.len() <= 1
    }
}

#[test]
fn a_code_lets_in_its_own_sender_in_time() {
    let world = |out: Option<Guard>| Letting {
        guards: out.map_or(Guards::all(), Guards::without),
        end_ms: LIFE_MS,
    };
    let guards = [
        (Guard::Cap, "PAI-1"),
        (Guard::Ttl, "PAI-2"),
        (Guard::NoExtend, "PAI-3"),
        (Guard::BindSender, "PAI-4"),
    ];
    super::check(world, 10_000, &guards);
}

/// An approver who guesses, and how many of its wrong codes were looked at within each pause.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Guessing {
    now_ms: i64,
    failures: u32,
    last_failure_ms: i64,
    looked_at_ms: Vec<i64>,
}

struct Guesser(Guards);

const GUESS_STEP_MS: i64 = PAUSE_MS / 3;

fn pai_5(_: &Guesser, world: &Guessing) -> bool {
    // After the tenth in a row nothing is looked at for a pause.
    world.looked_at_ms.windows(MAX_FAILURES as usize + 1).all(|some| {
        let (tenth, next) = (some[MAX_FAILURES as usize - 1], some[MAX_FAILURES as usize]);
        let in_a_row = some[..MAX_FAILURES as usize]
            .windows(2)
            .all(|two| two[1] - two[0] < PAUSE_MS);
        !in_a_row || next - tenth >= PAUSE_MS
    })
}

impl Model for Guesser {
    type State = Guessing;
    type Action = bool;

    fn init_states(&self) -> Vec<Guessing> {
        vec![Guessing::default()]
    }

    fn actions(&self, world: &Guessing, into: &mut Vec<bool>) {
        into.push(true);
        if world.now_ms < 2 * PAUSE_MS {
            into.push(false);
        }
    }

    fn next_state(&self, before: &Guessing, guesses: bool) -> Option<Guessing> {
        let mut world = before.clone();
        if !guesses {
            world.now_ms += GUESS_STEP_MS;
            return Some(world);
        }
        let record = RecoveryRecord {
            failures: world.failures,
            last_failure_unix_ms: world.last_failure_ms,
        };
        guesses::admit(&record, world.now_ms, self.0).ok()?;
        let after = guesses::failed(&record, world.now_ms);
        (world.failures, world.last_failure_ms) = (after.failures, after.last_failure_unix_ms);
        world.looked_at_ms.push(world.now_ms);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("PAI-5", pai_5)]
    }

    fn within_boundary(&self, world: &Guessing) -> bool {
        world.looked_at_ms.len() <= 12
    }
}

#[test]
fn wrong_codes_are_bounded_however_they_are_spread() {
    let world = |out: Option<Guard>| Guesser(out.map_or(Guards::all(), Guards::without));
    super::check(world, 1_000, &[(Guard::GuessLimit, "PAI-5")]);
}

proptest! {
    #[test]
    fn long_histories_of_senders_keep_the_invariants(choices in prop::collection::vec(any::<u16>(), 0..300)) {
        let world = Letting { guards: Guards::all(), end_ms: 100 * LIFE_MS };
        prop_assert_eq!(super::walk(&world, &choices), None);
    }
}
