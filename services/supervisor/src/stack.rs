//! The shell around [`Fleet`]: real processes, health, files and the screen. It decides nothing itself.

use std::{collections::BTreeMap, sync::Arc};

use creel_kit::{Clock, Config, Profile, peers::Peers};
use creel_wire::{ServiceName, tls::Tls};
use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use crate::{
    child::Process,
    credentials,
    events::{Event, Events},
    fleet::{Acts, Fleet},
    health, reload,
    report::Report,
    restart::{Act, End, Input, Moment},
    services::SERVICES,
    systemd,
    table::View,
};

/// A running stack.
#[derive(Debug)]
pub(crate) struct Stack {
    profile: Profile,
    config: Arc<Config>,
    clock: Clock,
    started: Instant,
    events: Events,
    fleet: Fleet,
    processes: BTreeMap<ServiceName, Process>,
    watches: BTreeMap<ServiceName, AbortOnDropHandle<()>>,
    generation: u64,
    tls: Option<Arc<Tls>>,
    certificate: Option<(AbortOnDropHandle<()>, DropGuard)>,
    report: Report,
}

impl Stack {
    /// A stack that has not begun; `started` is when the command was given.
    pub(crate) fn new(
        profile: Profile,
        config: Config,
        started: Instant,
        events: Events,
        view: View,
    ) -> Self {
        let clock = Clock::system();
        Self {
            report: Report::new(profile.clone(), clock.clone(), started, view),
            profile,
            config: Arc::new(config),
            clock,
            started,
            events,
            fleet: Fleet::new(&SERVICES),
            processes: BTreeMap::new(),
            watches: BTreeMap::new(),
            generation: 0,
            tls: None,
            certificate: None,
        }
    }

    /// Starts everything.
    pub(crate) fn begin(&mut self) {
        if !self.clock.is_plausible() {
            self.report
                .view()
                .note("waiting for time sync: the clock is before this build");
        }
        let acts = self.fleet.begin(self.moment());
        self.apply(acts);
        self.certify();
    }

    /// Takes an event.
    pub(crate) fn take(&mut self, event: Event) {
        let (name, input) = match event {
            Event::Line { name, line } => {
                tracing::warn!(service = %name, line, "stderr");
                let prefix = format!("{name}: ");
                let line = line.strip_prefix(&prefix).unwrap_or(&line);
                return self.report.view().note(&format!("{prefix}{line}"));
            }
            Event::ConfigFile => return self.reload(false),
            Event::NotCertified(why) => {
                tracing::warn!(why, "no certificate for the supervisor");
                return self
                    .report
                    .view()
                    .note(&format!("supervisor: no certificate: {why}; trying again"));
            }
            Event::Certified(tls) => {
                self.tls = Some(tls);
                let names: Vec<_> = self.processes.keys().copied().collect();
                return names.into_iter().for_each(|name| self.watch(name));
            }
            Event::Ended {
                name,
                generation,
                end,
            } => {
                if self.generation_of(name) != Some(generation) {
                    return;
                }
                self.watches.remove(&name);
                self.processes.remove(&name);
                (name, Input::Ended(end))
            }
            Event::Health {
                name,
                generation,
                trouble,
            } => {
                if self.generation_of(name) != Some(generation) {
                    return;
                }
                (name, trouble.map_or(Input::Serving, Input::NotServing))
            }
        };
        let acts = self.fleet.handle(name, input, self.moment());
        self.apply(acts);
    }

