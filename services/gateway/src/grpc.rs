//! The gateway's own services at the edge: proto to domain and back; decides nothing.

mod logs;
mod message;
mod node;
mod sender;
mod status;

use std::sync::Arc;

use arc_swap::ArcSwap;
use creel_kit::{Deps, profile::EdgeFile};
use creel_proto::gateway::v1::{
    log_service_server::LogServiceServer, message_service_server::MessageServiceServer,
    node_service_server::NodeServiceServer, status_service_server::StatusServiceServer,
};
use creel_wire::{Caller, Error, SessionKey, authz};
use tonic::service::Routes;

use crate::{connections::Connections, edge_cert::EdgeCertificate, nodes::Nodes};

/// The one agent there is.
pub(crate) const AGENT: &str = "default";
/// A session's name, in characters.
const MAX_NAME: usize = 64;

pub(crate) fn routes(
    deps: &Deps,
    certificate: &Arc<ArcSwap<EdgeCertificate>>,
    connections: &Connections,
    file: &EdgeFile,
    nodes: &Nodes,
) -> anyhow::Result<Routes> {
    let messages =
        MessageServiceServer::new(message::Messages::new(deps)?).max_decoding_message_size(2 << 20);
    let status = status::StatusRpc::new(deps, certificate, connections, file)?;
    let nodes = NodeServiceServer::new(node::NodeRpc::new(deps, nodes.clone())?)
        .max_decoding_message_size(2 << 20)
        .max_encoding_message_size(32 << 20);
    Ok(Routes::new(messages)
        .add_service(nodes)
        .add_service(StatusServiceServer::new(status))
        .add_service(LogServiceServer::new(logs::Logs::new(deps))))
}

/// The context a person's message goes to. Keys are derived, never taken from text: a name is one
/// segment, whatever characters it has.
pub(crate) fn session_key(name: &str) -> Result<SessionKey, Error> {
    if name.is_empty() || name == "main" {
        return Ok(SessionKey::main(AGENT));
    }
    let plain = creel_wire::error::printable(name, MAX_NAME) == name && name.trim() == name;
    if !plain {
        return Err(Error::invalid(
            "session",
            format!("`main`, or a name of 1 to {MAX_NAME} printable characters"),
        ));
    }
    Ok(SessionKey::Direct {
        agent: AGENT.to_owned(),
        channel: "webchat".to_owned(),
        account: "local".to_owned(),
        sender: name.to_owned(),
    })
}

pub(crate) fn on_behalf<T>(caller: &Caller, message: T) -> Result<tonic::Request<T>, Error> {
    let assertion = caller
        .assertion()
        .ok_or_else(|| Error::internal("authorization"))?;
    let mut request = tonic::Request::new(message);
    authz::attach(&mut request, assertion);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_reaches_another_context() {
        assert_eq!(session_key("").unwrap(), SessionKey::main(AGENT));
        assert_eq!(session_key("main").unwrap(), SessionKey::main(AGENT));
        let tricky = session_key("agent:default:main").unwrap();
        assert_eq!(
            tricky.to_string(),
            "agent:default:webchat:local:dm:agent%3Adefault%3Amain"
        );
        for bad in [" x", "a\nb", "a\u{202e}", &"a".repeat(MAX_NAME + 1)] {
            assert!(session_key(bad).is_err(), "{bad:?}");
        }
    }
}
