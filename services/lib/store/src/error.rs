//! What can go wrong with a store, each with what to do about it.

use crate::Rev;
use std::sync::Arc;

/// The underlying error, shared because one failed write may fail many transactions.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// A failed store operation. The message says what failed, the source why, [`Error::hint`] what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transaction may or may not have been committed. Read the state again before acting on either.
    #[error("the outcome of the transaction is unknown: {what}")]
    Indeterminate {
        /// What cut the answer off.
        what: String,
        /// The engine's error.
        #[source]
        cause: Option<Cause>,
    },
    /// A limit of [`crate::limits`] would be exceeded. Nothing was changed.
    #[error("too many {what}: {got}, the limit is {limit}")]
    Limit {
        /// What is counted, in plural.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
        /// What was asked for.
        got: u64,
    },
    /// Stored bytes are not what was once written.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
        /// What to do about it.
        hint: String,
        /// The engine's error.
        #[source]
        cause: Option<Cause>,
    },
    /// The store was written by a newer program.
    #[error("the store has schema version {found}, this program knows up to {supported}")]
    NewerSchema {
        /// The version in the store.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },
    /// The engine can't serve now: disk full, I/O error, held by another process. Nothing was changed.
    #[error("the store is unavailable: {what}")]
    Unavailable {
        /// What failed.
        what: String,
        /// What to do about it.
        hint: String,
        /// The engine's error.
        #[source]
        cause: Option<Cause>,
    },
    /// The events asked for are no longer kept. Scan again and watch from the revision of that scan.
    #[error("events up to revision {oldest} are no longer kept")]
    Compacted {
        /// The oldest revision a watch can start from.
        oldest: Rev,
    },
}

impl Error {
    /// What to do next, in one sentence; `None` where only the program itself can act.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Indeterminate { .. } => Some("read the state again before repeating the request".into()),
            Self::Corrupt { hint, .. } | Self::Unavailable { hint, .. } => Some(hint.clone()),
            Self::NewerSchema { .. } => Some(
                "update Creel, or restore the snapshot that was taken before the store was migrated".into(),
            ),
            Self::Limit { .. } | Self::Compacted { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn messages_say_what_and_sources_say_why() {
        let cause: Cause = Arc::new(std::io::Error::other("No space left on device"));
        let err = Error::Unavailable {
            what: "writing failed".into(),
            hint: "free some space".into(),
            cause: Some(cause),
        };
        assert_eq!(err.to_string(), "the store is unavailable: writing failed");
        assert_eq!(err.source().unwrap().to_string(), "No space left on device");
        assert_eq!(err.hint().as_deref(), Some("free some space"));
        let limit = Error::Limit {
            what: "bytes in a key",
            limit: 1024,
            got: 1025,
        };
        assert_eq!(
            limit.to_string(),
            "too many bytes in a key: 1025, the limit is 1024"
        );
        assert_eq!(limit.hint(), None);
    }
}
