//! Devices: made, renewed, revoked; recovery.

use super::*;

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

/// As the first start leaves it: `ABCDE-12345`.
pub(super) fn keep_recovery_code(identity: &Identity) {
    let hash = creel_wire::names::hex(&Sha256::digest("ABCDE12345"));
    fs::write(identity.deps.profile.recovery_file(), hash).unwrap();
}

pub(super) async fn recover(
    identity: &Identity,
    key: &KeyPair,
    code: &str,
) -> Result<IssueCertificateResponse, String> {
    let request = RecoverRequest {
        recovery_code: code.into(),
        csr_der: request_for(key).unwrap(),
        name: "new".into(),
        ..Default::default()
    };
    reason(identity.local().recover(as_caller(local(), request)).await)
}

#[tokio::test]
async fn recovery_gives_all_scopes_back_and_guesses_are_counted() {
    let identity = Identity::new().await;
    identity.bootstrap(&device_key(), "old").await.unwrap();
    keep_recovery_code(&identity);
    let key = device_key();
    let recover = |code| recover(&identity, &key, code);
    for _ in 0..crate::guesses::MAX_FAILURES {
        assert_eq!(recover("WRONG").await.unwrap_err(), "recovery_code_wrong");
    }
    assert_eq!(recover("ABCDE-12345").await.unwrap_err(), "too_many_guesses");
    identity.deps.clock.advance(crate::guesses::PAUSE_MS);
    assert_eq!(scopes_of(&recover("abcde-12345").await.unwrap()).len(), 5);
}

#[tokio::test]
async fn a_short_lived_certificate_stays_short_lived_however_often_it_is_renewed() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let key = device_key();
    let life = 2 * 3_600_000;
    let request = IssueCertificateRequest {
        csr_der: request_for(&key).unwrap(),
        name: "ci".into(),
        scopes: vec!["operator.read".into()],
        lifetime: Some(creel_proto::time::duration(life)),
        ..Default::default()
    };
    let issued = reason(
        identity
            .devices()
            .issue_certificate(as_caller(owner, request))
            .await,
    )
    .unwrap();
    let me = caller_of(issued.device.as_ref().unwrap());
    for _ in 0..5 {
        identity.deps.clock.advance(life / 2);
        let renew = RenewCertificateRequest {
            csr_der: request_for(&key).unwrap(),
            ..Default::default()
        };
        let renewed = identity
            .devices()
            .renew_certificate(as_caller(me.clone(), renew))
            .await;
        let until = reason(renewed)
            .unwrap()
            .device
            .unwrap()
            .certificate_expires_at
            .unwrap();
        let left = creel_proto::time::unix_ms(&until) - identity.deps.clock.now_ms();
        assert_eq!(left, life);
    }
}
