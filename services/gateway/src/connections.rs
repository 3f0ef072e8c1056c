//! Live connections of devices: counted, bounded, and closed when their device's standing changes or is not known.

mod book;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use creel_wire::{DeviceId, Error};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use book::{Book, Limits};

use crate::guard::Guards;

/// Identity silent for so long: no new calls, in milliseconds.
pub(crate) const REFUSE_AFTER_MS: i64 = 5_000;
/// Silent for so long: nothing stays open, in milliseconds.
pub(crate) const CLOSE_AFTER_MS: i64 = 15_000;

/// The live connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    book: Book<DeviceId>,
    /// Of each connection in the book: cancelling it closes it.
    close: BTreeMap<u64, CancellationToken>,
}

/// One live connection; dropping it takes it out of the count.
#[derive(Debug)]
pub(crate) struct Live {
    connections: Connections,
    device: DeviceId,
    id: u64,
}

impl Connections {
    pub(crate) fn new(max_per_device: u32) -> Self {
        let limits = Limits {
            per_device: max_per_device as usize,
            refuse_ms: REFUSE_AFTER_MS,
            close_ms: CLOSE_AFTER_MS,
        };
        Self(Arc::new(Inner {
            start: Instant::now(),
            state: Mutex::new(State {
                book: Book::new(limits, 0),
                close: BTreeMap::new(),
            }),
        }))
    }

    /// Takes a connection in; `None` when its device has too many.
    pub(crate) fn open(&self, device: &DeviceId, id: u64, close: CancellationToken) -> Option<Live> {
        let mut state = self.lock();
        state.book.open(device, id).ok()?;
        state.close.insert(id, close);
        Some(Live {
            connections: self.clone(),
            device: device.clone(),
            id,
        })
    }

    /// How many changes of standings came so far.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().book.changes()
    }

    /// Whether a verdict of identity may be older than the last change; [`Book::is_outdated`].
    pub(crate) fn is_outdated(&self, seen: u64) -> bool {
        self.lock().book.is_outdated(seen, Guards::all())
    }

    /// Whether anybody may be let in now.
    ///
    /// # Errors
    /// When identity has been silent for too long.
    pub(crate) fn sees(&self) -> Result<(), Error> {
        Ok(self.lock().book.sees(self.now_ms(), Guards::all())?)
    }

    /// Whether a new call may pass on a connection whose device was judged.
    ///
    /// # Errors
    /// When identity has been silent for too long, or the connection is being closed.
    pub(crate) fn admit(&self, device: &DeviceId, id: u64) -> Result<(), Error> {
        Ok(self.lock().book.admit(device, id, self.now_ms(), Guards::all())?)
    }

    /// News of identity: which devices' standing changed, and up to when this is all. How many connections are
    /// closed for it.
    pub(crate) fn heard(&self, changed: &[DeviceId], known_ms: i64) -> usize {
        let mut state = self.lock();
        let ids = state.book.heard(changed, known_ms, Guards::all());
        state.cancel(&ids)
    }

    /// Closes what may not stay open without news; how many.
    pub(crate) fn expire(&self) -> usize {
        let mut state = self.lock();
        let ids = state.book.expire(self.now_ms(), Guards::all());
        state.cancel(&ids)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().book.count()
    }

    /// Milliseconds since the start, by a clock that never steps.
    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cancel(&self, ids: &[u64]) -> usize {
        let tokens = ids.iter().filter_map(|id| self.close.get(id));
        tokens.map(CancellationToken::cancel).count()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        state.book.gone(&self.device, self.id);
        state.close.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_the_book_says_is_done_to_the_connections() {
        let connections = Connections::new(1);
        let (a, b) = (
            DeviceId::of_public_key(&[1; 32]),
            DeviceId::of_public_key(&[2; 32]),
        );
        let token = CancellationToken::new;
        let (first, other) = (token(), token());
        let one = connections.open(&a, 1, first.clone()).unwrap();
        assert!(connections.open(&a, 2, token()).is_none());
        let _two = connections.open(&b, 3, other.clone()).unwrap();
        assert!(connections.admit(&a, 1).is_ok());
        assert_eq!(connections.heard(std::slice::from_ref(&a), 0), 1);
        assert!(first.is_cancelled() && !other.is_cancelled());
        assert_eq!(connections.admit(&a, 1).unwrap_err().reason, "standing_changed");
        drop(one);
        assert_eq!(connections.count(), 1);
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        assert_eq!(connections.admit(&b, 3).unwrap_err().reason, "identity_silent");
        assert_eq!(connections.expire(), 0);
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        assert_eq!(connections.expire(), 1);
        assert!(other.is_cancelled());
    }
}
