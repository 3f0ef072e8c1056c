//! Companion devices: who is connected, and asking them. The shell around [`registry::Registry`]: it sends
//! what the registry lets through and wakes whoever waits for the answer.

mod policy;
pub(crate) mod registry;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use creel_kit::config::Nodes as Config;
use creel_wire::{Code, DeviceId, Error};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use self::registry::{Ask, Begun, Node, Outcome, Refused, Registry, Taken};
use crate::ws::{
    hub::Line,
    machine::{Audience, Ending, Event},
};

/// All node links. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Nodes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    start: Instant,
    state: Mutex<State>,
}

/// Its collections are bounded by the registry's own bounds.
#[derive(Debug, Default)]
struct State {
    registry: Registry,
    lines: BTreeMap<u64, Line>,
    waiting: BTreeMap<String, watch::Sender<Option<Outcome>>>,
}

/// A node's place in the registry; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Joined {
    nodes: Nodes,
    device: DeviceId,
    connection: u64,
}

impl Nodes {
    pub(crate) fn new(config: Config) -> Self {
        Self(Arc::new(Inner {
            config,
            start: Instant::now(),
            state: Mutex::default(),
        }))
    }

    /// A node connected; the connection that it had before is ended.
    pub(crate) fn join(&self, device: DeviceId, connection: u64, node: Node, line: Line) -> Joined {
        let now = self.now_ms();
        let mut state = self.lock();
        let (old, ended) = state.registry.join(device.clone(), connection, node, now);
        state.wake(ended, &Outcome::Gone);
        if let Some(old) = old.and_then(|old| state.lines.remove(&old)) {
            old.end(Ending::Replaced);
        }
        state.lines.insert(connection, line);
        drop(state);
        Joined {
            nodes: self.clone(),
            device,
            connection,
        }
    }

    /// A node is called something else now.
    pub(crate) fn rename(&self, device: &DeviceId, name: &str) {
        self.lock().registry.rename(device, name);
    }

    /// A node answers.
    pub(crate) fn answer(
        &self,
        device: &DeviceId,
        connection: u64,
        id: &str,
        named: &str,
        outcome: Outcome,
    ) -> Taken {
        let now = self.now_ms();
        let mut state = self.lock();
        let taken = state
            .registry
            .answer(device, connection, id, named, outcome.clone(), now);
        if taken == Taken::Yes {
            state.wake(vec![id.to_owned()], &outcome);
        }
        taken
    }

    /// Asks a node and waits for the outcome, at most `timeout`.
    ///
    /// # Errors
    /// The gate that refused, or that the node is not here.
    pub(crate) async fn invoke(&self, ask: Ask, timeout: Duration) -> Result<Outcome, Error> {
        let mut waiting = match self.begin(&ask, timeout)? {
            Ok(outcome) => return Ok(outcome),
            Err(waiting) => waiting,
        };
        // The sender stays until there is an outcome; it goes without one only at the process's end.
        match waiting.wait_for(Option::is_some).await {
            Ok(outcome) => Ok(outcome.clone().unwrap_or(Outcome::Gone)),
            Err(_) => Ok(Outcome::Gone),
        }
    }

    fn begin(
        &self,
        ask: &Ask,
        timeout: Duration,
    ) -> Result<Result<Outcome, watch::Receiver<Option<Outcome>>>, Error> {
        let now = self.now_ms();
        let id = uuid::Uuid::new_v4().to_string();
        let mut state = self.lock();
        let begun = state.registry.begin(ask, &self.0.config, &id, now);
        let connection = match begun.map_err(|refused| error_of(&refused, ask))? {
            Begun::Done(outcome) => return Ok(Ok(outcome)),
            Begun::Join { id } => {
                let waiting = state.waiting.get(&id).map(watch::Sender::subscribe);
                return Ok(waiting.map_or(Ok(Outcome::Gone), Err));
            }
            Begun::Send { connection } => connection,
        };
        let request = Event {
            name: "node.invoke.request",
            payload: request_payload(ask, &id, timeout),
            audience: Audience::Anyone,
        };
        let sent = state
            .lines
            .get(&connection)
            .is_some_and(|line| line.send(Arc::new(request)));
        if !sent {
            state.registry.not_sent(&id);
            return Err(error_of(&Refused::NotConnected, ask));
        }
        let (done, waiting) = watch::channel(None);
        state.waiting.insert(id.clone(), done);
        drop(state);
        tokio::spawn(
            self.clone()
                .time_out(id, connection, ask.node.clone(), timeout, waiting.clone()),
        );
        Ok(Err(waiting))
    }

    async fn time_out(
        self,
        id: String,
        connection: u64,
        node: DeviceId,
        timeout: Duration,
        mut waiting: watch::Receiver<Option<Outcome>>,
    ) {
        let answered = waiting.wait_for(Option::is_some);
        if tokio::time::timeout(timeout, answered).await.is_ok() {
            return;
        }
        let now = self.now_ms();
        let mut state = self.lock();
        if state.registry.time_out(&id, now) {
            if let Some(line) = state.lines.get(&connection) {
                let payload = json!({ "invokeId": id, "nodeId": node.as_str() });
                let cancel = Event {
                    name: "node.invoke.cancel",
                    payload,
                    audience: Audience::Anyone,
                };
                line.send(Arc::new(cancel));
            }
            state.wake(vec![id], &Outcome::TimedOut);
        }
    }

