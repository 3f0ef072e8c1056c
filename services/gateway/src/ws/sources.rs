//! What one source may do before it has proven anything: a token bucket that slows it down, and a bound
//! on unfinished handshakes. Pure: `now` comes in.
//!
//! A valid proof gives its token back, so that good clients pay nothing, however many they are; and who is
//! slowed down waits its turn instead of being locked out.

use std::collections::BTreeMap;

use creel_wire::{Source, source::Buckets};

/// Tokens of a source that did nothing yet.
const BURST: u32 = 64;
/// A token comes back after so long, in milliseconds.
const REFILL_MS: i64 = 50;
/// Nobody waits longer for a token, in milliseconds; who would have to comes again.
const MAX_WAIT_MS: i64 = 5_000;
/// Unfinished handshakes of one source at once.
const MAX_UNPROVEN: u32 = 32;
/// Unfinished handshakes of all sources at once.
const MAX_UNPROVEN_IN_ALL: u32 = 512;
/// Sources known at once.
const MAX_SOURCES: usize = 4_096;

/// What a source that knocks is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knock {
    /// Come in after so many milliseconds, mostly 0.
    After(u64),
    /// Come again after so many milliseconds.
    Later(u64),
    /// Too many handshakes are unfinished.
    Full,
}

/// All sources; a network of one person ([`Source::prefix`]) is one.
#[derive(Debug)]
pub(crate) struct Sources {
    buckets: Buckets,
    /// Unfinished handshakes by source, bounded by how many there may be in all.
    unproven: BTreeMap<Source, u32>,
    in_all: u32,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            buckets: Buckets::new(BURST, REFILL_MS, MAX_SOURCES),
            unproven: BTreeMap::new(),
            in_all: 0,
        }
    }
}

impl Sources {
    /// A source opens a connection. Unless told otherwise, it must end with [`Self::leave`].
    pub(crate) fn knock(&mut self, source: Source, now_ms: u64) -> Knock {
        let own = self.unproven.get(&source).copied().unwrap_or(0);
        if own >= MAX_UNPROVEN || self.in_all >= MAX_UNPROVEN_IN_ALL {
            return Knock::Full;
        }
        match self.buckets.take_within(source, signed(now_ms), MAX_WAIT_MS) {
            Ok(wait_ms) => {
                self.unproven.insert(source, own + 1);
                self.in_all += 1;
                Knock::After(wait_ms.unsigned_abs())
            }
            Err(after_ms) => Knock::Later(after_ms.unsigned_abs()),
        }
    }

    /// A handshake ended; `proven` if by a valid proof.
    pub(crate) fn leave(&mut self, source: Source, proven: bool, now_ms: u64) {
        let Some(own) = self.unproven.get_mut(&source) else {
            return;
        };
        *own -= 1;
        if *own == 0 {
            self.unproven.remove(&source);
        }
        self.in_all = self.in_all.saturating_sub(1);
        if proven {
            self.buckets.give_back(source, signed(now_ms));
        }
    }

    /// How many handshakes are unfinished.
    #[cfg(test)]
    pub(crate) const fn unproven(&self) -> u32 {
        self.in_all
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn source(n: u8) -> Source {
        Source::of(IpAddr::from([10, 0, n, 9])).prefix()
    }

    #[test]
    fn a_network_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap()).prefix();
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.7"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn a_burst_passes_then_it_slows_down_then_it_must_come_again_and_is_never_locked_out() {
        let mut sources = Sources::default();
        let mut fail = |now| {
            let knock = sources.knock(source(1), now);
            if matches!(knock, Knock::After(_)) {
                sources.leave(source(1), false, now);
            }
            knock
        };
        for _ in 0..BURST {
            assert_eq!(fail(0), Knock::After(0));
        }
        assert_eq!(fail(0), Knock::After(REFILL_MS.unsigned_abs()));
        let waiting = MAX_WAIT_MS / REFILL_MS;
        for _ in 1..waiting {
            assert!(matches!(fail(0), Knock::After(1..)));
        }
        let Knock::Later(after) = fail(0) else {
            panic!("no end to it")
        };
        assert_eq!(fail(after), Knock::After(MAX_WAIT_MS.unsigned_abs()));
        assert_eq!(fail(1_000_000), Knock::After(0));
    }

    #[test]
    fn valid_proofs_cost_nothing() {
        let mut sources = Sources::default();
        for _ in 0..10_000 {
            assert_eq!(sources.knock(source(1), 0), Knock::After(0));
            sources.leave(source(1), true, 0);
        }
        assert_eq!(
            sources.buckets,
            Sources::default().buckets,
            "nothing is kept of them"
        );
    }

    #[test]
    fn unfinished_handshakes_are_bounded_per_source_and_in_all() {
        let mut sources = Sources::default();
        for _ in 0..MAX_UNPROVEN {
            assert_eq!(sources.knock(source(1), 0), Knock::After(0));
        }
        assert_eq!(sources.knock(source(1), 0), Knock::Full);
        let mut all = MAX_UNPROVEN;
        for n in 2..=255 {
            while sources.knock(source(n), 0) == Knock::After(0) {
                all += 1;
            }
        }
        assert_eq!(
            (all, sources.unproven()),
            (MAX_UNPROVEN_IN_ALL, MAX_UNPROVEN_IN_ALL)
        );
        sources.leave(source(1), false, 0);
        assert_eq!(sources.knock(source(1), 0), Knock::After(0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn memory_is_bounded_and_no_leave_is_lost(steps in prop::collection::vec((any::<u16>(), any::<bool>()), 0..6_000)) {
            let mut sources = Sources::default();
            let mut inside = Vec::new();
            for (now, (network, stay)) in steps.into_iter().enumerate() {
                let source = Source::of(IpAddr::from([10, network.to_be_bytes()[0], network.to_be_bytes()[1], 1])).prefix();
                if let Knock::After(_) = sources.knock(source, now as u64) {
                    if stay { inside.push(source) } else { sources.leave(source, false, now as u64) }
                }
                prop_assert!(sources.unproven.len() <= MAX_UNPROVEN_IN_ALL as usize);
                prop_assert_eq!(sources.unproven() as usize, inside.len());
            }
            for source in inside {
                sources.leave(source, true, 7_000);
            }
            prop_assert_eq!(sources.unproven(), 0);
        }
    }
}
