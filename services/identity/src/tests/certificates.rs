//! Certificates: whose they are, join secrets, the edge's.

use super::*;

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
