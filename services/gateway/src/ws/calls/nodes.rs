//! `node.*`: asking nodes on behalf of operators, and what nodes themselves send.

use std::sync::Arc;

use creel_proto::{
    gateway::v1::{
        DescribeNodeRequest, InvokeNodeRequest, ListNodesRequest, Node,
        node_service_client::NodeServiceClient,
    },
    time,
};
use creel_wire::{Code, Error};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    nodes::registry::{Outcome, Taken},
    ws::{
        failure::{Failure, UNAVAILABLE},
        frame::Request,
        session::Session,
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByNode {
    node_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invoke {
    node_id: String,
    command: String,
    params: Option<Value>,
    timeout_ms: Option<u64>,
    idempotency_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultOf {
    id: String,
    node_id: String,
    ok: bool,
    payload: Option<Value>,
    #[serde(rename = "payloadJSON")]
    payload_json: Option<String>,
    error: Option<NodeError>,
}

#[derive(Default, Deserialize)]
struct NodeError {
    code: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    event: String,
}

/// What can be asked of nodes, and what they say themselves.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    List,
    Describe(String),
    Invoke(InvokeNodeRequest),
    Answer(Answer),
    Event(String),
}

/// A node's answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    id: String,
    node: String,
    outcome: Outcome,
}

pub(super) fn read(request: &Request) -> Result<Asked, Failure> {
    match request.method.as_str() {
        "node.list" => Ok(Asked::List),
        "node.describe" => Ok(Asked::Describe(request.params::<ByNode>()?.node_id)),
        "node.invoke" => read_invoke(request).map(Asked::Invoke),
        "node.invoke.result" => read_answer(request).map(Asked::Answer),
        "node.event" => Ok(Asked::Event(request.params::<Event>()?.event)),
        other => Err(Failure::unknown_method(other)),
    }
}

fn read_invoke(request: &Request) -> Result<InvokeNodeRequest, Failure> {
    let params: Invoke = request.params()?;
    Ok(InvokeNodeRequest {
        request_id: params.idempotency_key,
        node: params.node_id,
        command: params.command,
        params_json: params
            .params
            .filter(|params| !params.is_null())
            .map(|params| params.to_string())
            .unwrap_or_default(),
        timeout: super::timeout(params.timeout_ms),
    })
}

fn read_answer(request: &Request) -> Result<Answer, Failure> {
    let answer: ResultOf = if request.len() > super::MAX_TREE {
        // Long answers come as text; one that comes as a tree is too long.
        request.params::<ResultText>()?.into()
    } else {
        request.params()?
    };
    let outcome = if answer.ok {
        let tree = answer
            .payload
            .filter(|payload| !payload.is_null())
            .map(|payload| payload.to_string());
        let payload_json = answer.payload_json.or(tree);
        if payload_json
            .as_deref()
            .is_some_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_err())
        {
            return Err(request.invalid("payloadJSON is not JSON"));
        }
        Outcome::Answered { payload_json }
    } else {
        let error = answer.error.unwrap_or_default();
        Outcome::Failed {
            code: error.code.unwrap_or_else(|| UNAVAILABLE.to_owned()),
            message: error
                .message
                .unwrap_or_else(|| "the node gave no reason".to_owned()),
        }
    };
    Ok(Answer {
        id: answer.id,
        node: answer.node_id,
        outcome,
    })
}

pub(super) async fn run(session: &Arc<Session>, asked: Asked) -> Result<Value, Failure> {
    match asked {
        Asked::List => list(session).await,
        Asked::Describe(node) => describe(session, node).await,
        Asked::Invoke(invoked) => invoke(session, invoked).await,
        Asked::Answer(said) => answer(session, said),
        Asked::Event(event) => Ok(heard(&event)),
    }
}

async fn list(session: &Arc<Session>) -> Result<Value, Failure> {
    let mut nodes = NodeServiceClient::new(session.services().await?);
    let list = nodes.list(ListNodesRequest {}).await?.into_inner();
    let ts = session.door.0.parts.clock.now_ms();
    Ok(json!({ "ts": ts, "nodes": list.nodes.iter().map(node_json).collect::<Vec<_>>() }))
}

