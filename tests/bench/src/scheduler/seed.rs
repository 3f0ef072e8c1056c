//! Jobs by the million, written as the scheduler writes them: copies of one that it made itself.

use std::path::Path;

use anyhow::Context as _;
use creel_proto::{
    scheduler::v1::{At, Every, JobRecord, JobStateRecord, Schedule, at::When, schedule::Kind},
    time::{duration, timestamp},
};
use creel_store::{Page, Store, Txn, kinds};
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use uuid::Uuid;

use super::bed::now_ms;

/// Jobs of a transaction: two keys each, and a transaction has at most 100.
const BATCH: u64 = 45;

/// Transactions under way; they share syncs.
const AT_ONCE: usize = 256;

/// Every so often.
pub(crate) fn every(period_ms: i64, anchor_ms: i64) -> Schedule {
    let every = Every {
        period: Some(duration(period_ms)),
        anchor: Some(timestamp(anchor_ms)),
        ..Every::default()
    };
    Schedule {
        kind: Some(Kind::Every(every)),
    }
}

/// Once.
pub(crate) fn at(unix_ms: i64) -> Schedule {
    let at = At {
        when: Some(When::Time(timestamp(unix_ms))),
    };
    Schedule {
        kind: Some(Kind::At(at)),
    }
}

/// Writes the jobs `first..first + count`.
pub(crate) async fn write(path: &Path, first: u64, count: u64, when: super::When<'_>) -> anyhow::Result<()> {
    let store = creel_store_rocksdb::open(path, creel_store_rocksdb::Options::default())?;
    let template = template(&store).await?;
    let now_ms = now_ms();
    let batches = (0..count).step_by(usize::try_from(BATCH)?).map(|from| {
        let mut txn = Txn::new();
        for n in from..count.min(from + BATCH) {
            put(
                &mut txn,
                &template,
                first + n,
                when(i64::try_from(n).unwrap_or(0)),
                now_ms,
            );
        }
        let store = store.clone();
        async move { store.commit(txn).await }
    });
    let mut commits = stream::iter(batches).buffer_unordered(AT_ONCE);
    while let Some(done) = commits.next().await {
        anyhow::ensure!(done?.is_committed(), "a batch was refused");
    }
    Ok(())
}

/// The job that the scheduler made.
async fn template(store: &Store) -> anyhow::Result<JobRecord> {
    let range = kinds::range_of(*b"jb", [] as [&[u8]; 0]);
    let page = store.scan(range, Page::default()).await?;
    let records = page
        .entries
        .into_iter()
        .filter_map(|entry| JobRecord::decode(entry.value).ok());
    records
        .filter(|record| record.spec.as_ref().is_some_and(|spec| spec.name == "template"))
        .last()
        .context("no job to copy")
}

fn put(txn: &mut Txn, template: &JobRecord, number: u64, schedule: Schedule, now_ms: i64) {
    // Version 7 with a time of its own: sorted by number, and after the template.
    let millis = u64::try_from(now_ms).unwrap_or_default() + (number >> 16);
    let mut random = [0x5a_u8; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut record = template.clone();
    record.job_id = Uuid::as_hyphenated(&id).to_string();
    record.created_at_unix_ms = now_ms;
    record.updated_at_unix_ms = now_ms;
    record.anchor_unix_ms = now_ms;
    if let Some(spec) = &mut record.spec {
        spec.name = format!("job-{number}");
        spec.schedule = Some(schedule);
    }
    let state = JobStateRecord {
        version: 1,
        cursor_unix_ms: now_ms,
        ..JobStateRecord::default()
    };
    txn.push_put(kinds::key(*b"jb", [id.as_bytes()]), record.encode_to_vec());
    txn.push_put(kinds::key(*b"js", [id.as_bytes()]), state.encode_to_vec());
}
