//! agent-runner: the agent's contexts (sessions, transcripts) and their turns. A turn is one input to
//! one final outcome; each runs in a worker process of its own, in the sandbox.
//!
//! It deliberately is not: the model (a backend is), the judge of tools (the gateway is), a keeper of
//! secrets. It gives a worker no network, no secrets, and no files beyond its workspace, and it dials
//! nobody but the scheduler, whose work it takes.
//!
//! Invariants:
//! - An input is durable before it is accepted; an accepted turn runs, also after a crash, and a turn
//!   that a crash cut off is recorded as interrupted and never run again by itself.
//! - Turns of one context are serial and in order; contexts run beside each other; no owner takes all.
//! - Events of a turn are numbered from 1 without a gap; the last one is seen only after it, the
//!   transcript and the outcome are durable, and nothing follows it.
//! - A crash, hang or flood of a worker is an outcome of its turn, never of the service.
//! - What Creel tells the agent travels in typed fields; no text can imitate it.
//! - A run of a job becomes at most one turn per attempt, and its summary is delivered at most once.
//! - Everything is bounded: lines, output, events, tool calls, queues, inboxes, transcripts, history, and what is kept
//!   of all turns together.

mod accept;
mod contexts;
mod convert;
mod course;
mod echo;
mod events;
mod figures;
mod files;
mod finish;
mod grpc;
mod inbox;
mod jobs;
mod kept;
mod launch;
mod lines;
mod protocol;
mod queue;
mod recover;
mod remove;
mod runner;
mod sandbox;
mod segment;
mod session;
mod store;
mod subscribe;
mod transcript;
mod turn;
mod worker;
mod works;

#[cfg(test)]
mod tests;

use creel_kit::{Built, Config, Deps, Profile, service::Lock};
use creel_proto::agent::v1::{
    context_service_server::ContextServiceServer, turn_service_server::TurnServiceServer,
};
use creel_wire::ServiceName;
use tonic::service::Routes;

pub use echo::turn_worker_main;
pub use grpc::{Contexts, Turns};
pub use runner::{Parts, Runner};
pub use sandbox::{Starter, start_spawner};

/// Between TERM and KILL for what a lost spawner left.
const LAST_GRACE: std::time::Duration = std::time::Duration::from_millis(500);

/// Builds the service. `starter` was made by [`start_spawner`] before the lockdown.
///
/// # Errors
/// When its directories can't be made, or what an earlier process left can't be read.
pub async fn build(deps: Deps, starter: Starter) -> anyhow::Result<Built> {
    let runner = Runner::new(Parts::from(&deps), starter)?;
    runner.recover().await?;
    let scheduler = deps.peers.channel(ServiceName::Scheduler)?;
    let routes = Routes::new(ContextServiceServer::new(Contexts(runner.clone())))
        .add_service(TurnServiceServer::new(Turns(runner.clone())));
    let run = Box::pin(async move {
        let attached = tokio::spawn(worker::attach(runner.clone(), scheduler));
        let outcome = runner.run().await;
        attached.abort();
        if outcome.is_err() {
            // A spawner that is lost leaves its workers to us; nothing may outlive the service.
            tokio::task::spawn_blocking(|| creel_sandbox::kill_descendants(LAST_GRACE)).await??;
        }
        outcome
    });
    Ok(Built { routes, run })
}

impl Runner {
    /// Takes the scheduler's work from this channel until the drain. [`build`] does it by itself.
    pub async fn attach(&self, scheduler: tonic::transport::Channel) {
        worker::attach(self.clone(), scheduler).await;
    }
}

/// What the service touches besides what every service does: the directories that agents see.
#[must_use]
pub fn lock(profile: &Profile, _config: &Config) -> Lock {
    Lock {
        write: vec![profile.workspace()],
        has_spawner: true,
        ..Lock::default()
    }
}
