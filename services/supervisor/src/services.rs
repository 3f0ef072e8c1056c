//! The services this binary is: their order, what they need, and how each is run.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use creel_kit::{
    Config, Profile,
    service::{self, CertificateSource, EXIT_CONFIG, Lock, Spec},
};
use creel_store::Store;
use creel_store_rocksdb::Options;
use creel_wire::ServiceName;

use crate::{
    child::{adopt_stdin, own_binary},
    text::{chain, fail_as},
};

/// A service as the supervisor sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: ServiceName,
    /// What it can't be started again without.
    pub(crate) need: Option<ServiceName>,
}

/// All of them, in the order of their start. They are drained in the opposite order.
pub(crate) const SERVICES: [Service; 4] = [
    Service {
        name: ServiceName::Identity,
        need: None,
    },
    Service {
        name: ServiceName::Scheduler,
        need: Some(ServiceName::Identity),
    },
    Service {
        name: ServiceName::AgentRunner,
        need: Some(ServiceName::Identity),
    },
    Service {
        name: ServiceName::Gateway,
        need: Some(ServiceName::Identity),
    },
];

/// Runs one to its end, in this process.
pub(crate) fn run(profile: Profile, name: ServiceName) -> ExitCode {
    let fail = |status, why: &str| fail_as(name.as_str(), status, why);
    // Before anything writes to stdout, or opens a file that would become it.
    if let Err(error) = adopt_stdin() {
        return fail(1, &format!("no stdin: {error}"));
    }
    // Some prepare by it, before the frame reads it.
    let config = match Config::load(&profile.config_file()) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, &chain(&error)),
    };
    let spec = match name {
        ServiceName::Identity => creel_identity::spec(&profile),
        ServiceName::Gateway => creel_gateway::spec(&profile),
        ServiceName::Scheduler => Ok(scheduler()),
        ServiceName::AgentRunner => agent_runner(&profile, &config),
        _ => Err(anyhow::anyhow!("not part of this build")),
    };
    let open = if name == ServiceName::Scheduler {
        open_busy_store
    } else {
        open_store
    };
    match spec {
        Ok(spec) => service::run(profile, spec, open),
        Err(error) => fail(1, &format!("{error:#}")),
    }
}

fn scheduler() -> Spec {
    Spec {
        name: ServiceName::Scheduler,
        certificate: CertificateSource::Enrolled,
        judge_local: None,
        threads: 0,
        lock: Lock::default(),
        build: Box::new(|deps| Box::pin(creel_scheduler::build(deps))),
    }
}

fn agent_runner(profile: &Profile, config: &Config) -> anyhow::Result<Spec> {
    // Before the frame locks this process: what starts processes must be outside.
    let starter = creel_agent_runner::start_spawner(&own_binary()?).context("can't start the spawner")?;
    Ok(Spec {
        name: ServiceName::AgentRunner,
        certificate: CertificateSource::Enrolled,
        judge_local: None,
        threads: 2,
        lock: Lock {
            has_spawner: true,
            ..creel_agent_runner::lock(profile, config)
        },
        build: Box::new(|deps| Box::pin(creel_agent_runner::build(deps, starter))),
    })
}

/// Runs the helper of a service that the arguments ask for, if they do.
pub(crate) fn dispatch_early() -> Option<ExitCode> {
    // A turn of the agent; started by the agent-runner, inside walls.
    let turn = std::env::args_os().nth(1).is_some_and(|arg| arg == "turn-worker");
    turn.then(creel_agent_runner::turn_worker_main)
}

fn open_store(path: &Path) -> Result<Store, creel_store::Error> {
    creel_store_rocksdb::open(path, Options::default())
}

/// The scheduler's: a job's state is written twice with every fire, so what is held back in memory is written once,
/// and a fire reads its job's record.
fn open_busy_store(path: &Path) -> Result<Store, creel_store::Error> {
    let options = Options {
        write_buffer_mb: 8,
        cache_mb: 4,
        ..Options::default()
    };
    creel_store_rocksdb::open(path, options)
}
