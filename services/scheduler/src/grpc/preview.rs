//! When something is due: nothing changes by looking.

use creel_proto::{
    scheduler::v1::{PreviewRequest, PreviewResponse, preview_request::Of},
    time::unix_ms,
};
use creel_schedule::MAX_PREVIEW;
use creel_wire::{Caller, Code, Error};
use jiff::Timestamp;

use super::{Api, has_schedule};
use crate::spec::{Origin, Sample, schedule};

const DEFAULT_COUNT: usize = 5;

impl Api {
    pub(super) async fn preview_times(
        &self,
        caller: &Caller,
        message: PreviewRequest,
    ) -> Result<PreviewResponse, Error> {
        let count = match usize::try_from(message.count) {
            Ok(0) => DEFAULT_COUNT,
            Ok(count) if count <= MAX_PREVIEW => count,
            _ => {
                return Err(Error::invalid(
                    "count",
                    format!("{} is not between 0 and {MAX_PREVIEW}", message.count),
                ));
            }
        };
        let now_ms = self.clock.now_ms();
        let after_ms = message.after.as_ref().map_or(now_ms, unix_ms);
        let after =
            Timestamp::from_millisecond(after_ms).map_err(|_| Error::invalid("after", "out of range"))?;
        let zones = self.zones.get();
        let sample = match &message.of {
            Some(Of::Schedule(of)) if has_schedule(Some(of)) => {
                let origin = Origin {
                    zones: &zones,
                    anchor_ms: now_ms,
                };
                Sample::of(schedule(Some(of), origin)?.0)
            }
            Some(Of::Job(job)) => {
                let view = self.find(caller, job).await?;
                let known = self
                    .engine
                    .ask(move |ledger, now| ledger.known(view.id, None, now))
                    .await?;
                let sample = known.and_then(|known| known.sample);
                sample.ok_or_else(|| {
                    let message = "the job's record is invalid, so its schedule is not known";
                    Error::new(Code::FailedPrecondition, "invalid_record", message)
                        .hint("creel cron explain NAME")
                })?
            }
            _ => return Err(Error::invalid("of", "a job or a schedule is needed")),
        };
        let (instants, skipped) = sample.preview(after, count);
        Ok(PreviewResponse {
            times: instants.iter().filter_map(|at| at.nominal_at).collect(),
            instants,
            skipped,
            schedule_text: sample.schedule.describe(),
            zone_data_version: zones.zone_data_version().to_string(),
        })
    }
}
