//! Runs of jobs as turns: taken in once, their summaries delivered once.

use creel_proto::agent::v1::{ContextRecord, WorkRecord};
use creel_proto::scheduler::v1::{Work, WorkRef};
use creel_store::Txn;
use creel_wire::{Code, Error, SessionKey};

use crate::{
    accept::{NewTurn, store_event},
    contexts::Contexts,
    convert,
    runner::Runner,
    session, store,
    works::{self, Job},
};

/// Contexts of a job's runs that are kept.
const KEPT_RUNS: usize = 200;
/// Why an attempt is cancelled whose result would not count.
pub(crate) const FENCED: &str = "fenced";

/// A run of which nobody is told: another attempt replaces it, or its end was decided without it.
fn untold(record: WorkRecord) -> WorkRecord {
    WorkRecord {
        delivery_state: "none".to_owned(),
        ..record
    }
}

impl Runner {
    /// Takes a run from the scheduler. One that is known goes on as it is; whatever becomes of it, the
    /// stream is woken.
    pub(crate) async fn take_work(&self, work: &Work) {
        let reference = work.r#ref.clone().unwrap_or_default();
        if reference.run_id.is_empty() || reference.run_id.len() > 128 {
            return tracing::warn!("a run without a usable id");
        }
        match self.works.get(&reference.run_id) {
            // Redelivered: it runs, or its result is sent again.
            Some(known) if known.attempt == reference.attempt => return self.works.put(known),
            Some(known) if known.attempt > reference.attempt => {
                return tracing::debug!(run = %reference.run_id, "an older attempt is not taken");
            }
            Some(known) => {
                self.works.put(untold(known.clone()));
                self.end_attempt(&known, "a newer attempt has begun").await;
            }
            None => {}
        }
        let kept = match works::read(work, self.clock.now_ms()) {
            Ok(job) => match self.start_job(job.clone()).await {
                Ok(()) => return,
                Err(error) => works::refused(job.record, &error),
            },
            Err(refused) => works::refused(refused.0, &refused.1),
        };
        tracing::info!(run = %kept.run_id, reason = %kept.reason, "a run was refused");
        let mut txn = Txn::new();
        store::put_work(&mut txn, &kept);
        match self.commit(&txn).await {
            Ok(_) => {
                let run = kept.run_id.clone();
                self.works.put(kept);
                self.deliver(&run).await;
            }
            Err(error) => self.break_down("keeping a run", &error),
        }
    }

    async fn start_job(&self, job: Job) -> Result<(), Error> {
        let new = NewTurn {
            provenance: works::provenance(&job.record),
            key: job.key,
            text: job.text,
            backend: job.backend,
            timeout_ms: job.timeout_ms,
            owner: job.owner,
            slot: None,
            event: job.event,
            work: Some(job.record),
        };
        match self.accept(new).await? {
            Some(_) => Ok(()),
            None => Err(Error::new(
                Code::Conflict,
                "raced",
                "the run was taken by another call",
            )),
        }
    }

    /// Ends the turn of an attempt and waits until it has.
    async fn end_attempt(&self, known: &WorkRecord, why: &str) {
        let follow = self.follow(&known.turn_id);
        self.abort(&known.turn_id, why, None).await;
        if let Some(mut follow) = follow {
            let _ = follow.wait_for(|progress| progress.ended).await;
        }
    }

    /// Ends a run because the scheduler says so.
    pub(crate) async fn cancel_work(&self, reference: &WorkRef, why: &str) {
        if let Some(known) = self
            .works
            .get(&reference.run_id)
            .filter(|known| known.attempt == reference.attempt)
        {
            if why == FENCED && known.outcome == 0 {
                self.works.put(untold(known.clone()));
            }
            self.abort(&known.turn_id, why, None).await;
        }
    }

    /// Forgets a run whose result the scheduler has.
    pub(crate) async fn forget_work(&self, reference: &WorkRef) {
        let known = self.works.get(&reference.run_id);
        if known.is_none_or(|known| known.attempt != reference.attempt || known.outcome == 0) {
            return;
        }
        let mut txn = Txn::new();
        txn.push_delete(store::work_key(&reference.run_id));
        match self.commit(&txn).await {
            Ok(_) => self.works.remove(&reference.run_id),
            // It stays, and is sent and acknowledged again.
            Err(error) => tracing::warn!(%error, run = %reference.run_id, "a finished run was not forgotten"),
        }
    }

