//! Who you are is what you proved: certificates of the wrong kind, assertions of the wrong hand.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests read the clock; a test that cannot go on fails"
)]

use std::{fs, sync::Arc, time::SystemTime};

use creel_proto::{
    identity::v1::{
        AssertionClaims, DeviceSubject, JobSubject, ListDevicesRequest, MintRequest, SubjectKind,
        TrustBundle, assertion_service_client::AssertionServiceClient,
        device_service_client::DeviceServiceClient, mint_request::Subject,
    },
    scheduler::v1::{ListJobsRequest, job_service_client::JobServiceClient},
};
use creel_tests::Cluster;
use creel_wire::{
    Error, ServiceName, assertion, authz,
    channel::{Dialler, Target},
    tls::{Credentials, Tls, Trust},
};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use tonic::{Request, transport::Channel};

fn trust(cluster: &Cluster) -> Trust {
    let bytes = fs::read(cluster.profile.bundle_file()).unwrap();
    Trust::try_from(&TrustBundle::decode(bytes.as_slice()).unwrap()).unwrap()
}

fn credentials(dir: &std::path::Path, key: &str) -> Credentials {
    Credentials::from_pem(
        &fs::read(dir.join("cert.pem")).unwrap(),
        &fs::read(dir.join(key)).unwrap(),
    )
    .unwrap()
}

/// A channel to a service's socket with whatever certificate.
fn dial(cluster: &Cluster, to: ServiceName, own: Option<Credentials>) -> Channel {
    let trust = trust(cluster);
    let name = trust.domain.dns_name(to);
    let tls = Tls::new(trust, own).unwrap();
    Dialler::new(
        Target::Unix(cluster.profile.socket(to)),
        &name,
        Arc::new(move || tls.client()),
    )
    .unwrap()
    .channel()
}

fn as_service(cluster: &Cluster, to: ServiceName, who: ServiceName) -> Channel {
    dial(
        cluster,
        to,
        Some(credentials(&cluster.profile.credentials(who), "key.pem")),
    )
}

fn now_ms() -> i64 {
    i64::try_from(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap()
}

#[tokio::test]
async fn a_device_certificate_or_none_is_nobody_at_a_service_port() {
    let cluster = Cluster::start();
    cluster.creel(&["status"]).ok();
    let device = credentials(&cluster.profile.cli_credentials(), "device.key");
    for own in [Some(device), None] {
        let channel = dial(&cluster, ServiceName::Scheduler, own.clone());
        let error = JobServiceClient::new(channel)
            .list(ListJobsRequest::default())
            .await
            .unwrap_err();
        assert!(
            matches!(
                error.code(),
                tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unknown
            ),
            "no handshake: {error:?}"
        );
        let channel = dial(&cluster, ServiceName::Identity, own);
        let error = DeviceServiceClient::new(channel)
            .list_devices(ListDevicesRequest::default())
            .await
            .unwrap_err();
        assert_ne!(error.code(), tonic::Code::Ok);
    }
}

#[tokio::test]
async fn an_assertion_is_good_for_its_presenter_its_time_and_its_kind_alone() {
    let cluster = Cluster::start();
    cluster.creel(&["status"]).ok();
    let device = credentials(&cluster.profile.cli_credentials(), "device.key");
    let subject = DeviceSubject {
        certificate_der: device.chain[0].to_vec(),
        connection_id: "c1".into(),
    };
    let mint = |who: ServiceName, subject: Subject| {
        let channel = as_service(&cluster, ServiceName::Identity, who);
        async move {
            AssertionServiceClient::new(channel)
                .mint(MintRequest {
                    subject: Some(subject),
                })
                .await
        }
    };
    let minted = mint(ServiceName::Gateway, Subject::Device(subject.clone()))
        .await
        .unwrap()
        .into_inner()
        .assertion;
    let call = |who: ServiceName, bytes: Vec<u8>| {
        let channel = as_service(&cluster, ServiceName::AgentRunner, who);
        async move {
            let mut request = Request::new(creel_proto::agent::v1::ListContextsRequest::default());
            authz::attach(&mut request, &bytes);
            let mut client =
                creel_proto::agent::v1::context_service_client::ContextServiceClient::new(channel);
            client
                .list(request)
                .await
                .map_err(|status| Error::of_status(&status).reason.into_owned())
        }
    };
    assert!(call(ServiceName::Gateway, minted.clone()).await.is_ok());
    // Replayed by a callee.
    let error = call(ServiceName::Scheduler, minted.clone()).await.unwrap_err();
    assert_eq!(error, "assertion_foreign_presenter");
    // No service gets assertions of a kind that is not its own.
    let error = mint(ServiceName::Scheduler, Subject::Device(subject))
        .await
        .unwrap_err();
    assert_eq!(Error::of_status(&error).reason, "assertion_presenter_not_allowed");
    let job = JobSubject {
        job_id: "j".into(),
        run_id: "r".into(),
        owner: "owner".into(),
        scopes: vec![],
    };
    assert!(
        mint(ServiceName::Gateway, Subject::Job(job.clone()))
            .await
            .is_err()
    );
    assert!(mint(ServiceName::Scheduler, Subject::Job(job)).await.is_ok());

    // Forged by another key; expired, though signed by the right one.
    let claims = |expires: i64| AssertionClaims {
        kind: SubjectKind::Operator.into(),
        subject: "a".repeat(64),
        person: "owner".into(),
        scopes: vec!["operator.read".into()],
        presenter: format!("spiffe://{}/service/gateway", trust(&cluster).domain),
        issued_at_unix_ms: expires - 60_000,
        expires_at_unix_ms: expires,
        ..AssertionClaims::default()
    };
    let key_id = trust(&cluster).assertion_keys[0].key_id.clone();
    let forged = assertion::sign(
        &SigningKey::from_bytes(&[7; 32]),
        &key_id,
        &claims(now_ms() + 30_000),
    );
    assert_eq!(
        call(ServiceName::Gateway, forged).await.unwrap_err(),
        "assertion_bad_signature"
    );
    let seed = fs::read(
        cluster
            .profile
            .state(ServiceName::Identity)
            .join("ca/assertion.key"),
    )
    .unwrap();
    let signer = SigningKey::from_bytes(seed.as_slice().try_into().unwrap());
    let right = assertion::sign(&signer, &key_id, &claims(now_ms() + 30_000));
    assert!(
        call(ServiceName::Gateway, right).await.is_ok(),
        "the control: this key signs"
    );
    let expired = assertion::sign(&signer, &key_id, &claims(now_ms() - 1));
    assert_eq!(
        call(ServiceName::Gateway, expired).await.unwrap_err(),
        "assertion_expired"
    );
    assert_eq!(
        call(ServiceName::Gateway, vec![1, 2, 3]).await.unwrap_err(),
        "assertion_malformed"
    );
    // Without one, the caller is the service, and services do not list contexts.
    let channel = as_service(&cluster, ServiceName::AgentRunner, ServiceName::Gateway);
    let mut client = creel_proto::agent::v1::context_service_client::ContextServiceClient::new(channel);
    let error = client
        .list(creel_proto::agent::v1::ListContextsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(Error::of_status(&error).reason, "principal_not_admitted");
}
