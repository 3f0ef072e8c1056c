//! The end of contexts and of old turns.

use creel_kit::idempotency::Slot;
use creel_proto::agent::v1::{ContextRecord, DeleteContextResponse, RemovalRecord};
use creel_store::{KeyRange, Txn};
use creel_wire::{Code, Error, SessionKey};

use crate::{
    contexts::blocking,
    events,
    files::remove_tree,
    runner::Runner,
    store::{self, Kind},
};

/// Records removed in one transaction: two keys and the turn itself, below the store's limit.
const CHUNK: usize = 30;

impl Runner {
    /// Ends a context's turns and removes the context; `audit` holds the audit record. The workspace
    /// stays: its files are the user's.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when somebody else is deleting it; what store and files said.
    pub(crate) async fn delete_context(
        &self,
        key: &SessionKey,
        audit: Txn,
        slot: &Slot,
    ) -> Result<DeleteContextResponse, Error> {
        if !self.closing().insert(key.clone()) {
            return Err(Error::new(
                Code::FailedPrecondition,
                "context_closing",
                "the session is being deleted",
            ));
        }
        let deleted = self.delete_closed(key, audit, slot).await;
        self.closing().remove(key);
        deleted
    }

    async fn delete_closed(
        &self,
        key: &SessionKey,
        audit: Txn,
        slot: &Slot,
    ) -> Result<DeleteContextResponse, Error> {
        if self.contexts.find(key).await?.is_none() {
            return Err(Error::not_found("session", &key.to_string()));
        }
        // Whoever held the context's lock before has its turn in the queue by now; nobody gets in later.
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let (running, waiting) = self.turns_of(key);
            if running.is_none() && waiting.is_empty() {
                break;
            }
            for turn in waiting.iter().chain(&running) {
                self.abort(turn, "the session is being deleted", None).await;
            }
            released.await;
        }
        let removed = self
            .remove_context(key, audit, |record, txn| {
                let response = DeleteContextResponse {
                    entries: record.entries,
                };
                slot.record(txn, &response);
                response
            })
            .await?;
        self.outbox.committed();
        removed.ok_or_else(|| Error::not_found("session", &key.to_string()))
    }

    /// Removes a context without open turns. First the store says so, then files and records go; a crash
    /// between is made good at the next start.
    ///
    /// # Errors
    /// What store and files said; `Conflict` when the transaction holds something that no longer is.
    pub(crate) async fn remove_context<T>(
        &self,
        key: &SessionKey,
        mut txn: Txn,
        answer: impl FnOnce(&ContextRecord, &mut Txn) -> T,
    ) -> Result<Option<T>, Error> {
        let mut locked = self.contexts.find(key).await?;
        let Some(context) = locked.as_mut() else {
            return Ok(None);
        };
        let removal = RemovalRecord {
            session: key.to_string(),
            folder: context.record.folder.clone(),
        };
        txn.push_delete(store::context_key(key));
        txn.push_delete_range(Kind::Queued.range_of([&removal.folder]));
        store::put_removal(&mut txn, &removal);
        let answer = answer(&context.record, &mut txn);
        if !self.commit(&txn).await?.is_committed() {
            return Err(Error::new(
                Code::Conflict,
                "request_raced",
                "the same request was answered meanwhile; ask again",
            ));
        }
        *locked = None;
        drop(locked);
        if let Err(error) = self.clear(&removal).await {
            tracing::warn!(%error, session = %removal.session, "what is left of a session is removed at the next start");
        }
        Ok(Some(answer))
    }

    /// Removes what is left of a deleted context.
    ///
    /// # Errors
    /// What store and files said.
    pub(crate) async fn clear(&self, removal: &RemovalRecord) -> Result<(), Error> {
        let mut rest: Option<KeyRange> = Some(Kind::TurnOf.range_of([&removal.folder]));
        while let Some(range) = rest {
            let page = store::page(&self.store, range, CHUNK).await?;
            let mut txn = Txn::new();
            for entry in &page.entries {
                let turn = String::from_utf8_lossy(&entry.value).into_owned();
                txn.push_delete(store::turn_key(&turn));
                txn.push_delete(Kind::Open.key([&turn]));
                txn.push_delete(entry.key.clone());
            }
            self.commit(&txn).await?;
            rest = page.next;
        }
        let folders = [
            self.contexts.folder(&removal.folder),
            self.dirs.events.join(&removal.folder),
        ];
        blocking(move || folders.iter().try_for_each(|folder| remove_tree(folder))).await?;
        let mut txn = Txn::new();
        txn.push_delete(Kind::Removal.key([&removal.folder]));
        self.commit(&txn).await.map(drop)
    }

    /// Removes the record and events of one ended turn; its transcript entries stay.
    ///
    /// # Errors
    /// What store and files said.
    pub(crate) async fn forget_turn(&self, folder: &str, number: u64) -> Result<(), Error> {
        let place = store::turn_of(folder, number);
        let found = self
            .store
            .get(&place)
            .await
            .map_err(creel_kit::failure::store_error)?;
        let Some(entry) = found else { return Ok(()) };
        let turn = String::from_utf8_lossy(&entry.value).into_owned();
        let mut txn = Txn::new();
        txn.push_delete(store::turn_key(&turn));
        txn.push_delete(place);
        self.commit(&txn).await?;
        let path = events::path_of(&self.dirs.events, folder, &turn);
        blocking(move || match std::fs::remove_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result,
        })
        .await
    }
}
