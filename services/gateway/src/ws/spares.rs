//! Nonces of connections to come. Identity gives several at once, so that not every connection costs a call
//! before its proof. Pure: time comes in.
//!
//! Invariants: a nonce is handed out once, with the name it was made for; none is handed out that would end
//! before its connection's handshake must; a name whose nonce came to nothing is used again, and its next nonce
//! replaces that one, so that identity holds no more of them than there are connections at a time.

use std::collections::VecDeque;

use super::HANDSHAKE;

/// Names asked for besides the one that is needed now.
const FURTHER: usize = 7;
/// Spares at once.
const MAX_SPARES: usize = 64;
/// Names kept to be used again; as many handshakes can be unfinished, and some more.
const MAX_FREE: usize = 1_024;

/// A connection's name toward identity, and its nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) connection_id: String,
    pub(crate) nonce: String,
    pub(crate) expires_at_ms: i64,
}

/// What is there to be handed out.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    named: u64,
    spare: VecDeque<Challenge>,
    free: Vec<String>,
}

impl Spares {
    /// One that lasts for a handshake.
    pub(crate) fn take(&mut self, now_ms: i64) -> Option<Challenge> {
        let handshake_ms = i64::try_from(HANDSHAKE.as_millis()).unwrap_or(i64::MAX);
        let until_ms = now_ms.saturating_add(handshake_ms);
        while let Some(challenge) = self.spare.pop_front() {
            if challenge.expires_at_ms > until_ms {
                return Some(challenge);
            }
            self.free(challenge.connection_id);
        }
        None
    }

    /// Names that no connection has: for the one that is needed, and for some to come.
    pub(crate) fn names(&mut self) -> (String, Vec<String>) {
        let mut name = || {
            self.free.pop().unwrap_or_else(|| {
                self.named += 1;
                format!("door-{}", self.named)
            })
        };
        (name(), std::iter::repeat_with(&mut name).take(FURTHER).collect())
    }

    /// Keeps what identity gave.
    pub(crate) fn keep(&mut self, challenges: impl Iterator<Item = Challenge>) {
        self.spare.extend(challenges);
        while self.spare.len() > MAX_SPARES
            && let Some(surplus) = self.spare.pop_back()
        {
            self.free(surplus.connection_id);
        }
    }

    /// A connection of this name ended before its nonce was used.
    pub(crate) fn free(&mut self, connection_id: String) {
        if self.free.len() < MAX_FREE {
            self.free.push(connection_id);
        }
    }

    /// Identity knows none of them any more.
    pub(crate) fn clear(&mut self) {
        while let Some(spare) = self.spare.pop_front() {
            self.free(spare.connection_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn given(spares: &mut Spares, expires_at_ms: i64) {
        let (first, further) = spares.names();
        spares.free(first);
        let challenges: Vec<_> = further
            .into_iter()
            .map(|connection_id| Challenge {
                nonce: format!("n-{connection_id}"),
                connection_id,
                expires_at_ms,
            })
            .collect();
        spares.keep(challenges.into_iter());
    }

    #[test]
    fn each_is_handed_out_once_under_the_name_it_was_made_for() {
        let mut spares = Spares::default();
        let mut names = BTreeSet::new();
        for _ in 0..3 {
            given(&mut spares, 30_000);
            spares.free.clear();
            while let Some(challenge) = spares.take(0) {
                assert_eq!(challenge.nonce, format!("n-{}", challenge.connection_id));
                assert!(names.insert(challenge.connection_id));
            }
        }
        assert_eq!(names.len(), 3 * FURTHER);
    }

    #[test]
    fn what_would_end_within_a_handshake_is_not_handed_out() {
        let handshake_ms = i64::try_from(HANDSHAKE.as_millis()).unwrap();
        for (now, there) in [(30_000 - handshake_ms - 1, true), (30_000 - handshake_ms, false)] {
            let mut spares = Spares::default();
            given(&mut spares, 30_000);
            assert_eq!(spares.take(now).is_some(), there, "{now}");
        }
    }

    #[test]
    fn spares_are_bounded_and_forgotten_when_identity_has() {
        let mut spares = Spares::default();
        for _ in 0..100 {
            given(&mut spares, 30_000);
        }
        assert_eq!(spares.spare.len(), MAX_SPARES);
        spares.clear();
        assert_eq!(spares.take(0), None);
    }

    #[test]
    fn connections_that_come_to_nothing_need_no_more_names_than_are_open_at_once() {
        let mut spares = Spares::default();
        for _ in 0..10_000 {
            let challenge = spares.take(0).unwrap_or_else(|| {
                given(&mut spares, 30_000);
                spares.take(0).unwrap()
            });
            spares.free(challenge.connection_id);
        }
        assert!(spares.named <= 2 * (FURTHER as u64 + 1), "{}", spares.named);
        for n in 0..2 * MAX_FREE {
            spares.free(n.to_string());
        }
        assert_eq!(spares.free.len(), MAX_FREE);
    }
}
