//! The recent changes of a store, and the watches that read them.
//!
//! A watch owns a revision, not a queue: a slow watcher costs nothing and can't fill memory. When the changes it
//! wants were dropped it is told so (`Compacted`) and scans again. The history lives in memory and starts empty, so
//! after a restart a watch resumes only from the revision the store opened at.

use crate::{Bytes, Error, Key, KeyRange, Rev};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// Its new value; `None` when it was removed.
    pub value: Option<Bytes>,
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// The watched changes of one revision, each key once, in key order. Never empty.
    Events {
        /// The revision.
        rev: Rev,
        /// The changes.
        events: Vec<Event>,
    },
    /// Changes were dropped before the watch saw them. Scan, then [`Watch::resume`] from the scan's revision.
    Compacted {
        /// The oldest revision a watch can start from.
        oldest: Rev,
    },
}

/// How much history is kept: whichever bound is met first. The newest revision is always kept.
#[derive(Debug, Clone, Copy)]
pub struct HistoryBounds {
    /// Most revisions.
    pub revisions: usize,
    /// Most bytes of keys and values.
    pub bytes: usize,
}

impl Default for HistoryBounds {
    fn default() -> Self {
        Self {
            revisions: 4096,
            bytes: 1024 * 1024,
        }
    }
}

/// The recent changes, filled by an engine and read by any number of watches.
#[derive(Debug)]
pub struct History {
    bounds: HistoryBounds,
    ring: Mutex<Ring>,
    latest: watch::Sender<Rev>,
}

#[derive(Debug)]
struct Ring {
    /// Changes at or below this revision are gone.
    floor: Rev,
    bytes: usize,
    items: VecDeque<Item>,
}

#[derive(Debug)]
struct Item {
    rev: Rev,
    bytes: usize,
    events: Vec<Event>,
}

impl History {
    /// An empty history of a store that is at `rev`.
    #[must_use]
    pub fn new(rev: Rev, bounds: HistoryBounds) -> Arc<Self> {
        let ring = Mutex::new(Ring {
            floor: rev,
            bytes: 0,
            items: VecDeque::new(),
        });
        Arc::new(Self {
            bounds,
            ring,
            latest: watch::Sender::new(rev),
        })
    }

    /// Adds committed revisions in ascending order and wakes the watches. Only the engine calls this.
    pub fn publish(&self, revisions: impl IntoIterator<Item = (Rev, Vec<Event>)>) {
        let mut ring = self.ring();
        let mut latest = None;
        for (rev, events) in revisions {
            let bytes = events
                .iter()
                .map(|e| e.key.as_ref().len() + e.value.as_ref().map_or(0, Bytes::len))
                .sum();
            ring.bytes += bytes;
            ring.items.push_back(Item { rev, bytes, events });
            latest = Some(rev);
            while ring.items.len() > 1
                && (ring.items.len() > self.bounds.revisions || ring.bytes > self.bounds.bytes)
            {
                if let Some(dropped) = ring.items.pop_front() {
                    ring.bytes -= dropped.bytes;
                    ring.floor = dropped.rev;
                }
            }
        }
        drop(ring);
        if let Some(rev) = latest {
            self.latest.send_replace(rev);
        }
    }

    /// The last published revision.
    #[must_use]
    pub fn latest(&self) -> Rev {
        *self.latest.borrow()
    }

    /// A watch on the changes of `range` after revision `from`.
    #[must_use]
    pub fn watch(self: &Arc<Self>, range: KeyRange, from: Rev) -> Watch {
        Watch {
            wake: self.latest.subscribe(),
            history: self.clone(),
            range,
            cursor: from,
        }
    }

    /// The first watched revision after `cursor`, or where to go on looking.
    fn after(&self, cursor: Rev, range: &KeyRange) -> Result<WatchItem, Rev> {
        let ring = self.ring();
        if cursor < ring.floor {
            return Ok(WatchItem::Compacted { oldest: ring.floor });
        }
        let unseen = ring.items.partition_point(|item| item.rev <= cursor);
        for item in ring.items.range(unseen..) {
            let events: Vec<_> = item
                .events
                .iter()
                .filter(|e| range.contains(e.key.as_ref()))
                .cloned()
                .collect();
            if !events.is_empty() {
                return Ok(WatchItem::Events {
                    rev: item.rev,
                    events,
                });
            }
        }
        Err(ring.items.back().map_or(ring.floor, |item| item.rev).max(cursor))
    }

