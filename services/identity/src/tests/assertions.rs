//! Assertions: of turns and jobs, and across a hop.

use creel_proto::identity::v1::{MintJobsRequest, MintedJob, minted_job::Result as Minted};

use super::*;
use crate::{grpc::assertion::MAX_JOBS, store::Kind};

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

fn run_of(owner: &str, run: usize, scopes: &[&str]) -> JobSubject {
    JobSubject {
        job_id: "j".into(),
        run_id: format!("r{run}"),
        owner: owner.into(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    }
}

async fn mint_jobs(
    identity: &Identity,
    presenter: ServiceName,
    subjects: Vec<JobSubject>,
) -> Result<Vec<MintedJob>, String> {
    let service = Assertions::new(&identity.deps, &identity.authority, &identity.registry).unwrap();
    let request = as_caller(service_caller(presenter), MintJobsRequest { subjects });
    reason(service.mint_jobs(request).await).map(|minted| minted.results)
}

#[tokio::test]
async fn many_jobs_are_answered_as_each_alone_would_be() {
    let mut identity = Identity::new().await;
    identity.bootstrap(&device_key(), "laptop").await.unwrap();
    let all = operator(&Scope::ALL.iter().copied().collect());
    let write = ["operator.write"];
    let issued = identity.issue(all, &device_key(), "phone", &write).await.unwrap();
    // It is anna's.
    let id = issued.device.unwrap().device_id;
    let key = Kind::Device.key([id.as_bytes()]);
    let entry = identity.deps.store.get(&key).await.unwrap().unwrap();
    let mut record = creel_proto::identity::v1::DeviceRecord::decode(entry.value).unwrap();
    record.person = "anna".into();
    let moved = creel_store::Txn::new().put(key, record.encode_to_vec());
    identity.deps.store.commit(moved).await.unwrap();
    identity.restart().await;

    let subjects = vec![
        run_of("owner", 1, &write),
        run_of("anna", 2, &write),
        run_of("nobody", 3, &write),
        run_of("owner", 4, &["operator.root"]),
        run_of("anna", 5, &["operator.write", "operator.admin"]),
        JobSubject::default(),
    ];
    for revoked in [false, true] {
        if revoked {
            identity.revoke("phone").await.unwrap();
        }
        let presenter = ServiceName::Scheduler;
        let many = mint_jobs(&identity, presenter, subjects.clone()).await.unwrap();
        assert_eq!(many.len(), subjects.len());
        let mut refused = Vec::new();
        for (subject, minted) in subjects.iter().zip(many) {
            let alone = identity
                .mint_bytes(presenter, Subject::Job(subject.clone()))
                .await;
            match minted.result.unwrap() {
                Minted::Assertion(assertion) => assert_eq!(alone, Ok(assertion)),
                Minted::Refusal(refusal) => {
                    refused.push((subject.run_id.clone(), refusal.code, refusal.reason.clone()));
                    assert_eq!(alone, Err(refusal.reason));
                }
            }
        }
        let precondition = i32::from(tonic::Code::FailedPrecondition);
        let refused_as = |run: &str, code, reason: &str| (run.to_owned(), code, reason.to_owned());
        let mut expected = vec![
            refused_as("r3", precondition, "owner_revoked"),
            refused_as("r4", tonic::Code::InvalidArgument.into(), "invalid_argument"),
            refused_as("", precondition, "owner_revoked"),
        ];
        if revoked {
            expected.insert(0, refused_as("r2", precondition, "owner_revoked"));
            expected.insert(3, refused_as("r5", precondition, "owner_revoked"));
        }
        assert_eq!(refused, expected);
    }
    let foreign = mint_jobs(&identity, ServiceName::Gateway, subjects[..1].to_vec()).await;
    let Some(Minted::Refusal(refusal)) = foreign.unwrap().remove(0).result else {
        panic!("for another service")
    };
    assert_eq!(refusal.reason, "assertion_presenter_not_allowed");
}

#[tokio::test]
async fn one_question_has_a_bound() {
    let identity = Identity::new().await;
    identity.bootstrap(&device_key(), "laptop").await.unwrap();
    let ask = async |count| {
        let subjects = (0..count).map(|run| run_of("owner", run, &[])).collect();
        mint_jobs(&identity, ServiceName::Scheduler, subjects).await
    };
    assert_eq!(ask(MAX_JOBS).await.unwrap().len(), MAX_JOBS);
    for count in [0, MAX_JOBS + 1] {
        assert_eq!(ask(count).await.unwrap_err(), "invalid_argument");
    }
}

/// REV-3: by no path is anything made of what was said of a device before it was revoked.
#[tokio::test]
async fn nothing_is_made_of_an_assertion_whose_device_was_revoked() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let key = device_key();
    let issued = identity
        .issue(owner, &key, "ci", &["operator.read", "operator.write"])
        .await
        .unwrap();
    let subject = Subject::Device(DeviceSubject {
        certificate_der: leaf(&issued),
        connection_id: "c".into(),
    });
    let cause = identity.mint_bytes(ServiceName::Gateway, subject).await.unwrap();
    let turn = |cause: &[u8]| {
        let cause = cause.to_vec();
        let subject = TurnSubject {
            session: "s".into(),
            turn_id: "t1".into(),
            cause,
        };
        identity.mint_bytes(ServiceName::AgentRunner, Subject::Turn(subject))
    };
    let attenuate = |assertion: &[u8], who: ServiceName| {
        let service = Assertions::new(&identity.deps, &identity.authority, &identity.registry).unwrap();
        let request = AttenuateRequest {
            assertion: assertion.to_vec(),
            scopes: vec!["operator.read".into()],
        };
        async move { reason(service.attenuate(as_caller(service_caller(who), request)).await) }
    };
    let running = turn(&cause).await.unwrap();
    let refreshed = turn(&running).await.unwrap();
    let hop = attenuate(&refreshed, ServiceName::Gateway).await.unwrap();
    assert!(attenuate(&cause, ServiceName::Gateway).await.is_ok());

    identity.revoke("ci").await.unwrap();
    for held in [&cause, &running, &refreshed] {
        assert_eq!(turn(held).await.unwrap_err(), "device_revoked");
    }
    for held in [&cause, &running, &refreshed, &hop.assertion] {
        assert_eq!(
            attenuate(held, ServiceName::Gateway).await.unwrap_err(),
            "device_revoked"
        );
    }
}