async fn describe(session: &Arc<Session>, node: String) -> Result<Value, Failure> {
    let mut nodes = NodeServiceClient::new(session.services().await?);
    let answer = nodes.describe(DescribeNodeRequest { node }).await;
    let node = answer
        .map_err(|status| super::unknown(&status, "nodeId"))?
        .into_inner();
    let mut described = node_json(&node);
    described["ts"] = json!(session.door.0.parts.clock.now_ms());
    Ok(described)
}

async fn invoke(session: &Arc<Session>, invoke: InvokeNodeRequest) -> Result<Value, Failure> {
    let command = invoke.command.clone();
    let mut nodes = NodeServiceClient::new(session.services().await?).max_decoding_message_size(32 << 20);
    let answer = nodes
        .invoke(invoke)
        .await
        .map_err(|status| invoke_failure(&status, &command))?
        .into_inner();
    let payload: Value = serde_json::from_str(&answer.payload_json).unwrap_or(Value::Null);
    Ok(json!({
        "ok": true,
        "nodeId": answer.device_id,
        "command": answer.command,
        "payload": payload,
        "payloadJSON": answer.payload_json,
    }))
}

/// The original's clients know a missing node by its code, not by ours.
fn invoke_failure(status: &tonic::Status, command: &str) -> Failure {
    let error = Error::of_status(status);
    let reason = error.reason.to_string();
    let mut failure = Failure::from(error.clone());
    match reason.as_str() {
        "node_not_connected" | "node_disconnected" => {
            failure.details = Some(json!({ "code": "NOT_CONNECTED", "reason": reason, "hint": error.hint }));
        }
        "command_not_declared"
        | "command_not_approved"
        | "command_not_allowed"
        | "node_permission_missing" => {
            failure = Failure::invalid("node command not allowed")
                .details(json!({ "reason": error.message, "command": command, "hint": error.hint }));
        }
        "node_failed" => {
            failure.code = UNAVAILABLE;
            failure.details = Some(json!({ "reason": reason, "nodeError": { "message": error.message } }));
        }
        "node_timeout" => {
            failure.details = Some(json!({ "code": "TIMEOUT", "reason": reason }));
        }
        _ => {}
    }
    failure
}

/// A node's answer. Late ones are told so and change nothing.
fn answer(session: &Session, answer: Answer) -> Result<Value, Failure> {
    let nodes = &session.door.0.parts.nodes;
    match nodes.answer(
        &session.device,
        session.connection,
        &answer.id,
        &answer.node,
        answer.outcome,
    ) {
        Taken::Yes => Ok(json!({ "ok": true })),
        Taken::Ignored => Ok(json!({ "ok": true, "ignored": true })),
        Taken::OtherNode => Err(Error::new(Code::InvalidArgument, "node_mismatch", "nodeId mismatch").into()),
    }
}

/// [`ResultOf`] without the tree.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultText {
    id: String,
    node_id: String,
    ok: bool,
    #[serde(rename = "payloadJSON")]
    payload_json: Option<String>,
    error: Option<NodeError>,
}

impl From<ResultText> for ResultOf {
    fn from(text: ResultText) -> Self {
        Self {
            id: text.id,
            node_id: text.node_id,
            ok: text.ok,
            payload: None,
            payload_json: text.payload_json,
            error: text.error,
        }
    }
}

/// A node's event. None is bound to anything yet: a node can't reach a session by naming it.
fn heard(event: &str) -> Value {
    tracing::debug!(event = %creel_wire::error::printable(event, 64), "a node's event is bound to nothing");
    json!({ "ok": true, "event": event, "handled": false, "ignored": true })
}

fn node_json(node: &Node) -> Value {
    let permissions: std::collections::BTreeMap<_, _> = node.permissions.clone().into_iter().collect();
    json!({
        "nodeId": node.device_id,
        "displayName": node.name,
        "platform": node.platform,
        "deviceFamily": node.device_family,
        "modelIdentifier": node.model,
        "version": node.version,
        "remoteIp": node.remote_address,
        "caps": node.caps,
        "commands": node.commands,
        "permissions": permissions,
        "connectedAtMs": node.connected_at.as_ref().map(time::unix_ms),
        "paired": true,
        "connected": node.connected,
    })
}
