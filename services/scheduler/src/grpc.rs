//! The calls of people: proto to domain at the edge of the service. Everything that can be wrong with a request
//! is found here or in the ledger; nothing is decided here.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use creel_kit::{Clock, idempotency::Idempotency};
use creel_proto::{
    scheduler::v1::{AlertStatus, Job, JobRecord, Schedule as ProtoSchedule},
    time::{duration, timestamp, timestamp_opt},
};
use creel_store::Store;
use creel_wire::{Caller, Code, Error, error::printable};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    engine::Handle,
    ledger::{Target, View},
    run::state_name,
    store,
    zoning::Zoning,
};

mod admin;
mod agents;
mod backends;
mod backfill;
mod create;
mod explain;
mod jobs;
mod named;
mod preview;
mod runs;
mod tail;
mod watch;

pub(crate) use agents::MAX_PER_CONTEXT;

/// What the calls of people need. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) engine: Handle,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) idempotency: Idempotency,
    pub(crate) zones: Zoning,
    pub(crate) config: Config,
    /// Ten random bytes for the id of a job.
    pub(crate) random: fn() -> [u8; 10],
    pub(crate) busy: Busy,
    pub(crate) drain: CancellationToken,
}

impl Api {
    /// The time that the engine goes by: the wall clock's, unless that is not believed.
    async fn now_ms(&self) -> Result<i64, Error> {
        self.engine.ask(|_, now| now.wall_ms).await
    }

    /// A job of the caller, by name or id.
    async fn find(&self, caller: &Caller, job: &str) -> Result<View, Error> {
        if job.is_empty() {
            return Err(Error::invalid("job", "a job's name or id is needed").hint("creel cron list"));
        }
        let (owner, wanted) = (person(caller)?.to_owned(), job.to_owned());
        let found = self
            .engine
            .ask(move |ledger, now| {
                ledger
                    .find(&owner, &wanted, now)
                    .ok_or_else(|| ledger.nearest(&owner, &wanted))
            })
            .await?;
        found.map_err(|nearest| {
            let hint = match nearest {
                Some(name) => format!("did you mean `{name}`? creel cron list names all"),
                None => "creel cron list".to_owned(),
            };
            Error::not_found("job", job).field("job").hint(hint)
        })
    }

    /// A job's record as it is in the store.
    async fn record(&self, view: &View) -> Result<JobRecord, Error> {
        // What was just changed may still be on its way.
        self.engine.settle().await?;
        self.store_record(view).await?.ok_or_else(|| {
            let name = printable(&view.name, 128);
            Error::new(
                Code::FailedPrecondition,
                "invalid_record",
                format!("the record of `{name}` can't be read"),
            )
            .hint("creel cron rm NAME, then creel cron add NAME …")
        })
    }

    /// A job's record, if it is there and can be read.
    async fn store_record(&self, view: &View) -> Result<Option<JobRecord>, Error> {
        store::job(&self.store, view.id)
            .await
            .map_err(creel_kit::failure::store_error)
    }
}

/// Whom a call's jobs belong to.
fn person(caller: &Caller) -> Result<&str, Error> {
    match caller.person() {
        "" => Err(Error::new(
            Code::PermissionDenied,
            "no_person",
            "jobs belong to people, and this caller acts for none",
        )),
        person => Ok(person),
    }
}

/// A change of a job that was found.
fn target(caller: &Caller, view: &View, if_match: &str) -> Result<Target, Error> {
    let if_match = match if_match {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Error::invalid("if_match", "not an etag of a job"))?,
        ),
    };
    Ok(Target {
        job: view.id,
        principal: caller.principal().to_string(),
        if_match,
    })
}

/// A job as it is shown.
fn shown(record: Option<&JobRecord>, view: &View) -> Job {
    let last = view.state.last.as_ref();
    Job {
        job_id: view.id.to_string(),
        spec: record.and_then(|record| record.spec.clone()),
        owner: view.owner.to_string(),
        scopes: record.map(|record| record.scopes.clone()).unwrap_or_default(),
        phase: view.phase.into(),
        phase_reason: view.reason.clone(),
        created_at: record.and_then(|record| timestamp_opt(record.created_at_unix_ms)),
        updated_at: record.and_then(|record| timestamp_opt(record.updated_at_unix_ms)),
        next_run_at: view.next_run_ms.map(timestamp),
        last_run_at: last.map(|last| timestamp(last.at_ms)),
        last_status: last
            .map(|last| state_name(last.state).to_owned())
            .unwrap_or_default(),
        last_duration: last.map(|last| duration(last.duration_ms())),
        last_error: last.map(|last| last.error.clone()).unwrap_or_default(),
        consecutive_failures: view.state.failures,
        etag: view.state.version.to_string(),
        schedule_text: view.schedule_text.clone(),
        created_by: record.map(|record| record.created_by.clone()).unwrap_or_default(),
        context: record.map(|record| record.context.clone()).unwrap_or_default(),
        expected: view.expected_ms.map(duration),
        backoff_until: view.state.backoff_until_ms.map(timestamp),
        alert: view.state.alert.as_ref().map(|alert| {
            let (state, error) = alert.shown();
            AlertStatus {
                last_at: Some(timestamp(alert.at_ms)),
                state: state.to_owned(),
                reason: alert.reason.to_owned(),
                error: error.to_owned(),
                run_id: alert.run.to_string(),
            }
        }),
        backfill: view.state.backfill.as_ref().map(|backfill| backfill.shown()),
        probe_at: view
            .state
            .quarantine
            .map(|quarantine| timestamp(quarantine.until_ms)),
        warnings: Vec::new(),
    }
}

fn has_schedule(schedule: Option<&ProtoSchedule>) -> bool {
    schedule.is_some_and(|schedule| schedule.kind.is_some())
}

/// Requests that are being worked on: the second of two that are the same and come at once waits its turn
/// outside. As many as there are calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<BTreeSet<String>>>);

/// One request's place; free when dropped.
#[derive(Debug)]
pub(crate) struct Turn(Busy, String);

impl Busy {
    fn enter(&self, caller: &Caller, method: &str, request_id: &str) -> Result<Option<Turn>, Error> {
        if request_id.is_empty() {
            return Ok(None);
        }
        let key = format!("{}\n{method}\n{request_id}", caller.principal());
        if self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone())
        {
            return Ok(Some(Turn(self.clone(), key)));
        }
        let message = "the same request is being worked on";
        Err(Error::new(Code::Unavailable, "in_progress", message)
            .field("request_id")
            .hint("repeat it in a moment"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
    }
}

#[cfg(test)]
mod tests;
