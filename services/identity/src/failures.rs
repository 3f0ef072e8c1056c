//! Bad proofs, counted per device id: ten within a minute close the connection and are told. A good proof
//! is never refused for them, so a stranger who uses somebody's id locks nobody out. Pure.

use std::collections::BTreeMap;

/// So many bad proofs within the window are too many.
pub(crate) const MAX_FAILURES: u32 = 10;
/// The window, in milliseconds.
pub(crate) const WINDOW_MS: i64 = 60_000;
/// Device ids counted at once; the one that began first gives way.
const MAX_DEVICES: usize = 1_024;

/// The counts, by device id as it was claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Failures(BTreeMap<String, Window>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    since_ms: i64,
    count: u32,
}

/// What a bad proof means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Refuse it.
    Refuse,
    /// Refuse it and tell operators: the limit was just reached. The window ends then.
    Alert(i64),
    /// Refuse it: the limit was reached before. The window ends then.
    TooMany(i64),
}

impl Failures {
    /// Counts a bad proof of a device id.
    pub(crate) fn failed(&mut self, device: &str, now_ms: i64) -> Verdict {
        if self.0.len() >= MAX_DEVICES && !self.0.contains_key(device) {
            let first = self.0.iter().min_by_key(|(_, window)| window.since_ms);
            if let Some(first) = first.map(|(device, _)| device.clone()) {
                self.0.remove(&first);
            }
        }
        let window = self.0.entry(device.to_owned()).or_insert(Window {
            since_ms: now_ms,
            count: 0,
        });
        if !(window.since_ms..window.since_ms + WINDOW_MS).contains(&now_ms) {
            *window = Window {
                since_ms: now_ms,
                count: 0,
            };
        }
        window.count = window.count.saturating_add(1);
        let end = window.since_ms + WINDOW_MS;
        match window.count {
            MAX_FAILURES => Verdict::Alert(end),
            count if count > MAX_FAILURES => Verdict::TooMany(end),
            _ => Verdict::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_within_a_minute_are_too_many_and_told_once() {
        let mut failures = Failures::default();
        for n in 1..MAX_FAILURES {
            assert_eq!(failures.failed("a", i64::from(n)), Verdict::Refuse, "{n}");
        }
        assert_eq!(failures.failed("b", 1), Verdict::Refuse, "others are not counted");
        assert_eq!(failures.failed("a", 10), Verdict::Alert(1 + WINDOW_MS));
        assert_eq!(failures.failed("a", WINDOW_MS), Verdict::TooMany(1 + WINDOW_MS));
        assert_eq!(
            failures.failed("a", 1 + WINDOW_MS),
            Verdict::Refuse,
            "a new window"
        );
    }

    #[test]
    fn ids_are_bounded() {
        let mut failures = Failures::default();
        for n in 0..3 * MAX_DEVICES {
            failures.failed(&n.to_string(), i64::try_from(n).unwrap());
        }
        assert_eq!(failures.0.len(), MAX_DEVICES);
    }
}
