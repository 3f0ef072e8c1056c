//! Why a job ran, why it did not, and what is next.

use creel_kit::failure::store_error;
use creel_proto::{
    scheduler::v1::{ExplainJobRequest, ExplainJobResponse, Explained, RunKind, RunRecord, RunState},
    time::{timestamp, unix_ms},
};
use creel_schedule::{Schedule, describe_span};
use creel_store::Page;
use creel_wire::{Caller, Error};
use jiff::Timestamp;

use super::{Api, backends::backend_of, shown};
use crate::{
    id::{JobId, Occurrence, RunId},
    ledger::{Known, View},
    run,
    spec::{last_until, swallowed},
    store::{self, Kind, RunRef},
};

/// Records looked at for the skip that an occurrence is part of.
const MAX_LOOKED_AT: usize = 500;
/// What comes.
const NEXT: usize = 5;

impl Api {
    pub(super) async fn explain_job(
        &self,
        caller: &Caller,
        message: ExplainJobRequest,
    ) -> Result<ExplainJobResponse, Error> {
        let view = self.find(caller, &message.job).await?;
        let record = self.store_record(&view).await?;
        let id = view.id;
        let spec = record.as_ref().and_then(|record| record.spec.as_ref());
        let backend = spec.and_then(backend_of).map(str::to_owned);
        let known = self
            .engine
            .ask(move |ledger, now| ledger.known(id, backend.as_deref(), now))
            .await?
            .ok_or_else(|| Error::not_found("job", &message.job).field("job"))?;
        let now_ms = self.now_ms().await?;
        let at_ms = message.at.as_ref().map_or(now_ms, unix_ms);
        let created_ms = record.as_ref().map_or(0, |record| record.created_at_unix_ms);
        let occurrence = self.occurrence(&view, &known, created_ms, at_ms, now_ms).await?;
        let shown_run = occurrence.as_ref().and_then(|one| one.run.as_ref());
        let newest = match known.newest {
            Some(run) if message.at.is_none() => self.live_or_stored(run).await?,
            _ => None,
        };
        let newest = newest
            .map(|record| run::shown(&record))
            .filter(|run| shown_run.is_none_or(|shown| shown.run_id != run.run_id));
        let after = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let next = match &known.sample {
            Some(sample) if !view.state.completed => sample.preview(after, NEXT).0,
            _ => Vec::new(),
        };
        Ok(ExplainJobResponse {
            job: Some(shown(record.as_ref(), &view)),
            occurrence,
            findings: known.findings,
            next,
            newest,
        })
    }

    async fn occurrence(
        &self,
        view: &View,
        known: &Known,
        created_ms: i64,
        at_ms: i64,
        now_ms: i64,
    ) -> Result<Option<Explained>, Error> {
        let Some(sample) = &known.sample else {
            return Ok(None);
        };
        // An interval that counts from the end of each run has no instants but those that were.
        if crate::admission::is_fixed_delay(&sample.schedule) {
            let Some(newest) = known.newest else {
                return Ok(None);
            };
            let record = self.live_or_stored(newest).await?;
            return Ok(record.map(|record| explained(record.nominal_unix_ms, Some(record), now_ms)));
        }
        // What is to come is asked for by name; nobody means the instants before a job was there.
        // A one-shot may be made after its time, to run late.
        let floor_ms = match sample.schedule {
            Schedule::At(_) => 0,
            Schedule::Every(_) | Schedule::Cron(_) => created_ms.saturating_add(1),
        };
        let last = last_until(&sample.schedule, floor_ms, at_ms);
        // A clock change may have taken one that came after it.
        let taken = swallowed(&sample.schedule, last.unwrap_or(floor_ms), at_ms);
        if let Some(taken_ms) = taken
            && let Some(record) = self.skip_of(view.id, taken_ms).await?
        {
            return Ok(Some(explained(taken_ms, Some(record), now_ms)));
        }
        let nominal_ms = match last {
            Some(nominal_ms) => nominal_ms,
            None if at_ms < created_ms => {
                return Ok(Some(outcome(at_ms, "before_creation", "The job was made later.")));
            }
            None => return Ok(None),
        };
        if nominal_ms > now_ms {
            return Ok(Some(outcome(nominal_ms, "not_yet", "It is not due yet.")));
        }
        let run = RunId::of(Occurrence {
            job: view.id,
            incarnation: known.incarnation,
            kind: RunKind::Scheduled,
            request: None,
            nominal_ms,
        });
        if let Some(record) = self.live_or_stored(run).await? {
            return Ok(Some(explained(nominal_ms, Some(record), now_ms)));
        }
        if let Some(record) = self.skip_of(view.id, nominal_ms).await? {
            return Ok(Some(explained(nominal_ms, Some(record), now_ms)));
        }
        Ok(Some(if known.cursor_ms < nominal_ms {
            outcome(
                nominal_ms,
                "waiting",
                "It is due and not decided yet; what keeps it is listed with the job.",
            )
        } else if nominal_ms <= created_ms {
            outcome(
                nominal_ms,
                "before_creation",
                "The job was made, or changed, later.",
            )
        } else {
            outcome(
                nominal_ms,
                "pruned",
                "It was decided, and its record is not kept any more; or the job's schedule was another then.",
            )
        }))
    }

