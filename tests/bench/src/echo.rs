//! The first peer: a bare tonic service with mutual TLS that answers `GetDevice` from memory. No
//! authorization, no metrics, no store: what is left is the transport.

use std::{
    convert::Infallible,
    fs,
    future::{Ready, ready},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use creel_proto::identity::v1::{Device, GetDeviceRequest};
use creel_wire::{
    TrustDomain,
    accept::{Acceptor, Limits, Listener},
    tls::{Credentials, Trust, edge_server},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
    service::Routes,
};
use tonic_prost::ProstCodec;
use tower::Service;

#[derive(Debug, Clone)]
struct Echo(Device);

/// Serves until it is killed.
pub(crate) async fn serve(dir: &Path, port: u16) -> anyhow::Result<()> {
    let root = CertificateDer::from_pem_slice(&fs::read(dir.join("ca.pem"))?)?;
    let trust = Trust {
        domain: TrustDomain::of_root(&root),
        service_issuers: vec![],
        device_issuers: vec![root.clone()],
        root,
        assertion_keys: vec![],
    };
    let credentials = Credentials::from_pem(
        &fs::read(dir.join("server.pem"))?,
        &fs::read(dir.join("server.key"))?,
    )?;
    let tls = edge_server(&trust, &credentials)?;
    let device = Device {
        device_id: "a".repeat(64),
        name: "bench".into(),
        person: "owner".into(),
        scopes: vec![
            "operator.read".into(),
            "operator.write".into(),
            "operator.pairing".into(),
        ],
        origin: "certificate".into(),
        approved_by: "b".repeat(64),
        etag: "1".into(),
        ..Device::default()
    };
    let router = Routes::new(Echo(device)).prepare().into_axum_router();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let acceptor = Acceptor {
        limits: Limits::default(),
        tls: Arc::new(move || Some(Arc::clone(&tls))),
        domain: trust.domain.clone(),
        judge_local: None,
        drain: CancellationToken::new(),
    };
    acceptor
        .serve(Listener::Tcp(listener), move |_| {
            let router = router.clone();
            tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let mut router = router.clone();
                async move { tower::Service::call(&mut router, request.map(Body::new)).await }
            })
        })
        .await;
    Ok(())
}

/// What a generated server does, for one method: so that the peer does not grow with the API.
impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = Answer(self.0.clone());
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(grpc.unary(answer, request).await)
        })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "creel.identity.v1.DeviceService";
}

struct Answer(Device);

impl UnaryService<GetDeviceRequest> for Answer {
    type Response = Device;
    type Future = Ready<Result<Response<Device>, Status>>;

    fn call(&mut self, _: Request<GetDeviceRequest>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}
