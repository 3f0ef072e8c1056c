//! What a device that was let in gets and keeps: its token, its connection's assertion, one protocol.

use creel_proto::identity::v1::{
    ConnectionSubject, PairingReason, RefusedReason as Why, RotateTokenRequest, Surface,
    request_pairing_response::Outcome as Asked,
};
use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey as _};

use super::{
    clients::{assertion_of, connected, operator_client, pending, why},
    devices::{keep_recovery_code, recover},
    pairing::{approve, ask},
    *,
};

#[tokio::test]
async fn a_client_of_the_original_waits_connects_gets_a_token_and_comes_back_with_it() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let all = [
        "operator.admin",
        "operator.read",
        "operator.write",
        "operator.talk.secrets",
    ];
    let mut client = operator_client(1, true, &all);
    let first = pending(identity.prove(&client).await);
    assert_eq!(first.reason(), PairingReason::NotPaired);
    let key = *client.key.verifying_key().as_bytes();
    let nonce = first.phrase_nonce.as_slice().try_into().unwrap();
    let root = identity.authority.root_fingerprint();
    assert_eq!(
        first.phrase,
        creel_wire::phrase::phrase(&key, &root, &nonce),
        "both sides see it"
    );

    let device = approve(&identity, &owner, &first.pairing_id).await.unwrap();
    assert!(device.legacy && !device.own_protocol);
    assert_eq!(
        device.scopes,
        ["operator.read", "operator.write"],
        "no admin for the original's protocol"
    );
    // It may still have the token of another stack: where none was given yet, that is none.
    client.token = "y".repeat(43);
    connected(identity.prove(&client).await);
    client.token.clear();
    let one = connected(identity.prove(&client).await);
    assert_eq!(one.scopes, ["operator.read", "operator.write"]);
    assert_eq!(
        one.upgrade, None,
        "what it can never hold it does not ask for again and again"
    );
    assert_eq!(one.new_token.len(), 43);
    client.token = one.new_token;
    let two = connected(identity.prove(&client).await);
    assert_eq!(two.new_token, "", "the token stays good");
    assert_eq!(two.device.unwrap().epoch, 1, "no new grant");
    let claims = assertion_of(&two.assertion.unwrap().assertion);
    assert_eq!(
        (claims.binding.as_str(), claims.scopes.len()),
        (format!("c-{}", client.id()).as_str(), 2)
    );

    // The store knows no token.
    let raw = identity
        .deps
        .store
        .scan_all(crate::store::Kind::Device.range(), 10)
        .await
        .unwrap();
    let holds = |text: &str| {
        raw.entries
            .iter()
            .any(|entry| entry.value.windows(text.len()).any(|w| w == text.as_bytes()))
    };
    assert!(!holds(&client.token) && holds(client.id().as_str()));

    // Another token is refused, whoever made it; without one the signature is enough.
    let good = std::mem::replace(&mut client.token, "x".repeat(43));
    assert_eq!(why(identity.prove(&client).await), Why::TokenMismatch);
    client.token.clear();
    assert_eq!(connected(identity.prove(&client).await).new_token.len(), 43);
    client.token = good;
    assert_eq!(why(identity.prove(&client).await), Why::TokenMismatch, "replaced");
}

#[tokio::test]
async fn a_connection_is_refreshed_until_its_device_is_revoked_or_changed() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let client = operator_client(1, true, &["operator.read"]);
    let asked = pending(identity.prove(&client).await);
    let device = approve(&identity, &owner, &asked.pairing_id).await.unwrap();
    let first = connected(identity.prove(&client).await)
        .assertion
        .unwrap()
        .assertion;
    let connection_id = format!("c-{}", client.id());
    let refresh = |assertion: &[u8], connection_id: &str| {
        Subject::Connection(ConnectionSubject {
            assertion: assertion.to_vec(),
            connection_id: connection_id.to_owned(),
        })
    };
    identity.deps.clock.advance(4 * 60_000);
    let again = identity
        .mint_bytes(ServiceName::Gateway, refresh(&first, &connection_id))
        .await
        .unwrap();
    let claims = assertion_of(&again);
    assert_eq!(claims.scopes, ["operator.read"]);
    assert_eq!(claims.issued_at_unix_ms, identity.deps.clock.now_ms());
    let mint =
        |bytes: &[u8], connection: &str| identity.mint(ServiceName::Gateway, refresh(bytes, connection));
    assert_eq!(mint(&again, "another").await.unwrap_err(), "foreign_connection");
    assert_eq!(
        identity
            .mint(ServiceName::AgentRunner, refresh(&again, &connection_id))
            .await
            .unwrap_err(),
        "assertion_foreign_presenter"
    );
    identity.deps.clock.advance(2 * 60_000);
    assert_eq!(
        mint(&first, &connection_id).await.unwrap_err(),
        "assertion_expired"
    );
    assert!(mint(&again, &connection_id).await.is_ok());
    identity.revoke(&device.name).await.unwrap();
    assert_eq!(mint(&again, &connection_id).await.unwrap_err(), "device_revoked");
    assert_eq!(why(identity.prove(&client).await), Why::DeviceRevoked);
    // A revoked device does not even wait.
    assert!(identity.pairings.list(identity.deps.clock.now_ms()).is_empty());
}

