//! What programs read: stable JSON, written by hand, so that a change of the wire changes nothing here
//! unseen. Keys are camelCase; instants come as RFC 3339 text and, under `…Ms`, as Unix milliseconds;
//! states are lower-case words; what is not there is `null`.

pub(crate) mod device;
pub(crate) mod job;
pub(crate) mod node;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod session;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod turn;

use creel_proto::time;
use prost_types::{Duration, Timestamp};

/// The word of an enum value: `RUN_STATE_TIMED_OUT` of `RUN_STATE_` is `timed_out`. A value that this
/// program does not know arrives as unspecified.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => "unknown".to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

/// An instant as text.
pub(crate) fn at(timestamp: Option<&Timestamp>) -> Option<String> {
    at_ms(timestamp).and_then(crate::times::rfc3339)
}

/// An instant in Unix milliseconds.
pub(crate) fn at_ms(timestamp: Option<&Timestamp>) -> Option<i64> {
    timestamp.map(time::unix_ms)
}

/// A duration in milliseconds.
pub(crate) fn lasting_ms(duration: Option<&Duration>) -> Option<i64> {
    duration.map(time::duration_ms)
}

/// Empty text is none.
pub(crate) fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What an id is shown as for short: its last part, since those made within a minute begin alike. Identity takes it
/// for the whole.
pub(crate) fn short(id: &str) -> String {
    id.rsplit('-').next().unwrap_or(id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_and_strangers_are_unknown() {
        assert_eq!(word("RUN_STATE_TIMED_OUT", "RUN_STATE_"), "timed_out");
        assert_eq!(word("PHASE_UNSPECIFIED", "PHASE_"), "unknown");
        assert_eq!(
            at(Some(&time::timestamp(1_769_583_600_000))).as_deref(),
            Some("2026-01-28T07:00:00Z")
        );
        assert_eq!((text(""), text("x")), (None, Some("x".to_owned())));
        assert_eq!(short("01a22095-f514-7188-a637-3b10ff1b462f"), "3b10ff1b462f");
    }
}
