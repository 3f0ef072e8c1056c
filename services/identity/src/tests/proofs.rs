//! Connections without a certificate: challenge and proof, by both protocols, as the gateway's door asks.

use creel_proto::identity::v1::{
    ChallengeRequest, Connected, ConnectionSubject, Declaration, LegacyProof, OwnProof, PairingReason,
    PairingRequired, ProveRequest, ProveResponse, RefusedReason as Why, RotateTokenRequest, Surface,
    prove_request::Protocol, prove_response::Outcome,
};
use ed25519_dalek::{Signer as _, SigningKey};

use super::{pairing::approve, *};
use crate::proof::{Legacy, Signed, legacy_payloads, own_payload};

/// A client at the door, with its key.
pub(super) struct Client {
    pub(super) key: SigningKey,
    pub(super) declared: Declaration,
    pub(super) legacy: bool,
    pub(super) token: String,
    pub(super) invite: String,
    pub(super) address: &'static str,
}

const EXPORTER: [u8; 32] = [5; 32];

pub(super) fn operator_client(seed: u8, legacy: bool, scopes: &[&str]) -> Client {
    Client {
        key: SigningKey::from_bytes(&[seed; 32]),
        declared: Declaration {
            display_name: format!("client {seed}"),
            role: Role::Operator.into(),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            client_id: "cli".into(),
            client_mode: "cli".into(),
            platform: "linux".into(),
            ..Declaration::default()
        },
        legacy,
        token: String::new(),
        invite: String::new(),
        address: "192.0.2.1",
    }
}

pub(super) fn node_client(seed: u8, commands: &[&str]) -> Client {
    let mut client = operator_client(seed, true, &[]);
    client.declared.role = Role::Node.into();
    client.declared.surface = Some(Surface {
        commands: commands.iter().map(|c| (*c).to_owned()).collect(),
        ..Surface::default()
    });
    client
}

impl Client {
    pub(super) fn id(&self) -> DeviceId {
        DeviceId::of_public_key(self.key.verifying_key().as_bytes())
    }

    /// What it sends for a nonce, signed as its protocol does.
    pub(super) fn proof(&self, connection: &str, nonce: &str, now: i64) -> ProveRequest {
        self.proof_over(&EXPORTER, connection, nonce, now)
    }

    /// The same, over a connection with this TLS exporter.
    pub(super) fn proof_over(
        &self,
        exporter: &[u8; 32],
        connection: &str,
        nonce: &str,
        now: i64,
    ) -> ProveRequest {
        let id = self.id();
        let role = crate::declared::role_word(self.declared.role());
        let secret = if self.token.is_empty() {
            &self.invite
        } else {
            &self.token
        };
        let signed = Signed {
            device: &id,
            role,
            scopes: &self.declared.scopes,
            nonce,
            secret,
        };
        let (payload, protocol) = if self.legacy {
            let more = Legacy {
                client_id: &self.declared.client_id,
                client_mode: &self.declared.client_mode,
                platform: &self.declared.platform,
                device_family: "",
                signed_at_ms: now,
            };
            let [three, _] = legacy_payloads(signed, more).unwrap();
            let signed_at_unix_ms = now;
            (
                three.into_bytes(),
                Protocol::Legacy(LegacyProof { signed_at_unix_ms }),
            )
        } else {
            let tls_exporter = exporter.to_vec();
            (
                own_payload(signed, exporter),
                Protocol::Own(OwnProof { tls_exporter }),
            )
        };
        ProveRequest {
            connection_id: connection.into(),
            remote_address: self.address.into(),
            public_key: self.key.verifying_key().as_bytes().to_vec(),
            signature: self.key.sign(&payload).to_bytes().to_vec(),
            device_id: id.to_string(),
            nonce: nonce.into(),
            declared: Some(self.declared.clone()),
            protocol: Some(protocol),
            token: self.token.clone(),
            invite: self.invite.clone(),
        }
    }
}

fn gateway() -> Caller {
    service_caller(ServiceName::Gateway)
}

impl Identity {
    pub(super) async fn challenge(&self, connection: &str) -> String {
        let request = ChallengeRequest {
            connection_id: connection.into(),
            remote_address: "192.0.2.1".into(),
            further_connection_ids: vec![],
        };
        let answer = self.devices().challenge(as_caller(gateway(), request)).await;
        reason(answer).unwrap().nonce
    }

    pub(super) async fn send(&self, request: ProveRequest) -> Outcome {
        let answer: ProveResponse =
            reason(self.devices().prove(as_caller(gateway(), request)).await).unwrap();
        answer.outcome.unwrap()
    }

    pub(super) async fn prove(&self, client: &Client) -> Outcome {
        let connection = format!("c-{}", client.id());
        let nonce = self.challenge(&connection).await;
        self.send(client.proof(&connection, &nonce, self.deps.clock.now_ms()))
            .await
    }

    pub(super) async fn refused(&self, request: ProveRequest) -> Why {
        match self.send(request).await {
            Outcome::Refused(refused) => refused.reason(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[track_caller]
pub(super) fn pending(outcome: Outcome) -> PairingRequired {
    match outcome {
        Outcome::PairingRequired(pending) => pending,
        other => panic!("not pending: {other:?}"),
    }
}

#[track_caller]
pub(super) fn connected(outcome: Outcome) -> Connected {
    match outcome {
        Outcome::Connected(connected) => connected,
        other => panic!("not connected: {other:?}"),
    }
}

#[track_caller]
pub(super) fn why(outcome: Outcome) -> Why {
    match outcome {
        Outcome::Refused(refused) => refused.reason(),
        other => panic!("not refused: {other:?}"),
    }
}

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

pub(super) fn assertion_of(bytes: &[u8]) -> AssertionClaims {
    let signed = SignedAssertion::decode(bytes).unwrap();
    AssertionClaims::decode(signed.payload.as_slice()).unwrap()
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
    let mut client = operator_client(1, true, &["operator.read", "operator.write"]);
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
}