    async fn live_or_stored(&self, run: RunId) -> Result<Option<RunRecord>, Error> {
        let live = self
            .engine
            .ask(move |ledger, _| ledger.live(&[run]).remove(&run))
            .await?;
        match live {
            Some(record) => Ok(Some(record)),
            None => store::run(&self.store, run).await.map_err(store_error),
        }
    }

    /// The record of the skipped range that holds an occurrence. It was made when the range began, which may be
    /// before the occurrence, or when the range was decided, which may be long after.
    async fn skip_of(&self, job: JobId, nominal_ms: i64) -> Result<Option<RunRecord>, Error> {
        let all = Kind::RunByJob.range_of([job.bytes()]);
        let middle = RunRef {
            admitted_ms: nominal_ms,
            run: RunId::of_bytes(&[0; 16]).ok_or_else(|| Error::internal("making a key"))?,
        }
        .by_job(job);
        let halves = [
            (
                all.clone().starting_at(middle.clone()),
                Page::first(MAX_LOOKED_AT),
            ),
            (all.ending_at(middle), Page::last(MAX_LOOKED_AT)),
        ];
        for (range, page) in halves {
            let page = self.store.scan(range, page).await.map_err(store_error)?;
            for at in page.entries.iter().filter_map(|entry| RunRef::of_key(&entry.key)) {
                let record = store::run_at(&self.store, at).await.map_err(store_error)?;
                let holds = |record: &RunRecord| {
                    record.state == i32::from(RunState::Skipped)
                        && (record.nominal_unix_ms..=record.skipped_until_unix_ms).contains(&nominal_ms)
                };
                if let Some(record) = record.filter(holds) {
                    return Ok(Some(record));
                }
            }
        }
        Ok(None)
    }
}

fn outcome(nominal_ms: i64, outcome: &str, text: &str) -> Explained {
    Explained {
        nominal_at: Some(timestamp(nominal_ms)),
        outcome: outcome.to_owned(),
        text: text.to_owned(),
        ..Explained::default()
    }
}

fn explained(nominal_ms: i64, record: Option<RunRecord>, now_ms: i64) -> Explained {
    let Some(record) = record else {
        return outcome(nominal_ms, "pruned", "Its record is not kept any more.");
    };
    let late_s = (record.admitted_at_unix_ms - record.nominal_unix_ms).max(0) / 1_000;
    let (what, text) = match RunState::try_from(record.state).unwrap_or_default() {
        RunState::Skipped => ("skipped", skipped(&record.reason).to_owned()),
        RunState::Pending if record.not_before_unix_ms > now_ms => (
            "waiting",
            "Its run waits for its time: a retry, or one of many that were missed.".to_owned(),
        ),
        RunState::Pending => ("waiting", "Its run waits for a worker.".to_owned()),
        RunState::Dispatched | RunState::Running => ("running", "It runs.".to_owned()),
        RunState::Parked => ("parked", "Its run waits for an approval.".to_owned()),
        state => {
            let ended = match state {
                RunState::Succeeded => "succeeded",
                RunState::TimedOut => "took too long and was stopped",
                RunState::Cancelled => "was cancelled",
                RunState::Stuck => "lost its worker, and nobody knows how far it came",
                _ => "failed",
            };
            let late = match u64::try_from(late_s) {
                Ok(late_s @ 61..) => format!(", {} late", describe_span(late_s.saturating_mul(1_000))),
                _ => String::new(),
            };
            let attempts = match record.attempt {
                0 | 1 => String::new(),
                more => format!(" at attempt {more}"),
            };
            ("ran", format!("It ran{late}, and {ended}{attempts}."))
        }
    };
    Explained {
        nominal_at: Some(timestamp(nominal_ms)),
        outcome: what.to_owned(),
        reason: record.reason.clone(),
        text,
        run: Some(run::shown(&record)),
    }
}

/// Every reason of a skip in words.
fn skipped(reason: &str) -> &'static str {
    match reason {
        "coalesced" => "It was skipped: a later occurrence made up for it.",
        "overlap" => "It was skipped: another run of the job was not over.",
        "paused" => "It was skipped: the job was paused.",
        "window" => "It was skipped: it was too late by the time it could run.",
        "quarantined" => "It was skipped: the job was quarantined after its failures.",
        "dst" => "It was skipped: the clock change of its zone took its time away.",
        "backoff" => "It was skipped: the job waited after failures.",
        _ => "It was skipped.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::SkipReason;

    #[test]
    fn every_skip_has_its_words() {
        use SkipReason::{Backoff, Coalesced, Dst, Overlap, Paused, Quarantined, Window};
        for reason in [Backoff, Coalesced, Dst, Overlap, Paused, Quarantined, Window] {
            assert_ne!(skipped(reason.as_str()), skipped("?"), "{reason:?}");
        }
    }
}
