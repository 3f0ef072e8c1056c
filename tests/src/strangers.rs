//! Those who are not in yet, as a stranger would write them: no certificate, a key, a wish.

use creel_kit::cert::request_for;
use creel_proto::identity::v1::{Declaration, RedeemInviteRequest, RequestPairingRequest};
use creel_wire::Error;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use sha2::{Digest as _, Sha256};
use tonic::{Status, transport::Channel};

use crate::{Cluster, edge};

/// A channel to the edge without a certificate.
#[must_use]
pub fn stranger(cluster: &Cluster) -> Channel {
    edge::anonymous_channel(&cluster.edge().address, &cluster.profile.root_cert_file())
}

/// The stable reason of a refusal.
#[must_use]
pub fn reason(status: &Status) -> String {
    Error::of_status(status).reason.into_owned()
}

#[must_use]
pub fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

/// The same over one connection, with what a wish sent on it is signed for.
pub async fn bound(cluster: &Cluster) -> (Channel, [u8; 32]) {
    let channel = edge::bound_channel(&cluster.edge().address, &cluster.profile.root_cert_file()).await;
    channel.expect("the edge")
}

/// What such a device asks for, over a connection with this exporter.
#[must_use]
pub fn asks(key: &KeyPair, exporter: &[u8; 32]) -> RequestPairingRequest {
    let scopes = ["operator.read", "operator.pairing"];
    RequestPairingRequest {
        csr_der: request_for(key).expect("a key"),
        declared: Some(Declaration {
            display_name: "tablet".into(),
            scopes: scopes.map(str::to_owned).to_vec(),
            ..Default::default()
        }),
        signature: signed(key, exporter, &scopes, ""),
    }
}

/// Such a device with an invite, over a connection with this exporter.
#[must_use]
pub fn redeems(key: &KeyPair, secret: &str, exporter: &[u8; 32]) -> RedeemInviteRequest {
    RedeemInviteRequest {
        secret: secret.to_owned(),
        csr_der: request_for(key).expect("a key"),
        declared: None,
        signature: signed(key, exporter, &[], secret),
    }
}

fn signed(key: &KeyPair, exporter: &[u8; 32], scopes: &[&str], secret: &str) -> Vec<u8> {
    let device: String = Sha256::digest(key.public_key_raw())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let payload = own_payload(exporter, [&device, "unspecified", &scopes.join(","), "", secret]);
    key.sign(&payload).expect("an Ed25519 key")
}

/// What Creel's own protocol signs, as identity.proto says at `OwnProof`: device id, role, scopes, nonce, and token or
/// invite, over a connection with this exporter.
#[must_use]
pub fn own_payload(exporter: &[u8; 32], [device, role, scopes, nonce, secret]: [&str; 5]) -> Vec<u8> {
    let hash = if secret.is_empty() {
        Vec::new()
    } else {
        Sha256::digest(secret).to_vec()
    };
    let said = [device, role, scopes, nonce].map(str::as_bytes);
    let parts = [&[b"creel-v1", &exporter[..]], &said[..], &[&hash[..]]].concat();
    let with_length = |part: &[u8]| {
        let length = u32::try_from(part.len()).expect("short").to_be_bytes();
        [&length, part].concat()
    };
    parts.into_iter().flat_map(with_length).collect()
}
