//! What a transaction does, computed without doing it. All engines that evaluate transactions themselves share this,
//! so that they can't differ.

use crate::{Bytes, Cmp, Error, Event, Key, KeyRange, Op, Outcome, Rev, Txn, limits};
use std::collections::{BTreeMap, BTreeSet};

/// The state a transaction is evaluated against.
pub trait View {
    /// When a key was last put, `None` if it doesn't exist.
    ///
    /// # Errors
    /// When the engine can't read.
    fn rev(&self, key: &Key) -> Result<Option<Rev>, Error>;

    /// At most `limit` existing keys of a range, from its start.
    ///
    /// # Errors
    /// When the engine can't read.
    fn keys(&self, range: &KeyRange, limit: usize) -> Result<Vec<Key>, Error>;
}

/// An evaluated transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The answer once the changes are durable.
    pub outcome: Outcome,
    /// The net changes, all at `outcome.rev()`, each key once and in key order: what a watch sees. Empty: nothing to
    /// write, the revision stays.
    pub events: Vec<Event>,
}

/// Evaluates a transaction against a view that is at revision `current`.
///
/// # Errors
/// The view's, and [`Error::Limit`] when the ranges to delete hold more than [`limits::RANGE_KEYS`] keys.
pub fn plan(view: &impl View, txn: Txn, current: Rev) -> Result<Plan, Error> {
    let matched = all_hold(view, &txn.when)?;
    let ops = if matched { txn.then } else { txn.otherwise };
    let mut events = Vec::new();
    for (key, value) in net_effect(view, ops)? {
        // A put asks for nothing: whatever was there, it is gone.
        if value.is_some() || view.rev(&key)?.is_some() {
            events.push(Event { key, value });
        }
    }
    let rev = if events.is_empty() { current } else { current + 1 };
    let outcome = if matched {
        Outcome::Committed { rev }
    } else {
        Outcome::Conflict { rev }
    };
    Ok(Plan { outcome, events })
}

/// Whether evaluating a transaction may ask the view for anything: a bare put doesn't.
#[must_use]
pub fn reads(txn: &Txn) -> bool {
    let puts = |ops: &[Op]| ops.iter().all(|op| matches!(op, Op::Put(..)));
    !(txn.when.is_empty() && puts(&txn.then))
}

fn all_hold(view: &impl View, compares: &[Cmp]) -> Result<bool, Error> {
    for cmp in compares {
        let holds = match cmp {
            Cmp::Exists(key) => view.rev(key)?.is_some(),
            Cmp::Absent(key) => view.rev(key)?.is_none(),
            Cmp::ModRev(key, rev) => view.rev(key)? == Some(*rev),
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
