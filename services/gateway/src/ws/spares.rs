//! Nonces of connections to come. Identity gives several at once, so that not every connection costs a call
//! before its proof. Pure: time comes in.
//!
//! Invariants: a nonce is handed out once, with the name it was made for; none is handed out that would end
//! before its connection's handshake must.

use std::collections::VecDeque;

use super::HANDSHAKE;

/// Names asked for besides the one that is needed now.
const FURTHER: usize = 7;
/// Spares at once; more are forgotten, here and, when they end, at identity.
const MAX_SPARES: usize = 64;

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
        }
        None
    }

    /// Names that no connection had: of the one that is needed, and of some to come.
    pub(crate) fn names(&mut self) -> (String, Vec<String>) {
        let mut name = || {
            self.named += 1;
            format!("door-{}", self.named)
        };
        (name(), std::iter::repeat_with(&mut name).take(FURTHER).collect())
    }

    /// Keeps what identity gave.
    pub(crate) fn keep(&mut self, challenges: impl Iterator<Item = Challenge>) {
        self.spare.extend(challenges);
        self.spare.truncate(MAX_SPARES);
    }

    /// Identity knows none of them any more.
    pub(crate) fn clear(&mut self) {
        self.spare.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn given(spares: &mut Spares, expires_at_ms: i64) {
        let (_, further) = spares.names();
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
}
