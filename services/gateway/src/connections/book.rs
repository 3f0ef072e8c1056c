//! The book of live connections, and up to when the standing of their devices is known: pure. Times are
//! milliseconds of a clock of this process that never steps.

use std::collections::BTreeMap;

use creel_wire::{Code, Error};

use crate::guard::{Guard, Guards};

/// What a book allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Limits {
    /// Connections of one device at once.
    pub(crate) per_device: usize,
    /// In the dark for so long: no new calls.
    pub(crate) refuse_ms: i64,
    /// In the dark for so long: nothing stays open.
    pub(crate) close_ms: i64,
}

/// Why a connection or a call is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The device has as many connections as it may.
    TooMany,
    /// Nobody's standing has been known for so long.
    Dark(i64),
    /// The connection is being closed: its device's standing changed, or it was never taken in.
    Closing,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany => Self::new(
                Code::ResourceExhausted,
                "too_many_connections",
                "this device has too many connections",
            )
            .hint("close some, or raise gateway.max_connections_per_device"),
            Refused::Dark(ms) => {
                let message = format!(
                    "identity has not been heard of for {} s, so nobody's standing is known",
                    ms / 1_000
                );
                Self::new(Code::Unavailable, "identity_silent", message).hint("creel status")
            }
            Refused::Closing => Self::new(
                Code::Unavailable,
                "standing_changed",
                "the device's standing changed: it has to connect again",
            ),
        }
    }
}

/// The live connections of devices `D`. Bounded per device; all together by the acceptor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Book<D> {
    limits: Limits,
    /// Every change that was committed until then has been heard of.
    known_ms: i64,
    changes: u64,
    /// By device and connection: whether it is being closed.
    live: BTreeMap<D, BTreeMap<u64, bool>>,
}

impl<D: Ord + Clone> Book<D> {
    /// An empty one. Whoever comes is judged by identity first, so all is known at the start.
    pub(crate) const fn new(limits: Limits, now_ms: i64) -> Self {
        Self {
            limits,
            known_ms: now_ms,
            changes: 0,
            live: BTreeMap::new(),
        }
    }

    /// Takes a connection in.
    pub(crate) fn open(&mut self, device: &D, id: u64) -> Result<(), Refused> {
        let own = self.live.entry(device.clone()).or_default();
        if own.len() >= self.limits.per_device {
            return Err(Refused::TooMany);
        }
        own.insert(id, false);
        Ok(())
    }

    /// A connection is gone.
    pub(crate) fn gone(&mut self, device: &D, id: u64) {
        if let Some(own) = self.live.get_mut(device) {
            own.remove(&id);
            if own.is_empty() {
                self.live.remove(device);
            }
        }
    }

    /// How many changes of standings came so far.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a device that identity judged when there had been `seen` changes, and that was taken in since, has to
    /// be judged again: the news may have passed before there was a connection to close.
    pub(crate) fn is_outdated(&self, seen: u64, guards: Guards) -> bool {
        guards.on(Guard::Epoch) && self.changes != seen
    }

    /// News: the devices whose standing changed, and up to when this is all. The connections to close.
    pub(crate) fn heard(&mut self, changed: &[D], known_ms: i64, guards: Guards) -> Vec<u64> {
        self.known_ms = self.known_ms.max(known_ms);
        self.changes += changed.len() as u64;
        let mut close = Vec::new();
        for device in changed {
            for (id, closing) in self.live.get_mut(device).into_iter().flatten() {
                *closing |= guards.on(Guard::Epoch);
                close.push(*id);
            }
        }
        if !guards.on(Guard::Close) {
            close.clear();
        }
        close
    }

    /// For how long nothing is known.
    pub(crate) const fn dark_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.known_ms)
    }

    /// Whether anybody's standing is known well enough to let somebody in.
    pub(crate) fn sees(&self, now_ms: i64, guards: Guards) -> Result<(), Refused> {
        let dark_ms = self.dark_ms(now_ms);
        if guards.on(Guard::Deadline) && dark_ms >= self.limits.refuse_ms {
            return Err(Refused::Dark(dark_ms));
        }
        Ok(())
    }

    /// Whether a new call on a connection may pass. Asked after the device was judged, not before: news come
    /// meanwhile.
    pub(crate) fn admit(&self, device: &D, id: u64, now_ms: i64, guards: Guards) -> Result<(), Refused> {
        self.sees(now_ms, guards)?;
        match self.live.get(device).and_then(|own| own.get(&id)) {
            Some(false) => Ok(()),
            Some(true) | None => Err(Refused::Closing),
        }
    }

    /// In the dark for too long: all connections, to close; otherwise none.
    pub(crate) fn expire(&mut self, now_ms: i64, guards: Guards) -> Vec<u64> {
        if !guards.on(Guard::Deadline) || self.dark_ms(now_ms) < self.limits.close_ms {
            return Vec::new();
        }
        let mut close = Vec::new();
        for (id, closing) in self.live.values_mut().flatten() {
            *closing = true;
            close.push(*id);
        }
        close
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.live.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        per_device: 2,
        refuse_ms: 5_000,
        close_ms: 15_000,
    };
    const ALL: Guards = Guards::all();

    #[test]
    fn connections_are_bounded_per_device_and_counted_while_they_live() {
        let mut book = Book::new(LIMITS, 0);
        assert_eq!((book.open(&'a', 1), book.open(&'a', 2)), (Ok(()), Ok(())));
        assert_eq!(book.open(&'a', 3), Err(Refused::TooMany), "n + 1");
        assert_eq!(book.open(&'b', 4), Ok(()));
        assert_eq!(book.count(), 3);
        book.gone(&'a', 1);
        assert_eq!((book.count(), book.open(&'a', 5)), (2, Ok(())));
    }

    #[test]
    fn news_close_the_connections_of_their_device_and_no_call_passes_while_they_close() {
        let mut book = Book::new(LIMITS, 0);
        for (device, id) in [('a', 1), ('a', 2), ('b', 3)] {
            book.open(&device, id).unwrap();
        }
        let seen = book.changes();
        assert_eq!(book.heard(&['a'], 10, ALL), [1, 2]);
        assert_eq!(book.admit(&'a', 1, 11, ALL), Err(Refused::Closing));
        assert_eq!(book.admit(&'b', 3, 11, ALL), Ok(()));
        assert!(book.is_outdated(seen, ALL), "who was judged before");
        assert!(!book.is_outdated(book.changes(), ALL));
        book.gone(&'a', 1);
        assert_eq!(book.admit(&'a', 1, 11, ALL), Err(Refused::Closing), "not there");
        book.open(&'a', 7).unwrap();
        assert_eq!(book.admit(&'a', 7, 11, ALL), Ok(()), "connected again");
    }

    #[test]
    fn in_the_dark_nothing_passes_after_five_seconds_nor_stays_after_fifteen_to_the_millisecond() {
        let mut book = Book::new(LIMITS, 100);
        book.open(&'a', 1).unwrap();
        assert_eq!(book.admit(&'a', 1, 5_099, ALL), Ok(()));
        assert_eq!(book.admit(&'a', 1, 5_100, ALL), Err(Refused::Dark(5_000)));
        assert!(book.expire(15_099, ALL).is_empty());
        assert_eq!(book.expire(15_100, ALL), [1]);
        // Light again, but what was told to close stays closed.
        book.heard(&[], 15_100, ALL);
        assert_eq!(book.admit(&'a', 1, 15_101, ALL), Err(Refused::Closing));
        // What arrives late tells nothing of now.
        book.heard(&[], 3_000, ALL);
        assert_eq!(book.dark_ms(15_101), 1);
    }
}
