//! Tests of all services together.

use proptest::prelude::*;

use super::*;
use crate::{
    restart::{End, MAX_FAILURES, WINDOW},
    services::SERVICES,
};

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Serving(usize),
    NotServing(usize),
    Dies(usize, bool),
    Reload(usize),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..SERVICES.len();
    prop_oneof![
        4 => (0_u64..20_000).prop_map(Step::Pass),
        4 => which.clone().prop_map(Step::Serving),
        1 => which.clone().prop_map(Step::NotServing),
        4 => (which.clone(), prop::bool::weighted(0.05)).prop_map(|(one, bad)| Step::Dies(one, bad)),
        1 => which.prop_map(Step::Reload),
        1 => Just(Step::Drain),
    ]
}

/// Processes as the shell would run them, and what must hold of everything the fleet asks for.
struct World {
    fleet: Fleet,
    now: Duration,
    chance: f64,
    alive: BTreeSet<ServiceName>,
    begun: BTreeSet<ServiceName>,
    starts: BTreeMap<ServiceName, Vec<Duration>>,
}

impl World {
    fn at(&self) -> Moment {
        Moment {
            now: self.now,
            chance: self.chance,
            clock_plausible: true,
        }
    }

    fn is_ready(&self, name: ServiceName) -> bool {
        self.fleet.machine(name).unwrap().phase().is_ready()
    }

    /// What KILL did not end is not counted.
    fn lives(&self, name: ServiceName) -> bool {
        self.alive.contains(&name) && self.fleet.machine(name).unwrap().phase() != Phase::Stopped
    }

    fn execute(&mut self, acts: Acts) {
        for (name, act) in acts {
            let place = SERVICES.iter().position(|one| one.name == name).unwrap();
            match act {
                Act::Start => {
                    assert!(!self.fleet.is_draining(), "{name} started in a drain");
                    let first = self.begun.insert(name);
                    let need = SERVICES[place].need;
                    assert!(
                        first || need.is_none_or(|need| self.is_ready(need)),
                        "{name} without its need"
                    );
                    assert!(self.alive.insert(name), "{name} started twice");
                    self.starts.entry(name).or_default().push(self.now);
                }
                Act::Stop | Act::Kill => {
                    assert!(
                        self.alive.contains(&name),
                        "{act:?} for {name}, which has no process"
                    );
                    if self.fleet.is_draining() && act == Act::Stop {
                        let above = SERVICES[place + 1..].iter().map(|one| one.name);
                        let left: Vec<_> = above.filter(|name| self.lives(*name)).collect();
                        assert!(left.is_empty(), "{name} stopped before {left:?}");
                    }
                }
            }
        }
    }