/// ATT-2, for as long as a turn of a job runs: never more than its owner has now.
#[tokio::test]
async fn a_jobs_turn_loses_what_its_owner_loses() {
    let identity = Identity::new().await;
    identity.owner().await;
    let job = Subject::Job(JobSubject {
        job_id: "j".into(),
        run_id: "r".into(),
        owner: "owner".into(),
        scopes: vec!["operator.read".into(), "operator.write".into()],
    });
    let cause = identity.mint_bytes(ServiceName::Scheduler, job).await.unwrap();
    let turn = |cause: Vec<u8>| {
        let subject = TurnSubject {
            session: "s".into(),
            turn_id: "t1".into(),
            cause,
        };
        identity.mint_bytes(ServiceName::AgentRunner, Subject::Turn(subject))
    };
    let running = turn(cause).await.unwrap();
    let scopes = |bytes: &[u8]| {
        let signed = SignedAssertion::decode(bytes).unwrap();
        AssertionClaims::decode(signed.payload.as_slice()).unwrap().scopes
    };
    assert_eq!(scopes(&running), ["operator.read", "operator.write"]);
    // Its owner's last device goes another way than by a revocation through the API, which keeps one administrator.
    let writer = identity.registry.write().await;
    for entry in identity.registry.list() {
        let after = crate::device::revoke(&entry.record, "lost", NOW);
        let event = creel_kit::outbox::Event::new("device.revoked", "test", "device");
        writer
            .commit(
                after,
                event,
                &creel_kit::idempotency::Slot::none(),
                &IssueCertificateResponse::default(),
                |_| {},
            )
            .await
            .unwrap();
    }
    drop(writer);
    let refreshed = turn(running).await.unwrap();
    assert!(scopes(&refreshed).is_empty(), "{:?}", scopes(&refreshed));
}
