//! Watches the wall clock against time that can't be set (`reference/scheduler.md` §3.5). A clock that jumped ahead
//! is not believed at once: a wrong year would use up a year of cursors. One that was set far back is believed, and
//! named: jobs that ran ahead of it wait. Either ends when a person accepts it, or when the clock has followed a time
//! server for a while.
//!
//! Pure: both clocks are arguments. A machine that slept is no jump, since time since boot counts its sleep.

/// A jump ahead that is not believed at once, and how near the old time counts as set right again.
pub(crate) const JUMP_MS: i64 = 3_600_000;
/// A jump ahead that does not end by waiting alone.
pub(crate) const SUSPECT_MS: i64 = 24 * JUMP_MS;
/// A jump back that is named.
pub(crate) const BACK_MS: i64 = 3 * JUMP_MS;

/// Both clocks at one moment, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// The wall clock.
    pub(crate) wall_ms: i64,
    /// Time since boot, suspended time included.
    pub(crate) boot_ms: i64,
    /// The wall clock follows a time server; read only while it is suspect.
    pub(crate) synced: bool,
}

/// Compares two clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    last: Option<Look>,
    trust: Trust,
    /// It is suspect, and has followed a time server since then, by the clock that can't be set.
    synced_from_ms: Option<i64>,
    /// By how much it was set between the last two looks.
    step_ms: i64,
}

/// Whether the wall clock is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Trust {
    #[default]
    Believed,
    /// It jumped ahead: not believed until then, by the clock that can't be set.
    Held { jump: Jump, until_boot_ms: i64 },
    /// It jumped by so much that somebody has to look.
    Suspect(Jump),
}

/// How the wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jump {
    /// What it would show.
    pub(crate) before_ms: i64,
    /// What it showed.
    pub(crate) after_ms: i64,
}

impl Jump {
    /// Positive: ahead.
    pub(crate) const fn by_ms(self) -> i64 {
        self.after_ms.saturating_sub(self.before_ms)
    }

    /// As it is after another one.
    const fn moved(self, by_ms: i64) -> Self {
        Self {
            after_ms: self.after_ms.saturating_add(by_ms),
            ..self
        }
    }

    fn judged(self, until_boot_ms: i64) -> Trust {
        let by_ms = self.by_ms();
        if by_ms >= SUSPECT_MS || by_ms <= -BACK_MS {
            Trust::Suspect(self)
        } else if by_ms >= JUMP_MS {
            Trust::Held {
                jump: self,
                until_boot_ms,
            }
        } else {
            Trust::Believed
        }
    }
}

impl Watch {
    /// A watch that begins with what was known before: a suspicion that was written down, or the newest instant
    /// the store has seen.
    pub(crate) fn new(now_ms: i64, written: Option<Jump>, seen_ms: Option<i64>) -> Self {
        let known = written.map_or(Trust::Believed, |jump| match jump.by_ms() > 0 {
            // Set right while nobody looked.
            true if now_ms < jump.after_ms.saturating_sub(JUMP_MS) => Trust::Believed,
            false if now_ms >= jump.before_ms.saturating_sub(JUMP_MS) => Trust::Believed,
            _ => Trust::Suspect(jump),
        });
        let back = Jump {
            before_ms: seen_ms.unwrap_or(now_ms),
            after_ms: now_ms,
        };
        let trust = match known {
            Trust::Believed if back.by_ms() <= -BACK_MS => Trust::Suspect(back),
            known => known,
        };
        Self {
            trust,
            ..Self::default()
        }
    }

