//! Unix milliseconds to and from the well-known types.

use prost_types::{Duration, Timestamp};

/// A timestamp of Unix milliseconds.
#[must_use]
pub fn timestamp(unix_ms: i64) -> Timestamp {
    let nanos = i32::try_from(unix_ms.rem_euclid(1_000) * 1_000_000).unwrap_or(0);
    Timestamp {
        seconds: unix_ms.div_euclid(1_000),
        nanos,
    }
}

/// A timestamp of Unix milliseconds, absent for 0 (records use 0 for "never").
#[must_use]
pub fn timestamp_opt(unix_ms: i64) -> Option<Timestamp> {
    (unix_ms != 0).then(|| timestamp(unix_ms))
}

/// Unix milliseconds of a timestamp, rounded down; saturates at the ends.
#[must_use]
pub fn unix_ms(timestamp: &Timestamp) -> i64 {
    timestamp
        .seconds
        .saturating_mul(1_000)
        .saturating_add(i64::from(timestamp.nanos) / 1_000_000)
}

/// A duration of milliseconds.
#[must_use]
pub fn duration(ms: i64) -> Duration {
    let nanos = i32::try_from((ms % 1_000) * 1_000_000).unwrap_or(0);
    Duration {
        seconds: ms / 1_000,
        nanos,
    }
}

/// Milliseconds of a duration, rounded towards zero; saturates at the ends.
#[must_use]
pub fn duration_ms(duration: &Duration) -> i64 {
    duration
        .seconds
        .saturating_mul(1_000)
        .saturating_add(i64::from(duration.nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_both_ways() {
        for ms in [0, 1, 999, 1_000, -1, -1_001, 1_764_000_000_123] {
            assert_eq!(unix_ms(&timestamp(ms)), ms);
            assert_eq!(duration_ms(&duration(ms)), ms);
        }
        assert_eq!(timestamp_opt(0), None);
    }
}
