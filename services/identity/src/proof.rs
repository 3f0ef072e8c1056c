//! Proofs of possession: what a device signs, in Creel's own protocol and in the original's. Pure.
//!
//! The own payload holds the TLS exporter, so a proof that another server relays is a proof of another
//! connection. Keys are canonical and not of small order; verification is strict.

use creel_wire::DeviceId;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// How far the original's `signedAt` may be off, either way, in milliseconds.
pub(crate) const MAX_SKEW_MS: i64 = 2 * 60 * 1_000;

/// What both payloads bind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) device: &'a DeviceId,
    pub(crate) role: &'a str,
    /// In the order sent.
    pub(crate) scopes: &'a [String],
    pub(crate) nonce: &'a str,
    /// The token, or the invite's secret; empty without one.
    pub(crate) secret: &'a str,
}

/// What the original's payloads bind besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Legacy<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) client_mode: &'a str,
    pub(crate) platform: &'a str,
    pub(crate) device_family: &'a str,
    pub(crate) signed_at_ms: i64,
}

/// A device's key: 32 bytes, canonical, not of small order.
pub(crate) fn device_key(raw: &[u8]) -> Option<VerifyingKey> {
    let raw: &[u8; 32] = raw.try_into().ok()?;
    let key = VerifyingKey::from_bytes(raw).ok()?;
    (!key.is_weak() && key.to_bytes() == *raw).then_some(key)
}

/// What Creel's own protocol signs.
pub(crate) fn own_payload(signed: Signed<'_>, exporter: &[u8; 32]) -> Vec<u8> {
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

/// What the published package signs, newest version first; `None` when a part could be read as two.
pub(crate) fn legacy_payloads(signed: Signed<'_>, legacy: Legacy<'_>) -> Option<[String; 2]> {
    let scopes = signed.scopes.join(",");
    let at = legacy.signed_at_ms.to_string();
    let two: [&str; 8] = [
        signed.device.as_str(),
        legacy.client_id,
        legacy.client_mode,
        signed.role,
        &scopes,
        &at,
        signed.secret,
        signed.nonce,
    ];
    let (platform, family) = (plain(legacy.platform), plain(legacy.device_family));
    let ambiguous = two
        .iter()
        .copied()
        .chain([platform.as_str(), &family])
        .any(|part| part.contains('|'))
        || signed.scopes.iter().any(|scope| scope.contains(','));
    if ambiguous {
        return None;
    }
    let two = two.join("|");
    Some([format!("v3|{two}|{platform}|{family}"), format!("v2|{two}")])
}

/// Whether the signature is the key's over the payload.
pub(crate) fn holds(key: &VerifyingKey, payload: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(payload, &signature).is_ok())
}

/// Whether `signedAt` is near enough.
pub(crate) const fn is_timely(signed_at_ms: i64, now_ms: i64) -> bool {
    now_ms.abs_diff(signed_at_ms) <= MAX_SKEW_MS.unsigned_abs()
}

/// As the original writes metadata into its payload.
fn plain(text: &str) -> String {
    text.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;

    fn signed<'a>(device: &'a DeviceId, scopes: &'a [String], nonce: &'a str, secret: &'a str) -> Signed<'a> {
        Signed {
            device,
            role: "operator",
            scopes,
            nonce,
            secret,
        }
    }

    #[test]
    fn the_originals_payloads_are_byte_for_byte_its_own() {
        let device = DeviceId::of_public_key(&[1; 32]);
        let scopes = ["operator.read".to_owned(), "operator.write".to_owned()];
        let legacy = Legacy {
            client_id: "cli",
            client_mode: "cli",
            platform: " Linux ",
            device_family: "",
            signed_at_ms: 7,
        };
        let [three, two] = legacy_payloads(signed(&device, &scopes, "N", ""), legacy).unwrap();
        assert_eq!(
            two,
            format!("v2|{device}|cli|cli|operator|operator.read,operator.write|7||N")
        );
        assert_eq!(
            three,
            format!("v3|{device}|cli|cli|operator|operator.read,operator.write|7||N|linux|")
        );
        assert!(legacy_payloads(signed(&device, &scopes, "N|x", ""), legacy).is_none());
        assert!(legacy_payloads(signed(&device, &["a,b".to_owned()], "N", ""), legacy).is_none());
    }

    #[test]
    fn a_timestamp_is_good_for_two_minutes_either_way() {
        for (at, good) in [(0, true), (MAX_SKEW_MS, true), (MAX_SKEW_MS + 1, false)] {
            assert_eq!(is_timely(1_000_000 - at, 1_000_000), good);
            assert_eq!(is_timely(1_000_000 + at, 1_000_000), good);
        }
        assert!(!is_timely(i64::MIN, i64::MAX));
    }

    #[test]
    fn weak_short_and_non_canonical_keys_are_none() {
        let good = SigningKey::from_bytes(&[3; 32]).verifying_key();
        assert_eq!(device_key(good.as_bytes()), Some(good));
        let neutral = [&[1_u8][..], &[0; 31]].concat();
        // y = p + 1, the neutral element written another way.
        let mut alias = [0xff_u8; 32];
        alias[0] = 0xee;
        alias[31] = 0x7f;
        for bad in [&neutral[..], &alias, &[0; 32], &good.as_bytes()[..31], &[]] {
            assert_eq!(device_key(bad), None, "{bad:?}");
        }
    }

    proptest! {
        /// A signature holds for one payload: change any part and it is another's.
        #[test]
        fn every_part_is_bound(
            nonce in "[a-z]{1,8}", other in "[a-z]{1,8}", scopes in prop::collection::vec("[a-z.]{1,6}", 0..3),
            secret in "[a-z]{0,4}", exporter in any::<[u8; 32]>(), flip in 0..32_usize,
        ) {
            let key = SigningKey::from_bytes(&[7; 32]);
            let public = key.verifying_key();
            let device = DeviceId::of_public_key(public.as_bytes());
            let base = signed(&device, &scopes, &nonce, &secret);
            let signature = key.sign(&own_payload(base, &exporter)).to_bytes();
            let good = |signed, exporter: &[u8; 32]| holds(&public, &own_payload(signed, exporter), &signature);
            prop_assert!(good(base, &exporter));
            let mut relayed = exporter;
            relayed[flip] ^= 1;
            prop_assert!(!good(base, &relayed), "another connection");
            prop_assert_eq!(good(Signed { nonce: &other, ..base }, &exporter), other == nonce);
            prop_assert!(!good(Signed { role: "node", ..base }, &exporter), "another role");
            let more: Vec<String> = scopes.iter().cloned().chain(["x".to_owned()]).collect();
            prop_assert!(!good(Signed { scopes: &more, ..base }, &exporter), "more scopes");
            let longer = format!("{secret}x");
            prop_assert!(!good(Signed { secret: &longer, ..base }, &exporter), "another token");
        }
    }
}
