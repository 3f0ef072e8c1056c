//! Six words by which two people see that they speak of the same device and the same stack. Both sides
//! work them out for themselves: nobody in between can show each what it wants to see.
//!
//! The words are the 2,048 of BIP-39, English (crate `bip39`), 11 bits each: known to many, four letters
//! tell any two apart. 66 bits of SHA-256 over "creel-phrase-v1\0", the device's key, the root's
//! fingerprint and the request's nonce; the stack chooses the nonce after it has seen the key.

use sha2::{Digest as _, Sha256};

/// Words of a phrase.
pub const WORDS: usize = 6;

/// The phrase. `device_key`: raw Ed25519; `root_fingerprint`: SHA-256 of the root certificate in DER.
#[must_use]
pub fn phrase(device_key: &[u8; 32], root_fingerprint: &[u8; 32], nonce: &[u8; 16]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"creel-phrase-v1\0");
    hasher.update(device_key);
    hasher.update(root_fingerprint);
    hasher.update(nonce);
    let digest = hasher.finalize();
    let list = bip39::Language::English.word_list();
    let words: Vec<&str> = (0..WORDS)
        .map(|word| list[eleven_bits(&digest, word * 11)])
        .collect();
    words.join(" ")
}

/// As it is compared: lower case, one blank between words.
#[must_use]
pub fn normalise(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| c.is_whitespace() || c == '-')
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join(" ")
}

/// The number of the 11 bits from bit `at` on, most significant first.
fn eleven_bits(bytes: &[u8], at: usize) -> usize {
    (at..at + 11).fold(0, |number, bit| {
        let byte = bytes.get(bit / 8).copied().unwrap_or(0);
        number << 1 | usize::from(byte >> (7 - bit % 8) & 1)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_whole_and_its_words_are_told_apart() {
        let list = bip39::Language::English.word_list();
        let starts: BTreeSet<&str> = list.iter().map(|word| &word[..word.len().min(4)]).collect();
        assert_eq!((list.len(), starts.len()), (2_048, 2_048));
        assert!(
            list.iter()
                .all(|word| word.bytes().all(|b| b.is_ascii_lowercase()))
        );
        assert_eq!(eleven_bits(&[0xff, 0xe0], 0), 2_047);
        assert_eq!(eleven_bits(&[0x00, 0x1f, 0xfc], 11), 2_047);
    }

    #[test]
    fn each_part_changes_the_phrase_and_nothing_else_does() {
        let one = phrase(&[1; 32], &[2; 32], &[3; 16]);
        assert_eq!(one.split(' ').count(), WORDS);
        assert_eq!(one, phrase(&[1; 32], &[2; 32], &[3; 16]));
        for other in [
            phrase(&[9; 32], &[2; 32], &[3; 16]),
            phrase(&[1; 32], &[9; 32], &[3; 16]),
            phrase(&[1; 32], &[2; 32], &[9; 16]),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(
            normalise(&format!("  {} ", one.to_uppercase().replace(' ', "-"))),
            one
        );
    }
}
