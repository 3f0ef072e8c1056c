//! The edge: the one TLS port that outside callers reach. It proves who they are, asks identity for
//! their assertion, and forwards gRPC by path to the service that owns the method.
//!
//! It mints nothing, decides no approval, runs no command and dials nothing but the other services.
//!
//! Invariants: only exact paths of `edge` methods pass; what a caller may do is judged here and again by
//! the owner, from the same table; no `creel-*` header comes in from outside; a revoked device's
//! connections close within a second, and without news from identity nothing new passes after 5 s and
//! nothing stays open after 15 s.

mod admin;
mod backend;
mod bind;
mod callers;
mod connections;
mod edge;
mod edge_cert;
mod epochs;
mod forward;
mod grpc;
mod guard;
mod http_edge;
mod metrics_merge;
#[cfg(test)]
mod model;
mod nodes;
mod reflection;
mod ws;

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use creel_kit::{
    Built, Config, Deps, Profile,
    profile::{EdgeFile, write_private},
    service::{CertificateSource, Lock, Spec},
};
use creel_proto::identity::v1::{WatchEpochsRequest, device_service_client::DeviceServiceClient};
use creel_wire::ServiceName;
use futures_util::FutureExt as _;
use tonic::service::Routes;

use bind::Bound;

/// The services behind the edge: what is forwarded to, asked for health and metrics.
const UPSTREAMS: [ServiceName; 3] = [
    ServiceName::Identity,
    ServiceName::Scheduler,
    ServiceName::AgentRunner,
];

/// How the gateway is run. Its ports are bound here, before it locks itself and starts anything.
///
/// # Errors
/// When a port can't be had; the message names the holder. A config that can't be read is left for the
/// frame to report.
pub fn spec(profile: &Profile) -> anyhow::Result<Spec> {
    let bound = match Config::load(&profile.config_file()) {
        Ok(config) => Some(bind::bind(&config.gateway)?),
        Err(_) => None,
    };
    Ok(Spec {
        name: ServiceName::Gateway,
        certificate: CertificateSource::Enrolled,
        judge_local: None,
        threads: 2,
        lock: Lock::default(),
        build: Box::new(|deps| Box::pin(build(deps, bound))),
    })
}

async fn build(deps: Deps, bound: Option<Bound>) -> anyhow::Result<Built> {
    let bound = bound.context("the listeners are not bound")?;
    let certificate = edge_cert::load_or_issue(&deps).await?;
    let file = EdgeFile {
        address: bound.edge.local_addr()?.to_string(),
        admin: bound.admin.local_addr()?.to_string(),
        certificate_sha256: certificate.sha256.clone(),
        pid: std::process::id(),
    };
    write_private(
        &deps.profile.edge_file(),
        serde_json::to_string_pretty(&file)?.as_bytes(),
    )?;
    tracing::info!(address = %file.address, admin = %file.admin, sha256 = %file.certificate_sha256, "edge listens");

    let certificate = Arc::new(ArcSwap::from_pointee(certificate));
    let connections = connections::Connections::new(deps.config.gateway.max_connections_per_device);
    let callers = callers::Callers::new(&deps)?;
    let upstreams = forward::Upstreams::new(&deps)?;
    let nodes = nodes::Nodes::new(deps.config.gateway.nodes.clone());
    let own = grpc::routes(&deps, &certificate, &connections, &file, &nodes)?;
    let identity = DeviceServiceClient::new(deps.peers.channel(ServiceName::Identity)?);
    let door = ws::Door::new(ws::Parts {
        clock: deps.clock.clone(),
        drain: deps.drain.clone(),
        prover: Arc::new(ws::prover::GrpcProver::new(
            identity.clone(),
            callers.clone(),
            deps.clock.clone(),
        )),
        backend: backend::Backend::new(&deps, own.clone().prepare().into_axum_router())?,
        connections: connections.clone(),
        nodes,
        hub: ws::hub::Hub::default(),
        figures: ws::figures::Figures::new(&deps.metrics),
        max_connections: deps.config.gateway.max_connections as usize,
    });
    let edge = edge::Edge::new(edge::Parts {
        deps: deps.clone(),
        certificate: Arc::clone(&certificate),
        connections: connections.clone(),
        callers,
        upstreams,
        own,
        door: door.clone(),
    })
    .await?;
    let (watched, drained) = (identity.clone(), deps.drain.clone());
    let following = async move {
        let watch = || {
            let mut identity = watched.clone();
            async move { Ok(identity.watch_epochs(WatchEpochsRequest {}).await?.into_inner()) }
        };
        tokio::select! {
            () = drained.cancelled() => {}
            () = epochs::follow(connections, watch) => {}
        }
    };
    let renewing = edge_cert::keep_fresh(deps.clone(), certificate);
    let admin = admin::serve(deps.clone(), bound.admin);
    // It ends well only with the drain, and must not cut the edge's own short.
    let admin = async {
        admin.await?;
        std::future::pending::<anyhow::Result<()>>().await
    };
    let serving = edge.serve(bound.edge);
    let door = door.run(identity);
    let run = async move {
        tokio::select! {
            ((), (), (), ()) = async { tokio::join!(serving, following, renewing, door) } => Ok(()),
            outcome = admin => outcome,
        }
    };
    Ok(Built {
        routes: Routes::default(),
        run: run.boxed(),
    })
}
