//! A worker, and how many more runs it can be given.

use std::{collections::BTreeSet, sync::Arc};

use crate::{id::RunId, lane::Lane};

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
}

impl Worker {
    pub(super) fn room(&self) -> Room {
        let held = self.holding.len();
        let takes = |lane: &Lane| held < lane.most_held(self.capacity);
        Room {
            last: Lane::ALL.into_iter().rfind(takes),
            free: self.capacity.saturating_sub(held),
        }
    }
}
