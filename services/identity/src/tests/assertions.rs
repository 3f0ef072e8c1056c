//! Assertions: of turns and jobs, and across a hop.

use super::*;

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
