//! `StatusService`: what runs, and how it is.

use std::{fs, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use creel_kit::{
    Clock, Deps, Profile,
    metrics::resident_bytes,
    profile::{ChildStatus, EdgeFile, StatusFile},
};
use creel_proto::{
    agent::v1::{GetSandboxRequest, turn_service_client::TurnServiceClient},
    gateway::v1::{
        GetStatusRequest, ServiceStatus, Status as StackStatus, WhoAmIRequest, WhoAmIResponse,
        status_service_server::StatusService,
    },
    time,
};
use creel_wire::{ServiceName, authz};
use futures_util::future::join_all;
use tonic::{Request, Response, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{UPSTREAMS, connections::Connections, edge_cert::EdgeCertificate};

/// A service that does not answer in so long is unreachable.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct StatusRpc {
    profile: Profile,
    clock: Clock,
    certificate: Arc<ArcSwap<EdgeCertificate>>,
    connections: Connections,
    file: EdgeFile,
    peers: Vec<(ServiceName, HealthClient<Channel>)>,
    turns: TurnServiceClient<Channel>,
}

impl StatusRpc {
    pub(crate) fn new(
        deps: &Deps,
        certificate: &Arc<ArcSwap<EdgeCertificate>>,
        connections: &Connections,
        file: &EdgeFile,
    ) -> anyhow::Result<Self> {
        let mut peers = Vec::new();
        for name in UPSTREAMS {
            peers.push((name, HealthClient::new(deps.peers.channel(name)?)));
        }
        Ok(Self {
            profile: deps.profile.clone(),
            clock: deps.clock.clone(),
            certificate: Arc::clone(certificate),
            connections: connections.clone(),
            file: file.clone(),
            peers,
            turns: TurnServiceClient::new(deps.peers.channel(ServiceName::AgentRunner)?),
        })
    }

    /// What stands around a turn; empty while nobody can say.
    async fn sandbox(&self) -> String {
        let mut turns = self.turns.clone();
        match tokio::time::timeout(PATIENCE, turns.get_sandbox(GetSandboxRequest {})).await {
            Ok(Ok(answer)) => answer.into_inner().level,
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }

    async fn services(&self) -> Vec<ServiceStatus> {
        // Under a supervisor its view has pids and restarts; the health of the moment comes from each.
        let known: Vec<ChildStatus> = fs::read(self.profile.status_file())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<StatusFile>(&bytes).ok())
            .map(|file| file.services)
            .unwrap_or_default();
        let asked = self.peers.iter().map(|(name, client)| {
            let mut client = client.clone();
            async move {
                let check = client.check(HealthCheckRequest {
                    service: String::new(),
                });
                let state = match tokio::time::timeout(PATIENCE, check).await {
                    Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => "ready",
                    Ok(Ok(_)) => "unready",
                    Ok(Err(_)) | Err(_) => "unreachable",
                };
                (*name, state)
            }
        });
        let mut states = vec![(ServiceName::Gateway, "ready")];
        states.extend(join_all(asked).await);
        states
            .into_iter()
            .map(|(name, state)| describe(name, state, &known))
            .collect()
    }
}

fn describe(name: ServiceName, state: &str, known: &[ChildStatus]) -> ServiceStatus {
    let child = known.iter().find(|child| child.name == name.as_str());
    // Unreachable is the symptom; what the supervisor knows is the reason.
    let shown = match child {
        Some(child) if state != "ready" && child.state != "ready" => child.state.as_str(),
        _ => state,
    };
    let pid = child.map_or(0, |child| child.pid);
    ServiceStatus {
        name: name.to_string(),
        state: shown.to_owned(),
        detail: child.map(|child| child.detail.clone()).unwrap_or_default(),
        since: child.and_then(|child| time::timestamp_opt(child.since_unix_ms)),
        restarts: child.map_or(0, |child| child.restarts),
        memory_bytes: if pid == 0 { 0 } else { resident_bytes(pid) },
        pid,
    }
}

#[tonic::async_trait]
impl StatusService for StatusRpc {
    async fn get(&self, request: Request<GetStatusRequest>) -> Result<Response<StackStatus>, Status> {
        let _ = authz::split(request)?;
        let (services, sandbox) = tokio::join!(self.services(), self.sandbox());
        let certificate = self.certificate.load();
        Ok(Response::new(StackStatus {
            version: creel_kit::VERSION.to_owned(),
            profile: self.profile.name().to_owned(),
            now: Some(time::timestamp(self.clock.now_ms())),
            ready: services.iter().all(|service| service.state == "ready"),
            services,
            edge_certificate_sha256: certificate.sha256.clone(),
            edge_names: certificate.names.clone(),
            edge_certificate_expires_at: Some(time::timestamp(certificate.not_after_unix_ms)),
            edge_address: self.file.address.clone(),
            metrics_address: self.file.admin.clone(),
            walls: "locked".to_owned(),
            sandbox,
            connections: u32::try_from(self.connections.count()).unwrap_or(u32::MAX),
        }))
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let (caller, _) = authz::split(request)?;
        Ok(Response::new(WhoAmIResponse {
            principal: caller.principal().to_string(),
            person: caller.person().to_owned(),
            name: caller.label().to_owned(),
            scopes: caller.scopes().iter().map(ToString::to_string).collect(),
        }))
    }
}
