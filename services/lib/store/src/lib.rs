//! The one ordered key-value store every service keeps its state in: keys and values are bytes, shaped like etcd
//! because etcd is the engine a deployment grows into.
//!
//! What it deliberately is not: a query language, an ORM, a place for big things. Transcripts, run output and audit
//! segments go to files that records refer to. There are no nested or interactive transactions.
//!
//! Invariants, kept by every engine and proven by [`conformance`]:
//! - **One revision.** A store has one revision; it grows by exactly one with each transaction that changes a key.
//! - **Durable before visible.** A reader or watcher sees a change only after it survives `kill -9`.
//! - **Compare, then act.** A transaction is atomic: all compares hold and `then` is applied, or `otherwise` is.
//! - **Watches have no gap and no duplicate.** They resume after a revision or answer `Compacted`.
//! - **Everything is bounded** ([`limits`]): the same limits on all engines, checked before the engine is asked.
//!
//! [`Store`] is the handle. Engines implement [`Engine`]; the memory engine lives here, for tests.

pub mod conformance;
mod engine;
mod error;
mod fated;
mod history;
mod key;
pub mod kinds;
pub mod limits;
mod memory;
mod plan;
mod steady;
mod store;
mod txn;

pub use bytes::Bytes;
pub use engine::{Engine, Identity, ScanBounds};
pub use error::{Cause, Error};
pub use fated::{Fate, fated};
pub use history::{Event, History, HistoryBounds, Watch, WatchItem};
pub use key::{Key, KeyRange, be, from_be};
pub use plan::{Plan, View, plan, reads};
pub use steady::Steady;
pub use store::{Page, ScanPage, Store};
pub use txn::{Cmp, Op, Outcome, Txn};

/// A store's revision: 0 when empty, plus one per committed transaction that changed a key.
pub type Rev = u64;

/// One key with its value and the revision that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// The revision of the last put.
    pub mod_rev: Rev,
}
