//! The authorization table: which principals each method admits.

/// A principal that a rule admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admits {
    /// Nobody has proven anything.
    Anonymous,
    /// A process of the same user on identity's local socket.
    Local,
    /// An operator's device; with a scope, only if the caller holds it.
    Operator(Option<&'static str>),
    /// A companion device.
    Node,
    /// A service by its certificate; with a name, only that one.
    Service(Option<&'static str>),
    /// A turn of an agent.
    AgentTurn,
    /// A scheduled job.
    Job,
    /// A plugin.
    Plugin,
    /// A chat sender.
    Sender,
}

/// One method of one service.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// As in the `:path` of a request, for example `/creel.agent.v1.TurnService/Start`.
    pub path: &'static str,
    /// The Creel service that serves it.
    pub owner: &'static str,
    /// Reachable through the edge.
    pub edge: bool,
    /// The client sends a stream.
    pub client_streaming: bool,
    /// The server answers with a stream.
    pub server_streaming: bool,
    /// Any that matches lets the caller in.
    pub rules: &'static [Admits],
}

impl Method {
    /// The full name of the gRPC service, for example `creel.agent.v1.TurnService`.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default()
    }
}

/// The method at a path, if there is one.
#[must_use]
pub fn method(path: &str) -> Option<&'static Method> {
    METHODS
        .binary_search_by(|method| method.path.cmp(path))
        .ok()
        .map(|index| &METHODS[index])
}

include!(concat!(env!("OUT_DIR"), "/rules.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_method_has_a_rule() {
        assert!(METHODS.windows(2).all(|pair| pair[0].path < pair[1].path));
        assert!(METHODS.iter().all(|method| !method.rules.is_empty()));
        assert!(METHODS.iter().all(|known| method(known.path) == Some(known)));
        assert_eq!(method("/creel.agent.v1.TurnService/Nope"), None);
    }

    #[test]
    fn anonymous_methods_are_the_ways_to_prove_oneself() {
        let open: Vec<_> = METHODS
            .iter()
            .filter(|method| method.rules.contains(&Admits::Anonymous))
            .map(|method| method.path)
            .collect();
        assert_eq!(
            open,
            [
                "/creel.identity.v1.CaService/Enroll",
                "/creel.identity.v1.CaService/GetTrustBundle",
                "/creel.identity.v1.CaService/Renew",
                "/creel.identity.v1.DeviceService/RedeemInvite",
                "/creel.identity.v1.DeviceService/RequestPairing",
            ]
        );
        let outside: Vec<_> = METHODS
            .iter()
            .filter(|m| m.edge && m.rules.contains(&Admits::Anonymous))
            .map(|m| m.path)
            .collect();
        assert_eq!(
            outside,
            [
                "/creel.identity.v1.CaService/GetTrustBundle",
                "/creel.identity.v1.DeviceService/RedeemInvite",
                "/creel.identity.v1.DeviceService/RequestPairing",
            ]
        );
    }
}