    fn dies(&mut self, name: ServiceName, bad_config: bool) {
        if self.alive.remove(&name) {
            let end = End {
                bad_config,
                reason: "it died".to_owned(),
            };
            let acts = self.fleet.handle(name, Input::Ended(end), self.at());
            self.execute(acts);
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_starts_and_stops_keep_their_order(
        steps in prop::collection::vec((step(), 0.0..1.0_f64), 1..200),
    ) {
        let mut world = World {
            fleet: Fleet::new(&SERVICES),
            now: Duration::ZERO,
            chance: 0.5,
            alive: BTreeSet::new(),
            begun: BTreeSet::new(),
            starts: BTreeMap::new(),
        };
        let acts = world.fleet.begin(world.at());
        world.execute(acts);
        prop_assert_eq!(world.alive.len(), SERVICES.len(), "all start at once");
        let mut reloaded = false;
        for (step, chance) in steps {
            world.chance = chance;
            let at = world.at();
            let acts = match step {
                Step::Pass(ms) => {
                    world.now += Duration::from_millis(ms);
                    world.fleet.tick(world.at())
                }
                Step::Serving(one) if world.alive.contains(&SERVICES[one].name) => {
                    world.fleet.handle(SERVICES[one].name, Input::Serving, at)
                }
                Step::NotServing(one) if world.alive.contains(&SERVICES[one].name) => {
                    world.fleet.handle(SERVICES[one].name, Input::NotServing("busy".to_owned()), at)
                }
                Step::Serving(_) | Step::NotServing(_) => Acts::new(),
                Step::Dies(one, bad) => {
                    world.dies(SERVICES[one].name, bad);
                    Acts::new()
                }
                Step::Reload(one) => {
                    reloaded = true;
                    let names = world.fleet.to_restart(&BTreeSet::from([SERVICES[one].name]));
                    world.fleet.restart(&names, at)
                }
                Step::Drain => world.fleet.drain(at),
            };
            world.execute(acts);
            for name in world.fleet.names() {
                let machine = world.fleet.machine(name).unwrap();
                prop_assert_eq!(machine.phase().has_process(), world.lives(name), "{}", name);
            }
        }
        if !reloaded {
            // Identity waits for nobody, so its starts are bounded by its failures alone.
            let starts = &world.starts[&ServiceName::Identity];
            for window in starts.windows(MAX_FAILURES + 1) {
                prop_assert!(window[MAX_FAILURES] - window[0] >= WINDOW, "{:?}", window);
            }
        }
        let acts = world.fleet.drain(world.at());
        world.execute(acts);
        while let Some(name) = world.alive.last().copied() {
            world.dies(name, false);
        }
        prop_assert!(world.fleet.is_gone());
    }
}

fn at(ms: u64) -> Moment {
    Moment {
        now: Duration::from_millis(ms),
        chance: 1.0,
        clock_plausible: true,
    }
}

fn ready() -> Fleet {
    let mut fleet = Fleet::new(&SERVICES);
    fleet.begin(at(0));
    assert_eq!(fleet.outlook(), Outlook::Starting);
    assert_eq!(
        fleet.detail(ServiceName::Gateway, Duration::ZERO),
        "needs identity, which is starting"
    );
    for name in fleet.names() {
        fleet.handle(name, Input::Serving, at(50));
    }
    assert_eq!(fleet.outlook(), Outlook::Ready);
    fleet
}

fn died(bad_config: bool) -> Input {
    Input::Ended(End {
        bad_config,
        reason: "exit 1".to_owned(),
    })
}

#[test]
fn identity_starts_first_and_goes_last() {
    let mut fleet = Fleet::new(&SERVICES);
    let first = fleet.begin(at(0))[0];
    assert_eq!(first, (ServiceName::Identity, Act::Start));
    let mut fleet = ready();
    let mut order = Vec::new();
    let mut acts = fleet.drain(at(100));
    while let Some((name, act)) = acts.pop() {
        assert_eq!((act, acts.len()), (Act::Stop, 0), "one at a time");
        order.push(name);
        acts = fleet.handle(name, died(false), at(101));
    }
    use ServiceName::{AgentRunner, Gateway, Identity, Scheduler};
    assert_eq!(order, [Gateway, AgentRunner, Scheduler, Identity]);
    assert!(fleet.is_gone() && fleet.failed().is_empty());
}

#[test]
fn a_service_given_up_leaves_the_rest_alone_and_is_remembered() {
    let mut fleet = ready();
    fleet.handle(ServiceName::Scheduler, died(true), at(100));
    assert_eq!(fleet.outlook(), Outlook::Crippled);
    assert!(fleet.machine(ServiceName::Gateway).unwrap().phase().is_ready());
    fleet.drain(at(200));
    assert_eq!(
        fleet.failed(),
        [ServiceName::Scheduler],
        "the exit status tells it even after the drain"
    );
}

#[test]
fn what_needs_a_failed_one_is_not_waited_for() {
    let mut fleet = Fleet::new(&SERVICES);
    fleet.begin(at(0));
    fleet.handle(ServiceName::Identity, died(true), at(1));
    assert_eq!(fleet.outlook(), Outlook::Crippled);
    assert_eq!(
        fleet.detail(ServiceName::Gateway, Duration::ZERO),
        "needs identity, which is failed"
    );
}
