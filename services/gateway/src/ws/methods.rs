//! The methods there are, and who may call each: the roles are the original's, the scopes are those of
//! the gRPC method that does the work. The owner judges again; this table only answers sooner.

mod takes;

use creel_wire::{Scope, Scopes};

use super::{connect::Role, failure::Failure, params::Params};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admits {
    /// Operators that hold the scope.
    Operator(Scope),
    /// Nodes.
    Node,
}

/// A method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) admits: Admits,
    /// The gRPC method that does the work; none where the door itself knows.
    pub(crate) path: Option<&'static str>,
    pub(crate) params: &'static Params,
}

const fn op(name: &'static str, scope: Scope, path: &'static str, params: &'static Params) -> Method {
    Method {
        name,
        admits: Admits::Operator(scope),
        path: Some(path),
        params,
    }
}

const fn own(name: &'static str, admits: Admits, params: &'static Params) -> Method {
    Method {
        name,
        admits,
        path: None,
        params,
    }
}

use Scope::{Pairing, Read, Write};

/// All of them, sorted by name.
pub(crate) static METHODS: &[Method] = &[
    op(
        "chat.abort",
        Write,
        "/creel.agent.v1.TurnService/Abort",
        &takes::CHAT_ABORT,
    ),
    op(
        "chat.history",
        Read,
        "/creel.agent.v1.ContextService/GetTranscript",
        &takes::CHAT_HISTORY,
    ),
    op(
        "chat.send",
        Write,
        "/creel.gateway.v1.MessageService/Send",
        &takes::CHAT_SEND,
    ),
    own("config.get", Admits::Operator(Read), &takes::ANYTHING),
    op(
        "cron.add",
        Write,
        "/creel.scheduler.v1.JobService/Create",
        &takes::CRON_ADD,
    ),
    op(
        "cron.get",
        Read,
        "/creel.scheduler.v1.JobService/Get",
        &takes::CRON_BY_ID,
    ),
    op(
        "cron.list",
        Read,
        "/creel.scheduler.v1.JobService/List",
        &takes::CRON_LIST,
    ),
    op(
        "cron.remove",
        Write,
        "/creel.scheduler.v1.JobService/Delete",
        &takes::CRON_BY_ID,
    ),
    op(
        "cron.run",
        Write,
        "/creel.scheduler.v1.JobService/Trigger",
        &takes::CRON_RUN,
    ),
    op(
        "cron.runs",
        Read,
        "/creel.scheduler.v1.RunService/List",
        &takes::CRON_RUNS,
    ),
    op(
        "cron.status",
        Read,
        "/creel.scheduler.v1.JobService/List",
        &takes::NOTHING,
    ),
    op(
        "cron.update",
        Write,
        "/creel.scheduler.v1.JobService/Update",
        &takes::CRON_UPDATE,
    ),
    op(
        "device.pair.approve",
        Pairing,
        "/creel.identity.v1.DeviceService/Approve",
        &takes::REQUEST,
    ),
    op(
        "device.pair.list",
        Pairing,
        "/creel.identity.v1.DeviceService/ListRequests",
        &takes::NOTHING,
    ),
    op(
        "device.pair.reject",
        Pairing,
        "/creel.identity.v1.DeviceService/Reject",
        &takes::REQUEST,
    ),
    op(
        "device.pair.remove",
        Pairing,
        "/creel.identity.v1.DeviceService/Revoke",
        &takes::DEVICE,
    ),
    op(
        "device.pair.rename",
        Pairing,
        "/creel.identity.v1.DeviceService/Rename",
        &takes::DEVICE_RENAME,
    ),
    op(
        "device.token.revoke",
        Pairing,
        "/creel.identity.v1.DeviceService/Revoke",
        &takes::TOKEN,
    ),
    op(
        "device.token.rotate",
        Pairing,
        "/creel.identity.v1.DeviceService/RotateToken",
        &takes::TOKEN_ROTATE,
    ),
    op(
        "health",
        Read,
        "/creel.gateway.v1.StatusService/Get",
        &takes::ANYTHING,
    ),
    op(
        "node.describe",
        Read,
        "/creel.gateway.v1.NodeService/Describe",
        &takes::NODE,
    ),
    own("node.event", Admits::Node, &takes::NODE_EVENT),
    op(
        "node.invoke",
        Write,
        "/creel.gateway.v1.NodeService/Invoke",
        &takes::NODE_INVOKE,
    ),
    own("node.invoke.result", Admits::Node, &takes::NODE_RESULT),
    op(
        "node.list",
        Read,
        "/creel.gateway.v1.NodeService/List",
        &takes::NOTHING,
    ),
    op(
        "node.pair.approve",
        Pairing,
        "/creel.identity.v1.DeviceService/Approve",
        &takes::REQUEST,
    ),
    op(
        "node.pair.list",
        Pairing,
        "/creel.identity.v1.DeviceService/ListRequests",
        &takes::NOTHING,
    ),
    op(
        "node.pair.reject",
        Pairing,
        "/creel.identity.v1.DeviceService/Reject",
        &takes::REQUEST,
    ),
    op(
        "node.pair.remove",
        Pairing,
        "/creel.identity.v1.DeviceService/Revoke",
        &takes::NODE,
    ),
    op(
        "node.rename",
        Pairing,
        "/creel.identity.v1.DeviceService/Rename",
        &takes::NODE_RENAME,
    ),
    op(
        "sessions.list",
        Read,
        "/creel.agent.v1.ContextService/List",
        &takes::SESSIONS,
    ),
    own("skills.bins", Admits::Node, &takes::ANYTHING),
    op(
        "status",
        Read,
        "/creel.gateway.v1.StatusService/Get",
        &takes::ANYTHING,
    ),
    own("system-presence", Admits::Operator(Read), &takes::ANYTHING),
];

