//! `sessions.list`: the agent's contexts.

use std::sync::Arc;

use creel_proto::{
    agent::v1::{ListContextsRequest, context_service_client::ContextServiceClient},
    time,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ws::{failure::Failure, frame::Request, session::Session};

#[derive(Deserialize)]
struct Params {
    limit: Option<i32>,
}

pub(super) async fn list(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: Params = request.params()?;
    let list = ListContextsRequest {
        page_size: params.limit.unwrap_or(100).clamp(1, 500),
        ..ListContextsRequest::default()
    };
    let mut contexts = ContextServiceClient::new(session.services().await?);
    let answer = contexts.list(list).await?.into_inner();
    let sessions: Vec<Value> = answer
        .contexts
        .iter()
        .map(|context| {
            json!({
                "key": context.session,
                "kind": if context.session.contains(":group:") { "group" } else { "direct" },
                "updatedAt": context.last_active_at.as_ref().map(time::unix_ms),
                "createdAt": context.created_at.as_ref().map(time::unix_ms),
                "hasActiveRun": !context.current_turn_id.is_empty(),
            })
        })
        .collect();
    Ok(json!({
        "ts": session.door.0.parts.clock.now_ms(),
        "count": sessions.len(),
        "hasMore": !answer.next_page_token.is_empty(),
        "sessions": sessions,
    }))
}
