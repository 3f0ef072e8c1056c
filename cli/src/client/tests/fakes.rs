//! A stack of two fakes.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::SeqCst},
    },
    time::SystemTime,
};

use creel_kit::{Profile, profile::EdgeFile};
use creel_proto::{
    gateway::v1::{
        GetStatusRequest, Status as StackStatus, WhoAmIRequest, WhoAmIResponse,
        status_service_server::{StatusService, StatusServiceServer},
    },
    identity::v1::{
        ApproveRequest, BootstrapRequest, ChallengeRequest, ChallengeResponse, CreateInviteRequest,
        CreateInviteResponse, Device, DeviceEvent, EpochEvent, GetDeviceRequest, Invite,
        IssueCertificateRequest, IssueCertificateResponse, IssuedCertificate, ListDevicesRequest,
        ListDevicesResponse, ListInvitesRequest, ListInvitesResponse, ListRequestsRequest,
        ListRequestsResponse, PairingRequest, ProveRequest, ProveResponse, RecoverRequest,
        RedeemInviteRequest, RejectRequest, RenameDeviceRequest, RenewCertificateRequest,
        RequestPairingRequest, RequestPairingResponse, RevokeDeviceRequest, RotateTokenRequest,
        RotateTokenResponse, TrustBundle, WatchDevicesRequest, WatchEpochsRequest, WithdrawInviteRequest,
        device_service_server::{DeviceService, DeviceServiceServer},
        local_service_server::{LocalService, LocalServiceServer},
    },
};
use creel_wire::{
    Code, DeviceId, Error, Secret, ServiceName, TrustDomain,
    accept::{Acceptor, Connection, Limits, Listener},
    names::{SpiffeId, Subject},
    tls::{Credentials, Trust, edge_server, subject_of},
};
use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};
use tower::Service as _;

/// An authority as identity makes one: a root and two intermediates.
pub(super) struct Certs {
    pub(super) domain: TrustDomain,
    root: Vec<u8>,
    services: Intermediate,
    devices: Intermediate,
}

struct Intermediate {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Certs {
    pub(super) fn new() -> Self {
        let root_key = KeyPair::generate().unwrap();
        let params = ca_params(1);
        let root = params.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(params, &root_key);
        let intermediate = || {
            let key = KeyPair::generate().unwrap();
            let params = ca_params(0);
            let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
            Intermediate {
                der,
                issuer: Issuer::new(params, key),
            }
        };
        let (services, devices) = (intermediate(), intermediate());
        let root = root.der().to_vec();
        Self {
            domain: TrustDomain::of_root(&root),
            root,
            services,
            devices,
        }
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle {
            trust_domain: self.domain.to_string(),
            root_der: self.root.clone(),
            service_issuers_der: vec![self.services.der.clone()],
            device_issuers_der: vec![self.devices.der.clone()],
            assertion_keys: Vec::new(),
        }
    }

    fn server(&self, name: SanType) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.services.issuer).unwrap();
        let chain = vec![
            leaf.der().clone(),
            CertificateDer::from(self.services.der.clone()),
        ];
        Credentials {
            chain,
            key: Secret::new(key.serialize_der()),
        }
    }

    /// A device's certificate that began `days_ago` and ends in `days`.
    fn device(&self, csr_der: &[u8], days_ago: i64, days: i64) -> IssuedCertificate {
        let csr = CertificateSigningRequestParams::from_der(&csr_der.into()).unwrap();
        let raw: [u8; 32] = csr.public_key.der_bytes().try_into().unwrap();
        let subject = Subject::Operator(DeviceId::of_public_key(&raw));
        let id = SpiffeId {
            domain: self.domain.clone(),
            subject,
        }
        .to_string();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        #[expect(
            clippy::disallowed_methods,
            reason = "certificates are judged by the system's clock"
        )]
        let now = SystemTime::now();
        let day = std::time::Duration::from_secs(86_400);
        params.not_before = (now - day * u32::try_from(days_ago).unwrap() - day / 24).into();
        params.not_after = (now + day * u32::try_from(days).unwrap()).into();
        let leaf = params.signed_by(&csr.public_key, &self.devices.issuer).unwrap();
        IssuedCertificate {
            chain_der: vec![leaf.der().to_vec(), self.devices.der.clone()],
            not_after: None,
            bundle: Some(self.bundle()),
        }
    }
}