    /// A panic can't leave the ring half changed in a way that matters, so a poisoned lock is taken over.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A resumable watch: no gap, no duplicate, or `Compacted`.
#[derive(Debug)]
pub struct Watch {
    history: Arc<History>,
    wake: watch::Receiver<Rev>,
    range: KeyRange,
    cursor: Rev,
}

impl Watch {
    /// Waits for the next watched revision. Cancel-safe. After `Compacted` it answers `Compacted` until resumed.
    pub async fn next(&mut self) -> WatchItem {
        loop {
            // Marked as seen before looking: a revision published while we look wakes us again.
            self.wake.borrow_and_update();
            match self.history.after(self.cursor, &self.range) {
                Ok(WatchItem::Events { rev, events }) => {
                    self.cursor = rev;
                    return WatchItem::Events { rev, events };
                }
                Ok(compacted) => return compacted,
                Err(cursor) => self.cursor = cursor,
            }
            if self.wake.changed().await.is_err() {
                // The sender lives in the history we hold, so this is never reached; waiting is the safe answer.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Like [`Watch::next`], with `Compacted` as an error.
    ///
    /// # Errors
    /// [`Error::Compacted`] when changes were dropped unseen.
    pub async fn next_events(&mut self) -> Result<(Rev, Vec<Event>), Error> {
        match self.next().await {
            WatchItem::Events { rev, events } => Ok((rev, events)),
            WatchItem::Compacted { oldest } => Err(Error::Compacted { oldest }),
        }
    }

    /// The revision up to which everything was yielded (or didn't concern the range).
    #[must_use]
    pub fn cursor(&self) -> Rev {
        self.cursor
    }

    /// Goes on after revision `from`, usually that of a fresh scan.
    pub fn resume(&mut self, from: Rev) {
        self.cursor = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &str, value: &'static str) -> Event {
        Event {
            key: key.into(),
            value: Some(Bytes::from_static(value.as_bytes())),
        }
    }

    #[tokio::test]
    async fn drops_the_oldest_and_says_so() {
        let history = History::new(
            10,
            HistoryBounds {
                revisions: 2,
                bytes: 1000,
            },
        );
        let mut late = history.watch(KeyRange::all(), 10);
        for rev in 11..=13 {
            history.publish([(rev, vec![event("k", "v")])]);
        }
        assert_eq!(late.next().await, WatchItem::Compacted { oldest: 11 });
        assert!(matches!(
            late.next_events().await,
            Err(Error::Compacted { oldest: 11 })
        ));
        late.resume(11);
        assert_eq!(late.next_events().await.unwrap(), (12, vec![event("k", "v")]));
        assert_eq!(late.cursor(), 12);
    }

    #[tokio::test]
    async fn bytes_bound_keeps_the_newest() {
        let history = History::new(
            0,
            HistoryBounds {
                revisions: 100,
                bytes: 4,
            },
        );
        history.publish([
            (1, vec![event("k", "1")]),
            (2, vec![event("k", "2")]),
            (3, vec![event("k", "longer")]),
        ]);
        let mut watch = history.watch(KeyRange::all(), 2);
        assert_eq!(
            watch.next_events().await.unwrap(),
            (3, vec![event("k", "longer")])
        );
        assert_eq!(
            history.watch(KeyRange::all(), 1).next().await,
            WatchItem::Compacted { oldest: 2 }
        );
    }

    #[tokio::test]
    async fn unwatched_revisions_move_the_cursor_on() {
        let history = History::new(
            0,
            HistoryBounds {
                revisions: 1,
                bytes: 1000,
            },
        );
        let mut watch = history.watch(KeyRange::prefix(b"a"), 0);
        for rev in 1..=5 {
            history.publish([(rev, vec![event("b", "v")])]);
            // Polled between the publications, the watch follows and is never compacted.
            assert!(futures_util::FutureExt::now_or_never(watch.next()).is_none());
        }
        assert_eq!(watch.cursor(), 5);
    }
}
