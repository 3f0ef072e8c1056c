//! The services this binary is: their order, what they need, and how each is run.

use std::process::ExitCode;

use creel_kit::Profile;
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

pub(crate) fn run(_: Profile, name: ServiceName) -> ExitCode {
    match std::env::var(format!("CREEL_STUB_{}", name.as_str().replace('-', "_"))).as_deref() {
        Ok("sleep") => { std::thread::sleep(std::time::Duration::from_secs(1000)); ExitCode::SUCCESS }
        Ok("78") => crate::fail(78, "creel.toml:1:1 bad"),
        _ => crate::fail(1, name.as_str()),
    }
}
pub(crate) fn dispatch_early() -> Option<ExitCode> {
    None
}
