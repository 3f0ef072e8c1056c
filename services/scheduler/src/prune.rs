//! Removes what is old: runs beyond their job's retention, and deleted jobs after their day. Every pass is
//! bounded, and touches only records that nothing changes any more.

use std::{
    collections::{BTreeMap, btree_map},
    time::Duration,
};

use creel_proto::scheduler::v1::{RunRecord, TombstoneRecord};
use creel_store::{Error, KeyRange, Op, Page, Store, Txn};
use prost::Message as _;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    engine::Handle,
    id::{JobId, RunId},
    ledger::Retention,
    policy::MIN_KEEP_MS,
    run::has_ended,
    store::{self, Kind, RunRef, delete_run, job_of_key, up_to},
};

/// Between two looks at what is old.
const SWEEP: Duration = Duration::from_secs(60);
/// Records looked at in one sweep, runs of one job removed in one pass.
const SWEEP_RECORDS: usize = 500;
/// Runs removed by one transaction.
const PER_TXN: usize = 30;

pub(crate) struct Pruner {
    pub(crate) store: Store,
    pub(crate) engine: Handle,
    pub(crate) config: Config,
    pub(crate) jobs: mpsc::Receiver<JobId>,
    /// Where the sweep by age goes on.
    pub(crate) rest: Option<KeyRange>,
}

impl Pruner {
    /// Runs until the drain.
    pub(crate) async fn run(mut self, drain: CancellationToken) {
        loop {
            let outcome = tokio::select! {
                () = drain.cancelled() => return,
                Some(job) = self.jobs.recv() => self.job(job).await,
                () = sleep(SWEEP) => self.sweep().await,
            };
            if let Err(error) = outcome {
                tracing::warn!(error = %creel_kit::failure::chain(&error), "old runs are not removed; later");
            }
        }
    }

    /// Removes the runs of a job that are too many.
    pub(crate) async fn job(&mut self, job: JobId) -> Result<(), Error> {
        let Some(retention) = self.retention(job).await else {
            return Ok(());
        };
        let (mut kept, mut surplus) = (0, Vec::new());
        let mut range = Some(Kind::RunByJob.range_of([job.bytes()]));
        while let Some(rest) = range {
            let page = self
                .store
                .scan(
                    rest,
                    Page {
                        limit: 1_000,
                        reverse: true,
                    },
                )
                .await?;
            for at in page.entries.iter().filter_map(|entry| RunRef::of_key(&entry.key)) {
                kept += 1;
                if kept > retention.keep_runs && !retention.keeps(at.run) {
                    surplus.push(at);
                }
            }
            range = page.next.filter(|_| surplus.len() < SWEEP_RECORDS);
        }
        self.remove(job, &surplus).await
    }

    /// One bounded look at tombstones and at the oldest runs.
    pub(crate) async fn sweep(&mut self) -> Result<(), Error> {
        // A clock that is not believed makes nothing old.
        let Ok(now_ms) = self.engine.ask(|_, now| now.wall_ms).await else {
            return Ok(());
        };
        self.tombstones(now_ms).await?;
        let range = self.rest.take().unwrap_or_else(|| up_to(Kind::Run, now_ms));
        let page = self.store.scan(range, Page::first(SWEEP_RECORDS)).await?;
        self.rest = page.next;
        for entry in page.entries {
            let (Some(at), Ok(record)) = (RunRef::of_key(&entry.key), RunRecord::decode(entry.value)) else {
                continue;
            };
            let Ok(job) = record.job_id.parse::<JobId>() else {
                continue;
            };
            let age_ms = now_ms - record.finished_at_unix_ms;
            if !has_ended(&record) || age_ms < MIN_KEEP_MS {
                continue;
            }
            // Of a deleted job: its tombstone's matter.
            let Some(retention) = self.retention(job).await else {
                continue;
            };
            if age_ms > retention.keep_ms && !retention.keeps(at.run) {
                self.remove(job, &[at]).await?;
            }
        }
        Ok(())
    }

    /// Forgets jobs that were deleted long enough ago, and all their runs.
    async fn tombstones(&self, now_ms: i64) -> Result<(), Error> {
        tombstones(&self.store, now_ms - self.config.tombstone_ms)
            .await
            .map(|_| ())
    }

    async fn retention(&self, job: JobId) -> Option<Retention> {
        retention(&self.engine, job).await
    }

