//! Runs for a range of the past.

use creel_kit::idempotency::Begin;
use creel_proto::{
    scheduler::v1::{BackfillJobRequest, BackfillJobResponse},
    time::unix_ms,
};
use creel_store::Txn;
use creel_wire::{Caller, Error};

use super::{Api, person, shown, target};
use crate::backfill::MAX_AT_ONCE;

impl Api {
    pub(super) async fn backfill_job(
        &self,
        caller: &Caller,
        message: BackfillJobRequest,
    ) -> Result<BackfillJobResponse, Error> {
        let _turn = self.busy.enter(caller, "Backfill", &message.request_id)?;
        let slot = match self
            .idempotency
            .begin(caller, "Backfill", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let view = self.find(caller, &message.job).await?;
        let target = target(caller, &view, &message.if_match)?;
        let record = self.record(&view).await?;
        let range = if message.stop {
            None
        } else {
            Some(range(&message, self.now_ms().await?)?)
        };
        let owner = person(caller)?.to_owned();
        if message.validate_only {
            let backfill = self
                .engine
                .ask(move |ledger, now| match range {
                    Some(Range {
                        from_ms,
                        until_ms,
                        at_once,
                    }) => ledger
                        .may_backfill(&target, from_ms, until_ms, at_once, now)
                        .map(|backfill| Some(backfill.shown())),
                    None => ledger.check(&target).map(|()| None),
                })
                .await??;
            return Ok(BackfillJobResponse {
                job: Some(shown(Some(&record), &view)),
                backfill,
            });
        }
        self.engine
            .change(move |ledger, now| {
                let backfill = match range {
                    Some(Range {
                        from_ms,
                        until_ms,
                        at_once,
                    }) => {
                        let backfill = ledger.may_backfill(&target, from_ms, until_ms, at_once, now)?;
                        ledger.backfill(&target, backfill.clone(), now)?;
                        backfill
                    }
                    None => ledger.stop_backfill(&target)?,
                };
                let view = ledger.find(&owner, &target.job.to_string(), now);
                let response = BackfillJobResponse {
                    job: view.map(|view| shown(Some(&record), &view)),
                    backfill: Some(backfill.shown()),
                };
                let mut answer = Txn::new();
                slot.record(&mut answer, &response);
                ledger.attach(target.job, answer);
                Ok(response)
            })
            .await
    }
}

#[derive(Clone, Copy)]
struct Range {
    from_ms: i64,
    until_ms: i64,
    at_once: u32,
}

fn range(message: &BackfillJobRequest, now_ms: i64) -> Result<Range, Error> {
    let needed = |field: &str| Error::invalid(field, "a time is needed").hint("--from TIME --until TIME");
    let from_ms = message.from.as_ref().map(unix_ms).ok_or_else(|| needed("from"))?;
    let until_ms = message
        .until
        .as_ref()
        .map(unix_ms)
        .ok_or_else(|| needed("until"))?;
    if until_ms > now_ms.saturating_add(1) {
        return Err(Error::invalid(
            "until",
            "that is yet to come: the schedule itself does it",
        ));
    }
    if from_ms >= until_ms {
        return Err(Error::invalid("from", "the range is empty"));
    }
    let at_once = match message.at_once {
        0 => 1,
        at_once if at_once <= MAX_AT_ONCE => at_once,
        more => {
            let message = format!("{more} is more than {MAX_AT_ONCE}");
            return Err(Error::invalid("at_once", message));
        }
    };
    Ok(Range {
        from_ms,
        until_ms,
        at_once,
    })
}
