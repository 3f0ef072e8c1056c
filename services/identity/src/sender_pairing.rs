//! Chat senders that wait to be let in, as a state machine: a code each, an hour, three per (channel,
//! account). Pure: who waits, time and randomness come in.
//!
//! Invariants: pending ≤ 3 (PAI-1); nothing is approved at age ≥ an hour (PAI-2), however often the sender
//! wrote (PAI-3); who gets in is who the code was made for (PAI-4).

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::guard::{Guard, Guards};

/// Senders that wait, per (channel, account).
pub(crate) const MAX_PENDING: usize = 3;
/// A code ends at this age, in milliseconds.
pub(crate) const LIFE_MS: i64 = 60 * 60 * 1_000;
/// When no place is free, the oldest over this age gives way, in milliseconds.
pub(crate) const GIVE_WAY_MS: i64 = 10 * 60 * 1_000;
/// Characters of a code.
pub(crate) const CODE_LENGTH: usize = 8;

/// No I, O, 0, 1.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// A sender waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pending {
    /// Whom the code lets in.
    pub(crate) platform_id: String,
    pub(crate) salt: [u8; 16],
    /// SHA-256 of salt and code.
    pub(crate) code_hash: [u8; 32],
    pub(crate) requested_at_ms: i64,
}

/// What becomes of an unknown sender's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It has a code already, which ends then.
    Waiting { until_ms: i64 },
    /// A code for it; these waited before and go.
    New { remove: Vec<String>, until_ms: i64 },
    /// No place; the first is free then.
    Full { retry_at_ms: i64 },
}

impl Pending {
    fn is_over(&self, now_ms: i64) -> bool {
        now_ms - self.requested_at_ms >= LIFE_MS
    }
}

/// An unknown sender wrote. `pending`: of its channel and account.
pub(crate) fn ask(pending: &[Pending], platform_id: &str, now_ms: i64, guards: Guards) -> Asked {
    let until = |one: &Pending| one.requested_at_ms + LIFE_MS;
    let live: Vec<&Pending> = pending.iter().filter(|one| !one.is_over(now_ms)).collect();
    if let Some(own) = live.iter().find(|one| one.platform_id == platform_id)
        && guards.on(Guard::NoExtend)
    {
        return Asked::Waiting { until_ms: until(own) };
    }
    let mut remove: Vec<String> = pending
        .iter()
        .filter(|one| one.is_over(now_ms))
        .map(|one| one.platform_id.clone())
        .collect();
    let others = live.iter().filter(|one| one.platform_id != platform_id);
    if others.clone().count() >= MAX_PENDING && guards.on(Guard::Cap) {
        let Some(oldest) = others.min_by_key(|one| (one.requested_at_ms, &one.platform_id)) else {
            return Asked::Full { retry_at_ms: now_ms };
        };
        if now_ms - oldest.requested_at_ms <= GIVE_WAY_MS {
            return Asked::Full {
                retry_at_ms: oldest.requested_at_ms + GIVE_WAY_MS + 1,
            };
        }
        remove.push(oldest.platform_id.clone());
    }
    Asked::New {
        remove,
        until_ms: now_ms + LIFE_MS,
    }
}

/// Whom a code lets in, of those who wait on a channel.
pub(crate) fn find<'a>(
    pending: &'a [Pending],
    code: &str,
    now_ms: i64,
    guards: Guards,
) -> Option<&'a Pending> {
    let code = normalise(code);
    // Every one is compared, so that the time taken says nothing about which.
    pending
        .iter()
        .filter(|one| !one.is_over(now_ms) || !guards.on(Guard::Ttl))
        .fold(None, |found, one| {
            let fits =
                bool::from(hash(&one.salt, &code).ct_eq(&one.code_hash)) || !guards.on(Guard::BindSender);
            if fits { Some(one) } else { found }
        })
}

/// A code of random bytes.
pub(crate) fn code(random: [u8; CODE_LENGTH]) -> String {
    random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

/// What is kept of a code.
pub(crate) fn hash(salt: &[u8; 16], code: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"creel-sender-code\0");
    hasher.update(salt);
    hasher.update(code);
    hasher.finalize().into()
}

/// As codes are compared: in upper case, without blanks around.
pub(crate) fn normalise(code: &str) -> String {
    code.trim().to_ascii_uppercase()
}

/// A checked sender: three parts that no display name and no wildcard can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SenderKey {
    pub(crate) channel: String,
    pub(crate) account: String,
    pub(crate) platform_id: String,
}

