//! Who is calling: the peer that a connection proved, and the caller a request is judged by.

use std::fmt;

use bytes::Bytes;

use crate::names::{DeviceId, Scope, Scopes, ServiceName, Subject};

/// Whom the connection itself proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A client certificate that the listener trusts.
    Certified(Subject),
    /// No certificate, but a process of the same user on the local socket.
    Local(LocalPeer),
    /// Nothing.
    Anonymous,
}

/// The process at the other end of the local socket, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPeer {
    /// Process id.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

/// Whom a request is judged by: the peer, or whom the peer presents with an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody has proven anything.
    Anonymous,
    /// A process of the same user on identity's local socket.
    Local(LocalPeer),
    /// A service.
    Service(ServiceName),
    /// A device that acts for a person.
    Operator(DeviceId),
    /// A companion device.
    Node(DeviceId),
    /// A turn of an agent, by its id.
    AgentTurn(String),
    /// A scheduled job, by its id.
    Job(String),
    /// A plugin, by its id.
    Plugin(String),
    /// A chat sender, by its key.
    Sender(String),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Local(peer) => write!(f, "local/{}", peer.uid),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Operator(device) => write!(f, "operator/{device}"),
            Self::Node(device) => write!(f, "node/{device}"),
            Self::AgentTurn(id) => write!(f, "turn/{id}"),
            Self::Job(id) => write!(f, "job/{id}"),
            Self::Plugin(id) => write!(f, "plugin/{id}"),
            Self::Sender(key) => write!(f, "sender/{key}"),
        }
    }
}

/// A caller that the authorization layer let in. Only this crate can make one.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(crate) principal: Principal,
    pub(crate) via: Option<ServiceName>,
    pub(crate) person: String,
    pub(crate) label: String,
    pub(crate) scopes: Scopes,
    pub(crate) binding: String,
    pub(crate) assertion: Option<Bytes>,
}

impl Caller {
    pub(crate) fn of_peer(peer: &Peer) -> Self {
        let principal = match peer {
            Peer::Anonymous => Principal::Anonymous,
            Peer::Local(local) => Principal::Local(local.clone()),
            Peer::Certified(Subject::Service(name)) => Principal::Service(*name),
            Peer::Certified(Subject::Operator(device)) => Principal::Operator(device.clone()),
            Peer::Certified(Subject::Node(device)) => Principal::Node(device.clone()),
        };
        let empty = String::new;
        Self {
            principal,
            via: None,
            person: empty(),
            label: empty(),
            scopes: Scopes::new(),
            binding: empty(),
            assertion: None,
        }
    }

    /// Whom the request is judged by.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The service that presented the caller, if it did not come by itself.
    #[must_use]
    pub const fn via(&self) -> Option<ServiceName> {
        self.via
    }

    /// The person it acts for; empty for services.
    #[must_use]
    pub fn person(&self) -> &str {
        &self.person
    }

    /// The device's name or the turn's session, for people.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What it may do.
    #[must_use]
    pub const fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// Whether it holds a scope.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// The device, for operators and nodes.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceId> {
        match &self.principal {
            Principal::Operator(device) | Principal::Node(device) => Some(device),
            Principal::Anonymous
            | Principal::Local(_)
            | Principal::Service(_)
            | Principal::AgentTurn(_)
            | Principal::Job(_)
            | Principal::Plugin(_)
            | Principal::Sender(_) => None,
        }
    }

    /// The connection, turn or run it is bound to.
    #[must_use]
    pub fn binding(&self) -> &str {
        &self.binding
    }

    /// The assertion it was presented with, to be re-minted by `identity` for a hop further.
    #[must_use]
    pub const fn assertion(&self) -> Option<&Bytes> {
        self.assertion.as_ref()
    }
}
