//! The nonces of connections that have to prove themselves: one each, one use, 30 s, in memory alone.
//! Pure: time and randomness come in.

use std::collections::BTreeMap;

use crate::guard::{Guard, Guards};

/// A nonce ends after so long, in milliseconds.
pub(crate) const LIFE_MS: i64 = 30_000;
/// Connections that prove themselves at the same time; a gateway takes in as many at most.
pub(crate) const MAX_OPEN: usize = 4_096;

/// The open nonces, by connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Nonces(BTreeMap<String, Open>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Open {
    nonce: String,
    expires_at_ms: i64,
}

/// Why a nonce was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// None was said.
    Missing,
    /// Used, over, another connection's, or never given.
    Mismatch,
}

impl Nonces {
    /// Gives a connection its nonce, in place of one it had; `Err` when too many are open, with the time
    /// when the first of them ends.
    pub(crate) fn open(&mut self, connection: &str, nonce: String, now_ms: i64) -> Result<i64, i64> {
        if self.0.len() >= MAX_OPEN && !self.0.contains_key(connection) {
            self.0.retain(|_, open| now_ms < open.expires_at_ms);
            if let Some(first) = self.0.values().map(|open| open.expires_at_ms).min()
                && self.0.len() >= MAX_OPEN
            {
                return Err(first);
            }
        }
        let expires_at_ms = now_ms + LIFE_MS;
        let open = Open { nonce, expires_at_ms };
        self.0.insert(connection.to_owned(), open);
        Ok(expires_at_ms)
    }

    /// Uses a connection's nonce up, and says whether it was the one that was said.
    pub(crate) fn redeem(
        &mut self,
        connection: &str,
        said: &str,
        now_ms: i64,
        guards: Guards,
    ) -> Result<(), Refused> {
        let own = if guards.on(Guard::BindConnection) {
            self.0.get(connection).map(|_| connection.to_owned())
        } else {
            let any = self.0.iter().find(|(_, open)| open.nonce == said);
            any.map(|(connection, _)| connection.clone())
        };
        let open = own.and_then(|own| {
            if guards.on(Guard::OneUse) {
                self.0.remove(&own)
            } else {
                self.0.get(&own).cloned()
            }
        });
        if said.is_empty() {
            return Err(Refused::Missing);
        }
        let in_time = |open: &Open| now_ms < open.expires_at_ms || !guards.on(Guard::NonceTtl);
        match open {
            // A nonce is no secret, so this comparison need not be one of constant time.
            Some(open) if open.nonce == said && in_time(&open) => Ok(()),
            _ => Err(Refused::Mismatch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_for_one_connection_one_use_and_thirty_seconds() {
        let all = Guards::all();
        let mut nonces = Nonces::default();
        nonces.open("a", "na".into(), 0).unwrap();
        assert_eq!(nonces.redeem("b", "na", 1, all), Err(Refused::Mismatch));
        assert_eq!(nonces.redeem("a", "na", LIFE_MS - 1, all), Ok(()));
        assert_eq!(nonces.redeem("a", "na", LIFE_MS - 1, all), Err(Refused::Mismatch));
        nonces.open("a", "n2".into(), 0).unwrap();
        assert_eq!(nonces.redeem("a", "n2", LIFE_MS, all), Err(Refused::Mismatch));
        nonces.open("a", "n3".into(), 0).unwrap();
        assert_eq!(nonces.redeem("a", "wrong", 1, all), Err(Refused::Mismatch));
        assert_eq!(
            nonces.redeem("a", "n3", 1, all),
            Err(Refused::Mismatch),
            "a wrong word uses it up, too"
        );
        nonces.open("a", "n4".into(), 0).unwrap();
        assert_eq!(nonces.redeem("a", "", 1, all), Err(Refused::Missing));
        nonces.open("a", "old".into(), 0).unwrap();
        nonces.open("a", "new".into(), 0).unwrap();
        assert_eq!(nonces.redeem("a", "old", 1, all), Err(Refused::Mismatch));
    }

    #[test]
    fn open_nonces_are_bounded_and_what_ended_makes_room() {
        let mut nonces = Nonces::default();
        for n in 0..MAX_OPEN {
            nonces.open(&n.to_string(), "x".into(), 0).unwrap();
        }
        assert_eq!(nonces.open("more", "x".into(), LIFE_MS - 1), Err(LIFE_MS));
        assert!(nonces.open("0", "y".into(), 1).is_ok(), "its own is replaced");
        assert!(nonces.open("more", "x".into(), LIFE_MS).is_ok());
        assert!(nonces.0.len() <= 2);
    }
}
