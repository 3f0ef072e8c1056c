//! The last alert of a job: whom somebody was told, and whether that worked.

use creel_proto::scheduler::v1::AlertRecord;

use crate::id::RunId;

/// The last alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) at_ms: i64,
    pub(crate) reason: &'static str,
    /// Under way as long as it is `None`; then whether it was delivered, or why not.
    pub(crate) outcome: Option<Result<(), String>>,
    pub(crate) run: RunId,
}

/// Why somebody is told.
pub(crate) const ALERT_REASONS: [&str; 3] = ["failures", "quarantined", "slow"];

impl Alert {
    pub(crate) fn record(&self) -> AlertRecord {
        let (state, error) = self.shown();
        AlertRecord {
            at_unix_ms: self.at_ms,
            reason: self.reason.to_owned(),
            state: state.to_owned(),
            error: error.to_owned(),
            run_id: self.run.to_string(),
        }
    }

    /// The state and the error as they are shown.
    pub(crate) fn shown(&self) -> (&'static str, &str) {
        match &self.outcome {
            None => ("pending", ""),
            Some(Ok(())) => ("delivered", ""),
            Some(Err(error)) => ("failed", error),
        }
    }

    pub(super) fn of_record(record: &AlertRecord) -> Option<Self> {
        let outcome = match record.state.as_str() {
            "pending" => None,
            "delivered" => Some(Ok(())),
            _ => Some(Err(record.error.clone())),
        };
        Some(Self {
            at_ms: record.at_unix_ms,
            reason: ALERT_REASONS.iter().find(|reason| **reason == record.reason)?,
            outcome,
            run: record.run_id.parse().ok()?,
        })
    }
}
