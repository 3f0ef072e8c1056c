//! When something is due: nothing changes by looking.

use creel_proto::{
    scheduler::v1::{PreviewRequest, PreviewResponse, preview_request::Of},
    time::{timestamp, unix_ms},
};
use creel_schedule::MAX_PREVIEW;
use creel_wire::{Caller, Error};
use jiff::Timestamp;

use super::{Api, has_schedule};
use crate::spec::{Origin, schedule};

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
        let (of, anchor_ms) = match &message.of {
            Some(Of::Schedule(schedule)) if has_schedule(Some(schedule)) => (Some(schedule.clone()), now_ms),
            Some(Of::Job(job)) => {
                let record = self.record(&self.find(caller, job).await?).await?;
                (record.spec.and_then(|spec| spec.schedule), record.anchor_unix_ms)
            }
            _ => return Err(Error::invalid("of", "a job or a schedule is needed")),
        };
        let (schedule, _) = schedule(
            of.as_ref(),
            Origin {
                zones: &self.zones,
                anchor_ms,
            },
        )?;
        let times = schedule.preview(after, count).occurrences;
        Ok(PreviewResponse {
            times: times
                .iter()
                .map(|at| timestamp(at.nominal.as_millisecond()))
                .collect(),
            schedule_text: schedule.describe(),
            zone_data_version: self.zones.zone_data_version().to_string(),
        })
    }
}
