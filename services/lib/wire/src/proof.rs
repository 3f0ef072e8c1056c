//! What a device signs in Creel's own protocol: that it holds its key, on this TLS connection, for this wish. Pure.
//!
//! The connection's exporter is a part of it, so what another server relays is a proof of another connection. Each end
//! takes the exporter from its own TLS; it is not a secret, and nobody is asked for it.

use rustls::ConnectionCommon;
use sha2::{Digest as _, Sha256};

use crate::DeviceId;

/// The metadata key by which the gateway tells identity the exporter of the connection that a call came on. Believed
/// from the gateway only; what comes in from outside under this name is stripped.
pub const METADATA: &str = "creel-exporter-bin";

/// The channel binding of a TLS 1.3 connection (RFC 9266).
///
/// # Errors
/// While the handshake is not over.
pub fn exporter<Side>(tls: &ConnectionCommon<Side>) -> Result<[u8; 32], rustls::Error> {
    tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None)
}

/// What is bound besides the connection.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// Whose key it is.
    pub device: &'a DeviceId,
    /// As declared.
    pub role: &'a str,
    /// In the order sent.
    pub scopes: &'a [String],
    /// That of the challenge; empty where the connection alone makes it fresh.
    pub nonce: &'a str,
    /// The token, or the invite's secret; empty without one.
    pub secret: &'a str,
}

/// The bytes to sign, each part preceded by its length.
#[must_use]
pub fn own_payload(signed: Signed<'_>, exporter: &[u8; 32]) -> Vec<u8> {
    let scopes = signed.scopes.join(",");
    let secret_hash = if signed.secret.is_empty() {
        vec![]
    } else {
        Sha256::digest(signed.secret).to_vec()
    };
    let parts: [&[u8]; 7] = [
        b"creel-v1",
        exporter,
        signed.device.as_str().as_bytes(),
        signed.role.as_bytes(),
        scopes.as_bytes(),
        signed.nonce.as_bytes(),
        &secret_hash,
    ];
    let mut payload = Vec::new();
    for part in parts {
        // Every part was bounded long before; one that were not would only make a payload nobody signed.
        payload.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        payload.extend_from_slice(part);
    }
    payload
}
