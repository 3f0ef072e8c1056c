//! Watches the wall clock against time that can't be set: a clock that jumped far ahead is not believed at once,
//! since a wrong year would use up a year of cursors (`reference/scheduler.md` §3.5).

/// The jump that is not believed, in milliseconds.
pub(crate) const JUMP_MS: i64 = 3_600_000;

/// Compares two clocks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watch {
    last: Option<Look>,
    /// Not believed until then, by the clock that can't be set.
    held_until_ms: Option<i64>,
}

/// Both clocks at one moment, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// The wall clock.
    pub(crate) wall_ms: i64,
    /// Time since boot, suspended time included.
    pub(crate) boot_ms: i64,
}

impl Watch {
    /// Milliseconds for which the wall clock is not to be believed; `None` if it is.
    pub(crate) fn look(&mut self, now: Look, hold_ms: i64) -> Option<i64> {
        let last = self.last.replace(now).unwrap_or(now);
        let jumped = (now.wall_ms - last.wall_ms) - (now.boot_ms - last.boot_ms);
        if jumped >= JUMP_MS {
            tracing::warn!(
                ahead_ms = jumped,
                "the clock jumped ahead: nothing fires for a minute, in case it is set back"
            );
            self.held_until_ms = Some(now.boot_ms + hold_ms);
        } else if jumped <= -JUMP_MS && self.held_until_ms.is_some() {
            tracing::info!("the clock was set back");
            self.held_until_ms = None;
        }
        let left = self
            .held_until_ms
            .map(|until| until - now.boot_ms)
            .filter(|left| *left > 0);
        if left.is_none() {
            self.held_until_ms = None;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: i64 = 60_000;

    fn at(wall_ms: i64, boot_ms: i64) -> Look {
        Look { wall_ms, boot_ms }
    }

    #[test]
    fn a_jump_is_held_for_a_minute_and_a_sleep_is_not() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(at(1_000_000, 0), HOLD), None);
        assert_eq!(
            watch.look(at(1_000_000 + 9 * JUMP_MS, 9 * JUMP_MS), HOLD),
            None,
            "suspended for nine hours"
        );
        let (wall, boot) = (1_000_000 + 9 * JUMP_MS, 9 * JUMP_MS);
        assert_eq!(watch.look(at(wall + JUMP_MS - 1, boot), HOLD), None);
        let wall = wall + 366 * 24 * JUMP_MS;
        assert_eq!(watch.look(at(wall, boot), HOLD), Some(HOLD));
        assert_eq!(watch.look(at(wall + 59_999, boot + 59_999), HOLD), Some(1));
        assert_eq!(
            watch.look(at(wall + HOLD, boot + HOLD), HOLD),
            None,
            "it stays: believed"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed_again() {
        let mut watch = Watch::default();
        watch.look(at(0, 0), HOLD);
        assert!(watch.look(at(100 * JUMP_MS, 5), HOLD).is_some());
        assert_eq!(watch.look(at(10, 10), HOLD), None);
    }
}
