//! Who someone is, and what they were granted: the certificate authority, devices, assertions, the
//! local socket.
//!
//! It decides nothing else: what a granted scope allows is for the proto files and the domains to say.
//!
//! Invariants: what is handed on is requested ∩ the granter's own, computed in [`grants`] alone;
//! revoked means revoked, no path re-issues; nothing is stored before a valid proof; the CA's keys are
//! read by no other process; every answer follows a committed record.

mod ca;
mod ca_files;
mod declared;
mod device;
mod device_pairing;
pub mod epochs;
mod failures;
mod grants;
mod grpc;
pub mod guard;
mod guesses;
mod local;
mod nonces;
mod own;
mod pairings;
mod people;
mod proof;
pub mod recovery;
mod registry;
mod seal;
mod sender_pairing;
mod senders;
mod store;
mod tokens;

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use creel_kit::{
    Built, Deps, Profile,
    service::{CertificateSource, Lock, Spec},
};
use creel_proto::identity::v1::{
    assertion_service_server::AssertionServiceServer, ca_service_server::CaServiceServer,
    device_service_server::DeviceServiceServer, local_service_server::LocalServiceServer,
    people_service_server::PeopleServiceServer, sender_service_server::SenderServiceServer,
};
use creel_wire::ServiceName;
use tonic::service::Routes;

/// A message to the services that strangers reach, in bytes.
const MAX_UNPROVEN: usize = 64 << 10;

/// Requests that waited too long are told so this often. None of them can be decided meanwhile.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(10);

/// How identity is run. Call it before anything confines the process: what it sees of itself here is
/// what peers of its local socket are measured by.
///
/// # Errors
/// When the process can't examine itself.
pub fn spec(profile: &Profile) -> anyhow::Result<Spec> {
    // Read once, when the clock is known to be right; its own certificate is the first use.
    let authority = Arc::new(OnceLock::new());
    let loaded = Arc::clone(&authority);
    Ok(Spec {
        name: ServiceName::Identity,
        certificate: CertificateSource::Own(Box::new(move |parts| Box::pin(own::certificate(parts, loaded)))),
        judge_local: Some(local::judge()?),
        threads: 0,
        lock: Lock {
            write: vec![profile.public()],
            ..Lock::default()
        },
        build: Box::new(move |deps| Box::pin(build(deps, authority))),
    })
}

async fn build(deps: Deps, authority: Arc<OnceLock<Arc<ca::Authority>>>) -> anyhow::Result<Built> {
    let ca = Arc::clone(authority.get().context("the authority is not loaded")?);
    let registry = registry::Registry::open(&deps).await?;
    let pairings = pairings::Pairings::open(&deps, &registry, ca.root_fingerprint()).await?;
    let certificates = CaServiceServer::new(grpc::ca::Ca::new(&deps, &ca));
    let devices = DeviceServiceServer::new(grpc::device::Devices::new(&deps, &ca, &registry, &pairings));
    let routes = Routes::new(certificates.max_decoding_message_size(MAX_UNPROVEN))
        .add_service(devices.max_decoding_message_size(MAX_UNPROVEN))
        .add_service(AssertionServiceServer::new(grpc::assertion::Assertions::new(
            &deps, &ca, &registry,
        )?))
        .add_service(LocalServiceServer::new(grpc::local::Local::new(
            &deps, &ca, &registry,
        )))
        .add_service(PeopleServiceServer::new(grpc::people::PeopleRpc::new(
            &deps, &registry,
        )))
        .add_service(SenderServiceServer::new(grpc::sender::SenderRpc::new(&deps)));
    let drain = deps.drain.clone();
    let (store, clock) = (deps.store.clone(), deps.clock.clone());
    let run = Box::pin(async move {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = drain.cancelled() => return Ok(()),
                _ = tick.tick() => {}
            }
            let writer = registry.write().await;
            if let Err(error) = pairings.sweep(&writer, store.note_time(clock.now_ms())).await {
                tracing::warn!(%error, "requests that are over were not removed; trying again");
            }
        }
    });
    Ok(Built { routes, run })
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
