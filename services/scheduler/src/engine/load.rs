//! Reads the ledger from the store: at start, and whenever the store refused a commit. The same code, so that
//! the one is tested by the other.

use std::collections::BTreeMap;

use creel_proto::scheduler::v1::{AdmissionRecord, AgentGrantRecord, JobRecord, JobStateRecord};
use creel_store::{Error, Page, Store};
use prost::Message as _;

use super::Parts;
use crate::{
    id::JobId,
    job::{Job, Sounds},
    ledger::Ledger,
    run::Now,
    store::{self, Kind, job_of_key, state_key},
};

/// All jobs, and the runs that have not ended. A record that can't be used costs its own job, nothing else.
pub(super) async fn load(parts: &Parts, now: impl Fn() -> Now) -> Result<Ledger, Error> {
    let (random, zones) = ((parts.random)(), parts.zones.get());
    let mut ledger = Ledger::new(
        parts.config.clone(),
        random,
        parts.figures.clone(),
        parts.outbox.clone(),
    );
    let (mut active, mut sounds) = (Vec::new(), Sounds::default());
    let mut range = Some(Kind::Job.range());
    while let Some(rest) = range {
        let page = parts.store.scan(rest, Page::default()).await?;
        let ids: Vec<_> = page
            .entries
            .iter()
            .filter_map(|entry| job_of_key(&entry.key))
            .collect();
        let states = states(&parts.store, &ids).await?;
        for entry in page.entries {
            let Some(id) = job_of_key(&entry.key) else {
                tracing::error!(key = ?entry.key, "a job's key makes no sense: it is left out");
                continue;
            };
            let job = match JobRecord::decode(entry.value) {
                Ok(record) => Job::load(&record, states.get(&id), &zones, &mut sounds),
                Err(error) => Job::unreadable(id, error.to_string()),
            };
            active.extend(ledger.load(id, job).into_iter().map(|at| (id, at)));
        }
        range = page.next;
        tokio::task::yield_now().await;
    }
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
        ledger.load_run(id, record.as_ref(), now());
    }
    let mut range = Some(Kind::Admission.range());
    while let Some(rest) = range {
        let page = parts.store.scan(rest, Page::default()).await?;
        for entry in page.entries {
            match AdmissionRecord::decode(entry.value) {
                Ok(record) => ledger.load_pack(entry.key, &record, now()),
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

/// The states of ids in order.
async fn states(store: &Store, ids: &[JobId]) -> Result<BTreeMap<JobId, JobStateRecord>, Error> {
    let mut states = BTreeMap::new();
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
        return Ok(states);
    };
    let range = Kind::State
        .range()
        .starting_at(state_key(*first))
        .ending_at(state_key(*last).successor());
    let mut range = Some(range);
    while let Some(rest) = range {
        let page = store.scan(rest, Page::default()).await?;
        for entry in page.entries {
            if let (Some(id), Ok(state)) = (job_of_key(&entry.key), JobStateRecord::decode(entry.value)) {
                states.insert(id, state);
            }
        }
        range = page.next;
    }
    Ok(states)
}
