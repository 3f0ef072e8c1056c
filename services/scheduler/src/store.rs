//! The keys this service owns, and how its records are read and written.

use creel_proto::scheduler::v1::{
    ClockRecord, JobRecord, JobStateRecord, RunRecord, RunRefRecord, StartsRecord, TombstoneRecord,
};
use creel_store::{
    Bytes, Error, Key, KeyRange, Op, Store, be, from_be,
    kinds::{last_part, parts},
};
use prost::Message as _;

use crate::{
    clock::Jump,
    id::{JobId, RunId},
};

creel_store::kinds! {
    /// What the scheduler keeps.
    pub(crate) enum Kind {
        /// What a job is, by job.
        Job = b"jb",
        /// How it is, by job: the small part that is written with its runs.
        State = b"js",
        /// A run, by (admission, run): newest last.
        Run = b"rt",
        /// When a run was admitted, by run.
        RunById = b"ri",
        /// The runs of a job, by (job, admission, run).
        RunByJob = b"rj",
        /// A deleted job, by (deletion, job).
        Tombstone = b"tb",
        /// When the service started last.
        Starts = b"st",
        /// Packed admissions, by (admission, instant, first job).
        Admission = b"ad",
        /// A wall clock that is not believed.
        Clock = b"ck",
        /// A conversation whose agents may make jobs, by session.
        Grant = b"ag",
    }
}