    /// Looks at the clocks. `hold_ms`: how long a jump ahead is held.
    pub(crate) fn look(&mut self, now: Look, hold_ms: i64) -> Trust {
        let last = self.last.replace(now).unwrap_or(now);
        let passed_ms = now.boot_ms - last.boot_ms;
        let by_ms = (now.wall_ms - last.wall_ms) - passed_ms;
        self.step_ms = by_ms;
        let until_boot_ms = now.boot_ms.saturating_add(hold_ms);
        let fresh = Jump {
            before_ms: last.wall_ms.saturating_add(passed_ms),
            after_ms: now.wall_ms,
        };
        self.trust = match self.trust {
            Trust::Believed => fresh.judged(until_boot_ms),
            Trust::Held {
                jump,
                until_boot_ms: end,
            } => match jump.moved(by_ms).judged(end) {
                Trust::Held { .. } if now.boot_ms >= end => Trust::Believed,
                still => still,
            },
            Trust::Suspect(jump) => {
                let jump = jump.moved(by_ms);
                let set_right = jump.by_ms().abs() < JUMP_MS;
                let caught_up = jump.by_ms() < 0 && now.wall_ms >= jump.before_ms;
                if set_right || caught_up {
                    Trust::Believed
                } else {
                    Trust::Suspect(jump)
                }
            }
        };
        let follows = now.synced && self.is_suspect() && by_ms.abs() < JUMP_MS;
        self.synced_from_ms = follows.then(|| self.synced_from_ms.unwrap_or(now.boot_ms));
        self.trust
    }

    pub(crate) const fn is_suspect(&self) -> bool {
        matches!(self.trust, Trust::Suspect(_))
    }

    /// Whether a suspect clock has followed a time server for so long that it is right.
    pub(crate) fn is_vouched_for(&self, after_ms: i64) -> bool {
        let boot_ms = self.last.map_or(0, |last| last.boot_ms);
        self.synced_from_ms
            .is_some_and(|from_ms| boot_ms - from_ms >= after_ms)
    }

    /// Somebody says that the clock is right as it is: answers how it was set.
    pub(crate) fn accept(&mut self) -> Option<Jump> {
        match self.trust {
            Trust::Suspect(jump) => {
                (self.trust, self.synced_from_ms) = (Trust::Believed, None);
                Some(jump)
            }
            Trust::Believed | Trust::Held { .. } => None,
        }
    }

    /// By how much it was set between the last two looks: negative for back.
    pub(crate) const fn step_ms(&self) -> i64 {
        self.step_ms
    }

    /// By how much it is ahead of the time that is believed.
    pub(crate) fn ahead_ms(&self) -> i64 {
        match self.trust {
            Trust::Held { jump, .. } | Trust::Suspect(jump) => jump.by_ms().max(0),
            Trust::Believed => 0,
        }
    }

    pub(crate) const fn trust(&self) -> Trust {
        self.trust
    }