    async fn remove(&self, job: JobId, runs: &[RunRef]) -> Result<(), Error> {
        remove(&self.store, job, runs).await
    }
}

/// What was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub(crate) runs: u64,
    pub(crate) tombstones: u64,
}

/// Removes everything that is old, now: what retention says, and ended runs of before an instant, if one is given.
pub(crate) async fn now(
    store: &Store,
    engine: &Handle,
    config: &Config,
    now_ms: i64,
    job: Option<JobId>,
    before_ms: Option<i64>,
) -> Result<Pruned, Error> {
    let mut done = Pruned::default();
    if job.is_none() {
        loop {
            let (jobs, runs) = tombstones(store, now_ms - config.tombstone_ms).await?;
            done.tombstones += jobs;
            done.runs += runs;
            if jobs == 0 {
                break;
            }
        }
    }
    let mut known: BTreeMap<JobId, (Option<Retention>, u32)> = BTreeMap::new();
    let mut range = Some(match job {
        Some(job) => Kind::RunByJob.range_of([job.bytes()]),
        None => Kind::Run.range(),
    });
    // Newest first, so that the newest are those that are kept.
    while let Some(rest) = range {
        let page = store.scan(rest, Page::last(SWEEP_RECORDS)).await?;
        range = page.next;
        for entry in page.entries {
            let Some(at) = RunRef::of_key(&entry.key) else {
                continue;
            };
            let record = match job {
                Some(_) => store::run_at(store, at).await?,
                None => RunRecord::decode(entry.value).ok(),
            };
            let Some(record) = record.filter(has_ended) else {
                continue;
            };
            let Ok(id) = record.job_id.parse::<JobId>() else {
                continue;
            };
            if let btree_map::Entry::Vacant(place) = known.entry(id) {
                place.insert((retention(engine, id).await, 0));
            }
            let Some((Some(retention), kept)) = known.get_mut(&id) else {
                continue;
            };
            let age_ms = now_ms - record.finished_at_unix_ms;
            let asked = before_ms.is_some_and(|before| record.finished_at_unix_ms < before);
            let old = asked
                || (age_ms >= MIN_KEEP_MS && (age_ms > retention.keep_ms || *kept >= retention.keep_runs));
            if old && !retention.keeps(at.run) {
                remove(store, id, &[at]).await?;
                done.runs += 1;
            } else {
                *kept += 1;
            }
        }
    }
    Ok(done)
}

/// Forgets some jobs that were deleted before an instant. Answers how many, and how many runs went with them.
async fn tombstones(store: &Store, before_ms: i64) -> Result<(u64, u64), Error> {
    let (mut jobs, mut gone) = (0, 0);
    let range = up_to(Kind::Tombstone, before_ms);
    let page = store.scan(range, Page::first(16)).await?;
    for entry in page.entries {
        jobs += 1;
        if let Some(job) = job_of_key(&entry.key) {
            let mut range = Some(Kind::RunByJob.range_of([job.bytes()]));
            while let Some(rest) = range {
                let page = store.scan(rest, Page::first(PER_TXN)).await?;
                let runs: Vec<_> = page
                    .entries
                    .iter()
                    .filter_map(|entry| RunRef::of_key(&entry.key))
                    .collect();
                remove(store, job, &runs).await?;
                gone += runs.len() as u64;
                range = page.next;
            }
        }
        if let Ok(tombstone) = TombstoneRecord::decode(entry.value) {
            tracing::info!(
                job = tombstone.job_id,
                name = tombstone.name,
                "a deleted job is forgotten"
            );
        }
        store.commit(Txn::new().delete(entry.key)).await?;
    }
    Ok((jobs, gone))
}

async fn retention(engine: &Handle, job: JobId) -> Option<Retention> {
    engine
        .ask(move |ledger, _| ledger.retention(job))
        .await
        .ok()
        .flatten()
}

async fn remove(store: &Store, job: JobId, runs: &[RunRef]) -> Result<(), Error> {
    for some in runs.chunks(PER_TXN) {
        let mut txn = Txn::new();
        some.iter()
            .flat_map(|at| delete_run(*at, job))
            .for_each(|op: Op| txn.push_then(op));
        store.commit(txn).await?;
    }
    Ok(())
}

impl Retention {
    fn keeps(&self, run: RunId) -> bool {
        self.always.contains(&run)
    }
}