    /// When [`Self::tick`] is wanted next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.fleet.deadline().map(|at| self.started + at)
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self) {
        let acts = self.fleet.tick(self.moment());
        self.apply(acts);
    }

    /// Reads `creel.toml` again. `asked`: by somebody who wants to hear of it in any case.
    pub(crate) fn reload(&mut self, asked: bool) {
        if self.fleet.is_draining() {
            return;
        }
        let new = match Config::load(&self.profile.config_file()) {
            Ok(new) => new,
            Err(error) => {
                let why = crate::chain(&error);
                tracing::warn!(why, "the new config is refused");
                return self.report.view().note(&format!(
                    "{why}\n  the config before it stays in force until this is mended"
                ));
            }
        };
        let concerned = reload::concerned(&self.config, &new);
        let dialled_anew = new.network != self.config.network || new.endpoints != self.config.endpoints;
        self.config = Arc::new(new);
        let names = self.fleet.to_restart(&concerned);
        if names.is_empty() {
            if asked {
                self.report.view().note("creel.toml holds nothing new");
            }
            return;
        }
        let list = names
            .iter()
            .map(|name| name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        tracing::info!(services = list, "the config is read anew");
        self.report
            .view()
            .note(&format!("creel.toml is read anew; starting again: {list}"));
        let acts = self.fleet.restart(&names, self.moment());
        self.apply(acts);
        if dialled_anew {
            self.certify();
        }
    }

    /// Ends everything in order.
    pub(crate) fn drain(&mut self, why: &str) {
        if self.fleet.is_draining() {
            return;
        }
        tracing::info!(why, "draining");
        systemd::stopping();
        self.report.view().note(&format!("{why}: draining"));
        let acts = self.fleet.drain(self.moment());
        self.apply(acts);
    }

    /// Ends everything now.
    pub(crate) fn kill(&self) {
        self.processes.values().for_each(Process::kill);
    }

    /// Whether a drain has begun.
    pub(crate) const fn is_draining(&self) -> bool {
        self.fleet.is_draining()
    }

    /// Whether a drain is over.
    pub(crate) fn is_gone(&self) -> bool {
        self.fleet.is_gone()
    }

    /// The services that were given up.
    pub(crate) fn failed(&self) -> Vec<ServiceName> {
        self.fleet.failed()
    }

    /// The processes that are ours, as against strays.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.processes.values().map(Process::pid).collect()
    }

    /// What is told of it.
    pub(crate) const fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Tells what has changed.
    pub(crate) fn refresh(&mut self) {
        let pid = |name| {
            self.processes
                .get(&name)
                .map_or(0, |process| process.pid().unsigned_abs())
        };
        self.report.refresh(&self.fleet, &self.config, pid);
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.started.elapsed(),
            chance: rand::random(),
            clock_plausible: self.clock.is_plausible(),
        }
    }

    fn generation_of(&self, name: ServiceName) -> Option<u64> {
        self.processes.get(&name).map(|process| process.generation)
    }

    fn apply(&mut self, acts: Acts) {
        for (name, act) in acts {
            if act != Act::Start {
                // How it is from here on, its end tells. An open request would hold up its drain.
                self.watches.remove(&name);
            }
            match (act, self.processes.get_mut(&name)) {
                (Act::Start, _) => self.start(name),
                (Act::Stop, Some(process)) => process.stop(),
                (Act::Kill, Some(process)) => process.kill(),
                (Act::Stop | Act::Kill, None) => {}
            }
        }
    }

    fn start(&mut self, name: ServiceName) {
        self.generation += 1;
        match Process::start(&self.profile, name, self.generation, self.events.clone()) {
            Ok(process) => {
                tracing::info!(service = %name, pid = process.pid(), "started");
                self.processes.insert(name, process);
                self.watch(name);
            }
            Err(error) => {
                let end = End {
                    bad_config: false,
                    reason: format!("can't be started: {error}"),
                };
                let acts = self.fleet.handle(name, Input::Ended(end), self.moment());
                self.apply(acts);
            }
        }
    }

    /// Follows the health of a service's process, as soon as there is a certificate to ask by.
    fn watch(&mut self, name: ServiceName) {
        let (Some(tls), Some(generation)) = (&self.tls, self.generation_of(name)) else {
            return;
        };
        let peers = Peers::new(self.profile.clone(), Arc::clone(&self.config), Arc::clone(tls));
        let task = tokio::spawn(health::follow(peers, name, generation, self.events.clone()));
        self.watches.insert(name, AbortOnDropHandle::new(task));
    }

    fn certify(&mut self) {
        let drain = CancellationToken::new();
        let (profile, config) = (self.profile.clone(), Arc::clone(&self.config));
        let task = credentials::keep(
            profile,
            config,
            self.clock.clone(),
            drain.clone(),
            self.events.clone(),
        );
        self.certificate = Some((AbortOnDropHandle::new(tokio::spawn(task)), drain.drop_guard()));
    }
}
