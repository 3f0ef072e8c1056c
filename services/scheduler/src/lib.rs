//! When things run: jobs, their occurrences, and the record of every one of them.
//!
//! It runs nothing itself. Workers attach to it and take what is due (`WorkService`); it dials nobody but
//! `identity`, for the assertion that goes with each run. Schedule arithmetic is `creel-schedule`'s.
//!
//! Invariants: at most one run per occurrence, whatever crashes (FIR-1); each due occurrence runs or is skipped
//! with a reason in the record (FIR-2); nothing is given away before it is durable (FIR-3); only the newest
//! attempt's result counts, once (LEA-1 to LEA-4). No run holds anything that another run, a list or a new job
//! needs; a record that can't be read costs its own job and nothing else.
//!
//! [`admission`] and [`lease`] are pure machines with their guards in [`guard`]; `ledger` is the memory that they
//! change, `engine` the one task that owns it.

pub mod admission;
mod backfill;
mod clock;
mod dispatch;
mod engine;
mod figures;
mod grpc;
pub mod guard;
mod health;
mod id;
mod job;
mod lane;
pub mod lease;
mod ledger;
mod mint;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod name;
mod pack;
mod part;
pub mod policy;
mod prune;
mod run;
mod shelves;
mod spec;
mod store;
#[cfg(test)]
mod testing;
mod work;
mod zoning;

use std::sync::Arc;

use creel_kit::{Built, Deps};
use creel_proto::scheduler::v1::{
    admin_service_server::AdminServiceServer, job_service_server::JobServiceServer,
    run_service_server::RunServiceServer, work_service_server::WorkServiceServer,
};
use creel_schedule::{ZoneSources, Zones};
use creel_wire::ServiceName;
use tonic::service::Routes;

pub use id::{JobId, NotAnId, Occurrence, RunId};
pub use mint::{IdentityMinter, MintError, Minter};

use engine::{Engine, Parts};
use grpc::Api;
use prune::Pruner;
use work::WorkApi;
use zoning::Zoning;

/// How long things take and how many there may be. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// An attempt that was not renewed for so long is lost.
    pub lease_ms: i64,
    /// Workers renew this often.
    pub heartbeat_ms: i64,
    /// A worker that was asked to stop has so long to answer.
    pub cancel_ms: i64,
    /// An occurrence this late is not missed.
    pub grace_ms: i64,
    /// A clock that jumped ahead, or a crash loop, is watched for so long.
    pub hold_ms: i64,
    /// The clock is looked at this often: a suspended machine's timers stand still.
    pub max_step_ms: i64,
    /// Runs of a deleted job are kept for so long.
    pub tombstone_ms: i64,
    /// Jobs in all.
    pub max_jobs: usize,
    /// Jobs of one owner.
    pub max_jobs_per_owner: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            heartbeat_ms: 10_000,
            cancel_ms: 30_000,
            grace_ms: 60_000,
            hold_ms: 60_000,
            max_step_ms: 10_000,
            tombstone_ms: 86_400_000,
            max_jobs: 1_000_000,
            max_jobs_per_owner: 10_000,
        }
    }
}

/// Builds the service.
///
/// # Errors
/// When identity can't be named.
#[expect(clippy::unused_async, reason = "the shape of every service")]
pub async fn build(deps: Deps) -> anyhow::Result<Built> {
    let minter = IdentityMinter::new(deps.peers.channel(ServiceName::Identity)?);
    Ok(assemble(deps, Config::default(), Arc::new(minter)))
}

/// The service, with its times and whoever mints given.
#[must_use]
pub fn assemble(deps: Deps, config: Config, minter: Arc<dyn Minter>) -> Built {
    let zones = Zoning::new(|| Zones::load(&ZoneSources::of_this_machine()));
    tracing::info!(zone_data = %zones.get().zone_data_version(), "zones are loaded");
    let parts = Parts {
        config: config.clone(),
        store: deps.store.clone(),
        clock: deps.clock.clone(),
        boot_ms: Arc::new(boot_ms),
        synced: Arc::new(creel_sandbox::clock_is_synchronised),
        zones: zones.clone(),
        minter,
        outbox: deps.outbox,
        figures: figures::Figures::new(&deps.metrics),
        random: || Box::new(rand::random::<u64>),
    };
    let (engine, handle, jobs) = Engine::new(parts);
    let api = Api {
        engine: handle.clone(),
        store: deps.store.clone(),
        clock: deps.clock.clone(),
        idempotency: deps.idempotency,
        zones,
        config: config.clone(),
        random: rand::random,
        busy: grpc::Busy::default(),
        drain: deps.drain.clone(),
    };
    let work = WorkApi {
        engine: handle.clone(),
        store: deps.store.clone(),
        config: config.clone(),
        drain: deps.drain.clone(),
    };
    let routes = Routes::new(JobServiceServer::new(api.clone()))
        .add_service(RunServiceServer::new(api.clone()))
        .add_service(AdminServiceServer::new(api))
        .add_service(WorkServiceServer::new(work));
    let pruner = Pruner {
        store: deps.store,
        engine: handle,
        config,
        jobs,
        rest: None,
    };
    let drain = deps.drain;
    let run = Box::pin(async move {
        let pruning = tokio::spawn(pruner.run(drain.clone()));
        engine.run(drain).await;
        pruning.await?;
        Ok(())
    });
    Built { routes, run }
}

/// Milliseconds since boot, suspended time included: what tells a clock that was set from a machine that slept.
fn boot_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}
