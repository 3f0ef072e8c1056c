//! Reads the ledger from the store: at start, and whenever the store refused a commit. The same code, so that
//! the one is tested by the other.

use std::sync::Arc;

use bytes::Bytes;
use creel_proto::scheduler::v1::{AdmissionRecord, AgentGrantRecord};
use creel_schedule::Zones;
use creel_store::{Entry, Error, Page, Store};
use prost::Message as _;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{JoinError, spawn_blocking},
};

use super::Parts;
use crate::{
    id::JobId,
    job::{Job, Reader},
    ledger::Ledger,
    run::Now,
    store::{self, Kind, job_of_key, state_key},
};

/// Pages of jobs that wait between two stages.
const PAGES: usize = 2;

/// The records of a job: what it is, and how.
type Records = (JobId, Bytes, Option<Bytes>);

/// All jobs, and the runs that have not ended. A record that can't be used costs its own job, nothing else.
///
/// A million jobs take seconds, so one thread reads the store, one makes jobs of the records, and this task keeps
/// them.
pub(super) async fn load(parts: &Parts, now: impl Fn() -> Now) -> Result<Ledger, Error> {
    let mut ledger = Ledger::new(
        parts.config.clone(),
        (parts.random)(),
        parts.figures.clone(),
        parts.outbox.clone(),
    );
    let mut active = Vec::new();
    let (records, written) = mpsc::channel(PAGES);
    let (made, mut jobs) = mpsc::channel(PAGES);
    let (store, zones, runtime) = (parts.store.clone(), parts.zones.get(), Handle::current());
    let reading = spawn_blocking(move || runtime.block_on(read(&store, &records)));
    let making = spawn_blocking(move || make(zones, written, &made));
    while let Some(page) = jobs.recv().await {
        for (id, job) in page {
            active.extend(ledger.load(id, job).into_iter().map(|at| (id, at)));
        }
    }
    // What stopped early left pages out.
    reading.await.map_err(cut_off)??;
    making.await.map_err(cut_off)?;
    let mut range = Some(Kind::Grant.range());
    while let Some(rest) = range {
        let page = parts.store.scan(rest, Page::default()).await?;
        for entry in page.entries {
            match AgentGrantRecord::decode(entry.value) {
                Ok(record) => ledger.load_grant(record),
                // Unread, it grants nothing.
                Err(error) => tracing::error!(key = ?entry.key, %error, "a grant can't be read: left out"),
            }
        }
        range = page.next;
    }
    let written = store::clock(&parts.store).await?;
    ledger.watch_from(now(), written);
    for (id, at) in active {
        let record = store::run_at(&parts.store, at).await?;
        let now = ledger.believed(now());
        ledger.load_run(id, at, record.as_ref(), now);
    }
    let mut range = Some(Kind::Admission.range());
    while let Some(rest) = range {
        let page = parts.store.scan(rest, Page::default()).await?;
        for entry in page.entries {
            match AdmissionRecord::decode(entry.value) {
                Ok(record) => {
                    let now = ledger.believed(now());
                    ledger.load_pack(entry.key, &record, now);
                }
                // Its jobs' cursors are before it: what it admitted is missed, and caught up as their rules say.
                Err(error) => {
                    tracing::error!(key = ?entry.key, %error, "a packed admission can't be read: left out")
                }
            }
        }
        range = page.next;
        tokio::task::yield_now().await;
    }
    Ok(ledger)
}

fn cut_off(error: JoinError) -> Error {
    Error::Unavailable {
        what: "reading the jobs was cut off".into(),
        hint: "restart the service".into(),
        cause: Some(Arc::new(error)),
    }
}

/// Reads the records of all jobs, page by page.
async fn read(store: &Store, pages: &mpsc::Sender<Vec<Records>>) -> Result<(), Error> {
    let mut range = Some(Kind::Job.range());
    while let Some(rest) = range {
        let page = store.scan(rest, Page::default()).await?;
        let mut states = states(store, &page.entries).await?.into_iter().peekable();
        let mut records = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            let Some(id) = job_of_key(&entry.key) else {
                tracing::error!(key = ?entry.key, "a job's key makes no sense: it is left out");
                continue;
            };
            // Both are in the order of ids.
            while states.next_if(|(of, _)| *of < id).is_some() {}
            let state = states.next_if(|(of, _)| *of == id).map(|(_, state)| state);
            records.push((id, entry.value, state));
        }
        if pages.send(records).await.is_err() {
            // Nobody wants them any more.
            break;
        }
        range = page.next;
    }
    Ok(())
}

/// Makes jobs of records, until there are no more.
fn make(zones: Arc<Zones>, mut pages: mpsc::Receiver<Vec<Records>>, made: &mpsc::Sender<Vec<(JobId, Job)>>) {
    let mut reader = Reader::new(zones);
    while let Some(page) = pages.blocking_recv() {
        let jobs = page
            .into_iter()
            .map(|(id, record, state)| (id, reader.job(id, &record, state.as_deref())))
            .collect();
        if made.blocking_send(jobs).is_err() {
            break;
        }
    }
}

/// The states of a page of jobs, by id.
async fn states(store: &Store, jobs: &[Entry]) -> Result<Vec<(JobId, Bytes)>, Error> {
    let ids = || jobs.iter().filter_map(|entry| job_of_key(&entry.key));
    let mut states = Vec::with_capacity(jobs.len());
    let (Some(first), Some(last)) = (ids().next(), ids().next_back()) else {
        return Ok(states);
    };
    let range = Kind::State
        .range()
        .starting_at(state_key(first))
        .ending_at(state_key(last).successor());
    let mut range = Some(range);
    while let Some(rest) = range {
        let page = store.scan(rest, Page::default()).await?;
        let found = page.entries.into_iter();
        states.extend(found.filter_map(|entry| Some((job_of_key(&entry.key)?, entry.value))));
        range = page.next;
    }
    Ok(states)
}