    /// Milliseconds for which nothing fires and no cursor moves, as far as that is known; `None` if all is well.
    /// A clock that was set back holds nothing: what it already showed stays decided.
    pub(crate) fn held_ms(&self) -> Option<i64> {
        let boot_ms = self.last.map_or(0, |last| last.boot_ms);
        match self.trust {
            Trust::Held { until_boot_ms, .. } => Some(until_boot_ms - boot_ms),
            Trust::Suspect(jump) if jump.by_ms() > 0 => Some(i64::MAX),
            Trust::Believed | Trust::Suspect(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: i64 = 60_000;
    const YEAR: i64 = 366 * SUSPECT_MS;

    fn at(wall_ms: i64, boot_ms: i64) -> Look {
        Look {
            wall_ms,
            boot_ms,
            synced: false,
        }
    }

    fn synced(wall_ms: i64, boot_ms: i64) -> Look {
        Look {
            synced: true,
            ..at(wall_ms, boot_ms)
        }
    }

    fn looked(looks: &[Look]) -> Watch {
        let mut watch = Watch::default();
        for look in looks {
            watch.look(*look, HOLD);
        }
        watch
    }

    #[test]
    fn an_hour_ahead_is_held_for_a_minute_and_a_sleep_is_not() {
        let asleep = [at(0, 0), at(9 * JUMP_MS, 9 * JUMP_MS)];
        assert_eq!(looked(&asleep).held_ms(), None, "suspended for nine hours");
        assert_eq!(looked(&[at(0, 0), at(JUMP_MS - 1, 0)]).held_ms(), None);
        let mut watch = looked(&[at(0, 0), at(JUMP_MS, 0)]);
        assert_eq!(watch.held_ms(), Some(HOLD));
        watch.look(at(JUMP_MS + 59_999, 59_999), HOLD);
        assert_eq!(watch.held_ms(), Some(1));
        watch.look(at(JUMP_MS + HOLD, HOLD), HOLD);
        assert_eq!(watch.trust(), Trust::Believed, "it stays: believed");
        let back = looked(&[at(0, 0), at(JUMP_MS, 0), at(5, 5)]);
        assert_eq!(back.trust(), Trust::Believed, "set right again");
    }

    #[test]
    fn a_year_ahead_is_suspect_until_somebody_accepts_it_or_it_is_set_right() {
        let ahead = [
            at(7, 0),
            at(YEAR, 0),
            at(YEAR + HOLD, HOLD),
            at(YEAR + 9 * JUMP_MS, 9 * JUMP_MS),
        ];
        let mut watch = looked(&ahead);
        assert_eq!(watch.held_ms(), Some(i64::MAX), "waiting does not help");
        assert_eq!(watch.accept().map(Jump::by_ms), Some(YEAR - 7));
        assert_eq!((watch.held_ms(), watch.accept()), (None, None));
        let mut watch = looked(&ahead);
        watch.look(at(9 * JUMP_MS + 5, 9 * JUMP_MS + 1), HOLD);
        assert_eq!(watch.trust(), Trust::Believed);
    }

    #[test]
    fn a_time_server_vouches_for_a_suspect_clock_after_a_minute_without_a_break() {
        let mut watch = looked(&[
            at(0, 0),
            at(YEAR, 0),
            synced(YEAR + 1, 1),
            synced(YEAR + HOLD, HOLD),
        ]);
        assert!(!watch.is_vouched_for(HOLD));
        watch.look(synced(YEAR + HOLD + 1, HOLD + 1), HOLD);
        assert!(watch.is_vouched_for(HOLD));
        assert_eq!(watch.accept().map(Jump::by_ms), Some(YEAR));
        assert!(!watch.is_vouched_for(HOLD), "nothing is left to vouch for");

        let mut broken = looked(&[at(0, 0), synced(YEAR, 0), synced(YEAR + 50_000, 50_000)]);
        broken.look(at(YEAR + 55_000, 55_000), HOLD);
        broken.look(synced(YEAR + 70_000, 70_000), HOLD);
        assert!(!broken.is_vouched_for(HOLD), "it lost its server in between");
        // Set once more: counted from then.
        let mut set = looked(&[at(0, 0), synced(YEAR, 0), synced(YEAR, 1), synced(2 * YEAR, HOLD)]);
        set.look(synced(2 * YEAR + HOLD, 2 * HOLD), HOLD);
        assert!(!set.is_vouched_for(HOLD));
        set.look(synced(2 * YEAR + 2 * HOLD, 3 * HOLD), HOLD);
        assert!(set.is_vouched_for(HOLD));
    }

    #[test]
    fn a_clock_set_back_holds_nothing_and_is_named_until_it_has_caught_up() {
        assert_eq!(looked(&[at(BACK_MS, 0), at(1, 0)]).trust(), Trust::Believed);
        let mut watch = looked(&[at(BACK_MS, 0), at(0, 0)]);
        assert!(matches!(watch.trust(), Trust::Suspect(jump) if jump.by_ms() == -BACK_MS));
        assert_eq!(watch.held_ms(), None);
        watch.look(at(BACK_MS - 1, BACK_MS - 1), HOLD);
        assert_ne!(watch.trust(), Trust::Believed);
        watch.look(at(BACK_MS, BACK_MS), HOLD);
        assert_eq!(watch.trust(), Trust::Believed);
    }

    #[test]
    fn a_suspicion_outlives_a_restart_unless_the_clock_was_set_right() {
        let ahead = Jump {
            before_ms: 0,
            after_ms: YEAR,
        };
        let suspect = |now, written, seen| Watch::new(now, written, seen).trust() != Trust::Believed;
        assert!(suspect(YEAR + 5, Some(ahead), None));
        assert!(!suspect(SUSPECT_MS, Some(ahead), None));
        let back = Jump {
            before_ms: YEAR,
            after_ms: 0,
        };
        assert!(suspect(5, Some(back), None));
        assert!(!suspect(YEAR, Some(back), None));
        assert!(suspect(0, None, Some(BACK_MS)), "the store has seen later times");
        assert!(!suspect(1, None, Some(BACK_MS)));
    }
}
