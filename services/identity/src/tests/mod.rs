//! Identity as its callers meet it: handlers on a memory store and a manual clock.

mod assertions;
mod certificates;
mod clients;
mod clock;
mod crashes;
mod devices;
mod invites;
mod limits;
mod nonsense;
mod pairing;
mod people;
mod proofs;
mod relay;
mod tokens;

use std::{fs, sync::Arc};

use creel_kit::{
    Clock, Config, Deps, Profile, cert::request_for, idempotency::Idempotency, metrics::Metrics,
    outbox::Outbox, peers::Peers,
};
use creel_proto::identity::v1::{
    AssertionClaims, AttenuateRequest, BootstrapRequest, Device, DeviceSubject, EnrollRequest,
    IssueCertificateRequest, IssueCertificateResponse, IssueEdgeCertificateRequest, JobSubject, MintRequest,
    RecoverRequest, RenewCertificateRequest, RenewRequest, RevokeDeviceRequest, Role, SignedAssertion,
    TurnSubject, WatchEpochsRequest, assertion_service_server::AssertionService as _,
    ca_service_server::CaService as _, device_service_server::DeviceService as _,
    local_service_server::LocalService as _, mint_request::Subject,
};
use creel_store::Store;
use creel_wire::{
    Caller, DeviceId, Error, Principal, Scope, Scopes, ServiceName,
    authz::test_caller,
    caller::LocalPeer,
    names::{Subject as Named, parse_scopes},
    tls::{Tls, Trust, subject_of},
};
use futures_util::StreamExt as _;
use prost::Message as _;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SanType};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::{
    ca::Authority,
    ca_files::load_or_create,
    grpc::{assertion::Assertions, ca::Ca, device::Devices, local::Local},
    pairings::Pairings,
    registry::Registry,
};

const NOW: i64 = 1_800_000_000_000;

struct Identity {
    _dir: tempfile::TempDir,
    deps: Deps,
    authority: Arc<Authority>,
    registry: Registry,
    pairings: Pairings,
}

impl Identity {
    async fn new() -> Self {
        Self::on(Store::memory()).await
    }

    async fn on(store: Store) -> Self {
        creel_wire::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        profile.create(&[ServiceName::Identity]).unwrap();
        let clock = Clock::manual(NOW);
        let authority = Arc::new(load_or_create(&profile, NOW).unwrap());
        let tls = Tls::new(Trust::try_from(&authority.bundle()).unwrap(), None).unwrap();
        let config = Arc::new(Config::default());
        let metrics = Metrics::new(ServiceName::Identity);
        let outbox = Outbox::open(
            store.clone(),
            ServiceName::Identity,
            clock.clone(),
            metrics.clone(),
        )
        .await
        .unwrap();
        let deps = Deps {
            name: ServiceName::Identity,
            peers: Peers::new(profile.clone(), Arc::clone(&config), Arc::clone(&tls)),
            idempotency: Idempotency::new(store.clone(), clock.clone()),
            drain: CancellationToken::new(),
            profile,
            config,
            clock,
            store,
            outbox,
            tls,
            metrics,
        };
        let registry = Registry::open(&deps).await.unwrap();
        let pairings = Pairings::open(&deps, &registry, authority.root_fingerprint())
            .await
            .unwrap();
        Self {
            _dir: dir,
            deps,
            authority,
            registry,
            pairings,
        }
    }

    /// As after a crash: what was in memory is gone, what was committed is read again.
    async fn restart(&mut self) {
        let deps = &mut self.deps;
        let (store, clock) = (deps.store.clone(), deps.clock.clone());
        deps.outbox = Outbox::open(
            store.clone(),
            ServiceName::Identity,
            clock.clone(),
            deps.metrics.clone(),
        )
        .await
        .unwrap();
        deps.idempotency = Idempotency::new(store, clock);
        self.registry = Registry::open(&self.deps).await.unwrap();
        self.pairings = Pairings::open(&self.deps, &self.registry, self.authority.root_fingerprint())
            .await
            .unwrap();
    }

