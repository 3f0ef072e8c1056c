//! Proofs of possession, judged: keys are canonical and not of small order, verification is strict. Pure.
//!
//! What Creel's own protocol signs is in [`creel_wire::proof`], what the original's does is here.

use creel_wire::proof::Signed;
use ed25519_dalek::{Signature, VerifyingKey};

/// How far the original's `signedAt` may be off, either way, in milliseconds.
pub(crate) const MAX_SKEW_MS: i64 = 2 * 60 * 1_000;

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
    (is_canonical(raw) && !key.is_weak()).then_some(key)
}

/// Whether y is less than p = 2^255 - 19 (RFC 8032 §5.1.3). The library takes more, and gives the bytes back as they
/// came, so one point would be two devices. An x of 0 with a sign is not looked for: those points are weak.
fn is_canonical(point: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = point;
    high & 0x7f != 0x7f || *low < 0xed || middle.iter().any(|byte| *byte != 0xff)
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
pub(crate) mod tests {
    use creel_wire::{DeviceId, proof::own_payload};
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;

    /// The points of order 1, 2, 4, 4, 8, 8, 8 and 8.
    pub(crate) const SMALL_ORDER: [[u8; 32]; 8] = {
        const EIGHT: [u8; 32] = [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ];
        const MINUS_EIGHT: [u8; 32] = [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ];
        let (mut one, mut minus_one) = ([0; 32], [0xff; 32]);
        one[0] = 1;
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        [
            one,
            minus_one,
            [0; 32],
            flipped([0; 32]),
            EIGHT,
            flipped(EIGHT),
            MINUS_EIGHT,
            flipped(MINUS_EIGHT),
        ]
    };

    /// With the other sign of x.
    const fn flipped(mut point: [u8; 32]) -> [u8; 32] {
        point[31] |= 0x80;
        point
    }

    /// Each y from p to 2^255 - 1, with either sign; and the two points with x = 0, with the sign that 0 has not.
    pub(crate) fn not_canonical() -> impl Iterator<Item = [u8; 32]> {
        let high = (0xed..=0xff).map(|low: u8| {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (low, 0x7f);
            point
        });
        let either = high.flat_map(|point| [point, flipped(point)]);
        either.chain([flipped(SMALL_ORDER[0]), flipped(SMALL_ORDER[1])])
    }

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
        for weak in SMALL_ORDER {
            let point = VerifyingKey::from_bytes(&weak).expect("a point");
            assert!(point.is_weak() && is_canonical(&weak), "{weak:02x?}");
            assert_eq!(device_key(&weak), None, "{weak:02x?}");
        }
        // Some are points, written another way.
        let alias = |point: &[u8; 32]| VerifyingKey::from_bytes(point).is_ok();
        assert!(not_canonical().filter(alias).count() > 2);
        for bad in not_canonical() {
            assert_eq!(device_key(&bad), None, "{bad:02x?}");
        }
        let long = [good.as_bytes(), &[0][..]].concat();
        for bad in [&good.as_bytes()[..31], &long, &[]] {
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
