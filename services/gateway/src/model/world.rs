//! What is true at a moment of the small world, and the invariants: each one function of it.

use std::collections::{BTreeSet, VecDeque};

use creel_identity::epochs::Standing;
use creel_wire::assertion::MAX_LIFE_MS;

use crate::connections::{Book, Limits};

pub(super) const SECOND_MS: i64 = 1_000;
/// As short as the order of the three times allows: within a second, then dark, then closed.
pub(super) const LIMITS: Limits = Limits {
    per_device: 2,
    refuse_ms: 2 * SECOND_MS,
    close_ms: 3 * SECOND_MS,
};
pub(super) const DEVICE: u8 = 0;

/// What was signed of the device, by its epoch then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Signed {
    pub(super) epoch: u64,
    pub(super) life_ms: i64,
    /// Made of an earlier one, and how the device stood when it was.
    pub(super) again: Option<Standing>,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    /// Not made yet.
    Away,
    /// Taken in by its certificate, not yet judged.
    Certified,
    /// At the WebSocket door, where a device is judged before it is taken in: what was heard before it was asked for.
    Knocked { seen: u64 },
    /// Identity's word for it is on its way; at the door as before.
    Vouched { signed: Signed, seen: Option<u64> },
    /// Taken in, and to be judged again.
    Outdated(Signed),
    /// Let in.
    Proven(Signed),
    /// Gone.
    Gone,
}

/// One event of the watch: when it was sent, and whether the device changed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Event {
    pub(super) sent_ms: i64,
    pub(super) changed: bool,
}

/// The watch, as both ends see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stream {
    /// The gateway asked, and identity has not answered.
    Asked {
        at_ms: i64,
    },
    Open {
        asked_ms: i64,
        taken_ms: i64,
        /// Identity still sends.
        fed: bool,
        /// The snapshot has arrived, so all of before is known.
        heard: bool,
        events: VecDeque<Event>,
    },
    None,
}

/// A call that passed just now; times are no longer than what an invariant asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Call {
    /// How long before it the device was revoked.
    pub(super) revoked_for_ms: Option<i64>,
    /// Up to when the gateway could know, by the world's own books.
    pub(super) dark_ms: i64,
    /// All that was committed a second ago had arrived, and identity still sent.
    pub(super) live: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct World {
    pub(super) now_ms: i64,
    pub(super) standing: Standing,
    pub(super) revoked_ms: Option<i64>,
    pub(super) stream: Stream,
    /// When the newest event that arrived was sent.
    pub(super) told_ms: i64,
    pub(super) book: Book<u8>,
    pub(super) ways: [Way; 2],
    /// Connections told to close.
    pub(super) closing: BTreeSet<u64>,
    /// Connections that stood in the book when news of their device came.
    pub(super) touched: BTreeSet<u64>,
    /// The newest statement that was made of another.
    pub(super) turn: Option<Signed>,
    pub(super) call: Option<Call>,
    /// It was looked, and a connection was left open in the dark.
    pub(super) left_open: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now_ms: 0,
            standing: Standing {
                epoch: 1,
                revoked: false,
            },
            revoked_ms: None,
            stream: Stream::None,
            told_ms: 0,
            book: Book::new(LIMITS, 0),
            ways: [Way::Away; 2],
            closing: BTreeSet::new(),
            touched: BTreeSet::new(),
            turn: None,
            call: None,
            left_open: false,
        }
    }

    pub(super) fn send(&mut self, changed: bool) {
        if let Stream::Open {
            fed: true, events, ..
        } = &mut self.stream
        {
            events.push_back(Event {
                sent_ms: self.now_ms,
                changed,
            });
        }
    }

    pub(super) fn gone(&mut self, id: usize) {
        self.book.gone(&DEVICE, id as u64);
        self.ways[id] = Way::Gone;
        self.closing.remove(&(id as u64));
        self.touched.remove(&(id as u64));
    }

    pub(super) fn is_live(&self) -> bool {
        match &self.stream {
            Stream::Open {
                fed, heard, events, ..
            } => {
                let late = |event: &Event| event.sent_ms <= self.now_ms - SECOND_MS;
                *fed && *heard && !events.iter().any(late)
            }
            Stream::Asked { .. } | Stream::None => false,
        }
    }

    pub(super) fn dark_ms(&self) -> i64 {
        self.now_ms - self.told_ms
    }

    pub(super) fn stands(&self) -> impl Iterator<Item = u64> {
        let open = |way: &Way| matches!(way, Way::Certified | Way::Outdated(_) | Way::Proven(_));
        let ids = self.ways.iter().enumerate().filter(move |(_, way)| open(way));
        ids.map(|(id, _)| id as u64)
    }

    pub(super) fn signed(&self) -> impl Iterator<Item = Signed> {
        let of_way = |way: &Way| match way {
            Way::Vouched { signed, .. } | Way::Outdated(signed) | Way::Proven(signed) => Some(*signed),
            Way::Away | Way::Certified | Way::Knocked { .. } | Way::Gone => None,
        };
        self.ways.iter().filter_map(of_way).chain(self.turn)
    }
}

/// INV-REV-1: with a live watch no call a second after the commit.
pub(super) fn rev_1(world: &World) -> bool {
    world
        .call
        .is_none_or(|call| !call.live || call.revoked_for_ms.is_none_or(|ms| ms < SECOND_MS))
}

/// INV-REV-2: in the dark no new call after the one time; whoever looks after the other leaves nothing open.
pub(super) fn rev_2(world: &World) -> bool {
    world.call.is_none_or(|call| call.dark_ms < LIMITS.refuse_ms) && !world.left_open
}

/// INV-REV-3: no assertion outlives five minutes, none is made of one of another epoch.
pub(super) fn rev_3(world: &World) -> bool {
    world.signed().all(|signed| {
        signed.life_ms <= MAX_LIFE_MS && signed.again.is_none_or(|standing| standing.epoch == signed.epoch)
    })
}

/// INV-REV-4, as a safety property: whoever stood when the news came was told to close.
pub(super) fn rev_4(world: &World) -> bool {
    world.touched.is_subset(&world.closing)
}
