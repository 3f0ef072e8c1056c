//! The recovery code of the first start: compared by hash in constant time, guesses bounded.

use creel_proto::identity::v1::RecoveryRecord;
use creel_wire::names::sha256_hex;
use subtle::ConstantTimeEq as _;

use crate::{guard::Guards, guesses};

/// What becomes of a guess.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// It is the code.
    Right,
    /// It isn't; the record to keep.
    Wrong(RecoveryRecord),
    /// Not looked at; wait so many milliseconds.
    Paused(i64),
}

/// Judges a code against the stored hash (hex). `now_ms` never runs backwards.
pub(crate) fn judge(stored_hash: &str, code: &str, record: &RecoveryRecord, now_ms: i64) -> Guess {
    if let Err(wait_ms) = guesses::admit(record, now_ms, Guards::all()) {
        return Guess::Paused(wait_ms);
    }
    if bool::from(hash(code).as_bytes().ct_eq(stored_hash.trim().as_bytes())) {
        return Guess::Right;
    }
    Guess::Wrong(guesses::failed(record, now_ms))
}

/// What is kept of a code: SHA-256 (hex) of its letters and digits in upper case, so that it passes in any
/// spelling.
#[must_use]
pub fn hash(code: &str) -> String {
    let plain: String = code
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect();
    sha256_hex(plain.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guesses::{MAX_FAILURES, PAUSE_MS};

    #[test]
    fn guesses_are_bounded_to_the_millisecond_and_the_right_code_passes_in_any_spelling() {
        let hash = sha256_hex(b"ABCDE12345");
        let mut record = RecoveryRecord::default();
        let mut now = 1_000_000_000;
        for n in 1..=MAX_FAILURES {
            assert_eq!(judge(&hash, " abcde-12345 ", &record, now), Guess::Right);
            let Guess::Wrong(next) = judge(&hash, "nope", &record, now) else {
                panic!("guess {n}")
            };
            assert_eq!(next.failures, n);
            record = next;
        }
        now += PAUSE_MS - 1;
        assert_eq!(judge(&hash, "ABCDE12345", &record, now), Guess::Paused(1));
        now += 1;
        assert_eq!(judge(&hash, "ABCDE12345", &record, now), Guess::Right);
        let Guess::Wrong(next) = judge(&hash, "nope", &record, now) else {
            panic!("a guess")
        };
        assert_eq!(next.failures, 1);
    }
}
