//! Identity as its callers meet it: handlers on a memory store and a manual clock.

use std::{fs, sync::Arc};

use creel_kit::{
    Clock, Config, Deps, Profile, cert::request_for, idempotency::Idempotency, metrics::Metrics,
    outbox::Outbox, peers::Peers,
};
use creel_proto::identity::v1::{
    AssertionClaims, AttenuateRequest, BootstrapRequest, DeviceSubject, EnrollRequest,
    IssueCertificateRequest, IssueCertificateResponse, IssueEdgeCertificateRequest, JobSubject, MintRequest,
    RecoverRequest, RenewCertificateRequest, RenewRequest, RevokeDeviceRequest, SignedAssertion, TurnSubject,
    WatchEpochsRequest, assertion_service_server::AssertionService as _, ca_service_server::CaService as _,
    device_service_server::DeviceService as _, local_service_server::LocalService as _,
    mint_request::Subject,
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
    registry::Registry,
};

const NOW: i64 = 1_800_000_000_000;

struct Identity {
    _dir: tempfile::TempDir,
    deps: Deps,
    authority: Arc<Authority>,
    registry: Registry,
}

impl Identity {
    async fn new() -> Self {
        creel_wire::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        profile.create(&[ServiceName::Identity]).unwrap();
        let clock = Clock::manual(NOW);
        let authority = Arc::new(load_or_create(&profile, NOW).unwrap());
        let tls = Tls::new(Trust::try_from(&authority.bundle()).unwrap(), None).unwrap();
        let (store, config) = (Store::memory(), Arc::new(Config::default()));
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
        Self {
            _dir: dir,
            deps,
            authority,
            registry,
        }
    }

    fn ca(&self) -> Ca {
        Ca::new(&self.deps, &self.authority)
    }

