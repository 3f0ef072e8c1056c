//! Runs for a range of the past, beside the schedule. Pure: which occurrence comes next, and what is left.

use creel_proto::{
    scheduler::v1::{BackfillRecord, BackfillStatus},
    time::timestamp,
};
use creel_schedule::Schedule;

use crate::admission::next_ms;

/// Most occurrences of one backfill.
pub(crate) const MAX_OCCURRENCES: u64 = 10_000;
/// Most runs of one backfill at once.
pub(crate) const MAX_AT_ONCE: u32 = 100;

/// A backfill that is not over. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backfill {
    pub(crate) id: String,
    pub(crate) from_ms: i64,
    /// Exclusive.
    pub(crate) until_ms: i64,
    /// Occurrences up to here are admitted.
    pub(crate) cursor_ms: i64,
    pub(crate) admitted: u64,
    pub(crate) total: u64,
    pub(crate) at_once: u32,
}

impl Backfill {
    /// A range that has not begun. `None`: it holds more than [`MAX_OCCURRENCES`].
    pub(crate) fn new(
        id: String,
        schedule: &Schedule,
        from_ms: i64,
        until_ms: i64,
        at_once: u32,
    ) -> Option<Self> {
        let mut range = Self {
            id,
            from_ms,
            until_ms,
            cursor_ms: from_ms.saturating_sub(1),
            admitted: 0,
            total: 0,
            at_once,
        };
        let begin_ms = range.cursor_ms;
        while let Some(at_ms) = range.next(schedule) {
            range.cursor_ms = at_ms;
            range.total += 1;
            if range.total > MAX_OCCURRENCES {
                return None;
            }
        }
        range.cursor_ms = begin_ms;
        Some(range)
    }

    /// The oldest occurrence that is not admitted.
    pub(crate) fn next(&self, schedule: &Schedule) -> Option<i64> {
        next_ms(schedule, self.cursor_ms).filter(|at| *at < self.until_ms)
    }

    pub(crate) fn admit(&mut self, at_ms: i64) {
        self.cursor_ms = at_ms;
        self.admitted += 1;
    }

    /// What makes its runs others than those of the schedule, and of other backfills.
    pub(crate) fn request(&self) -> String {
        format!("backfill:{}", self.id)
    }

    pub(crate) fn record(&self) -> BackfillRecord {
        BackfillRecord {
            backfill_id: self.id.clone(),
            from_unix_ms: self.from_ms,
            until_unix_ms: self.until_ms,
            cursor_unix_ms: self.cursor_ms,
            admitted: self.admitted,
            total: self.total,
            at_once: self.at_once,
        }
    }

    pub(crate) fn of_record(record: &BackfillRecord) -> Self {
        Self {
            id: record.backfill_id.clone(),
            from_ms: record.from_unix_ms,
            until_ms: record.until_unix_ms,
            cursor_ms: record.cursor_unix_ms,
            admitted: record.admitted,
            total: record.total,
            at_once: record.at_once,
        }
    }

    pub(crate) fn shown(&self) -> BackfillStatus {
        BackfillStatus {
            backfill_id: self.id.clone(),
            from: Some(timestamp(self.from_ms)),
            until: Some(timestamp(self.until_ms)),
            admitted: self.admitted,
            total: self.total,
            at_once: self.at_once,
        }
    }
}

#[cfg(test)]
mod tests {
    use creel_schedule::{Every, EveryMode};
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_range_includes_its_start_and_not_its_end() {
        let every = Every::new(1_000, Timestamp::UNIX_EPOCH, EveryMode::FixedRate).unwrap();
        let schedule = Schedule::Every(every);
        let mut range = Backfill::new("b".into(), &schedule, 2_000, 5_000, 1).unwrap();
        assert_eq!((range.total, range.admitted), (3, 0));
        let mut all = Vec::new();
        while let Some(at) = range.next(&schedule) {
            all.push(at);
            range.admit(at);
        }
        assert_eq!((all, range.admitted), (vec![2_000, 3_000, 4_000], 3));
        assert_eq!(Backfill::of_record(&range.record()), range);
        let most = 10_000_000;
        assert!(Backfill::new("b".into(), &schedule, 0, most, 1).is_some());
        assert_eq!(Backfill::new("b".into(), &schedule, 0, most + 1, 1), None);
    }
}
