//! The gateway's own services at the edge: proto to domain and back; decides nothing.

mod logs;
mod message;
mod sender;
mod status;

use std::sync::Arc;

use arc_swap::ArcSwap;
use creel_kit::{Deps, profile::EdgeFile};
use creel_proto::gateway::v1::{
    log_service_server::LogServiceServer, message_service_server::MessageServiceServer,
    status_service_server::StatusServiceServer,
};
use tonic::service::Routes;

use crate::{connections::Connections, edge_cert::EdgeCertificate};

pub(crate) fn routes(
    deps: &Deps,
    certificate: &Arc<ArcSwap<EdgeCertificate>>,
    connections: &Connections,
    file: &EdgeFile,
) -> anyhow::Result<Routes> {
    let messages =
        MessageServiceServer::new(message::Messages::new(deps)?).max_decoding_message_size(2 << 20);
    let status = status::StatusRpc::new(deps, certificate, connections, file)?;
    Ok(Routes::new(messages)
        .add_service(StatusServiceServer::new(status))
        .add_service(LogServiceServer::new(logs::Logs::new(deps))))
}
