//! Connections without a certificate: challenge and proof, by both protocols, as the gateway's door asks.

use creel_proto::identity::v1::{ChallengeRequest, OwnProof, RefusedReason as Why, prove_request::Protocol};

use super::{
    clients::{gateway, operator_client, pending},
    *,
};

#[tokio::test]
async fn each_thing_wrong_with_a_proof_has_its_own_reason_and_stores_nothing() {
    let identity = Identity::new().await;
    for legacy in [false, true] {
        let client = operator_client(1, legacy, &["operator.read"]);
        let now = identity.deps.clock.now_ms();
        let connection = "c";
        macro_rules! why_when {
            (|$request:ident| $change:expr) => {{
                let nonce = identity.challenge(connection).await;
                let mut $request = client.proof(connection, &nonce, now);
                $change;
                identity.refused($request).await
            }};
        }
        assert_eq!(why_when!(|r| r.nonce.clear()), Why::NonceMissing);
        assert_eq!(why_when!(|r| r.nonce = "other".into()), Why::NonceMismatch);
        assert_eq!(
            why_when!(|r| r.connection_id = "other".into()),
            Why::NonceMismatch
        );
        assert_eq!(why_when!(|r| r.public_key.truncate(31)), Why::PublicKeyInvalid);
        assert_eq!(
            why_when!(|r| r.public_key = [&[1_u8][..], &[0; 31]].concat()),
            Why::PublicKeyInvalid
        );
        assert_eq!(
            why_when!(|r| r.device_id = "ab".repeat(32)),
            Why::DeviceIdMismatch
        );
        assert_eq!(why_when!(|r| r.signature[3] ^= 1), Why::SignatureInvalid);
        assert_eq!(why_when!(|r| r.signature.clear()), Why::SignatureInvalid);
        assert_eq!(
            why_when!(|r| r.token = "t".into()),
            Why::SignatureInvalid,
            "the token is signed"
        );
        assert_eq!(why_when!(|r| r.declared = None), Why::DeclarationInvalid);
        assert_eq!(
            why_when!(|r| r.declared.as_mut().unwrap().scopes.push("operator.write".into())),
            Why::SignatureInvalid,
            "the scopes are signed"
        );
        assert_eq!(
            why_when!(|r| r.declared.as_mut().unwrap().platform = "x".repeat(65)),
            Why::DeclarationInvalid
        );
        assert_eq!(
            why_when!(|r| r.declared.as_mut().unwrap().role = Role::Node.into()),
            Why::SignatureInvalid
        );
        // Out of the window in which bad proofs of one device are counted.
        identity.deps.clock.advance(60_000);
    }
    let own = operator_client(1, false, &["operator.read"]);
    let nonce = identity.challenge("c").await;
    let mut relayed = own.proof("c", &nonce, 0);
    relayed.protocol = Some(Protocol::Own(OwnProof {
        tls_exporter: vec![6; 32],
    }));
    assert_eq!(
        identity.refused(relayed).await,
        Why::SignatureInvalid,
        "relayed from another server"
    );
    let nonce = identity.challenge("c").await;
    let mut short = own.proof("c", &nonce, 0);
    short.protocol = Some(Protocol::Own(OwnProof { tls_exporter: vec![] }));
    assert_eq!(identity.refused(short).await, Why::ChannelBindingMissing);
    let legacy = operator_client(2, true, &[]);
    let now = identity.deps.clock.now_ms();
    for at in [now - 120_001, now + 120_001] {
        let nonce = identity.challenge("c").await;
        assert_eq!(
            identity.refused(legacy.proof("c", &nonce, at)).await,
            Why::SignatureExpired
        );
    }
    assert!(identity.pairings.list(now).is_empty() && identity.registry.list().is_empty());
}

#[tokio::test]
async fn a_nonce_works_once_and_ends_after_thirty_seconds() {
    let identity = Identity::new().await;
    let client = operator_client(1, false, &["operator.read"]);
    let nonce = identity.challenge("c").await;
    let request = client.proof("c", &nonce, 0);
    identity.deps.clock.advance(29_999);
    pending(identity.send(request.clone()).await);
    assert_eq!(identity.refused(request).await, Why::NonceMismatch, "replayed");
    let nonce = identity.challenge("c").await;
    let request = client.proof("c", &nonce, 0);
    identity.deps.clock.advance(30_000);
    assert_eq!(identity.refused(request).await, Why::NonceMismatch);
}

#[tokio::test]
async fn further_connections_get_nonces_of_their_own_so_many_at_once() {
    let identity = Identity::new().await;
    let client = operator_client(1, false, &["operator.read"]);
    let devices = identity.devices();
    let ask = |many: usize| {
        let further = (0..many).map(|n| format!("f{n}")).collect();
        let request = ChallengeRequest {
            connection_id: "c".into(),
            remote_address: String::new(),
            further_connection_ids: further,
        };
        devices.challenge(as_caller(gateway(), request))
    };
    let answer = reason(ask(15).await).unwrap();
    assert_eq!(answer.further_nonces.len(), 15);
    let (first, second) = (&answer.further_nonces[0], &answer.further_nonces[1]);
    assert_eq!(
        identity.refused(client.proof("f0", second, 0)).await,
        Why::NonceMismatch
    );
    assert_eq!(
        identity.refused(client.proof("f0", first, 0)).await,
        Why::NonceMismatch,
        "used up by the other's"
    );
    pending(identity.send(client.proof("f1", second, 0)).await);
    assert_eq!(reason(ask(16).await).unwrap_err(), "invalid_argument", "n + 1");
}

#[tokio::test]
async fn others_failures_lock_nobody_out() {
    let identity = Identity::new().await;
    let client = operator_client(1, false, &["operator.read"]);
    let mut last = Why::Unspecified;
    for n in 1..=12 {
        let nonce = identity.challenge("c").await;
        let mut request = client.proof("c", &nonce, 0);
        request.signature[0] ^= 1;
        last = identity.refused(request).await;
        let expected = if n < 10 {
            Why::SignatureInvalid
        } else {
            Why::TooManyFailures
        };
        assert_eq!(last, expected, "{n}");
    }
    assert_eq!(last, Why::TooManyFailures);
    pending(identity.prove(&client).await);
}
