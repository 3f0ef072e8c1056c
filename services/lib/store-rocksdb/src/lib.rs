//! The embedded engine of [`creel_store`]: RocksDB, synced on every commit. The only crate that links RocksDB.
//!
//! What it deliberately is not: a RocksDB wrapper. Nothing of RocksDB shows in the interface, and it has one
//! column family, no merge operators, no transactions of its own.
//!
//! Invariants:
//! - **An answered commit is on the disk.** One thread evaluates queued transactions, writes them as one synced
//!   batch, then publishes and answers. While a sync runs the next batch gathers, so throughput grows with load and
//!   a lone commit waits for nothing (`committer.rs`).
//! - **No false answer.** A failed write is answered `Unavailable` if it can't have reached the log, `Indeterminate`
//!   if it may have. When the disk is full the store goes on by itself once there is space; after any other write
//!   error it refuses to write until it is opened again (`fault.rs`).
//! - **Loss is never silent.** Recovery keeps the log up to the first damaged record, so a write torn by a power
//!   failure doesn't keep the store from opening. A mark beside the database remembers the last answered
//!   revision: if recovery ends before it, answered commits are gone and the store refuses to open (`acked.rs`).
//! - **Migrations can be taken back.** An older store is snapshotted before it is migrated (`migrate.rs`).
//!
//! ```text
//! <path>/db/          RocksDB
//! <path>/acked        the last answered revision
//! <path>/snapshots/   what was there before a migration
//! ```

mod acked;
mod committer;
mod engine;
mod fault;
mod layout;
mod migrate;
mod options;
mod restore;

pub use migrate::{Before, Changes, Migration};
pub use options::Options;
pub use restore::{restore, snapshots};

use creel_store::{Error, Store};
use std::path::Path;

/// Opens the store in the directory `path` (made if missing, mode 0700), or creates it.
///
/// Blocks for some milliseconds. The store closes when the last handle is dropped; that waits for commits under way.
///
/// # Errors
/// [`Error::NewerSchema`]; [`Error::Corrupt`] when the database is damaged or has lost answered commits;
/// [`Error::Unavailable`] when another process has it open, the disk is full, or a migration is missing.
pub fn open(path: &Path, options: Options) -> Result<Store, Error> {
    engine::Rocks::open(path, options).map(|engine| Store::new(std::sync::Arc::new(engine)))
}
