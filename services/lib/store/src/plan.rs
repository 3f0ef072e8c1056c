//! What a transaction does, computed without doing it. All engines that evaluate transactions themselves share this,
//! so that they can't differ.

use crate::{Bytes, Cmp, Error, Event, Key, KeyRange, Op, Outcome, Rev, Txn, limits};
use std::collections::{BTreeMap, BTreeSet};

/// The revisions of an existing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revs {
    /// When it came into being.
    pub create: Rev,
    /// When it was last put.
    pub modified: Rev,
}

/// The state a transaction is evaluated against.
pub trait View {
    /// The revisions of a key, `None` if it doesn't exist.
    ///
    /// # Errors
    /// When the engine can't read.
    fn revs(&self, key: &Key) -> Result<Option<Revs>, Error>;

    /// At most `limit` existing keys of a range, from its start.
    ///
    /// # Errors
    /// When the engine can't read.
    fn keys(&self, range: &KeyRange, limit: usize) -> Result<Vec<Key>, Error>;
}

/// The net change of one key: at most one per key and transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value from now on.
    Put {
        /// The new value.
        value: Bytes,
        /// The key's creation: kept if the key existed before the transaction.
        create_rev: Rev,
    },
    /// The key existed and doesn't any more.
    Delete,
}

/// An evaluated transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The answer once the changes are durable.
    pub outcome: Outcome,
    /// The changes, all at `outcome.rev()`. Empty: nothing to write, the revision stays.
    pub changes: BTreeMap<Key, Change>,
}

impl Plan {
    /// The events a watch sees.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let event = |(key, change): (&Key, &Change)| Event {
            key: key.clone(),
            value: match change {
                Change::Put { value, .. } => Some(value.clone()),
                Change::Delete => None,
            },
        };
        self.changes.iter().map(event).collect()
    }
}

/// Evaluates a transaction against a view that is at revision `current`.
///
/// # Errors
/// The view's, and [`Error::Limit`] when the ranges to delete hold more than [`limits::RANGE_KEYS`] keys.
pub fn plan(view: &impl View, txn: Txn, current: Rev) -> Result<Plan, Error> {
    let matched = all_hold(view, &txn.when)?;
    let ops = if matched { txn.then } else { txn.otherwise };
    let next = current + 1;
    let mut changes = BTreeMap::new();
    for (key, value) in net_effect(view, ops)? {
        let before = view.revs(&key)?;
        let change = match (before, value) {
            (None, None) => continue,
            (Some(_), None) => Change::Delete,
            (before, Some(value)) => Change::Put {
                value,
                create_rev: before.map_or(next, |revs| revs.create),
            },
        };
        changes.insert(key, change);
    }
    let rev = if changes.is_empty() { current } else { next };
    let outcome = if matched {
        Outcome::Committed { rev }
    } else {
        Outcome::Conflict { rev }
    };
    Ok(Plan { outcome, changes })
}

fn all_hold(view: &impl View, compares: &[Cmp]) -> Result<bool, Error> {
    for cmp in compares {
        let holds = match cmp {
            Cmp::Exists(key) => view.revs(key)?.is_some(),
            Cmp::Absent(key) => view.revs(key)?.is_none(),
            Cmp::ModRev(key, rev) => view.revs(key)?.is_some_and(|revs| revs.modified == *rev),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The last word of the operations on each key they touch.
fn net_effect(view: &impl View, ops: Vec<Op>) -> Result<BTreeMap<Key, Option<Bytes>>, Error> {
    let mut net = BTreeMap::new();
    let mut ranged = BTreeSet::new();
    for op in ops {
        match op {
            Op::Put(key, value) => {
                net.insert(key, Some(value));
            }
            Op::Delete(key) => {
                net.insert(key, None);
            }
            Op::DeleteRange(range) => {
                for (_, value) in net.iter_mut().filter(|(key, _)| range.contains(key.as_ref())) {
                    *value = None;
                }
                for key in view.keys(&range, limits::RANGE_KEYS + 1)? {
                    net.insert(key.clone(), None);
                    ranged.insert(key);
                }
                limits::check("keys in the ranges to delete", limits::RANGE_KEYS, ranged.len())?;
            }
        }
    }
    Ok(net)
}
