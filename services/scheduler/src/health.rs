//! What a job's runs say about it: how many failed in a row and of late, how long they usually take. Pure.

use crate::policy::Policy;

/// Runs whose outcome and duration are remembered.
pub(crate) const WINDOW: usize = 20;
/// This many failures among as many remembered runs quarantine a job, too (`reference/scheduler.md` §3.1).
const TOO_MANY: u32 = 16;
/// A median of fewer runs says nothing.
const ENOUGH: usize = 5;
/// Nothing that is over sooner is called slow.
const LEAST_EXPECTED_MS: i64 = 10_000;

/// Outcomes of the last runs: newest in the lowest bit, 1 for a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    failed: u32,
    count: u8,
}

impl Recent {
    /// Nothing ran.
    pub(crate) const NONE: Self = Self { failed: 0, count: 0 };

    pub(crate) fn of_record(failed: u32, count: u32) -> Self {
        let count = count.min(WINDOW as u32);
        Self {
            failed: failed & ((1 << count) - 1),
            count: count as u8,
        }
    }

    /// The bits and how many of them there are.
    pub(crate) fn record(self) -> (u32, u32) {
        (self.failed, self.count.into())
    }

    pub(crate) fn note(&mut self, failed: bool) {
        self.failed = (self.failed << 1 | u32::from(failed)) & ((1 << WINDOW) - 1);
        self.count = (self.count + 1).min(WINDOW as u8);
    }

    /// Whether most of the last runs failed, if not in a row.
    pub(crate) fn is_bad(self) -> bool {
        usize::from(self.count) == WINDOW && self.failed.count_ones() >= TOO_MANY
    }
}

/// How long the last runs that succeeded took, oldest first. Nothing is held for a job that never ran; two bytes
/// per run otherwise, exact below 2 s and to 0.05 % above.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Durations(Option<Box<Ring>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ring {
    small: [u16; WINDOW],
    len: u8,
}

impl Durations {
    /// Nothing ran.
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn of_record(ms: &[u32]) -> Self {
        let mut durations = Self::default();
        for one in ms.iter().skip(ms.len().saturating_sub(WINDOW)) {
            durations.note(i64::from(*one));
        }
        durations
    }

    pub(crate) fn record(&self) -> Vec<u32> {
        self.all().iter().map(|one| unpacked(*one)).collect()
    }

    pub(crate) fn note(&mut self, ms: i64) {
        let ring = self.0.get_or_insert_with(|| {
            Box::new(Ring {
                small: [0; WINDOW],
                len: 0,
            })
        });
        let one = packed(ms);
        if usize::from(ring.len) == WINDOW {
            ring.small.rotate_left(1);
            ring.small[WINDOW - 1] = one;
        } else {
            ring.small[usize::from(ring.len)] = one;
            ring.len += 1;
        }
    }

    /// The median, milliseconds, once it says something.
    pub(crate) fn median_ms(&self) -> Option<i64> {
        let mut sorted = self.all().to_vec();
        if sorted.len() < ENOUGH {
            return None;
        }
        // The packing keeps the order.
        sorted.sort_unstable();
        Some(i64::from(unpacked(sorted[sorted.len() / 2])))
    }

    fn all(&self) -> &[u16] {
        self.0
            .as_ref()
            .map_or(&[], |ring| &ring.small[..usize::from(ring.len)])
    }
}

/// A run that takes longer is slow: what the policy says, or three times the median.
pub(crate) fn expected_ms(policy: &Policy, durations: &Durations) -> Option<i64> {
    policy.expected_ms.or_else(|| {
        durations
            .median_ms()
            .map(|median| median.saturating_mul(3).max(LEAST_EXPECTED_MS))
    })
}

/// Five bits of exponent, eleven of mantissa.
fn packed(ms: i64) -> u16 {
    let ms = u32::try_from(ms.max(0)).unwrap_or(u32::MAX);
    let shift = (32 - ms.leading_zeros()).saturating_sub(12);
    let mantissa = ms >> shift;
    if mantissa < 2_048 {
        mantissa as u16
    } else {
        ((shift + 1) << 11) as u16 | (mantissa - 2_048) as u16
    }
}

fn unpacked(small: u16) -> u32 {
    let (exponent, mantissa) = (u32::from(small >> 11), u32::from(small & 2_047));
    match exponent {
        0 => mantissa,
        exponent => (mantissa + 2_048) << (exponent - 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn durations_keep_their_order_and_almost_their_value(a in 0_u32.., b in 0_u32..) {
            let round = |ms: u32| unpacked(packed(i64::from(ms)));
            prop_assert!(round(a) <= a && u64::from(a - round(a)) * 2_048 <= u64::from(a));
            prop_assert_eq!(packed(i64::from(round(a))), packed(i64::from(a)));
            if a <= b {
                prop_assert!(packed(i64::from(a)) <= packed(i64::from(b)));
            }
        }
    }

    #[test]
    fn the_median_of_the_last_twenty_decides_what_is_slow() {
        let (policy, mut durations) = (Policy::default(), Durations::default());
        for ms in [9_000, 9_000, 9_000, 9_000] {
            durations.note(ms);
        }
        assert_eq!(expected_ms(&policy, &durations), None, "four say nothing");
        durations.note(1);
        assert_eq!(durations.median_ms(), Some(unpacked(packed(9_000)).into()));
        for _ in 0..WINDOW {
            durations.note(100);
        }
        assert_eq!(durations.record(), vec![100; WINDOW], "older ones are gone");
        assert_eq!(expected_ms(&policy, &durations), Some(LEAST_EXPECTED_MS));
        let said = Policy {
            expected_ms: Some(5),
            ..policy
        };
        assert_eq!(expected_ms(&said, &durations), Some(5));
        assert_eq!(Durations::of_record(&durations.record()), durations);
    }

    #[test]
    fn four_failures_of_five_are_too_many() {
        let mut recent = Recent::default();
        for n in 0..WINDOW {
            assert!(!recent.is_bad());
            recent.note(n % 5 != 0);
        }
        assert!(recent.is_bad());
        recent.note(false);
        assert!(recent.is_bad(), "an old success went");
        recent.note(false);
        assert!(!recent.is_bad());
        let (failed, count) = recent.record();
        assert_eq!(Recent::of_record(failed, count), recent);
    }
}
