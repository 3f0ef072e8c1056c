//! Time for what ends: it never goes back, and it never stands still. Pure: what the clock says comes in.

/// What the clock said last, and what time it was then (both Unix ms).
///
/// A clock that is set back revives nothing that was over: time stays where it was. From there it goes on as fast as
/// the clock does, so that nothing lives longer, and no pause lasts longer, than by a good clock: an hour after a
/// clock that was a year ahead was set right, an hour has passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Steady {
    last: Option<(i64, i64)>,
}

impl Steady {
    /// The time when the clock says `now_ms`; it was `floor_ms` before, at least.
    pub fn at(&mut self, now_ms: i64, floor_ms: i64) -> i64 {
        let (clock_ms, time_ms) = self.last.unwrap_or((now_ms, floor_ms));
        let before_ms = time_ms.max(floor_ms);
        let passed_ms = now_ms.saturating_sub(clock_ms).max(0);
        let time_ms = if now_ms >= before_ms {
            now_ms
        } else {
            before_ms.saturating_add(passed_ms)
        };
        self.last = Some((now_ms, time_ms));
        time_ms
    }

    /// The time at the last question; `None` before the first.
    #[must_use]
    pub fn last_ms(&self) -> Option<i64> {
        self.last.map(|(_, time_ms)| time_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

    #[test]
    fn after_a_step_of_a_year_ahead_and_back_an_hour_is_an_hour() {
        let mut steady = Steady::default();
        let mut at = |now_ms| steady.at(now_ms, 0);
        assert_eq!(at(1_000), 1_000);
        assert_eq!(at(YEAR_MS), YEAR_MS);
        assert_eq!(at(2_000), YEAR_MS, "nothing is revived");
        assert_eq!(at(2_000 + HOUR_MS), YEAR_MS + HOUR_MS);
        assert_eq!(at(1_000 + HOUR_MS), YEAR_MS + HOUR_MS, "back again, by a little");
        assert_eq!(at(2_000 + HOUR_MS), YEAR_MS + HOUR_MS + 1_000);
        assert_eq!(at(2 * YEAR_MS), 2 * YEAR_MS, "the clock caught up");
        let mut after_a_restart = Steady::default();
        assert_eq!(
            after_a_restart.at(5, YEAR_MS),
            YEAR_MS,
            "what was committed counts"
        );
        assert_eq!(after_a_restart.at(6, YEAR_MS), YEAR_MS + 1);
    }

    proptest! {
        /// Whatever the clock does: time never goes back, and while the clock is behind it goes on as fast.
        #[test]
        fn time_goes_on_and_never_back(steps in prop::collection::vec(-1_000_000..1_000_000_i64, 1..60)) {
            let (mut steady, mut clock) = (Steady::default(), 0);
            let mut time = steady.at(clock, 0);
            for step in steps {
                clock += step;
                let next = steady.at(clock, 0);
                prop_assert!(next >= time);
                if clock < time {
                    prop_assert_eq!(next - time, step.max(0));
                }
                time = next;
            }
        }
    }
}