fn ca_params(depth: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("authority {depth}"));
    params
}

/// What the fakes share.
struct Inner {
    certs: Certs,
    bootstraps: AtomicU32,
    renewals: AtomicU32,
    busy: AtomicU32,
    revoked: AtomicBool,
    life: (AtomicI64, AtomicI64),
    names: Mutex<Vec<String>>,
}

/// A profile in a directory of its own.
pub(super) struct Home {
    profile: Profile,
    _dir: tempfile::TempDir,
}

impl Deref for Home {
    type Target = Profile;
    fn deref(&self) -> &Profile {
        &self.profile
    }
}

/// The running fakes.
pub(super) struct Stack {
    pub(super) profile: Home,
    inner: Arc<Inner>,
    drain: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Stack {
    pub(super) async fn start(certs: Certs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        Self::start_at(certs, Home { profile, _dir: dir }).await
    }

    pub(super) async fn start_at(certs: Certs, profile: Home) -> Self {
        profile.create(&[]).unwrap();
        let bundle = certs.bundle();
        std::fs::write(profile.bundle_file(), bundle.encode_to_vec()).unwrap();
        let trust = Trust::try_from(&bundle).unwrap();
        let inner = Arc::new(Inner {
            certs,
            bootstraps: 0.into(),
            renewals: 0.into(),
            busy: 0.into(),
            revoked: false.into(),
            life: (0.into(), 90.into()),
            names: Mutex::default(),
        });
        let drain = CancellationToken::new();
        let spawn = |routes: Routes, credentials: Credentials, listener| {
            let server = edge_server(&trust, &credentials).unwrap();
            let acceptor = Acceptor {
                limits: Limits::default(),
                tls: Arc::new(move || Some(Arc::clone(&server))),
                domain: trust.domain.clone(),
                judge_local: None,
                drain: drain.clone(),
            };
            let router = routes.prepare().into_axum_router();
            tokio::spawn(acceptor.serve(listener, move |connection: Arc<Connection>| {
                let mut router = router.clone();
                tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                    request.extensions_mut().insert(Arc::clone(&connection));
                    router.call(request.map(axum::body::Body::new))
                })
            }))
        };

        let dns = trust.domain.dns_name(ServiceName::Identity);
        let identity = inner.certs.server(SanType::DnsName(dns.try_into().unwrap()));
        let socket = profile.socket(ServiceName::Identity);
        let _ = std::fs::remove_file(&socket); // of the stack before
        let local = Listener::Unix(tokio::net::UnixListener::bind(socket).unwrap());
        let local = spawn(
            Routes::new(LocalServiceServer::new(Fake(Arc::clone(&inner)))),
            identity,
            local,
        );

