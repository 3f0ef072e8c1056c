//! What the edge tells of itself to tools as `grpcurl`: the descriptors of everything it serves. They are made when
//! somebody asks for the first time: in memory they are as big as half of all that an idle gateway holds.

use std::sync::OnceLock;

use axum::Router;
use creel_wire::Error;
use tonic::service::Routes;
use tonic_reflection::server::Builder;

#[derive(Default)]
pub(crate) struct Reflection(OnceLock<Router>);

impl Reflection {
    /// Whether a path is one of its services'.
    pub(crate) fn serves(path: &str) -> bool {
        path.starts_with("/grpc.reflection.")
    }

    pub(crate) fn router(&self) -> Result<Router, Error> {
        if let Some(router) = self.0.get() {
            return Ok(router.clone());
        }
        let routes = routes().map_err(|error| {
            tracing::error!(%error, "the descriptors don't fit together");
            Error::internal("describing the services")
        })?;
        Ok(self.0.get_or_init(|| routes.prepare().into_axum_router()).clone())
    }
}

fn routes() -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(creel_proto::EDGE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // What errors carry: without it grpcurl shows their reason and hint as bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}

#[cfg(test)]
mod tests {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    use super::*;

    #[tokio::test]
    async fn all_that_the_edge_serves_is_listed_and_nothing_else() {
        let reflection = Reflection::default();
        let request = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..ServerReflectionRequest::default()
        };
        let mut client = ServerReflectionClient::new(reflection.router().unwrap());
        let answers = client.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}");
        };
        let mut edge: Vec<_> = creel_proto::METHODS
            .iter()
            .filter(|method| method.edge)
            .filter_map(|method| Some(method.path.strip_prefix('/')?.split_once('/')?.0.to_owned()))
            .chain(["grpc.health.v1.Health".to_owned()])
            .collect();
        edge.sort();
        edge.dedup();
        let mut listed: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        listed.retain(|name| !name.starts_with("grpc.reflection."));
        listed.sort();
        assert_eq!(listed, edge);
    }
}