pub(crate) fn grant_key(session: &str) -> Key {
    Kind::Grant.key([session.as_bytes()])
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunRef {
    pub(crate) admitted_ms: i64,
    pub(crate) run: RunId,
}

impl RunRef {
    pub(crate) fn record(self) -> RunRefRecord {
        RunRefRecord {
            admitted_at_unix_ms: self.admitted_ms,
            run_id: self.run.bytes().to_vec(),
        }
    }

    pub(crate) fn of_record(record: &RunRefRecord) -> Option<Self> {
        Some(Self {
            admitted_ms: record.admitted_at_unix_ms,
            run: RunId::of_bytes(&record.run_id)?,
        })
    }

    pub(crate) fn key(self) -> Key {
        Kind::Run.key([time(self.admitted_ms).as_slice(), &self.run.bytes()])
    }

    pub(crate) fn by_job(self, job: JobId) -> Key {
        Kind::RunByJob.key([job.bytes().as_slice(), &time(self.admitted_ms), &self.run.bytes()])
    }

    pub(crate) fn by_id(self) -> Key {
        Kind::RunById.key([self.run.bytes()])
    }

    /// The run of a key of [`Kind::Run`] or [`Kind::RunByJob`].
    pub(crate) fn of_key(key: &Key) -> Option<Self> {
        let parts = parts(key)?;
        let [.., admitted, run] = parts.as_slice() else {
            return None;
        };
        let admitted_ms = i64::try_from(from_be(admitted)?).ok()?;
        Some(Self {
            admitted_ms,
            run: RunId::of_bytes(run)?,
        })
    }
}

/// The changes that keep a run's encoded record; `new` ones are made findable, too.
pub(crate) fn put_run(ops: &mut Vec<Op>, at: RunRef, job: JobId, record: Bytes, new: bool) {
    ops.push(Op::Put(at.key(), record));
    if new {
        ops.push(Op::Put(at.by_id(), time(at.admitted_ms).to_vec().into()));
        ops.push(Op::Put(at.by_job(job), Bytes::new()));
    }
}

/// The changes that forget a run.
pub(crate) fn delete_run(at: RunRef, job: JobId) -> [Op; 3] {
    [
        Op::Delete(at.key()),
        Op::Delete(at.by_id()),
        Op::Delete(at.by_job(job)),
    ]
}

pub(crate) fn job_key(job: JobId) -> Key {
    Kind::Job.key([job.bytes()])
}

pub(crate) fn state_key(job: JobId) -> Key {
    Kind::State.key([job.bytes()])
}

pub(crate) fn put_job(job: JobId, record: &JobRecord) -> Op {
    Op::Put(job_key(job), record.encode_to_vec().into())
}

pub(crate) fn put_state(job: JobId, record: &JobStateRecord) -> Op {
    Op::Put(state_key(job), record.encode_to_vec().into())
}

/// The changes that delete a job; its runs stay until the tombstone goes.
pub(crate) fn delete_job(job: JobId, tombstone: &TombstoneRecord) -> [Op; 3] {
    let key = Kind::Tombstone.key([time(tombstone.deleted_at_unix_ms).as_slice(), &job.bytes()]);
    [
        Op::Delete(job_key(job)),
        Op::Delete(state_key(job)),
        Op::Put(key, tombstone.encode_to_vec().into()),
    ]
}

/// The job of a key of [`Kind::Job`], [`Kind::State`] or [`Kind::Tombstone`].
pub(crate) fn job_of_key(key: &Key) -> Option<JobId> {
    JobId::of_bytes(&last_part::<16>(key)?)
}

/// The run of a key of [`Kind::RunById`].
pub(crate) fn run_of_key(key: &Key) -> Option<RunId> {
    RunId::of_bytes(&last_part::<16>(key)?)
}

/// A time as a key part. Times before 1970 share a place.
fn time(unix_ms: i64) -> [u8; 8] {
    be(unix_ms.max(0).unsigned_abs())
}

/// Tombstones and runs up to an instant.
pub(crate) fn up_to(kind: Kind, unix_ms: i64) -> KeyRange {
    kind.range()
        .ending_at(kind.key([time(unix_ms.saturating_add(1))]))
}

/// The record of a job, if it is there and can be read.
pub(crate) async fn job(store: &Store, job: JobId) -> Result<Option<JobRecord>, Error> {
    let entry = store.get(&job_key(job)).await?;
    Ok(entry.and_then(|entry| JobRecord::decode(entry.value).ok()))
}

/// The record of a run, by its id.
pub(crate) async fn run(store: &Store, run: RunId) -> Result<Option<RunRecord>, Error> {
    let Some(entry) = store.get(&Kind::RunById.key([run.bytes()])).await? else {
        return Ok(None);
    };
    let Some(admitted_ms) = from_be(&entry.value).and_then(|at| i64::try_from(at).ok()) else {
        return Ok(None);
    };
    run_at(store, RunRef { admitted_ms, run }).await
}

/// The record of a run, by its place.
pub(crate) async fn run_at(store: &Store, at: RunRef) -> Result<Option<RunRecord>, Error> {
    let entry = store.get(&at.key()).await?;
    Ok(entry.and_then(|entry| RunRecord::decode(entry.value).ok()))
}

/// Notes a start and answers the last three, this one included.
pub(crate) async fn note_start(store: &Store, now_ms: i64) -> Result<Vec<i64>, Error> {
    let key = Kind::Starts.key::<&[u8]>([]);
    let entry = store.get(&key).await?;
    let record = entry
        .and_then(|entry| StartsRecord::decode(entry.value).ok())
        .unwrap_or_default();
    let mut starts = record.started_at_unix_ms;
    starts.push(now_ms);
    let starts = starts.split_off(starts.len().saturating_sub(3));
    let record = StartsRecord {
        started_at_unix_ms: starts.clone(),
    };
    store
        .commit(creel_store::Txn::new().put(key, record.encode_to_vec()))
        .await?;
    Ok(starts)
}

pub(crate) fn admission_key(admitted_ms: i64, nominal_ms: i64, first: JobId) -> Key {
    Kind::Admission.key([time(admitted_ms).as_slice(), &time(nominal_ms), &first.bytes()])
}

pub(crate) fn clock_key() -> Key {
    Kind::Clock.key::<&[u8]>([])
}

/// What is written down about a clock that is not believed.
pub(crate) async fn clock(store: &Store) -> Result<Option<Jump>, Error> {
    let entry = store.get(&clock_key()).await?;
    let record = entry.and_then(|entry| ClockRecord::decode(entry.value).ok());
    Ok(record.map(|record| Jump {
        before_ms: record.before_unix_ms,
        after_ms: record.after_unix_ms,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_sort_by_admission_and_are_found_again() {
        let (job, run) = (
            JobId::new(1, &[0; 10]),
            "000000000000000000000000000000ff".parse().unwrap(),
        );
        let early = RunRef {
            admitted_ms: 255,
            run,
        };
        let late = RunRef {
            admitted_ms: 256,
            run,
        };
        assert!(early.key() < late.key() && early.by_job(job) < late.by_job(job));
        assert_eq!(RunRef::of_key(&late.key()), Some(late));
        assert_eq!(RunRef::of_key(&late.by_job(job)), Some(late));
        assert_eq!(RunRef::of_record(&late.record()), Some(late));
        let range = up_to(Kind::Run, 255);
        assert!(range.contains(early.key().as_ref()) && !range.contains(late.key().as_ref()));
        assert_eq!(job_of_key(&job_key(job)), Some(job));
    }
}