    fn devices(&self) -> Devices {
        Devices::new(&self.deps, &self.authority, &self.registry)
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

#[tokio::test]
async fn the_first_operator_gets_everything_later_ones_read_and_write() {
    let identity = Identity::new().await;
    let (first, second) = (device_key(), device_key());
    let one = identity.bootstrap(&first, "laptop").await.unwrap();
    assert_eq!(scopes_of(&one).len(), 5);
    let two = identity.bootstrap(&second, "laptop").await.unwrap();
    assert_eq!(scopes_of(&two), Scopes::from([Scope::Read, Scope::Write]));
    assert_eq!(two.device.unwrap().name, "laptop-2", "a taken name gets a number");
    // The same key again: the same device, no more than it had.
    let again = identity.bootstrap(&second, "other").await.unwrap();
    assert_eq!(scopes_of(&again), Scopes::from([Scope::Read, Scope::Write]));
    assert_eq!(identity.registry.list().len(), 2);
    // A restart finds the same.
    let registry = Registry::open(&identity.deps).await.unwrap();
    assert_eq!(registry.list().len(), 2);
}

#[tokio::test]
async fn racing_first_operators_are_one() {
    let identity = Identity::new().await;
    let keys: Vec<_> = (0..8).map(|_| device_key()).collect();
    let racing = keys.iter().map(|key| identity.bootstrap(key, "a"));
    let answers = futures_util::future::join_all(racing).await;
    let all = answers
        .iter()
        .filter(|answer| scopes_of(answer.as_ref().unwrap()).len() == 5)
        .count();
    assert_eq!(all, 1);
}

#[tokio::test]
async fn nobody_hands_on_what_they_do_not_have() {
    let identity = Identity::new().await;
    let granter = operator(&[Scope::Read, Scope::Pairing].into());
    let issued = identity
        .issue(granter.clone(), &device_key(), "ci", &["operator.read"])
        .await
        .unwrap();
    assert_eq!(scopes_of(&issued), Scopes::from([Scope::Read]));
    let wide = identity
        .issue(
            granter.clone(),
            &device_key(),
            "x",
            &["operator.read", "operator.admin"],
        )
        .await;
    assert_eq!(wide.unwrap_err(), "scope_not_held");
    let unknown = identity
        .issue(granter.clone(), &device_key(), "x", &["operator.root"])
        .await;
    assert_eq!(unknown.unwrap_err(), "invalid_argument");
    let none = identity.issue(granter.clone(), &device_key(), "x", &[]).await;
    assert_eq!(none.unwrap_err(), "invalid_argument");
    let same_name = identity
        .issue(granter, &device_key(), "ci", &["operator.read"])
        .await;
    assert_eq!(same_name.unwrap_err(), "name_in_use");
}

#[tokio::test]
async fn only_the_key_of_a_request_is_used_and_only_a_sound_one() {
    let identity = Identity::new().await;
    let granter = operator(&[Scope::Read, Scope::Pairing].into());
    let key = device_key();
    let mut params = CertificateParams::new(vec!["identity.evil".to_owned()]).unwrap();
    let uri = format!("spiffe://{}/service/identity", identity.authority.domain);
    params
        .subject_alt_names
        .push(SanType::URI(rcgen::string::Ia5String::try_from(uri).unwrap()));
    let csr_der = params.serialize_request(&key).unwrap().der().to_vec();
    let request = IssueCertificateRequest {
        csr_der: csr_der.clone(),
        name: "ci".into(),
        scopes: vec!["operator.read".into()],
        ..Default::default()
    };
    let issued = reason(
        identity
            .devices()
            .issue_certificate(as_caller(granter.clone(), request.clone()))
            .await,
    )
    .unwrap();
    let named = subject_of(&leaf(&issued), &identity.authority.domain).unwrap();
    let raw: [u8; 32] = key.public_key_raw().try_into().unwrap();
    assert_eq!(named, Named::Operator(DeviceId::of_public_key(&raw)));

    let refuse = |csr_der: Vec<u8>| {
        let request = IssueCertificateRequest {
            csr_der,
            name: "y".into(),
            ..request.clone()
        };
        let (devices, granter) = (identity.devices(), granter.clone());
        async move { reason(devices.issue_certificate(as_caller(granter, request)).await).unwrap_err() }
    };
    let p256 = request_for(&KeyPair::generate().unwrap()).unwrap();
    let mut torn = csr_der.clone();
    *torn.last_mut().unwrap() ^= 1;
    // The neutral element as the key: a signature anybody can make would hold.
    let mut small = csr_der.clone();
    let at = small.windows(32).position(|window| window == raw).unwrap();
    small[at..at + 32].copy_from_slice(&[&[1_u8][..], &[0; 31]].concat());
    for bad in [p256, torn, small, vec![], vec![0x30; 9_000], b"not der".to_vec()] {
        assert_eq!(refuse(bad).await, "invalid_argument");
    }
}

#[tokio::test]
async fn revoked_means_revoked_on_every_path() {
    let identity = Identity::new().await;
    let (owner, key) = (device_key(), device_key());
    identity.bootstrap(&owner, "laptop").await.unwrap();
    let granter = operator(&Scope::ALL.iter().copied().collect());
    let issued = identity
        .issue(granter.clone(), &key, "ci", &["operator.read"])
        .await
        .unwrap();
    let subject = || {
        Subject::Device(DeviceSubject {
            certificate_der: leaf(&issued),
            connection_id: "c".into(),
        })
    };
    let claims = identity.mint(ServiceName::Gateway, subject()).await.unwrap();
    assert_eq!(
        (claims.scopes.as_slice(), claims.label.as_str()),
        (["operator.read".to_owned()].as_slice(), "ci")
    );

    let mut watch = reason(
        identity
            .devices()
            .watch_epochs(as_caller(
                service_caller(ServiceName::Gateway),
                WatchEpochsRequest {},
            ))
            .await,
    )
    .unwrap();
    assert!(watch.next().await.unwrap().unwrap().snapshot);
    identity.revoke("ci").await.unwrap();
    let news = watch.next().await.unwrap().unwrap();
    assert_eq!(
        news.changes[0].device_id,
        issued.device.as_ref().unwrap().device_id
    );
    assert_eq!(news.changes[0].epoch, 2);

    assert_eq!(
        identity.mint(ServiceName::Gateway, subject()).await.unwrap_err(),
        "device_revoked"
    );
    let csr_der = request_for(&key).unwrap();
    let me = test_caller(
        Principal::Operator(issued.device.as_ref().unwrap().device_id.parse().unwrap()),
        Scopes::new(),
        None,
    );
    let renew = RenewCertificateRequest {
        csr_der: csr_der.clone(),
        ..Default::default()
    };
    assert_eq!(
        reason(identity.devices().renew_certificate(as_caller(me, renew)).await).unwrap_err(),
        "device_revoked"
    );
    assert_eq!(
        identity.bootstrap(&key, "ci").await.unwrap_err(),
        "device_revoked"
    );
    assert_eq!(
        identity
            .issue(granter, &key, "ci2", &["operator.read"])
            .await
            .unwrap_err(),
        "device_revoked"
    );
    identity.revoke("ci").await.unwrap();
    assert_eq!(identity.revoke("laptop").await.unwrap_err(), "last_administrator");
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_past_its_end_is_nobody() {
    let (identity, other) = (Identity::new().await, Identity::new().await);
    let key = device_key();
    let subject = |answer: &IssueCertificateResponse| {
        Subject::Device(DeviceSubject {
            certificate_der: leaf(answer),
            connection_id: "c".into(),
        })
    };
    let own = identity.bootstrap(&key, "a").await.unwrap();
    let foreign = other.bootstrap(&key, "a").await.unwrap();
    assert!(identity.mint(ServiceName::Gateway, subject(&own)).await.is_ok());
    assert_eq!(
        identity
            .mint(ServiceName::Gateway, subject(&foreign))
            .await
            .unwrap_err(),
        "certificate_refused"
    );
    identity.deps.clock.advance(91 * crate::ca::DAY_MS);
    assert_eq!(
        identity
            .mint(ServiceName::Gateway, subject(&own))
            .await
            .unwrap_err(),
        "certificate_refused"
    );
    let edge = IssueEdgeCertificateRequest {
        csr_der: request_for(&KeyPair::generate().unwrap()).unwrap(),
        names: vec!["localhost".into()],
    };
    let gateway = service_caller(ServiceName::Gateway);
    let cert = reason(
        identity
            .ca()
            .issue_edge_certificate(as_caller(gateway.clone(), edge.clone()))
            .await,
    )
    .unwrap();
    assert_eq!(
        subject_of(&cert.chain_der[0], &identity.authority.domain),
        None,
        "the edge is nobody"
    );
    let stolen = IssueEdgeCertificateRequest {
        names: vec![identity.authority.domain.dns_name(ServiceName::Identity)],
        ..edge
    };
    assert_eq!(
        reason(
            identity
                .ca()
                .issue_edge_certificate(as_caller(gateway, stolen))
                .await
        )
        .unwrap_err(),
        "invalid_argument"
    );
}

#[tokio::test]
async fn a_join_secret_works_once_and_an_enrolled_key_renews_at_any_age() {
    let identity = Identity::new().await;
    let secret = [7_u8; 32];
    let hash = creel_wire::names::hex(&Sha256::digest(secret));
    let file = identity.deps.profile.join_dir().join("scheduler");
    let enroll = |service: &str, secret: &[u8], key: &KeyPair| {
        let request = EnrollRequest {
            service: service.into(),
            join_secret: secret.to_vec(),
            csr_der: request_for(key).unwrap(),
        };
        let ca = identity.ca();
        async move { reason(ca.enroll(as_caller(nobody(), request)).await) }
    };
    let (key, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    assert_eq!(
        enroll("scheduler", &secret, &key).await.unwrap_err(),
        "join_secret_wrong",
        "none was left"
    );
    fs::write(&file, &hash).unwrap();
    assert_eq!(
        enroll("scheduler", &[8; 32], &key).await.unwrap_err(),
        "join_secret_wrong"
    );
    assert_eq!(
        enroll("gateway", &secret, &key).await.unwrap_err(),
        "join_secret_wrong"
    );
    let issued = enroll("scheduler", &secret, &key).await.unwrap();
    let named = subject_of(&issued.chain_der[0], &identity.authority.domain);
    assert_eq!(named, Some(Named::Service(ServiceName::Scheduler)));
    assert!(!file.exists());
    // A crash between the commit and the removal leaves the file: only the same key gets its answer again.
    fs::write(&file, &hash).unwrap();
    assert_eq!(
        enroll("scheduler", &secret, &thief).await.unwrap_err(),
        "join_secret_wrong"
    );
    fs::write(&file, &hash).unwrap();
    assert!(enroll("scheduler", &secret, &key).await.is_ok());
    assert_eq!(
        enroll("identity", &secret, &key).await.unwrap_err(),
        "join_secret_wrong"
    );

    identity.deps.clock.advance(365 * crate::ca::DAY_MS);
    let renew = |key: &KeyPair| {
        let (ca, request) = (
            identity.ca(),
            RenewRequest {
                csr_der: request_for(key).unwrap(),
            },
        );
        async move { reason(ca.renew(as_caller(nobody(), request)).await) }
    };
    assert!(renew(&key).await.is_ok());
    assert_eq!(renew(&thief).await.unwrap_err(), "not_enrolled");
}

#[tokio::test]
async fn turns_and_jobs_hold_no_more_than_their_cause_has_now() {
    let identity = Identity::new().await;
    let owner = identity.bootstrap(&device_key(), "laptop").await.unwrap();
    let subject = Subject::Device(DeviceSubject {
        certificate_der: leaf(&owner),
        connection_id: "c".into(),
    });
    let cause = identity.mint_bytes(ServiceName::Gateway, subject).await.unwrap();
    let turn = |cause: Vec<u8>| {
        Subject::Turn(TurnSubject {
            session: "s".into(),
            turn_id: "t1".into(),
            cause,
        })
    };
    let claims = identity
        .mint(ServiceName::AgentRunner, turn(cause.clone()))
        .await
        .unwrap();
    assert_eq!(claims.scopes, ["operator.read", "operator.write"]);
    assert_eq!(claims.chain.len(), 1, "through the gateway");
    assert_eq!(
        identity
            .mint(ServiceName::Scheduler, turn(cause.clone()))
            .await
            .unwrap_err(),
        "assertion_presenter_not_allowed"
    );
    assert_eq!(
        identity
            .mint(ServiceName::AgentRunner, turn(vec![1]))
            .await
            .unwrap_err(),
        "assertion_malformed"
    );
    identity.deps.clock.advance(creel_wire::assertion::MAX_LIFE_MS);
    assert_eq!(
        identity
            .mint(ServiceName::AgentRunner, turn(cause))
            .await
            .unwrap_err(),
        "assertion_expired"
    );

    let job = |owner: &str| {
        let scopes = vec!["operator.write".into(), "operator.admin".into()];
        Subject::Job(JobSubject {
            job_id: "j".into(),
            run_id: "r".into(),
            owner: owner.into(),
            scopes,
        })
    };
    let bytes = identity
        .mint_bytes(ServiceName::Scheduler, job("owner"))
        .await
        .unwrap();
    assert_eq!(
        identity
            .mint(ServiceName::Scheduler, job("nobody"))
            .await
            .unwrap_err(),
        "owner_revoked"
    );
    // Attenuated: only narrower, only by a service that may present the kind.
    let attenuate = |who: ServiceName, scopes: &[&str]| {
        let service = Assertions::new(&identity.deps, &identity.authority, &identity.registry).unwrap();
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let request = as_caller(
            service_caller(who),
            AttenuateRequest {
                assertion: bytes.clone(),
                scopes,
            },
        );
        async move { reason(service.attenuate(request).await) }
    };
    assert_eq!(
        attenuate(ServiceName::Gateway, &[]).await.unwrap_err(),
        "assertion_presenter_not_allowed"
    );
}

#[tokio::test]
async fn recovery_gives_all_scopes_back_and_guesses_are_counted() {
    let identity = Identity::new().await;
    identity.bootstrap(&device_key(), "old").await.unwrap();
    fs::write(
        identity.deps.profile.recovery_file(),
        creel_wire::names::hex(&Sha256::digest("ABCDE12345")),
    )
    .unwrap();
    let key = device_key();
    let recover = |code: &str| {
        let request = RecoverRequest {
            recovery_code: code.into(),
            csr_der: request_for(&key).unwrap(),
            name: "new".into(),
            ..Default::default()
        };
        let service = identity.local();
        async move { reason(service.recover(as_caller(local(), request)).await) }
    };
    for _ in 0..crate::recovery::MAX_FAILURES {
        assert_eq!(recover("WRONG").await.unwrap_err(), "recovery_code_wrong");
    }
    assert_eq!(recover("ABCDE-12345").await.unwrap_err(), "too_many_guesses");
    identity.deps.clock.advance(crate::recovery::PAUSE_MS);
    assert_eq!(scopes_of(&recover("abcde-12345").await.unwrap()).len(), 5);
}