/// Events that are sent, for `hello-ok`.
pub(crate) const EVENTS: &[&str] = &[
    "chat",
    "connect.challenge",
    "device.pair.requested",
    "device.pair.resolved",
    "node.invoke.cancel",
    "node.invoke.request",
    "node.pair.requested",
    "node.pair.resolved",
    "presence",
    "shutdown",
    "tick",
];

/// The method of a name.
///
/// # Errors
/// The original's words: a node host tells by them what a server lacks.
pub(crate) fn find(name: &str) -> Result<&'static Method, Failure> {
    let found = METHODS.binary_search_by(|method| method.name.cmp(name));
    let found = found.ok().and_then(|index| METHODS.get(index));
    found.ok_or_else(|| Failure::unknown_method(name))
}

/// Whether a caller may call a method.
///
/// # Errors
/// The original's words, by role and scope.
pub(crate) fn admit(method: &Method, role: Role, scopes: &Scopes) -> Result<(), Failure> {
    match (method.admits, role) {
        (Admits::Node, Role::Node) => Ok(()),
        (Admits::Operator(scope), Role::Operator) if scopes.contains(&scope) => Ok(()),
        (Admits::Operator(scope), Role::Operator) => Err(Failure::missing_scope(scope)),
        (Admits::Node, Role::Operator) | (Admits::Operator(_), Role::Node) => {
            Err(Failure::role(role.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::Admits as Rule;

    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(METHODS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(EVENTS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn every_scope_is_the_one_of_the_method_that_does_the_work() {
        for method in METHODS {
            let Some(path) = method.path else { continue };
            let rules = creel_proto::method(path)
                .unwrap_or_else(|| panic!("{path}"))
                .rules;
            let Admits::Operator(scope) = method.admits else {
                panic!("{}: nodes call no service", method.name)
            };
            assert!(
                rules.contains(&Rule::Operator(Some(scope.as_str()))),
                "{}",
                method.name
            );
        }
    }

    #[test]
    fn roles_and_scopes_gate_each_method() {
        let read = Scopes::from([Read]);
        let judge = |name: &str, role| admit(find(name).unwrap(), role, &read);
        assert_eq!(judge("health", Role::Operator), Ok(()));
        let error = judge("cron.add", Role::Operator).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            ("FORBIDDEN", "missing scope: operator.write")
        );
        let error = judge("health", Role::Node).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            ("INVALID_REQUEST", "unauthorized role: node")
        );
        let error = judge("node.invoke.result", Role::Operator).unwrap_err();
        assert_eq!(error.message, "unauthorized role: operator");
        assert_eq!(judge("skills.bins", Role::Node), Ok(()));
        let error = find("node.skills.update").unwrap_err();
        assert_eq!(error.message, "unknown method: node.skills.update");
    }
}
