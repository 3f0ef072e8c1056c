//! What a new process makes of what the one before left: turns that ran are interrupted and said so,
//! turns that waited run, summaries that were due are delivered.

use std::collections::BTreeSet;

use creel_proto::agent::v1::{RemovalRecord, TurnRecord, TurnState, WorkRecord};
use creel_wire::{Error, SessionKey};

use crate::{
    contexts::blocking,
    convert, course,
    runner::Runner,
    store::{self, Kind},
    works::MAX_HELD,
};

/// Turns that can be open: far more than any config lets wait and run.
const MAX_OPEN: usize = 200_000;
/// Contexts that can be half removed.
const MAX_REMOVALS: usize = 10_000;

impl Runner {
    /// Makes good what the process before left, and starts what may run. To be called once, before
    /// anything else.
    ///
    /// # Errors
    /// What store and files said.
    pub async fn recover(&self) -> Result<(), Error> {
        for record in store::all::<WorkRecord>(&self.store, Kind::Work.range(), 4 * MAX_HELD).await? {
            self.works.put(record);
        }
        for removal in store::all::<RemovalRecord>(&self.store, Kind::Removal.range(), MAX_REMOVALS).await? {
            self.clear(&removal).await?;
        }
        let open = self.open_turns().await?;
        let mut waiting = Vec::new();
        for turn in &open {
            let Some(record) = store::get::<TurnRecord>(&self.store, &store::turn_key(turn)).await? else {
                continue;
            };
            let Ok(key) = SessionKey::parse(&record.session) else {
                continue;
            };
            match convert::state(&record) {
                TurnState::Running => {
                    tracing::warn!(turn, session = %record.session, "a turn was cut off; it is recorded as interrupted");
                    course::end_interrupted(self, key, record).await?;
                }
                TurnState::Accepted => waiting.push((record, key)),
                state => tracing::error!(turn, ?state, "an ended turn is still open"),
            }
        }
        // In the order in which they were accepted; ids of one millisecond have none.
        waiting.sort_by(|(a, _), (b, _)| {
            (a.accepted_at_unix_ms, &a.folder, a.number).cmp(&(b.accepted_at_unix_ms, &b.folder, b.number))
        });
        for (record, key) in waiting {
            self.open_log(&record)?;
            self.restore(record, key);
        }
        self.sweep_inputs(open.into_iter().collect()).await?;
        for record in self.works.all() {
            self.deliver(&record.run_id).await;
        }
        self.dispatch();
        let counting = self.clone();
        self.spawn(async move { counting.make_room().await });
        Ok(())
    }

    async fn open_turns(&self) -> Result<Vec<String>, Error> {
        let page = self.store.scan_all(Kind::Open.range(), MAX_OPEN).await;
        let page = page.map_err(creel_kit::failure::store_error)?;
        Ok(page
            .entries
            .iter()
            .filter_map(|entry| store::last_part(&entry.key))
            .collect())
    }

    /// Removes inputs whose turn was never accepted, or has ended.
    async fn sweep_inputs(&self, open: BTreeSet<String>) -> Result<(), Error> {
        let dir = self.dirs.inputs.clone();
        blocking(move || {
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                if !entry.file_name().to_str().is_some_and(|name| open.contains(name)) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }
}