impl SenderKey {
    /// Checks a sender's parts.
    pub(crate) fn new(channel: &str, account: &str, platform_id: &str) -> Result<Self, creel_wire::Error> {
        use creel_wire::{Error, error::printable};
        if !is_word(channel) {
            return Err(Error::invalid(
                "channel",
                "it is a letter, then letters, digits, `_`, `-`, at most 64, all lower-case",
            ));
        }
        let account = if account.is_empty() { "default" } else { account };
        for (field, text, most) in [("account", account, 128), ("platform_id", platform_id, 256)] {
            let plain = printable(text, usize::MAX) == text && text.trim() == text;
            if text.is_empty() || text.len() > most || !plain {
                return Err(Error::invalid(
                    field,
                    format!("1 to {most} bytes, printable, without blanks around"),
                ));
            }
            if text == "*" {
                return Err(Error::invalid(
                    field,
                    "`*` is nobody: senders are let in one by one",
                ));
            }
        }
        Ok(Self {
            channel: channel.to_owned(),
            account: account.to_owned(),
            platform_id: platform_id.to_owned(),
        })
    }

    /// The parts of its keys in the store.
    pub(crate) fn parts(&self) -> [&str; 3] {
        [&self.channel, &self.account, &self.platform_id]
    }
}

impl std::fmt::Display for SenderKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.channel, self.account, self.platform_id)
    }
}

/// A lower-case word: names of channels and people.
pub(crate) fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && text.len() <= 64
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: &str, at: i64) -> Pending {
        Pending {
            platform_id: id.into(),
            salt: [1; 16],
            code_hash: hash(&[1; 16], &format!("CODE{}", id.to_uppercase())),
            requested_at_ms: at,
        }
    }

    #[test]
    fn three_wait_the_fourth_only_when_the_oldest_is_over_ten_minutes_old() {
        let all = Guards::all();
        let three = [waiting("a", 0), waiting("b", 5), waiting("c", 6)];
        assert!(matches!(ask(&three[..2], "d", 10, all), Asked::New { remove, .. } if remove.is_empty()));
        assert_eq!(
            ask(&three, "d", GIVE_WAY_MS, all),
            Asked::Full {
                retry_at_ms: GIVE_WAY_MS + 1
            }
        );
        assert!(
            matches!(ask(&three, "d", GIVE_WAY_MS + 1, all), Asked::New { remove, .. } if remove == ["a"])
        );
        assert_eq!(
            ask(&three, "a", LIFE_MS - 1, all),
            Asked::Waiting { until_ms: LIFE_MS },
            "the same, without extending it"
        );
        assert!(matches!(ask(&three, "a", LIFE_MS, all), Asked::New { remove, .. } if remove == ["a"]));
    }

    #[test]
    fn a_code_lets_in_whom_it_was_made_for_until_it_is_an_hour_old() {
        let all = Guards::all();
        let two = [waiting("a", 0), waiting("b", 5)];
        let found = |code: &str, now| find(&two, code, now, all).map(|one| one.platform_id.as_str());
        assert_eq!(found(" codea\n", LIFE_MS - 1), Some("a"));
        assert_eq!(found("CODEB", 10), Some("b"));
        assert_eq!(found("CODEC", 10), None);
        assert_eq!(found("", 10), None);
        assert_eq!(found("CODEA", LIFE_MS), None);
    }

    #[test]
    fn codes_are_of_the_alphabet_and_senders_are_no_wildcards() {
        let every: String = (0..=255_u8).map(|b| code([b; CODE_LENGTH])).collect();
        assert!(every.bytes().all(|b| ALPHABET.contains(&b)));
        assert_eq!(code([0, 1, 2, 31, 32, 33, 255, 24]), "ABC9AB92");
        assert!(SenderKey::new("telegram", "", "123").is_ok_and(|key| key.account == "default"));
        for (channel, account, id) in [
            ("telegram", "", "*"),
            ("telegram", "*", "1"),
            ("Telegram", "", "1"),
            ("", "", "1"),
            ("a/b", "", "1"),
            ("telegram", "", ""),
            ("telegram", "", " 1"),
            ("telegram", "", "a\u{202e}b"),
        ] {
            assert!(
                SenderKey::new(channel, account, id).is_err(),
                "{channel} {account} {id:?}"
            );
        }
        assert!(SenderKey::new("t", "", &"a".repeat(256)).is_ok());
        assert!(SenderKey::new("t", "", &"a".repeat(257)).is_err());
    }
}
