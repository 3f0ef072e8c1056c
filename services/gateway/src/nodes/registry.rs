//! Connected nodes and what they were asked: links, the four gates, invocations, idempotency. Pure: ids and
//! time come in, the shell sends what is to be sent and wakes who waits.
//!
//! Invariants: an invocation goes only to the connection it was begun on, and only that connection can
//! answer it, once; a connection that ends takes only itself out; the same key of the same caller never
//! asks the node twice, and never for something else.

use std::collections::{BTreeMap, VecDeque};

use creel_kit::config::Nodes;
use creel_wire::{DeviceId, names::sha256_hex};

use super::policy;

/// Invocations under way at once on one node.
pub(crate) const MAX_PER_NODE: usize = 64;
/// Answers kept for a repeated key.
const MAX_KEPT: usize = 1_000;
/// They are kept so long, in milliseconds.
const KEPT_MS: u64 = 5 * 60 * 1_000;
/// A longer answer is not kept, in bytes.
const MAX_KEPT_BYTES: usize = 64 * 1_024;

/// What is known of a connected node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) platform: String,
    pub(crate) device_family: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) remote_address: String,
    pub(crate) caps: Vec<String>,
    /// What it says it can do.
    pub(crate) declared: Vec<String>,
    /// What an operator approved of that.
    pub(crate) approved: Vec<String>,
    pub(crate) permissions: BTreeMap<String, bool>,
    pub(crate) connected_at_unix_ms: i64,
}

/// Something to ask a node for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) node: DeviceId,
    pub(crate) command: String,
    pub(crate) params_json: Option<String>,
    /// Who asks: keys of different callers never meet.
    pub(crate) principal: String,
    /// The same key asks once.
    pub(crate) key: String,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered {
        payload_json: Option<String>,
    },
    Failed {
        code: String,
        message: String,
    },
    TimedOut,
    /// The node went away.
    Gone,
    /// It was answered before, with more than is kept.
    NotKept,
}

/// Why a node isn't asked. Each is a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    NotConnected,
    NotDeclared,
    NotApproved,
    NotAllowed,
    Permission(&'static str),
    Busy,
    /// The key was used for something else.
    OtherRequest,
}

/// What to do with an accepted ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Send it to this connection, under the id that was given.
    Send { connection: u64 },
    /// It is under way: wait for this id.
    Join { id: String },
    /// It was answered.
    Done(Outcome),
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// Too late, or never asked.
    Ignored,
    /// It names another node than its connection's.
    OtherNode,
}

#[derive(Debug)]
struct Link {
    connection: u64,
    node: Node,
    under_way: usize,
}

#[derive(Debug)]
struct Pending {
    node: DeviceId,
    connection: u64,
    key: (String, String),
}

#[derive(Debug)]
enum Kept {
    UnderWay(String),
    Done(Outcome),
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    links: BTreeMap<DeviceId, Link>,
    pending: BTreeMap<String, Pending>,
    /// By (principal, key): the request's hash, and how far it is.
    keys: BTreeMap<(String, String), (String, Kept)>,
    /// Keys that are done, oldest first, with when they were.
    done: VecDeque<(u64, (String, String))>,
}

impl Registry {
    /// A node connected; the connection it replaces, and the invocations that ended with that.
    pub(crate) fn join(
        &mut self,
        device: DeviceId,
        connection: u64,
        node: Node,
        now_ms: u64,
    ) -> (Option<u64>, Vec<String>) {
        let link = Link {
            connection,
            node,
            under_way: 0,
        };
        let old = self.links.insert(device, link).map(|old| old.connection);
        let ended = old.map_or_else(Vec::new, |old| self.end_all(old, now_ms));
        (old, ended)
    }

    /// A connection ended; the invocations that ended with it, and whether the node is gone now.
    pub(crate) fn leave(&mut self, device: &DeviceId, connection: u64, now_ms: u64) -> (Vec<String>, bool) {
        let own = self
            .links
            .get(device)
            .is_some_and(|link| link.connection == connection);
        if own {
            self.links.remove(device);
        }
        (self.end_all(connection, now_ms), own)
    }

