//! The methods: each a map of its parameters onto a gRPC request, and of the response onto the original's
//! JSON. They decide nothing: the caller's assertion goes along, and the owner judges.
//!
//! Each has two halves: `read` is pure and refuses what can't be right; `run` takes only what it let through.

pub(crate) mod cron;
pub(crate) mod devices;
pub(crate) mod nodes;
pub(crate) mod sessions;
mod status;

use std::sync::Arc;

use creel_wire::{Code, Error};
use serde_json::{Value, json};

use super::{chat, failure::Failure, frame::Request, methods::Method, session::Session};
use crate::backend::AsCaller;

/// Parameters of any shape, and the whole answer of a node, take many times their text once read; such
/// frames are shorter, in bytes.
const MAX_TREE: usize = 1 << 20;

/// What a request asks for, read and checked: nothing else reaches a service.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Health,
    Status,
    Presence,
    Config,
    SkillBins,
    Sessions(sessions::List),
    Devices(devices::Asked),
    Nodes(nodes::Asked),
    Cron(cron::Asked),
    Chat(chat::Asked),
}

/// Reads a request. Pure.
///
/// # Errors
/// [`Failure`] in the original's words.
pub(crate) fn read(method: &Method, request: &Request) -> Result<Asked, Failure> {
    // These are read without a tree of them.
    if !matches!(method.name, "chat.send" | "node.event" | "node.invoke.result") {
        as_tree(request)?;
    }
    request.check(method.params)?;
    match method.name {
        "health" => Ok(Asked::Health),
        "status" => Ok(Asked::Status),
        "system-presence" => Ok(Asked::Presence),
        "config.get" => Ok(Asked::Config),
        "skills.bins" => Ok(Asked::SkillBins),
        "sessions.list" => request.params().map(Asked::Sessions),
        name => match name.split_once('.') {
            Some(("device", _)) => devices::read(request).map(Asked::Devices),
            Some(("node", "pair.list" | "pair.approve" | "pair.reject" | "pair.remove" | "rename")) => {
                devices::read(request).map(Asked::Devices)
            }
            Some(("node", _)) => nodes::read(request).map(Asked::Nodes),
            Some(("cron", _)) => cron::read(request).map(Asked::Cron),
            Some(("chat", _)) => chat::read(request).map(Asked::Chat),
            _ => Err(Failure::unknown_method(name)),
        },
    }
}

/// Does what a request asks for.
pub(crate) async fn call(
    session: &Arc<Session>,
    method: &Method,
    request: &Request,
) -> Result<Value, Failure> {
    match read(method, request)? {
        Asked::Health => status::health(session).await,
        Asked::Status => status::status(session).await,
        Asked::Presence => Ok(json!(session.door.0.parts.hub.presence())),
        Asked::Config => Ok(status::config()),
        Asked::SkillBins => Ok(json!({ "bins": [] })),
        Asked::Sessions(list) => sessions::list(session, list).await,
        Asked::Devices(asked) => devices::run(session, asked).await,
        Asked::Nodes(asked) => nodes::run(session, asked).await,
        Asked::Cron(asked) => cron::run(session, asked).await,
        Asked::Chat(asked) => chat::run(session, asked).await,
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
pub(crate) fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// How long something may take, in milliseconds; 0 and nothing leave it to whoever does it.
pub(crate) fn timeout(ms: Option<u64>) -> Option<prost_types::Duration> {
    let ms = i64::try_from(ms.filter(|ms| *ms > 0)?).unwrap_or(i64::MAX);
    Some(creel_proto::time::duration(ms))
}

/// A failure of a call that named something: what isn't there is unknown, in the original's words.
fn unknown(status: &tonic::Status, what: &str) -> Failure {
    let error = Error::of_status(status);
    let is_missing = error.code == Code::NotFound;
    let mut failure = Failure::from(error);
    if is_missing {
        failure.message = format!("unknown {what}");
    }
    failure
}

/// Nothing for `null`: the original's schemas know fields that are left out, not fields that are null.
pub(crate) fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

/// How many to show: as many as asked for, within what there may be.
pub(crate) fn limit(asked: Option<u64>, default: usize, most: usize) -> usize {
    asked
        .map_or(default, |limit| usize::try_from(limit).unwrap_or(most))
        .clamp(1, most)
}

/// One page of a list, as the original numbers them.
#[derive(Debug)]
struct Page {
    total: usize,
    offset: usize,
    limit: usize,
}

impl Page {
    fn of(total: usize, offset: Option<u64>, limit: usize) -> Self {
        let offset = offset
            .map_or(0, |offset| usize::try_from(offset).unwrap_or(total))
            .min(total);
        Self { total, offset, limit }
    }

    /// Adds itself to an answer that shows so many.
    fn tell(&self, answer: &mut Value, shown: usize) {
        let next = self.offset + shown;
        let has_more = next < self.total;
        answer["total"] = json!(self.total);
        answer["offset"] = json!(self.offset);
        answer["limit"] = json!(self.limit);
        answer["hasMore"] = json!(has_more);
        answer["nextOffset"] = json!(has_more.then_some(next));
    }
}

/// Refuses a frame that is too long to be read as a tree.
fn as_tree(request: &Request) -> Result<(), Failure> {
    if request.len() > MAX_TREE {
        return Err(request.invalid("at most 1 MiB"));
    }
    Ok(())
}

#[cfg(test)]
mod hostile;
