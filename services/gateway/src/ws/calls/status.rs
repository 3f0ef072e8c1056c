//! `health` and `status`. Nothing here names a path or a configuration: `operator.read` is enough to ask.

use std::{sync::Arc, time::Duration};

use creel_proto::{
    gateway::v1::{GetStatusRequest, Status, status_service_client::StatusServiceClient},
    time,
};
use serde_json::{Value, json};

use super::sessions;
use crate::ws::{chat::AGENT, failure::Failure, session::Session};

/// `health` waits so long for the count of sessions.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) async fn health(session: &Arc<Session>) -> Result<Value, Failure> {
    let sessions = tokio::time::timeout(PATIENCE, sessions::summary(session));
    let (status, sessions) = tokio::join!(fetch(session), sessions);
    let status = status?;
    // Whether the others are well is told without the agent-runner, too.
    let sessions = match sessions {
        Ok(Ok(mut sessions)) => sessions["byAgent"][0].take(),
        Ok(Err(_)) | Err(_) => json!({ "path": "agent-runner (no answer)", "count": 0, "recent": [] }),
    };
    let services: Vec<Value> = status
        .services
        .iter()
        .map(
            |service| json!({ "name": service.name, "state": service.state, "ok": service.state == "ready" }),
        )
        .collect();
    Ok(json!({
        "ok": status.ready,
        "ts": status.now.as_ref().map_or(0, time::unix_ms),
        "version": status.version,
        "services": services,
        "defaultAgentId": AGENT,
        // Without them the command line tells of its own machine's.
        "agents": [{ "agentId": AGENT, "isDefault": true, "heartbeat": {}, "sessions": sessions }],
    }))
}

/// `config.get`: `gateway probe` can't do without an answer. Nothing here is configured in the original's file.
pub(super) fn config() -> Value {
    json!({ "exists": false, "valid": true, "issues": [], "legacyIssues": [], "config": {}, "runtimeConfig": {} })
}

pub(super) async fn status(session: &Arc<Session>) -> Result<Value, Failure> {
    let (status, sessions) = tokio::try_join!(fetch(session), sessions::summary(session))?;
    let services: Vec<Value> = status
        .services
        .iter()
        .map(|service| {
            json!({
                "name": service.name,
                "state": service.state,
                "detail": service.detail,
                "restarts": service.restarts,
                "memoryBytes": service.memory_bytes,
            })
        })
        .collect();
    Ok(json!({
        "runtimeVersion": status.version,
        // The original's command line can't do without these.
        "sessions": sessions,
        "channelSummary": [],
        "queuedSystemEvents": [],
        "ready": status.ready,
        "profile": status.profile,
        "connections": status.connections,
        "services": services,
        "edge": {
            "certificateSha256": status.edge_certificate_sha256,
            "names": status.edge_names,
            "certificateExpiresAtMs": status.edge_certificate_expires_at.as_ref().map(time::unix_ms),
        },
    }))
}

async fn fetch(session: &Arc<Session>) -> Result<Status, Failure> {
    let mut services = StatusServiceClient::new(session.services().await?);
    Ok(services.get(GetStatusRequest {}).await?.into_inner())
}