    /// Passes an ask through the gates. `id` is fresh.
    pub(crate) fn begin(
        &mut self,
        ask: &Ask,
        config: &Nodes,
        id: &str,
        now_ms: u64,
    ) -> Result<Begun, Refused> {
        self.forget(now_ms);
        let key = (ask.principal.clone(), ask.key.clone());
        let hash = fingerprint(ask);
        if let Some((known, kept)) = self.keys.get(&key) {
            if *known != hash {
                return Err(Refused::OtherRequest);
            }
            return Ok(match kept {
                Kept::UnderWay(id) => Begun::Join { id: id.clone() },
                Kept::Done(outcome) => Begun::Done(outcome.clone()),
            });
        }
        let link = self.links.get_mut(&ask.node).ok_or(Refused::NotConnected)?;
        gates(&link.node, config, &ask.command)?;
        if link.under_way >= MAX_PER_NODE {
            return Err(Refused::Busy);
        }
        link.under_way += 1;
        let connection = link.connection;
        let pending = Pending {
            node: ask.node.clone(),
            connection,
            key: key.clone(),
        };
        self.pending.insert(id.to_owned(), pending);
        self.keys.insert(key, (hash, Kept::UnderWay(id.to_owned())));
        Ok(Begun::Send { connection })
    }

    /// A connection answers.
    pub(crate) fn answer(
        &mut self,
        device: &DeviceId,
        connection: u64,
        id: &str,
        named: &str,
        outcome: Outcome,
        now_ms: u64,
    ) -> Taken {
        if named != device.as_str() {
            return Taken::OtherNode;
        }
        if self
            .pending
            .get(id)
            .is_none_or(|pending| pending.connection != connection)
        {
            return Taken::Ignored;
        }
        self.end(id, outcome, now_ms);
        Taken::Yes
    }

    /// Nobody waits for it any longer; whether it was still under way.
    pub(crate) fn time_out(&mut self, id: &str, now_ms: u64) -> bool {
        let under_way = self.pending.contains_key(id);
        self.end(id, Outcome::TimedOut, now_ms);
        under_way
    }

    /// It was never sent: nothing happened, so the key is free again.
    pub(crate) fn not_sent(&mut self, id: &str) {
        if let Some(pending) = self.take(id) {
            self.keys.remove(&pending.key);
        }
    }

    /// A node is called something else now.
    pub(crate) fn rename(&mut self, device: &DeviceId, name: &str) {
        if let Some(link) = self.links.get_mut(device) {
            name.clone_into(&mut link.node.name);
        }
    }

    /// The connected nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&DeviceId, &Node)> {
        self.links.iter().map(|(device, link)| (device, &link.node))
    }

    fn take(&mut self, id: &str) -> Option<Pending> {
        let pending = self.pending.remove(id)?;
        if let Some(link) = self.links.get_mut(&pending.node)
            && link.connection == pending.connection
        {
            link.under_way = link.under_way.saturating_sub(1);
        }
        Some(pending)
    }

    fn end(&mut self, id: &str, outcome: Outcome, now_ms: u64) {
        let Some(pending) = self.take(id) else { return };
        let long =
            matches!(&outcome, Outcome::Answered { payload_json: Some(text) } if text.len() > MAX_KEPT_BYTES);
        let kept = if long { Outcome::NotKept } else { outcome };
        if let Some((_, state)) = self.keys.get_mut(&pending.key) {
            *state = Kept::Done(kept);
            self.done.push_back((now_ms, pending.key));
        }
    }

    fn end_all(&mut self, connection: u64, now_ms: u64) -> Vec<String> {
        let ended: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.connection == connection)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &ended {
            self.end(id, Outcome::Gone, now_ms);
        }
        ended
    }

    fn forget(&mut self, now_ms: u64) {
        while let Some((at, _)) = self.done.front() {
            if self.done.len() <= MAX_KEPT && now_ms.saturating_sub(*at) < KEPT_MS {
                return;
            }
            if let Some((_, key)) = self.done.pop_front() {
                self.keys.remove(&key);
            }
        }
    }
}

/// The four gates, in order.
pub(super) fn gates(node: &Node, config: &Nodes, command: &str) -> Result<(), Refused> {
    let has = |list: &[String]| list.iter().any(|entry| entry == command);
    if !has(&node.declared) {
        return Err(Refused::NotDeclared);
    }
    if !has(&node.approved) {
        return Err(Refused::NotApproved);
    }
    if !policy::allows(config, &node.platform, &node.device_family, command) {
        return Err(Refused::NotAllowed);
    }
    match policy::permission(command) {
        Some(permission) if node.permissions.get(permission) == Some(&false) => {
            Err(Refused::Permission(permission))
        }
        _ => Ok(()),
    }
}

/// What makes two asks the same; lengths keep the parts apart.
fn fingerprint(ask: &Ask) -> String {
    let params = ask.params_json.as_deref().unwrap_or_default();
    let text = format!(
        "{}|{}|{}|{}|{params}",
        ask.node,
        ask.command.len(),
        ask.command,
        params.len()
    );
    sha256_hex(text.as_bytes())
}

#[cfg(test)]
mod tests;
