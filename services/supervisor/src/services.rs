//! The services this binary is: their order, what they need, and how each is run.

use std::{path::Path, process::ExitCode};

use creel_kit::{Profile, service};
use creel_store::Store;
use creel_wire::ServiceName;

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
    Service { name: ServiceName::Identity, need: None },
    Service { name: ServiceName::Scheduler, need: Some(ServiceName::Identity) },
    Service { name: ServiceName::AgentRunner, need: Some(ServiceName::Identity) },
    Service { name: ServiceName::Gateway, need: Some(ServiceName::Identity) },
];

/// Runs one to its end, in this process.
pub(crate) fn run(profile: Profile, name: ServiceName) -> ExitCode {
    // Before anything writes to stdout, or opens a file that would become it.
    if let Err(error) = crate::child::adopt_stdin() {
        return crate::fail(1, &format!("{name}: no stdin: {error}"));
    }
    let spec = match name {
        ServiceName::Identity => creel_identity::spec(),
        ServiceName::Gateway => creel_gateway::spec(&profile),
        ServiceName::Scheduler => creel_scheduler::spec(),
        ServiceName::AgentRunner => creel_agent_runner::spec(),
        _ => Err(anyhow::anyhow!("{name} is not part of this build")),
    };
    match spec {
        Ok(spec) => service::run(profile, spec, open_store),
        Err(error) => crate::fail(1, &format!("{name}: {error:#}")),
    }
}

/// Runs the helper of a service that the arguments ask for, if they do.
pub(crate) fn dispatch_early() -> Option<ExitCode> {
    // A turn of the agent; started by the agent-runner, inside walls.
    let turn = std::env::args_os().nth(1).is_some_and(|arg| arg == "turn-worker");
    turn.then(creel_agent_runner::turn_worker_main)
}

fn open_store(path: &Path) -> Result<Store, creel_store::Error> {
    creel_store_rocksdb::open(path, creel_store_rocksdb::Options::default())
}
