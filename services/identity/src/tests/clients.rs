//! Clients at the door, as tests need them: a key, a declaration, and what they sign.

use creel_proto::identity::v1::{
    ChallengeRequest, Connected, Declaration, LegacyProof, OwnProof, PairingRequired, ProveRequest,
    ProveResponse, RefusedReason as Why, Surface, prove_request::Protocol, prove_response::Outcome,
};
use creel_wire::proof::{METADATA, Signed, own_payload};
use ed25519_dalek::{Signer as _, SigningKey};
use rcgen::SigningKey as _;
use tonic::metadata::MetadataValue;

use super::*;
use crate::proof::{Legacy, legacy_payloads};

/// A client at the door, with its key.
pub(super) struct Client {
    pub(super) key: SigningKey,
    pub(super) declared: Declaration,
    pub(super) legacy: bool,
    pub(super) token: String,
    pub(super) invite: String,
    pub(super) address: &'static str,
}

pub(super) const EXPORTER: [u8; 32] = [5; 32];

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

/// A wish by gRPC, signed for a connection.
pub(super) fn signed(key: &KeyPair, declared: &Declaration, secret: &str) -> Vec<u8> {
    let signed = Signed {
        device: &DeviceId::of_public_key(key.public_key_raw().try_into().unwrap()),
        role: crate::declared::role_word(declared.role()),
        scopes: &declared.scopes,
        nonce: "",
        secret,
    };
    key.sign(&own_payload(signed, &EXPORTER)).unwrap()
}

/// As the gateway passes it on that came by that connection.
pub(super) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = as_caller(gateway(), message);
    let exporter = MetadataValue::from_bytes(&EXPORTER);
    request.metadata_mut().insert_bin(METADATA, exporter);
    request
}

pub(super) fn gateway() -> Caller {
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

pub(super) fn assertion_of(bytes: &[u8]) -> AssertionClaims {
    let signed = SignedAssertion::decode(bytes).unwrap();
    AssertionClaims::decode(signed.payload.as_slice()).unwrap()
}