    /// The first operator, as a caller.
    async fn owner(&self) -> Caller {
        let made = self.bootstrap(&device_key(), "laptop").await.unwrap();
        caller_of(made.device.as_ref().unwrap())
    }

    fn ca(&self) -> Ca {
        Ca::new(&self.deps, &self.authority)
    }

    fn devices(&self) -> Devices {
        Devices::new(&self.deps, &self.authority, &self.registry, &self.pairings)
    }

    fn local(&self) -> Local {
        Local::new(&self.deps, &self.authority, &self.registry)
    }

    async fn bootstrap(&self, key: &KeyPair, name: &str) -> Result<IssueCertificateResponse, String> {
        let request = BootstrapRequest {
            csr_der: request_for(key).unwrap(),
            name: name.into(),
            ..Default::default()
        };
        reason(self.local().bootstrap(as_caller(local(), request)).await)
    }

    async fn issue(
        &self,
        caller: Caller,
        key: &KeyPair,
        name: &str,
        scopes: &[&str],
    ) -> Result<IssueCertificateResponse, String> {
        let request = IssueCertificateRequest {
            csr_der: request_for(key).unwrap(),
            name: name.into(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..Default::default()
        };
        reason(self.devices().issue_certificate(as_caller(caller, request)).await)
    }

    async fn revoke(&self, device: &str) -> Result<(), String> {
        let request = RevokeDeviceRequest {
            device: device.into(),
            ..Default::default()
        };
        reason(
            self.devices()
                .revoke(as_caller(
                    operator(&Scope::ALL.iter().copied().collect()),
                    request,
                ))
                .await,
        )
        .map(drop)
    }

    async fn mint(&self, presenter: ServiceName, subject: Subject) -> Result<AssertionClaims, String> {
        let minted = self.mint_bytes(presenter, subject).await?;
        let signed = SignedAssertion::decode(minted.as_slice()).unwrap();
        Ok(AssertionClaims::decode(signed.payload.as_slice()).unwrap())
    }

    async fn mint_bytes(&self, presenter: ServiceName, subject: Subject) -> Result<Vec<u8>, String> {
        let service = Assertions::new(&self.deps, &self.authority, &self.registry).unwrap();
        let request = as_caller(
            service_caller(presenter),
            MintRequest {
                subject: Some(subject),
            },
        );
        reason(service.mint(request).await).map(|minted| minted.assertion)
    }
}

fn reason<T>(outcome: Result<tonic::Response<T>, tonic::Status>) -> Result<T, String> {
    outcome
        .map(tonic::Response::into_inner)
        .map_err(|status| Error::of_status(&status).reason.into_owned())
}

fn as_caller<T>(caller: Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller);
    request
}

fn local() -> Caller {
    test_caller(
        Principal::Local(LocalPeer { pid: 1, uid: 0 }),
        Scopes::new(),
        None,
    )
}

fn operator(scopes: &Scopes) -> Caller {
    test_caller(
        Principal::Operator(DeviceId::of_public_key(&[9; 32])),
        scopes.clone(),
        Some(ServiceName::Gateway),
    )
}

/// A device as the gateway presents it.
fn caller_of(device: &Device) -> Caller {
    let id = device.device_id.parse().unwrap();
    let principal = match device.role() {
        Role::Node => Principal::Node(id),
        _ => Principal::Operator(id),
    };
    test_caller(
        principal,
        parse_scopes(&device.scopes).unwrap(),
        Some(ServiceName::Gateway),
    )
}

fn service_caller(name: ServiceName) -> Caller {
    test_caller(Principal::Service(name), Scopes::new(), None)
}

fn nobody() -> Caller {
    test_caller(Principal::Anonymous, Scopes::new(), None)
}

fn device_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

fn scopes_of(answer: &IssueCertificateResponse) -> Scopes {
    parse_scopes(&answer.device.as_ref().unwrap().scopes).unwrap()
}

fn leaf(answer: &IssueCertificateResponse) -> Vec<u8> {
    answer.certificate.as_ref().unwrap().chain_der[0].clone()
}
