//! Many admissions in one record: a thousand jobs that are due in one instant cost one write, not four thousand
//! (`reference/scheduler.md` §5). The format, and nothing else; `ledger::packs` says what follows from it.

use creel_proto::scheduler::v1::AdmissionRecord;

use crate::id::JobId;

/// Most jobs of one record: it stays below the largest value of the store.
pub(crate) const MAX_JOBS: usize = 8_000;
const ENTRY_BYTES: usize = 24;

/// A job that has a run for the instant of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) job: JobId,
    pub(crate) incarnation: u64,
}

pub(crate) fn record(nominal_ms: i64, admitted_ms: i64, entries: &[Entry]) -> AdmissionRecord {
    let mut jobs = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        jobs.extend(entry.job.bytes());
        jobs.extend(entry.incarnation.to_be_bytes());
    }
    AdmissionRecord {
        nominal_unix_ms: nominal_ms,
        admitted_at_unix_ms: admitted_ms,
        jobs,
        ..AdmissionRecord::default()
    }
}

/// The jobs of a record. What does not fill an entry is no entry.
pub(crate) fn entries(record: &AdmissionRecord) -> impl Iterator<Item = Entry> + '_ {
    record.jobs.chunks_exact(ENTRY_BYTES).filter_map(|entry| {
        let (job, incarnation) = entry.split_at(16);
        Some(Entry {
            job: JobId::of_bytes(job)?,
            incarnation: u64::from_be_bytes(incarnation.try_into().ok()?),
        })
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_full_record_fits_the_store_and_is_read_as_it_was_written() {
        let all: Vec<_> = (0..MAX_JOBS)
            .map(|n| Entry {
                job: JobId::new(n as i64, &[7; 10]),
                incarnation: n as u64,
            })
            .collect();
        let record = record(i64::MAX, i64::MAX, &all);
        assert!(record.encoded_len() < 256 * 1_024);
        assert_eq!(entries(&record).collect::<Vec<_>>(), all);
        let torn = AdmissionRecord {
            jobs: record.jobs[..30].to_vec(),
            ..record
        };
        assert_eq!(entries(&torn).count(), 1);
    }
}