    /// The connected nodes, and which of their commands pass all gates.
    pub(crate) fn list(&self) -> Vec<(DeviceId, Node, Vec<String>)> {
        let state = self.lock();
        state
            .registry
            .nodes()
            .map(|(device, node)| {
                let open = |command: &&String| registry::gates(node, &self.0.config, command).is_ok();
                let commands = node.declared.iter().filter(open).cloned().collect();
                (device.clone(), node.clone(), commands)
            })
            .collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self, ids: Vec<String>, outcome: &Outcome) {
        for id in ids {
            if let Some(waiting) = self.waiting.remove(&id) {
                // Nobody may be left to hear it.
                waiting.send_replace(Some(outcome.clone()));
            }
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let now = self.nodes.now_ms();
        let mut state = self.nodes.lock();
        let (ended, _) = state.registry.leave(&self.device, self.connection, now);
        state.wake(ended, &Outcome::Gone);
        state.lines.remove(&self.connection);
    }
}

fn request_payload(ask: &Ask, id: &str, timeout: Duration) -> serde_json::Value {
    let mut payload = json!({
        "id": id,
        "nodeId": ask.node.as_str(),
        "command": ask.command,
        "timeoutMs": u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        // The node sees the invocation's own id: the caller's key is the caller's.
        "idempotencyKey": id,
    });
    if let Some(params) = &ask.params_json {
        payload["paramsJSON"] = json!(params);
    }
    payload
}

fn error_of(refused: &Refused, ask: &Ask) -> Error {
    let command = creel_wire::error::printable(&ask.command, 64);
    let node: String = ask.node.as_str().chars().take(12).collect();
    let (code, reason, message) = match refused {
        Refused::NotConnected => (
            Code::Unavailable,
            "node_not_connected",
            format!("node {node} is not connected"),
        ),
        Refused::NotDeclared => (
            Code::FailedPrecondition,
            "command_not_declared",
            format!("node {node} does not offer {command}"),
        ),
        Refused::NotApproved => (
            Code::PermissionDenied,
            "command_not_approved",
            format!("no operator approved {command} on node {node}"),
        ),
        Refused::NotAllowed if policy::is_never(&ask.command) => (
            Code::PermissionDenied,
            "command_not_allowed",
            format!("{command} is offered on no node: what starts programs goes through exec"),
        ),
        Refused::NotAllowed => (
            Code::PermissionDenied,
            "command_not_allowed",
            format!("{command} is not allowed on node {node}'s platform"),
        ),
        Refused::Permission(permission) => (
            Code::PermissionDenied,
            "node_permission_missing",
            format!("{command} needs the permission `{permission}`, which node {node} says it lacks"),
        ),
        Refused::Busy => (
            Code::ResourceExhausted,
            "node_busy",
            format!("node {node} has {} requests under way", registry::MAX_PER_NODE),
        ),
        Refused::OtherRequest => (
            Code::Conflict,
            "request_id_reused",
            "this request id was used for another request".to_owned(),
        ),
    };
    let hint = match refused {
        Refused::NotConnected => Some("creel nodes list".to_owned()),
        Refused::NotDeclared => Some(format!("creel nodes describe {node}")),
        Refused::NotApproved => Some("creel devices list".to_owned()),
        Refused::NotAllowed if policy::is_never(&ask.command) => None,
        Refused::NotAllowed => Some("see gateway.nodes.allow in creel.toml".to_owned()),
        Refused::Permission(_) => Some("grant it on the node, then reconnect it".to_owned()),
        Refused::Busy | Refused::OtherRequest => None,
    };
    let error = Error::new(code, reason, message);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// An outcome as callers get it: the payload, or the error.
///
/// # Errors
/// Whatever was not an answer.
pub(crate) fn payload_of(outcome: Outcome, ask_command: &str) -> Result<Option<String>, Error> {
    let command = creel_wire::error::printable(ask_command, 64);
    match outcome {
        Outcome::Answered { payload_json } => Ok(payload_json),
        Outcome::Failed { code, message } => {
            let code = creel_wire::error::printable(&code, 64);
            let message = creel_wire::error::printable(&message, 512);
            let text = format!("the node answered {command} with {code}: {message}");
            Err(Error::new(Code::FailedPrecondition, "node_failed", text))
        }
        Outcome::TimedOut => {
            let text = format!("the node did not answer {command} in time");
            Err(Error::new(Code::DeadlineExceeded, "node_timeout", text))
        }
        Outcome::Gone => {
            let text = format!("the node went away before it answered {command}; it may have done it");
            Err(Error::new(Code::Unavailable, "node_disconnected", text).hint("creel nodes list"))
        }
        Outcome::NotKept => {
            let text = "this request was answered before, with more than is kept for a repetition";
            Err(Error::new(Code::Conflict, "answer_not_kept", text))
        }
    }
}
