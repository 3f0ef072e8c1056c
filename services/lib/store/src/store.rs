//! The handle services hold: checks the limits, keeps the clock rule, and asks the engine.

use crate::memory::Memory;
use crate::{
    Engine, Entry, Error, HistoryBounds, Key, KeyRange, Op, Outcome, Rev, ScanBounds, Steady, Txn, Watch,
    limits,
};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle to one store. Cheap to clone; the engine closes when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    engine: Arc<dyn Engine>,
    /// What [`Store::note_time`] said last; carried by the next commit.
    time: Arc<Mutex<Steady>>,
}

/// How many entries a scan returns, and from which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most entries: 1 to [`limits::PAGE_ENTRIES`]. Big entries end a page earlier ([`limits::PAGE_BYTES`]).
    pub limit: usize,
    /// From the last key downwards.
    pub reverse: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self::first(limits::PAGE_ENTRIES)
    }
}

impl Page {
    /// The first `limit` entries in ascending order.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self {
            limit,
            reverse: false,
        }
    }

    /// The last `limit` entries in descending order.
    #[must_use]
    pub fn last(limit: usize) -> Self {
        Self { limit, reverse: true }
    }
}

/// A part of a range, read from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// The entries in scan order.
    pub entries: Vec<Entry>,
    /// The revision of the snapshot: a watch from here misses nothing and repeats nothing.
    pub rev: Rev,
    /// The rest of the range; `None` when there is none.
    pub next: Option<KeyRange>,
}

impl Store {
    /// A handle to an engine.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            time: Arc::default(),
        }
    }

    /// An empty store in memory, for tests. Schema version 1.
    #[must_use]
    pub fn memory() -> Self {
        Self::memory_with(HistoryBounds::default())
    }

    /// An empty store in memory that keeps so much history.
    #[must_use]
    pub fn memory_with(bounds: HistoryBounds) -> Self {
        Self::new(Arc::new(Memory::new(rand::random(), bounds)))
    }

    /// Random at creation and after a restore. Revisions and sequences of different incarnations don't compare.
    #[must_use]
    pub fn incarnation(&self) -> [u8; 16] {
        self.engine.identity().incarnation
    }

    /// The version of the records' layout.
    #[must_use]
    pub fn schema_version(&self) -> u32 {
        self.engine.identity().schema_version
    }

    /// The revision of the last committed change.
    #[expect(clippy::unused_async, reason = "an engine across a network has to ask")]
    pub async fn latest_rev(&self) -> Rev {
        self.engine.history().latest()
    }

    /// The latest value of a key.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        limits::check_key(key)?;
        self.engine.get(key).await
    }

    /// One page of a range, from one snapshot. Follow `next` for the rest; each page is a snapshot of its own.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn scan(&self, range: KeyRange, page: Page) -> Result<ScanPage, Error> {
        limits::check_range(&range)?;
        limits::check("pages of no entries", 0, usize::from(page.limit == 0))?;
        limits::check("entries in a page", limits::PAGE_ENTRIES, page.limit)?;
        let bounds = ScanBounds {
            entries: page.limit,
            bytes: limits::PAGE_BYTES,
            reverse: page.reverse,
        };
        self.engine.scan(range, bounds).await
    }

    /// A whole range that is known to be small, in ascending order, from one snapshot. `next` is always `None`.
    ///
    /// # Errors
    /// [`Error::Limit`] when the range holds more than `max` entries or [`limits::SCAN_ALL_BYTES`];
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn scan_all(&self, range: KeyRange, max: usize) -> Result<ScanPage, Error> {
        limits::check_range(&range)?;
        // One more than allowed, so that the answer itself shows when there are too many.
        let entries = max.saturating_add(1);
        let bounds = ScanBounds {
            entries,
            bytes: limits::SCAN_ALL_BYTES,
            reverse: false,
        };
        let page = self.engine.scan(range, bounds).await?;
        limits::check("entries in a range read whole", max, page.entries.len())?;
        if page.next.is_some() {
            let limit = limits::SCAN_ALL_BYTES as u64;
            return Err(Error::Limit {
                what: "bytes in a range read whole",
                limit,
                got: limit + 1,
            });
        }
        Ok(page)
    }

    /// Commits a transaction; answers when it is durable. Dropping the future doesn't withdraw the transaction.
    ///
    /// # Errors
    /// [`Error::Limit`] and [`Error::Unavailable`]: nothing changed. [`Error::Indeterminate`]: unknown.
    pub async fn commit(&self, txn: Txn) -> Result<Outcome, Error> {
        limits::check_txn(&txn)?;
        let instant_ms = self.time().last_ms().unwrap_or(i64::MIN);
        self.engine.commit(txn, instant_ms).await
    }

    /// Removes every key of a range of any size, in as many transactions as it takes. Not atomic.
    ///
    /// # Errors
    /// As [`Store::commit`]; what was removed before stays removed.
    pub async fn clear(&self, range: KeyRange) -> Result<(), Error> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let page = self.scan(range, Page::first(limits::TXN_OPS)).await?;
            if !page.entries.is_empty() {
                let then = page
                    .entries
                    .into_iter()
                    .map(|entry| Op::Delete(entry.key))
                    .collect();
                self.commit(Txn {
                    then,
                    ..Txn::default()
                })
                .await?;
            }
            rest = page.next;
        }
        Ok(())
    }

    /// To be called when a busy time is over: gives back what it left in memory.
    pub async fn rest(&self) {
        self.engine.rest().await;
    }

    /// Watches the changes of `range` after revision `from`: no gap, no duplicate, or `Compacted`.
    /// When the store closes, the watch stays silent.
    #[must_use]
    pub fn watch(&self, range: KeyRange, from: Rev) -> Watch {
        self.engine.history().watch(range, from)
    }

    /// The instant to use for expiry (Unix ms): `now_ms`, but never below what it said before, so that a clock set
    /// back revives nothing; [`Steady`] says how it goes on then. The instant outlives a restart from the next
    /// commit on that changes a key.
    pub fn note_time(&self, now_ms: i64) -> i64 {
        self.time().at(now_ms, self.engine.last_instant_ms())
    }

    fn time(&self) -> MutexGuard<'_, Steady> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The greatest committed instant (Unix ms), `None` before the first. If it is far ahead of the clock, the
    /// clock once ran ahead.
    #[must_use]
    pub fn last_instant_ms(&self) -> Option<i64> {
        Some(self.engine.last_instant_ms()).filter(|ms| *ms != i64::MIN)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = self.engine.identity();
        f.debug_struct("Store")
            .field("incarnation", &u128::from_be_bytes(identity.incarnation))
            .field("schema_version", &identity.schema_version)
            .field("rev", &self.engine.history().latest())
            .finish()
    }
}