    /// Delivers a run's summary to its target session, once: the inbox, the transcript's length and the
    /// run's record change in one transaction.
    pub(crate) async fn deliver(&self, run: &str) {
        let Some(record) = self
            .works
            .get(run)
            .filter(|r| r.outcome != 0 && r.delivery_state == "pending")
        else {
            return;
        };
        if let Err(error) = self.deliver_durably(record.clone()).await {
            tracing::warn!(%error, run, "a summary was not delivered");
            let failed = WorkRecord {
                delivery_state: "failed".to_owned(),
                delivery_error: format!("{}: {}", error.reason, error.message),
                ..record
            };
            let mut txn = Txn::new();
            store::put_work(&mut txn, &failed);
            match self.commit(&txn).await {
                Ok(_) => self.works.put(failed),
                Err(error) => self.break_down("keeping a run", &error),
            }
        }
    }

    async fn deliver_durably(&self, record: WorkRecord) -> Result<(), Error> {
        let key = session::parse_target(&record.deliver_to)?;
        let now_ms = self.clock.now_ms();
        let mut locked = self.contexts.open(&key, &self.new_id(), now_ms).await?;
        // Only now is nobody else delivering it.
        if self.works.get(&record.run_id).is_none_or(|now| now != record) {
            return Ok(());
        }
        let Some(context) = locked.as_mut() else {
            return Err(Error::internal("opening a context"));
        };
        let before = context.transcript.len();
        let event = works::summary(&record, now_ms);
        let mut inbox = context.inbox.clone();
        let done = WorkRecord {
            delivery_state: "delivered".to_owned(),
            ..record
        };
        let result = async {
            let put = inbox.put(event.clone())?;
            context.append(vec![convert::event(&event)])?;
            context.sync().await?;
            let mut txn = Txn::new();
            context.record.last_active_at_unix_ms = now_ms;
            store::put_context(&mut txn, &context.record);
            store_event(&mut txn, &context.record.folder, &inbox, &put);
            store::put_work(&mut txn, &done);
            self.commit(&txn).await
        };
        match result.await {
            Ok(_) => {
                context.exists = true;
                context.inbox = inbox;
                self.works.put(done);
                Ok(())
            }
            Err(error) => {
                context.cut(before);
                Contexts::discard(&mut locked);
                Err(error)
            }
        }
    }

    /// Removes the oldest contexts of a job's runs when there are too many.
    pub(crate) async fn prune_runs(&self, key: &SessionKey) {
        let SessionKey::Run { job, .. } = key else { return };
        let any = SessionKey::Run {
            job: job.clone(),
            run: String::new(),
        }
        .to_string();
        let mut runs = match self.contexts_with(&any).await {
            Ok(runs) if runs.len() > KEPT_RUNS => runs,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, job, "runs were not counted"),
        };
        runs.sort();
        runs.truncate(runs.len() - KEPT_RUNS);
        for (_, session) in runs {
            let Ok(key) = SessionKey::parse(&session) else {
                continue;
            };
            if let Err(error) = self.remove_idle(&key).await {
                tracing::warn!(%error, session, "an old run was not removed");
            }
        }
    }

    /// When the contexts with a prefix were made, and their sessions.
    async fn contexts_with(&self, prefix: &str) -> Result<Vec<(i64, String)>, Error> {
        let mut found = Vec::new();
        let mut rest = Some(store::contexts_with(prefix));
        while let Some(range) = rest {
            let page = store::page(&self.store, range, 500).await?;
            for entry in &page.entries {
                let record: ContextRecord = store::decode(&entry.value)?;
                found.push((record.created_at_unix_ms, record.session));
            }
            rest = page.next;
        }
        Ok(found)
    }

    /// Removes a context unless it has open turns or is being deleted; whether it did.
    pub(crate) async fn remove_idle(&self, key: &SessionKey) -> Result<bool, Error> {
        if !self.closing().insert(key.clone()) {
            return Ok(false);
        }
        let removed = async {
            // Whoever held the lock has its turn in the queue by now; nobody gets in later.
            drop(self.contexts.find(key).await?);
            if self.turns_of(key) != (None, Vec::new()) {
                return Ok(false);
            }
            let removed = self.remove_context(key, Txn::new(), |_, _| ()).await?;
            Ok(removed.is_some())
        };
        let removed = removed.await;
        self.closing().remove(key);
        removed
    }
}
