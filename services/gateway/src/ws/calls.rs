//! The methods: each a map of its parameters onto a gRPC request, and of the response onto the original's
//! JSON. They decide nothing: the caller's assertion goes along, and the owner judges.

mod cron;
pub(super) mod devices;
mod nodes;
mod sessions;
mod status;

use std::sync::Arc;

use creel_wire::{Code, Error};
use serde_json::{Value, json};

use super::{chat, failure::Failure, frame::Request, methods::Method, session::Session};
use crate::backend::AsCaller;

/// Parameters of any shape, and the whole answer of a node, take many times their text once read; such
/// frames are shorter, in bytes.
const MAX_TREE: usize = 1 << 20;

/// Does what a request asks for.
pub(crate) async fn call(
    session: &Arc<Session>,
    method: &Method,
    request: &Request,
) -> Result<Value, Failure> {
    match method.name {
        "health" => status::health(session).await,
        "status" => status::status(session).await,
        "system-presence" => Ok(json!(session.door.0.parts.hub.presence())),
        "device.pair.list" => devices::list(session).await,
        "device.pair.approve" | "node.pair.approve" => devices::approve(session, request).await,
        "device.pair.reject" | "node.pair.reject" => devices::reject(session, request).await,
        "device.pair.remove" | "device.token.revoke" => devices::revoke(session, request).await,
        "device.token.rotate" => devices::rotate(session, request).await,
        "node.pair.list" => devices::list_nodes(session).await,
        "node.list" => nodes::list(session).await,
        "node.describe" => nodes::describe(session, request).await,
        "node.invoke" => nodes::invoke(session, request).await,
        "node.invoke.result" => nodes::result(session, request),
        "node.event" => nodes::event(request),
        "skills.bins" => Ok(json!({ "bins": [] })),
        "cron.list" => cron::list(session, request).await,
        "cron.status" => cron::status(session).await,
        "cron.get" => cron::get(session, request).await,
        "cron.add" => cron::add(session, request).await,
        "cron.update" => cron::update(session, request).await,
        "cron.remove" => cron::remove(session, request).await,
        "cron.run" => cron::run(session, request).await,
        "cron.runs" => cron::runs(session, request).await,
        "chat.send" => chat::send(session, request).await,
        "chat.history" => chat::history(session, request).await,
        "chat.abort" => chat::abort(session, request).await,
        "sessions.list" => sessions::list(session, request).await,
        other => Err(Failure::unknown_method(other)),
    }
}

impl Session {
    /// Puts a refusal on record, as one of a gRPC call would be.
    pub(crate) fn refused(&self, method: &str) {
        if let Some(proven) = self.memory.current() {
            let principal = proven.caller.principal().to_string();
            self.door
                .0
                .parts
                .backend
                .refused(&principal, method, "not_admitted");
        }
    }

    /// The services, as this connection's device may use them.
    ///
    /// # Errors
    /// When identity has not been heard of, or no longer vouches for the device.
    pub(crate) async fn services(&self) -> Result<AsCaller, Failure> {
        let parts = &self.door.0.parts;
        match parts.prover.renew(&self.knocking, &self.memory, false).await {
            Ok(()) => {}
            // What is held may still be good for a moment; the owner knows.
            Err(error) if error.code == Code::Unavailable => {}
            Err(error) => return Err(error.into()),
        }
        parts.connections.admit(&self.device, self.connection)?;
        let proven = self
            .memory
            .current()
            .ok_or_else(|| Error::internal("authorization"))?;
        Ok(parts.backend.for_caller(proven))
    }
}

/// A key for a mutation that came without one: it is tried once.
fn request_id(given: Option<String>) -> String {
    given
        .filter(|key| !key.is_empty())
        .unwrap_or_else(|| uuid::Uuid::now_v7().to_string())
}

/// Refuses a frame that is too long to be read as a tree.
fn as_tree(request: &Request) -> Result<(), Failure> {
    if request.len() > MAX_TREE {
        return Err(Failure::invalid(format!(
            "invalid {} params: at most 1 MiB",
            request.method
        )));
    }
    Ok(())
}
