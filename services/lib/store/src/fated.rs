//! A memory store whose commits meet a fate, for tests of what becomes of a service when its disk is full, an answer is
//! lost, or the process ends between two steps.

use crate::memory::Memory;
use crate::{
    Engine, Entry, Error, History, HistoryBounds, Identity, Key, KeyRange, Outcome, ScanBounds, ScanPage,
    Store, Txn,
};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// What becomes of commits.
#[async_trait]
pub trait Fate: Send + Sync + 'static {
    /// Stands around a commit, which is made when it is awaited and not before: pass its answer on, another, or none.
    async fn meet(&self, commit: BoxFuture<'_, Result<Outcome, Error>>) -> Result<Outcome, Error>;
}

struct Fated<F> {
    engine: Memory,
    fate: Arc<F>,
}

/// An empty store in memory whose commits meet that fate.
#[must_use]
pub fn fated<F: Fate>(fate: &Arc<F>) -> Store {
    Store::new(Arc::new(Fated {
        engine: Memory::new(rand::random(), HistoryBounds::default()),
        fate: Arc::clone(fate),
    }))
}

#[async_trait]
impl<F: Fate> Engine for Fated<F> {
    fn identity(&self) -> Identity {
        self.engine.identity()
    }

    fn last_instant_ms(&self) -> i64 {
        self.engine.last_instant_ms()
    }

    fn history(&self) -> &Arc<History> {
        self.engine.history()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.engine.get(key).await
    }

    async fn scan(&self, range: KeyRange, bounds: ScanBounds) -> Result<ScanPage, Error> {
        self.engine.scan(range, bounds).await
    }

    async fn commit(&self, txn: Txn, instant_ms: i64) -> Result<Outcome, Error> {
        self.fate.meet(self.engine.commit(txn, instant_ms)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every commit is made and no answer is the true one.
    struct Deaf;

    #[async_trait]
    impl Fate for Deaf {
        async fn meet(&self, commit: BoxFuture<'_, Result<Outcome, Error>>) -> Result<Outcome, Error> {
            commit.await?;
            Err(Error::Indeterminate {
                what: "cut".into(),
                cause: None,
            })
        }
    }

    #[tokio::test]
    async fn a_commit_meets_its_fate_and_what_was_made_is_there() {
        let store = fated(&Arc::new(Deaf));
        let key = Key::from(b"a".to_vec());
        let txn = Txn::new().put(key.clone(), "1");
        assert!(matches!(
            store.commit(txn).await,
            Err(Error::Indeterminate { .. })
        ));
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, "1");
    }
}
