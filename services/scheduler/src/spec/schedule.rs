//! The schedule of a job: proto to [`Schedule`].

use creel_proto::{
    scheduler::v1::{self as proto, at, schedule::Kind},
    time::duration_ms,
};
use creel_schedule::{
    Cron, CronExpr, DstPolicy, Every, EveryMode, Moment, OccurrenceKind, Schedule, ScheduleError,
    ScheduleSpec, Syntax, Zones,
};
use creel_wire::{Code, Error};
use jiff::{Timestamp, civil::DateTime};

use super::instant;

/// What a schedule is resolved against.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The zones that exist.
    pub(crate) zones: &'a Zones,
    /// The anchor of an interval that names none: when its job was made, Unix milliseconds.
    pub(crate) anchor_ms: i64,
}

/// Reads a schedule, and what its author should be told about it.
pub(crate) fn schedule(
    schedule: Option<&proto::Schedule>,
    origin: Origin<'_>,
) -> Result<(Schedule, Vec<String>), Error> {
    let missing = || {
        Error::invalid("spec.schedule", "a job needs a schedule")
            .hint("--at TIME, --every DURATION or --cron EXPR")
    };
    match schedule
        .and_then(|schedule| schedule.kind.as_ref())
        .ok_or_else(missing)?
    {
        Kind::At(at) => {
            let moment = moment(at, origin.zones)?;
            let warnings = odd_reading(&moment).into_iter().collect();
            Ok((Schedule::At(moment), warnings))
        }
        Kind::Every(every) => Ok((Schedule::Every(interval(every, origin.anchor_ms)?), Vec::new())),
        Kind::Cron(cron) => calendar(cron, origin.zones),
    }
}

fn moment(at: &proto::At, zones: &Zones) -> Result<Moment, Error> {
    match at.when.as_ref() {
        Some(at::When::Time(time)) => Ok(Moment::Instant(instant("spec.schedule.at.time", time)?)),
        Some(at::When::Civil(civil)) => {
            let field = "spec.schedule.at.civil.time";
            if civil.time.parse::<DateTime>().is_err() {
                let shown: String = civil.time.chars().take(48).collect();
                return Err(Error::invalid(
                    field,
                    format!("cannot read the time `{}`", shown.escape_debug()),
                )
                .hint("write `2026-12-01T07:00:00`, without an offset"));
            }
            let spec = ScheduleSpec::At {
                time: civil.time.clone(),
                zone: Some(civil.zone.clone()),
            };
            match spec.resolve(zones, Timestamp::UNIX_EPOCH) {
                Ok(Schedule::At(moment @ Moment::Civil { .. })) => Ok(moment),
                // A text with an offset is an instant, whatever zone stands beside it.
                Ok(_) => {
                    Err(Error::invalid(field, "the time has an offset and a zone").hint("give one of them"))
                }
                Err(error) => Err(refused(&error, field, "spec.schedule.at.civil.zone")),
            }
        }
        None => Err(Error::invalid("spec.schedule.at", "a one-shot needs a time")),
    }
}

/// What becomes of a reading that clocks leave out or show twice.
fn odd_reading(moment: &Moment) -> Option<String> {
    let Moment::Civil { reading, zone } = moment else {
        return None;
    };
    let one = Schedule::At(moment.clone()).next(Timestamp::MIN)?;
    let (read, at) = (reading.time().strftime("%H:%M"), zone.at(one.nominal));
    match one.kind {
        OccurrenceKind::AfterGap => Some(format!(
            "clocks in {zone} leave out {read} on that day; it is due at {}",
            at.strftime("%H:%M %Z")
        )),
        OccurrenceKind::FirstPass => Some(format!(
            "clocks in {zone} show {read} twice on that day; it is due the first time, at {}",
            at.strftime("%H:%M %Z")
        )),
        _ => None,
    }
}

fn interval(every: &proto::Every, anchor_ms: i64) -> Result<Every, Error> {
    let field = "spec.schedule.every.period";
    let period = every
        .period
        .as_ref()
        .ok_or_else(|| Error::invalid(field, "an interval needs a period"))?;
    let anchor = match &every.anchor {
        Some(anchor) => instant("spec.schedule.every.anchor", anchor)?,
        None => Timestamp::from_millisecond(anchor_ms).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let mode = match every.mode() {
        proto::EveryMode::FixedDelay => EveryMode::FixedDelay,
        proto::EveryMode::FixedRate => EveryMode::FixedRate,
        proto::EveryMode::Unspecified => known("spec.schedule.every.mode", every.mode, EveryMode::FixedRate)?,
    };
    let period_ms = u64::try_from(duration_ms(period)).unwrap_or(0);
    Every::new(period_ms, anchor, mode).map_err(|error| refused(&error, field, field))
}

fn calendar(cron: &proto::Cron, zones: &Zones) -> Result<(Schedule, Vec<String>), Error> {
    let syntax = match cron.syntax() {
        proto::CronSyntax::Unix => Syntax::Unix,
        proto::CronSyntax::Quartz => Syntax::Quartz,
        proto::CronSyntax::Unspecified => known("spec.schedule.cron.syntax", cron.syntax, Syntax::Unix)?,
    };
    let dst = match cron.dst() {
        proto::DstMode::Vixie => DstPolicy::Vixie,
        proto::DstMode::Skip => DstPolicy::Skip,
        proto::DstMode::Both => DstPolicy::Both,
        proto::DstMode::Unspecified => known("spec.schedule.cron.dst", cron.dst, DstPolicy::Vixie)?,
    };
    let (field, zone_field) = ("spec.schedule.cron.expression", "spec.schedule.cron.zone");
    let expr = CronExpr::parse(&cron.expression, syntax)
        .map_err(|error| refused(&error.into(), field, zone_field))?;
    let zone = zones
        .get(&cron.zone)
        .map_err(|error| refused(&error.into(), field, zone_field))?;
    let warnings = expr
        .warning()
        .map(|warning| warning.to_string())
        .into_iter()
        .collect();
    Ok((Schedule::Cron(Cron { expr, zone, dst }), warnings))
}

/// A refusal of the schedule arithmetic, with the field it is about.
pub(crate) fn refused(error: &ScheduleError, field: &str, zone_field: &str) -> Error {
    let (reason, field) = match error {
        ScheduleError::Expression(_) => ("invalid_expression", field),
        ScheduleError::Zone(_) => ("unknown_zone", zone_field),
        ScheduleError::Time(_) => ("invalid_time", field),
        ScheduleError::Period { .. } => ("invalid_period", field),
        ScheduleError::Past { .. } => ("in_the_past", field),
        ScheduleError::NeverFires { .. } => ("never_fires", field),
        _ => ("invalid_schedule", field),
    };
    let mut told = Error::new(Code::InvalidArgument, reason, error.to_string()).field(field);
    told.hint = error.hint();
    told
}

fn known<T>(field: &str, value: i32, default: T) -> Result<T, Error> {
    if value == 0 {
        Ok(default)
    } else {
        Err(Error::invalid(field, format!("{value} is not known here")))
    }
}
