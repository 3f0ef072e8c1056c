//! `sessions.list`, and the sessions in `status`: the agent's contexts.

use std::sync::Arc;

use creel_proto::{
    agent::v1::{Context, ListContextsRequest, context_service_client::ContextServiceClient},
    time,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::limit;
use crate::ws::{chat, failure::Failure, session::Session};

/// `params` of `sessions.list`.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct List {
    limit: Option<u64>,
}

/// Sessions on one page.
const MAX_PAGE: usize = 500;
/// Sessions counted for `status`, at most; who has more counts them page by page.
const MAX_COUNTED: usize = MAX_PAGE;
/// Sessions shown in `status`, the last active first.
const RECENT: usize = 10;

pub(super) async fn list(session: &Arc<Session>, list: List) -> Result<Value, Failure> {
    let (contexts, has_more) = fetch(session, limit(list.limit, 100, MAX_PAGE)).await?;
    Ok(json!({
        "ts": session.door.0.parts.clock.now_ms(),
        "count": contexts.len(),
        "hasMore": has_more,
        "sessions": contexts.iter().map(session_json).collect::<Vec<_>>(),
    }))
}

/// Those of the one agent there is, as `status` tells of them.
pub(super) async fn summary(session: &Arc<Session>) -> Result<Value, Failure> {
    let (mut contexts, _) = fetch(session, MAX_COUNTED).await?;
    let now = session.door.0.parts.clock.now_ms();
    let active = |context: &Context| context.last_active_at.as_ref().map_or(0, time::unix_ms);
    contexts.sort_by_key(|context| std::cmp::Reverse(active(context)));
    let recent: Vec<Value> = contexts
        .iter()
        .take(RECENT)
        .map(|context| {
            let mut shown = session_json(context);
            shown["agentId"] = json!(chat::AGENT);
            shown["age"] = json!(now.saturating_sub(active(context)));
            shown
        })
        .collect();
    let count = contexts.len();
    // The command line prints where they lie: with whom, not in which file.
    let agent = json!({ "agentId": chat::AGENT, "path": "agent-runner", "count": count, "recent": recent });
    Ok(json!({
        // Where they lie is nobody's business who may only read.
        "paths": [],
        "count": count,
        "defaults": { "model": null, "contextTokens": null },
        "recent": recent,
        "byAgent": [agent],
    }))
}

/// So many contexts, and whether there are more.
async fn fetch(session: &Arc<Session>, most: usize) -> Result<(Vec<Context>, bool), Failure> {
    let list = ListContextsRequest {
        page_size: i32::try_from(most).unwrap_or(i32::MAX),
        ..ListContextsRequest::default()
    };
    let mut contexts = ContextServiceClient::new(session.services().await?);
    let answer = contexts.list(list).await?.into_inner();
    Ok((answer.contexts, !answer.next_page_token.is_empty()))
}

fn session_json(context: &Context) -> Value {
    json!({
        "key": context.session,
        "kind": if context.session.contains(":group:") { "group" } else { "direct" },
        "updatedAt": context.last_active_at.as_ref().map(time::unix_ms),
        "createdAt": context.created_at.as_ref().map(time::unix_ms),
        "hasActiveRun": !context.current_turn_id.is_empty(),
    })
}