        let edge = inner
            .certs
            .server(SanType::IpAddress("127.0.0.1".parse().unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let file = EdgeFile {
            address: listener.local_addr().unwrap().to_string(),
            admin: String::new(),
            certificate_sha256: String::new(),
            pid: 0,
        };
        std::fs::write(profile.edge_file(), serde_json::to_vec(&file).unwrap()).unwrap();
        let routes = Routes::new(StatusServiceServer::new(Fake(Arc::clone(&inner))))
            .add_service(DeviceServiceServer::new(Fake(Arc::clone(&inner))));
        let edge = spawn(routes, edge, Listener::Tcp(listener));
        Self {
            profile,
            inner,
            drain,
            tasks: vec![local, edge],
        }
    }

    /// Stops without a drain; the files stay.
    pub(super) fn stop(self) -> Home {
        self.drain.cancel();
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.profile
    }

    pub(super) fn bootstraps(&self) -> u32 {
        self.inner.bootstraps.load(SeqCst)
    }

    pub(super) fn renewals(&self) -> u32 {
        self.inner.renewals.load(SeqCst)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.inner.names.lock().unwrap().clone()
    }

    pub(super) fn revoke(&self) {
        self.inner.revoked.store(true, SeqCst);
    }

    /// So many calls are told "not now".
    pub(super) fn busy(&self, calls: u32) {
        self.inner.busy.store(calls, SeqCst);
    }

    pub(super) fn issue_for_days(&self, days_ago: i64, days: i64) {
        self.inner.life.0.store(days_ago, SeqCst);
        self.inner.life.1.store(days, SeqCst);
    }
}

struct Fake(Arc<Inner>);

impl Fake {
    fn issue(&self, csr_der: &[u8]) -> Response<IssueCertificateResponse> {
        let (days_ago, days) = (self.0.life.0.load(SeqCst), self.0.life.1.load(SeqCst));
        let certificate = self.0.certs.device(csr_der, days_ago, days);
        Response::new(IssueCertificateResponse {
            device: None,
            certificate: Some(certificate),
        })
    }
}

#[tonic::async_trait]
impl LocalService for Fake {
    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        self.0.bootstraps.fetch_add(1, SeqCst);
        let request = request.into_inner();
        self.0.names.lock().unwrap().push(request.name);
        Ok(self.issue(&request.csr_der))
    }

    async fn recover(
        &self,
        _: Request<RecoverRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

#[tonic::async_trait]
impl StatusService for Fake {
    async fn get(&self, _: Request<GetStatusRequest>) -> Result<Response<StackStatus>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        if self
            .0
            .busy
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            return Err(Error::new(Code::Unavailable, "busy", "not now").into());
        }
        if self.0.revoked.load(SeqCst) {
            return Err(
                Error::new(Code::Unauthenticated, "device_revoked", "this device was revoked").into(),
            );
        }
        let connection = request.extensions().get::<Arc<Connection>>().unwrap();
        let principal = match subject_of(connection.certificate.as_ref().unwrap(), &self.0.certs.domain) {
            Some(Subject::Operator(id)) => format!("operator/{id}"),
            other => panic!("{other:?}"),
        };
        Ok(Response::new(WhoAmIResponse {
            principal,
            ..WhoAmIResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl DeviceService for Fake {
    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        self.0.renewals.fetch_add(1, SeqCst);
        Ok(self.issue(&request.into_inner().csr_der))
    }

    async fn list_devices(
        &self,
        _: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn get_device(&self, _: Request<GetDeviceRequest>) -> Result<Response<Device>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn issue_certificate(
        &self,
        _: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn rename(&self, _: Request<RenameDeviceRequest>) -> Result<Response<Device>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn revoke(&self, _: Request<RevokeDeviceRequest>) -> Result<Response<Device>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    type WatchEpochsStream =
        std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<EpochEvent, Status>> + Send>>;

    async fn watch_epochs(
        &self,
        _: Request<WatchEpochsRequest>,
    ) -> Result<Response<Self::WatchEpochsStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn challenge(&self, _: Request<ChallengeRequest>) -> Result<Response<ChallengeResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn prove(&self, _: Request<ProveRequest>) -> Result<Response<ProveResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn request_pairing(
        &self,
        _: Request<RequestPairingRequest>,
    ) -> Result<Response<RequestPairingResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_requests(
        &self,
        _: Request<ListRequestsRequest>,
    ) -> Result<Response<ListRequestsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn approve(&self, _: Request<ApproveRequest>) -> Result<Response<Device>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn reject(&self, _: Request<RejectRequest>) -> Result<Response<PairingRequest>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn rotate_token(
        &self,
        _: Request<RotateTokenRequest>,
    ) -> Result<Response<RotateTokenResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn create_invite(
        &self,
        _: Request<CreateInviteRequest>,
    ) -> Result<Response<CreateInviteResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_invites(
        &self,
        _: Request<ListInvitesRequest>,
    ) -> Result<Response<ListInvitesResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn withdraw_invite(&self, _: Request<WithdrawInviteRequest>) -> Result<Response<Invite>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn redeem_invite(
        &self,
        _: Request<RedeemInviteRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    type WatchStream =
        std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<DeviceEvent, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchDevicesRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}
