//! Guesses of a code, counted: ten wrong ones, then a pause. For the recovery code, and per approver for
//! senders' codes. Pure.

use creel_proto::identity::v1::RecoveryRecord;

use crate::guard::{Guard, Guards};

/// So many wrong codes, then a pause.
pub(crate) const MAX_FAILURES: u32 = 10;
/// The pause, in milliseconds.
pub(crate) const PAUSE_MS: i64 = 15 * 60 * 1_000;

/// Whether a code may be looked at; else how long to wait, in milliseconds.
pub(crate) fn admit(record: &RecoveryRecord, now_ms: i64, guards: Guards) -> Result<(), i64> {
    let since = now_ms - record.last_failure_unix_ms;
    if record.failures >= MAX_FAILURES && since < PAUSE_MS && guards.on(Guard::GuessLimit) {
        return Err(PAUSE_MS - since);
    }
    Ok(())
}

/// The record after a wrong code.
pub(crate) fn failed(record: &RecoveryRecord, now_ms: i64) -> RecoveryRecord {
    let since = now_ms - record.last_failure_unix_ms;
    let failures = if since >= PAUSE_MS {
        1
    } else {
        record.failures.saturating_add(1)
    };
    RecoveryRecord {
        failures,
        last_failure_unix_ms: now_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_are_taken_the_eleventh_waits_to_the_millisecond() {
        let (mut record, now, all) = (RecoveryRecord::default(), 1_000_000_000, Guards::all());
        for n in 1..=MAX_FAILURES {
            assert_eq!(admit(&record, now, all), Ok(()), "{n}");
            record = failed(&record, now);
            assert_eq!(record.failures, n);
        }
        assert_eq!(admit(&record, now, all), Err(PAUSE_MS));
        assert_eq!(admit(&record, now + PAUSE_MS - 1, all), Err(1));
        assert_eq!(admit(&record, now + PAUSE_MS, all), Ok(()));
        assert_eq!(failed(&record, now + PAUSE_MS).failures, 1);
    }
}
