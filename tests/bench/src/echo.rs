//! The first peer: a bare tonic service with mutual TLS that answers `GetDevice` from memory. No
//! authorization, no metrics, no store: what is left is the transport.

use std::{fs, path::Path, sync::Arc};

use creel_proto::identity::v1::{
    Device, EpochEvent, GetDeviceRequest, IssueCertificateRequest, IssueCertificateResponse,
    ListDevicesRequest, ListDevicesResponse, RenameDeviceRequest, RenewCertificateRequest,
    RevokeDeviceRequest, WatchEpochsRequest,
    device_service_server::{DeviceService, DeviceServiceServer},
};
use creel_wire::{
    TrustDomain,
    accept::{Acceptor, Limits, Listener},
    tls::{Credentials, Trust, edge_server},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, body::Body, service::Routes};

#[derive(Debug)]
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
    let router = Routes::new(DeviceServiceServer::new(Echo(device)))
        .prepare()
        .into_axum_router();
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

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the bench answers GetDevice alone"))
}

#[tonic::async_trait]
impl DeviceService for Echo {
    async fn get_device(&self, _: Request<GetDeviceRequest>) -> Result<Response<Device>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn list_devices(
        &self,
        _: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        not_here()
    }

    async fn issue_certificate(
        &self,
        _: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        not_here()
    }

    async fn renew_certificate(
        &self,
        _: Request<RenewCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        not_here()
    }

    async fn rename(&self, _: Request<RenameDeviceRequest>) -> Result<Response<Device>, Status> {
        not_here()
    }

    async fn revoke(&self, _: Request<RevokeDeviceRequest>) -> Result<Response<Device>, Status> {
        not_here()
    }

    type WatchEpochsStream = futures_util::stream::Empty<Result<EpochEvent, Status>>;

    async fn watch_epochs(
        &self,
        _: Request<WatchEpochsRequest>,
    ) -> Result<Response<Self::WatchEpochsStream>, Status> {
        not_here()
    }
}
