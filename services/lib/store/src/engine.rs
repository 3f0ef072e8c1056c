//! What an engine must do. Services never see this trait, only [`crate::Store`].

use crate::{Entry, Error, History, Key, KeyRange, Outcome, Rev, ScanPage, Txn};
use async_trait::async_trait;
use std::sync::Arc;

/// Who a store is: given at its creation or migration, constant while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Random at creation and after a restore; revisions mean something only within one incarnation.
    pub incarnation: [u8; 16],
    /// The version of the records' layout.
    pub schema_version: u32,
}

/// How much of a range an engine may return at once, and from which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanBounds {
    /// Most entries, at least 1.
    pub entries: usize,
    /// The page ends after the entry that reaches this many bytes of keys and values.
    pub bytes: usize,
    /// From the end of the range downwards.
    pub reverse: bool,
}

/// An engine: durable (or memory for tests) state behind a [`crate::Store`]. Limits were checked before it is called.
///
/// Contract: `commit` is linearisable and answers only when the change is durable; a change is readable before its
/// event is published to `history` and before the commit is answered; `scan` reads one snapshot.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Incarnation and schema version.
    fn identity(&self) -> Identity;

    /// The greatest instant committed with a change (Unix ms); `i64::MIN` before the first.
    fn last_instant_ms(&self) -> i64;

    /// The recent changes: source of all watches and of the latest revision.
    fn history(&self) -> &Arc<History>;

    /// The latest value of a key.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error>;

    /// The entries of a range within bounds, with the revision of the snapshot.
    async fn scan(&self, range: KeyRange, bounds: ScanBounds) -> Result<ScanPage, Error>;

    /// Commits a transaction. If it changes a key, the instant (when greater than the last) is committed with it.
    /// Dropping the future doesn't withdraw the transaction.
    async fn commit(&self, txn: Txn, instant_ms: i64) -> Result<Outcome, Error>;

    /// Gives back what a busy time left in memory. It changes nothing that can be seen.
    async fn rest(&self) {}
}

impl ScanBounds {
    /// Collects entries (already in scan order) until a bound is met, and says where the rest begins.
    ///
    /// # Errors
    /// The first error of the iterator.
    pub fn collect(
        self,
        range: KeyRange,
        rev: Rev,
        entries: impl Iterator<Item = Result<Entry, Error>>,
    ) -> Result<ScanPage, Error> {
        let mut page = ScanPage {
            entries: Vec::new(),
            rev,
            next: None,
        };
        let mut bytes = 0;
        for entry in entries {
            if page.entries.len() >= self.entries || bytes >= self.bytes {
                page.next = page.entries.last().map(|last| match self.reverse {
                    false => range.starting_at(last.key.successor()),
                    true => range.ending_at(last.key.clone()),
                });
                break;
            }
            let entry = entry?;
            bytes += entry.key.as_ref().len() + entry.value.len();
            page.entries.push(entry);
        }
        Ok(page)
    }
}
