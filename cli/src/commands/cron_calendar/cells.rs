//! The hours of a calendar, and which of them a job is due in.

use creel_proto::scheduler::v1::{Job, Phase, schedule::Kind};
use creel_schedule::{EveryMode, Schedule, ScheduleSpec, Zone, Zones};
use jiff::{SignedDuration, Timestamp, ToSpan as _, civil::Date};
use serde::Serialize;

use crate::{
    failure::Failure,
    views::{at_ms, schedule, word},
};

/// An hour on the clocks of a day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) date: Date,
    pub(super) hour: i8,
    pub(super) from: Timestamp,
    /// Not later than `from` where clocks jump over the hour.
    pub(super) until: Timestamp,
}

/// A job in the picture.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Drawn {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) letter: Option<char>,
    pub(super) schedule_text: String,
    /// Of a one-shot; its next run says when.
    #[serde(skip)]
    pub(super) at_ms: Option<i64>,
    pub(super) phase: String,
    /// Due in every hour, so it has no letter.
    pub(super) every_hour: bool,
    pub(super) next_run_at_ms: Option<i64>,
    /// The cells in which it is due.
    #[serde(skip)]
    pub(super) cells: Vec<usize>,
}

/// The hours of so many days, today first.
pub(super) fn cells(zone: &Zone, now: Timestamp, days: u8) -> Result<Vec<Cell>, Failure> {
    let beyond = || Failure::usage("the clock of this machine is beyond the years that can be counted");
    let today = zone.at(now).date();
    let mut cells = Vec::with_capacity(usize::from(days) * 24);
    for day in 0..days {
        let date = today.checked_add(i64::from(day).days()).map_err(|_| beyond())?;
        for hour in 0..24 {
            let reading = date.at(hour, 0, 0, 0);
            let after = reading.checked_add(1.hour()).map_err(|_| beyond())?;
            cells.push(Cell {
                date,
                hour,
                from: zone.instant(reading).ok_or_else(beyond)?,
                until: zone.instant(after).ok_or_else(beyond)?,
            });
        }
    }
    Ok(cells)
}

/// The cells a job is due in: one question for each, however often it is due.
pub(super) fn place(job: &Job, cells: &[Cell], zones: &Zones, now: Timestamp) -> Drawn {
    let mut due = Vec::new();
    let runs = !matches!(job.phase(), Phase::Paused | Phase::Quarantined | Phase::Completed);
    if let Some(schedule) = timed(job, zones, now).filter(|_| runs) {
        let mut after = now;
        while let Some(next) = schedule.next(after) {
            // The last cell that begins before it, and is not jumped over.
            let index = cells.partition_point(|cell| cell.from <= next.nominal);
            let Some(index) = index
                .checked_sub(1)
                .filter(|index| next.nominal < cells[*index].until)
            else {
                break;
            };
            due.push(index);
            let Ok(before) = cells[index].until.checked_sub(SignedDuration::from_millis(1)) else {
                break;
            };
            after = before.max(next.nominal);
        }
    }
    Drawn {
        id: job.job_id.clone(),
        name: job
            .spec
            .as_ref()
            .map_or_else(|| job.job_id.clone(), |spec| spec.name.clone()),
        letter: None,
        schedule_text: job.schedule_text.clone(),
        at_ms: match job
            .spec
            .as_ref()
            .and_then(|spec| spec.schedule.as_ref()?.kind.as_ref())
        {
            Some(Kind::At(_)) => at_ms(job.next_run_at.as_ref()),
            _ => None,
        },
        phase: word(job.phase().as_str_name(), "PHASE_"),
        every_hour: false,
        next_run_at_ms: at_ms(job.next_run_at.as_ref()),
        cells: due,
    }
}

/// A job's schedule on this machine's zone data. The grid of an interval goes through its next run.
fn timed(job: &Job, zones: &Zones, now: Timestamp) -> Option<Schedule> {
    let mut spec = schedule::words(job.spec.as_ref()?.schedule.as_ref()?)?;
    if let ScheduleSpec::Every { anchor_ms, mode, .. } = &mut spec {
        let next_ms = at_ms(job.next_run_at.as_ref()).unwrap_or_else(|| now.as_millisecond());
        if anchor_ms.is_none() || *mode == EveryMode::FixedDelay {
            // How long runs take is not known, so intervals between them are drawn without.
            (*anchor_ms, *mode) = (Some(next_ms), EveryMode::FixedRate);
        }
    }
    spec.resolve(zones, now).ok()
}