#[tokio::test]
async fn a_key_that_used_the_own_protocol_is_refused_by_the_originals() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let legacy = operator_client(1, true, &["operator.read"]);
    let asked = pending(identity.prove(&legacy).await);
    approve(&identity, &owner, &asked.pairing_id).await.unwrap();
    connected(identity.prove(&legacy).await);
    let own = operator_client(1, false, &["operator.read"]);
    let by_own = connected(identity.prove(&own).await);
    assert!(by_own.device.unwrap().own_protocol);
    assert_eq!(by_own.new_token, "", "its key alone is its proof");
    assert_eq!(why(identity.prove(&legacy).await), Why::LegacyRefused);
    connected(identity.prove(&own).await);
    // One role, never two.
    let mut node = operator_client(1, false, &[]);
    node.declared.role = Role::Node.into();
    assert_eq!(why(identity.prove(&node).await), Why::RoleMismatch);
}

#[tokio::test]
async fn a_rotated_token_is_no_wider_and_the_old_one_and_its_connections_end() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let key = device_key();
    let mut client = operator_client(1, true, &["operator.read", "operator.write"]);
    client.key = SigningKey::from_pkcs8_der(&key.serialize_der()).unwrap();
    let asked = pending(identity.prove(&client).await);
    let device = approve(&identity, &owner, &asked.pairing_id).await.unwrap();
    let rotate = |caller: &Caller, scopes: &[&str]| {
        let request = RotateTokenRequest {
            device: device.name.clone(),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            ..Default::default()
        };
        let (devices, caller) = (identity.devices(), caller.clone());
        async move { reason(devices.rotate_token(as_caller(caller, request)).await) }
    };
    assert_eq!(rotate(&owner, &[]).await.unwrap_err(), "no_token");
    client.token = connected(identity.prove(&client).await).new_token;
    let reader = operator(&[Scope::Pairing, Scope::Read].into());
    assert_eq!(rotate(&reader, &[]).await.unwrap_err(), "scope_not_held");
    let narrow = rotate(&owner, &["operator.read", "operator.admin"])
        .await
        .unwrap();
    assert_eq!(
        narrow.scopes,
        ["operator.read"],
        "never more than the token was for"
    );
    assert_eq!(narrow.device.as_ref().unwrap().epoch, 2);
    assert_eq!(why(identity.prove(&client).await), Why::TokenMismatch);
    client.token = narrow.token;
    assert_eq!(connected(identity.prove(&client).await).scopes, ["operator.read"]);
    let again = rotate(&owner, &["operator.read", "operator.write"])
        .await
        .unwrap();
    assert_eq!(
        again.scopes,
        ["operator.read"],
        "what was given up does not come back"
    );
    // Nor by another way in: its key alone, and a certificate for it.
    let mut own = operator_client(1, false, &["operator.read", "operator.write"]);
    own.key = client.key;
    assert_eq!(connected(identity.prove(&own).await).scopes, ["operator.read"]);
    own.token = again.token;
    assert_eq!(connected(identity.prove(&own).await).scopes, ["operator.read"]);
    let Asked::Approved(got) = ask(&identity, &key, "192.0.2.1", &[]).await.unwrap() else {
        panic!("approved")
    };
    let subject = Subject::Device(DeviceSubject {
        certificate_der: leaf(&got),
        connection_id: "c".into(),
    });
    let minted = identity.mint(ServiceName::Gateway, subject).await.unwrap();
    assert_eq!(minted.scopes, ["operator.read"]);
    // Recovery gives all, whatever it had given up.
    keep_recovery_code(&identity);
    recover(&identity, &key, "abcde-12345").await.unwrap();
    assert_eq!(
        connected(identity.prove(&own).await).scopes,
        ["operator.read", "operator.write"]
    );
}

#[tokio::test]
async fn a_client_of_the_original_that_wants_more_hears_which_request_waits() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let mut client = operator_client(1, true, &["operator.read"]);
    let asked = pending(identity.prove(&client).await);
    approve(&identity, &owner, &asked.pairing_id).await.unwrap();
    connected(identity.prove(&client).await);
    // What its command line asks for to add a job: there that is everything.
    client.declared.scopes = vec!["operator.admin".to_owned()];
    let more = pending(identity.prove(&client).await);
    assert_eq!(more.reason(), PairingReason::ScopeUpgrade);
    let device = approve(&identity, &owner, &more.pairing_id).await.unwrap();
    assert_eq!(device.scopes, ["operator.read", "operator.write"], "no admin");
    let on = connected(identity.prove(&client).await);
    assert_eq!((on.scopes, on.upgrade), (device.scopes, None));
    // What it holds already it needs no approval for, nor for what its program can show.
    client.declared.scopes = vec!["operator.read".to_owned()];
    client.declared.surface = Some(Surface {
        caps: vec!["tool-events".to_owned()],
        ..Surface::default()
    });
    let on = connected(identity.prove(&client).await);
    assert_eq!((on.scopes, on.upgrade), (vec!["operator.read".to_owned()], None));
}
