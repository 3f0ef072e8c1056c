//! A worker, and how many more runs it can be given.

use std::{collections::BTreeSet, sync::Arc};

use super::Ledger;
use crate::{
    id::RunId,
    lane::{Lane, NEW_MS},
    run::Now,
};

/// A worker on a stream.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) kinds: BTreeSet<i32>,
    pub(super) capacity: usize,
    pub(super) instance: Arc<str>,
    /// Runs it has or will have.
    pub(super) holding: BTreeSet<RunId>,
}

/// The last lane it is given runs of, and how many places it has. Ordered by how much it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    pub(super) last: Option<Lane>,
    free: usize,
    /// Between runs that have just come up, beside those.
    pub(super) new_every_ms: Option<i64>,
}

impl Worker {
    pub(super) fn room(&self) -> Room {
        let held = self.holding.len();
        let takes = |lane: &Lane| held < lane.most_held(self.capacity);
        Room {
            last: Lane::ALL.into_iter().rfind(takes),
            free: self.capacity.saturating_sub(held),
            new_every_ms: Lane::new_every_ms(self.capacity, held),
        }
    }
}

impl Ledger {
    /// The run of a kind that a worker with such room is given next.
    pub(super) fn next_for(&mut self, kind: i32, room: Room, now: Now) -> Option<RunId> {
        let queue = self.ready.get_mut(&kind)?;
        let run = queue.pop(room.last?);
        if run.is_some() || self.new_from_ms > now.mono_ms {
            return run;
        }
        let every_ms = room.new_every_ms?;
        let run = queue.pop_new(now.wall_ms.saturating_sub(NEW_MS))?;
        self.new_from_ms = now.mono_ms + every_ms;
        Some(run)
    }
}
