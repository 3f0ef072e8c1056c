//! The engine for tests: a map behind a lock. Nothing survives the process.

use crate::{
    Engine, Entry, Error, Event, History, HistoryBounds, Identity, Key, KeyRange, Outcome, Rev, ScanBounds,
    ScanPage, Txn, View, plan,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Memory {
    identity: Identity,
    history: Arc<History>,
    state: Mutex<State>,
}

struct State {
    rev: Rev,
    instant_ms: i64,
    entries: BTreeMap<Key, Entry>,
}

impl Memory {
    pub(crate) fn new(incarnation: [u8; 16], bounds: HistoryBounds) -> Self {
        Self {
            identity: Identity {
                incarnation,
                schema_version: 1,
            },
            history: History::new(0, bounds),
            state: Mutex::new(State {
                rev: 0,
                instant_ms: i64::MIN,
                entries: BTreeMap::new(),
            }),
        }
    }

    /// A panic between the writes of a commit is impossible (they only move values), so poison is taken over.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Engine for Memory {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn last_instant_ms(&self) -> i64 {
        self.state().instant_ms
    }

    fn history(&self) -> &Arc<History> {
        &self.history
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        Ok(self.state().entries.get(key).cloned())
    }

    async fn scan(&self, range: KeyRange, bounds: ScanBounds) -> Result<ScanPage, Error> {
        let state = self.state();
        let entries = state.range(&range).map(|(_, entry)| Ok(entry.clone()));
        match bounds.reverse {
            false => bounds.collect(range.clone(), state.rev, entries),
            true => bounds.collect(range.clone(), state.rev, entries.rev()),
        }
    }

    async fn commit(&self, txn: Txn, instant_ms: i64) -> Result<Outcome, Error> {
        let mut state = self.state();
        let plan = plan(&*state, txn, state.rev)?;
        let rev = plan.outcome.rev();
        if plan.events.is_empty() {
            return Ok(plan.outcome);
        }
        for Event { key, value } in &plan.events {
            match value {
                Some(value) => {
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        mod_rev: rev,
                    };
                    state.entries.insert(key.clone(), entry);
                }
                None => drop(state.entries.remove(key)),
            }
        }
        state.rev = rev;
        state.instant_ms = state.instant_ms.max(instant_ms);
        // Under the lock, so that revisions are published in order.
        self.history.publish([(rev, plan.events)]);
        Ok(plan.outcome)
    }
}

impl State {
    fn range<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Entry)> + use<'a> {
        self.entries.range::<[u8], _>(range.bounds())
    }
}

impl View for State {
    fn rev(&self, key: &Key) -> Result<Option<Rev>, Error> {
        Ok(self.entries.get(key).map(|entry| entry.mod_rev))
    }

    fn keys(&self, range: &KeyRange, limit: usize) -> Result<Vec<Key>, Error> {
        Ok(self
            .range(range)
            .take(limit)
            .map(|(key, _)| key.clone())
            .collect())
    }
}
