//! The rules of a job besides its schedule, checked, with their defaults and limits, and the arithmetic that
//! follows from them: backoff, jitter, quarantine.

/// How a job behaves when something is not as planned. All times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What happens to occurrences nobody was there for.
    pub catch_up: CatchUp,
    /// Occurrences older than this are skipped; `None` for the schedule's default.
    pub window_ms: Option<i64>,
    /// What happens when one is due while another runs.
    pub overlap: Overlap,
    /// Each occurrence is moved by a part of this that is always the same for it.
    pub jitter_ms: i64,
    /// An attempt is cancelled after this.
    pub timeout_ms: i64,
    /// A run that took longer is marked.
    pub expected_ms: Option<i64>,
    /// Attempts after failures.
    pub retry: Retry,
    /// What follows from a lost worker.
    pub on_stuck: OnStuck,
    /// Failures in a row until the job is quarantined.
    pub quarantine_after: u32,
    /// Runs kept.
    pub keep_runs: u32,
    /// Runs are kept for this long.
    pub keep_ms: i64,
    /// Whom to tell when it goes wrong; `None` for nobody.
    pub alert: Option<Alert>,
}

/// When somebody is told that a job goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Failures in a row before the first one.
    pub after: u32,
    /// At least so long between two.
    pub cool_down_ms: i64,
}

/// What happens to occurrences nobody was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// The latest runs.
    Last,
    /// None runs.
    Skip,
    /// The latest `max` run.
    All {
        /// 1 to [`MAX_CATCH_UP`].
        max: u32,
    },
}

/// What happens when one is due while another runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It is skipped.
    Forbid,
    /// One waits.
    BufferOne,
    /// Up to `max` run.
    Allow {
        /// 1 to 1,000.
        max: u32,
    },
    /// The one that runs is cancelled; the new one starts when it has ended.
    Replace,
}

impl Overlap {
    /// Attempts of the job that may be with workers at once.
    #[must_use]
    pub const fn at_once(self) -> usize {
        match self {
            Self::Allow { max } => max as usize,
            Self::Forbid | Self::BufferOne | Self::Replace => 1,
        }
    }
}

/// Attempts after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// In all.
    pub attempts: u32,
    /// Upper end of the first wait.
    pub backoff_ms: i64,
    /// Upper end of any wait.
    pub max_backoff_ms: i64,
    /// A retry may come after the next occurrence.
    pub past_next: bool,
}

/// What follows from a lost worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStuck {
    /// The run ends: it is executed at most once.
    Fail,
    /// The next attempt: it is executed at least once.
    Retry,
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The shortest time runs can be kept for.
pub const MIN_KEEP_MS: i64 = 60_000;
/// Most occurrences made up for at once.
pub const MAX_CATCH_UP: u32 = 1_000;
/// Most attempts of a run.
pub const MAX_ATTEMPTS: u32 = 20;
/// Workers lost with a run until it is given up, whatever `on_stuck` says (a run that kills its worker must
/// not do so for ever).
pub const MAX_INTERRUPTIONS: u32 = 2;

impl Default for Policy {
    fn default() -> Self {
        Self {
            catch_up: CatchUp::Last,
            window_ms: None,
            overlap: Overlap::Forbid,
            jitter_ms: 0,
            timeout_ms: HOUR,
            expected_ms: None,
            retry: Retry {
                attempts: 1,
                backoff_ms: 30_000,
                max_backoff_ms: HOUR,
                past_next: false,
            },
            on_stuck: OnStuck::Fail,
            quarantine_after: 5,
            keep_runs: 200,
            keep_ms: 30 * DAY,
            alert: Some(Alert {
                after: 3,
                cool_down_ms: HOUR,
            }),
        }
    }
}

impl Policy {
    /// The rules of the run that carries an alert: it is not the job's own, so the job's rules are not asked.
    #[must_use]
    pub fn of_alert(&self) -> Self {
        Self {
            timeout_ms: 10 * 60_000,
            expected_ms: None,
            retry: Retry {
                attempts: 6,
                backoff_ms: 30_000,
                max_backoff_ms: HOUR,
                past_next: true,
            },
            on_stuck: OnStuck::Retry,
            ..*self
        }
    }
}

impl Retry {
    /// The wait before the attempt after `attempt`: full jitter on a doubling backoff. `random` is uniform.
    #[must_use]
    pub fn wait_ms(&self, attempt: u32, random: u64) -> i64 {
        let most = self.ladder_ms(attempt).unsigned_abs();
        i64::try_from(random % (most + 1)).unwrap_or(i64::MAX)
    }

    /// The upper end of the `step`-th wait, from 1: doubled up to the cap. Whole, it is the wait of a job after as
    /// many failures in a row.
    #[must_use]
    pub fn ladder_ms(&self, step: u32) -> i64 {
        self.backoff_ms
            .saturating_mul(1_i64 << step.saturating_sub(1).min(32))
            .min(self.max_backoff_ms)
            .max(0)
    }
}

/// How long a quarantine of a level (from 0) lasts: 1 h, doubled to 24 h.
#[must_use]
pub fn quarantine_ms(level: u32) -> i64 {
    (HOUR << level.min(8)).min(DAY)
}

/// The part of `most_ms` (inclusive) that belongs to a job's occurrence: always the same, spread evenly.
#[must_use]
pub fn spread_ms(job: [u8; 16], nominal_ms: i64, most_ms: i64) -> i64 {
    if most_ms <= 0 {
        return 0;
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in job.iter().chain(&nominal_ms.to_be_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // FNV mixes its low bits badly; fold the high ones in.
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i64::try_from((hash >> 1) % (most_ms.unsigned_abs() + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_doubles_to_its_cap_and_jitter_is_full() {
        let retry = Retry {
            attempts: 9,
            backoff_ms: 1_000,
            max_backoff_ms: 5_000,
            past_next: false,
        };
        assert_eq!(
            [1, 2, 3, 4, 99].map(|step| retry.ladder_ms(step)),
            [1_000, 2_000, 4_000, 5_000, 5_000]
        );
        assert_eq!(retry.wait_ms(1, 0), 0);
        assert_eq!(retry.wait_ms(1, 1_000), 1_000);
        assert_eq!(retry.wait_ms(1, 1_001), 0);
        assert_eq!(retry.wait_ms(3, 4_000), 4_000);
        assert_eq!(retry.wait_ms(4, 5_000), 5_000, "8 s, capped");
        assert_eq!(retry.wait_ms(u32::MAX, 5_001), 0);
    }

    #[test]
    fn quarantine_grows_to_a_day() {
        assert_eq!(
            [0, 1, 4, 5, 99].map(quarantine_ms),
            [HOUR, 2 * HOUR, 16 * HOUR, DAY, DAY]
        );
    }

    #[test]
    fn a_spread_is_stable_and_covers_its_range() {
        let of = |job: u8, nominal| spread_ms([job; 16], nominal, 9);
        assert_eq!(of(1, 60_000), of(1, 60_000));
        let mut seen: Vec<_> = (0..200).map(|n| of(3, n * 60_000)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..=9).collect::<Vec<_>>());
        assert_eq!(spread_ms([1; 16], 5, 0), 0);
    }
}
