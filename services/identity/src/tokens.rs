//! Device tokens and invites: 32 random bytes as text, kept as SHA-256, compared in constant time. Pure:
//! randomness comes in.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use creel_wire::Secret;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The text of a secret.
pub(crate) fn text(random: &[u8; 32]) -> Secret<String> {
    Secret::new(URL_SAFE_NO_PAD.encode(random))
}

/// What is kept of it.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Whether the text is the one whose hash was kept. Nothing fits where none was kept.
pub(crate) fn fits(kept: &[u8], text: &str) -> bool {
    kept.len() == 32 && bool::from(hash(text).as_slice().ct_eq(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_fits_its_hash_alone() {
        let secret = text(&[7; 32]);
        assert_eq!(secret.expose().len(), 43);
        assert!(fits(&hash(secret.expose()), secret.expose()));
        assert!(!fits(&hash(secret.expose()), "x"));
        assert!(!fits(&[], "") && !fits(&[], secret.expose()));
    }
}
