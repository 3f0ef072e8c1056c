//! All services together: who waits for whom, in which order they go down, how the whole stands. Pure.
//!
//! Invariants: a service is told to end for good only after those above it are gone; once a drain has
//! begun nothing is started.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use creel_wire::ServiceName;

use crate::{
    restart::{Act, Input, Machine, Moment, Phase},
    services::Service,
};

/// What is to be done, in order.
pub(crate) type Acts = Vec<(ServiceName, Act)>;

/// How the whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Some are on their way.
    Starting,
    /// All are ready.
    Ready,
    /// Some are given up, and what does not need those is ready.
    Crippled,
}

/// All services.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    order: Vec<Service>,
    machines: BTreeMap<ServiceName, Machine>,
    draining: bool,
    /// Those given up when the drain began.
    failed: Vec<ServiceName>,
}

impl Fleet {
    /// Services in the order of their start; what is needed comes before what needs it.
    pub(crate) fn new(order: &[Service]) -> Self {
        let machines = order
            .iter()
            .map(|one| (one.name, Machine::new(one.need.is_none())))
            .collect();
        Self {
            order: order.to_vec(),
            machines,
            draining: false,
            failed: Vec::new(),
        }
    }

    /// The names, in the order of their start.
    pub(crate) fn names(&self) -> impl Iterator<Item = ServiceName> + use<> {
        self.order.clone().into_iter().map(|one| one.name)
    }

    /// One service's machine.
    pub(crate) fn machine(&self, name: ServiceName) -> Option<&Machine> {
        self.machines.get(&name)
    }

    /// Starts all.
    pub(crate) fn begin(&mut self, at: Moment) -> Acts {
        self.names()
            .flat_map(|name| self.handle(name, Input::Begin, at))
            .collect()
    }

    /// Lets time pass for all.
    pub(crate) fn tick(&mut self, at: Moment) -> Acts {
        self.names()
            .flat_map(|name| self.handle(name, Input::Tick, at))
            .collect()
    }

    /// Those that another config starts anew: whom it concerns, and whoever was given up.
    pub(crate) fn to_restart(&self, concerned: &BTreeSet<ServiceName>) -> Vec<ServiceName> {
        let chosen = |name: &ServiceName| concerned.contains(name) || self.phase(*name) == Phase::Failed;
        if self.draining {
            Vec::new()
        } else {
            self.names().filter(chosen).collect()
        }
    }

    /// Starts some anew, with a clean record.
    pub(crate) fn restart(&mut self, names: &[ServiceName], at: Moment) -> Acts {
        names
            .iter()
            .flat_map(|name| self.handle(*name, Input::Restart, at))
            .collect()
    }

    /// Ends all for good, the last started first.
    pub(crate) fn drain(&mut self, at: Moment) -> Acts {
        if !self.draining {
            self.failed = self.failed();
        }
        self.draining = true;
        self.step(at)
    }

    /// Something happened to one.
    pub(crate) fn handle(&mut self, name: ServiceName, input: Input, at: Moment) -> Acts {
        let Some(machine) = self.machines.get_mut(&name) else {
            return Acts::new();
        };
        let was_ready = machine.phase().is_ready();
        if self.draining && matches!(input, Input::Ended(_)) {
            // It went before its turn: an end for good, whatever it was in the middle of.
            machine.handle(Input::Drain, at);
        }
        let mut acts: Acts = machine
            .handle(input, at)
            .map(|act| (name, act))
            .into_iter()
            .collect();
        let is_ready = machine.phase().is_ready();
        if was_ready != is_ready {
            for one in self.order.iter().filter(|one| one.need == Some(name)) {
                let act = self
                    .machines
                    .get_mut(&one.name)
                    .and_then(|it| it.handle(Input::Need(is_ready), at));
                acts.extend(act.map(|act| (one.name, act)));
            }
        }
        if self.draining {
            acts.extend(self.step(at));
        }
        acts
    }

    /// When [`Self::tick`] is wanted next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.machines.values().filter_map(Machine::deadline).min()
    }

    /// Whether a drain has begun.
    pub(crate) const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether a drain is over.
    pub(crate) fn is_gone(&self) -> bool {
        self.draining
            && self
                .machines
                .values()
                .all(|machine| machine.phase() == Phase::Stopped)
    }

    /// The services given up, now or when the drain began.
    pub(crate) fn failed(&self) -> Vec<ServiceName> {
        if self.draining {
            return self.failed.clone();
        }
        self.names()
            .filter(|name| self.phase(*name) == Phase::Failed)
            .collect()
    }

    /// How the whole stands.
    pub(crate) fn outlook(&self) -> Outlook {
        let settled = |one: &Service| {
            let phase = self.phase(one.name);
            phase.is_ready()
                || phase == Phase::Failed
                || one.need.is_some_and(|need| self.phase(need) == Phase::Failed)
        };
        if self.machines.values().all(|machine| machine.phase().is_ready()) {
            Outlook::Ready
        } else if !self.failed().is_empty() && self.order.iter().all(settled) {
            Outlook::Crippled
        } else {
            Outlook::Starting
        }
    }

    /// Why a service is not ready, for people; empty when it is, or when there is nothing to say.
    pub(crate) fn detail(&self, name: ServiceName, now: Duration) -> String {
        let Some(machine) = self.machines.get(&name) else {
            return String::new();
        };
        let need = self
            .order
            .iter()
            .find(|one| one.name == name)
            .and_then(|one| one.need);
        let blocked = need.filter(|need| !self.phase(*need).is_ready());
        let reason = machine.reason();
        match (machine.phase(), blocked) {
            (Phase::Waiting | Phase::Starting { .. }, Some(need)) => {
                let need = format!("needs {need}, which is {}", self.phase(need).label());
                if reason.is_empty() {
                    need
                } else {
                    format!("{need}; before: {reason}")
                }
            }
            (Phase::Backoff { until }, _) => {
                format!(
                    "{reason}; again in {:.1} s",
                    until.saturating_sub(now).as_secs_f64()
                )
            }
            (Phase::Restarting { .. }, _) => "to start anew".to_owned(),
            (Phase::Ready { .. } | Phase::Draining { .. } | Phase::Stopped, _) => String::new(),
            _ => reason.to_owned(),
        }
    }

    fn phase(&self, name: ServiceName) -> Phase {
        self.machines.get(&name).map_or(Phase::Stopped, Machine::phase)
    }

    /// The next step of the drain: what has no process is done; of the rest, the last one's turn it is.
    fn step(&mut self, at: Moment) -> Acts {
        let mut acts = Acts::new();
        let mut busy = false;
        for name in self.order.iter().rev().map(|one| one.name) {
            let Some(machine) = self.machines.get_mut(&name) else {
                continue;
            };
            let has_process = machine.phase().has_process();
            if !has_process || !busy {
                acts.extend(machine.handle(Input::Drain, at).map(|act| (name, act)));
            }
            busy |= has_process;
        }
        acts
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
