//! What every engine must do, as a suite its tests run. A panic is how it fails.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! creel_store::conformance::run(async || creel_store::Store::memory()).await;
//! # });
//! ```
#![expect(
    clippy::unwrap_used,
    reason = "a test suite, shared by the engines' tests: panics are its findings"
)]

mod concurrency;
mod durability;
mod limits;
mod reads;
mod transactions;
mod watches;

use crate::{Bytes, Entry, Key, KeyRange, Outcome, Page, Rev, Store, Txn};

/// Runs everything but what needs a restart. `make` gives a new, empty store each time, with the default
/// [`crate::HistoryBounds`].
///
/// # Panics
/// When the engine doesn't conform.
pub async fn run(make: impl AsyncFn() -> Store) {
    transactions::run(&make).await;
    reads::run(&make).await;
    limits::run(&make).await;
    watches::run(&make).await;
    concurrency::run(&make).await;
}

/// Runs what needs a restart. `open` opens the same store again, after its last handle was dropped; at first it is
/// empty.
///
/// # Panics
/// When the engine doesn't conform.
pub async fn run_durable(open: impl AsyncFn() -> Store) {
    durability::run(&open).await;
}

fn key(text: &str) -> Key {
    text.into()
}

/// `k0007`: sorts as the number does.
fn numbered(n: usize) -> Key {
    format!("k{n:05}").as_str().into()
}

async fn put(store: &Store, key: &Key, value: impl Into<Bytes>) -> Rev {
    committed(store, Txn::new().put(key.clone(), value)).await
}

async fn committed(store: &Store, txn: Txn) -> Rev {
    match store.commit(txn.clone()).await.unwrap() {
        Outcome::Committed { rev } => rev,
        Outcome::Conflict { rev } => panic!("conflict at {rev} for {txn:?}"),
    }
}

async fn conflict(store: &Store, txn: Txn) -> Rev {
    match store.commit(txn.clone()).await.unwrap() {
        Outcome::Conflict { rev } => rev,
        Outcome::Committed { rev } => panic!("committed at {rev}: {txn:?}"),
    }
}

async fn value(store: &Store, key: &Key) -> Option<Bytes> {
    store.get(key).await.unwrap().map(|entry| entry.value)
}

/// `count` small entries named by [`numbered`].
async fn fill(store: &Store, count: usize) {
    for first in (0..count).step_by(crate::limits::TXN_OPS) {
        let mut txn = Txn::new();
        for n in first..count.min(first + crate::limits::TXN_OPS) {
            txn.push_put(numbered(n), n.to_string());
        }
        committed(store, txn).await;
    }
}

/// Follows the pages of a range to its end.
async fn pages(store: &Store, range: KeyRange, page: Page) -> Vec<Vec<Entry>> {
    let mut all = Vec::new();
    let mut rest = Some(range);
    while let Some(range) = rest {
        let got = store.scan(range, page).await.unwrap();
        assert_eq!(got.rev, store.latest_rev().await);
        all.push(got.entries);
        rest = got.next;
    }
    all
}
