//! The last run of a job that ended.

use creel_proto::scheduler::v1::RunState;

/// Longest text kept of a last error, in characters.
const MAX_ERROR_CHARS: usize = 256;

/// The last run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) at_ms: i64,
    pub(crate) finished_ms: i64,
    pub(crate) state: RunState,
    pub(crate) error: String,
}

impl Last {
    pub(crate) fn new(at_ms: i64, finished_ms: i64, state: RunState, error: &str) -> Self {
        Self {
            at_ms,
            finished_ms,
            state,
            error: error.chars().take(MAX_ERROR_CHARS).collect(),
        }
    }

    pub(crate) const fn duration_ms(&self) -> i64 {
        let duration = self.finished_ms - self.at_ms;
        if duration < 0 { 0 } else { duration }
    }
}
