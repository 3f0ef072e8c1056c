//! Schedules between the wire and the words of `creel_schedule`, which are their JSON, too.

use creel_proto::{
    scheduler::v1::{
        At, CivilTime, Cron, CronSyntax, DstMode, Every, EveryMode, Schedule, at::When, schedule::Kind,
    },
    time,
};
use creel_schedule::{DstPolicy, Moment, ScheduleSpec, Syntax, TimeError, ZoneSources, Zones, parse_time};
use creel_wire::{Code, Error};
use jiff::Timestamp;

use crate::failure::Failure;

/// The words of a schedule; `None` when the wire brought none.
pub(crate) fn words(schedule: &Schedule) -> Option<ScheduleSpec> {
    Some(match schedule.kind.as_ref()? {
        Kind::At(at) => match at.when.as_ref()? {
            When::Time(instant) => ScheduleSpec::At {
                time: crate::times::rfc3339(time::unix_ms(instant))?,
                zone: None,
            },
            When::Civil(civil) => ScheduleSpec::At {
                time: civil.time.clone(),
                zone: Some(civil.zone.clone()),
            },
        },
        Kind::Every(every) => ScheduleSpec::Every {
            period_ms: every
                .period
                .as_ref()
                .map_or(0, |period| time::duration_ms(period).unsigned_abs()),
            anchor_ms: every.anchor.as_ref().map(time::unix_ms),
            mode: match every.mode() {
                EveryMode::FixedDelay => creel_schedule::EveryMode::FixedDelay,
                EveryMode::FixedRate | EveryMode::Unspecified => creel_schedule::EveryMode::FixedRate,
            },
        },
        Kind::Cron(cron) => ScheduleSpec::Cron {
            expr: cron.expression.clone(),
            zone: cron.zone.clone(),
            dst: match cron.dst() {
                DstMode::Skip => DstPolicy::Skip,
                DstMode::Both => DstPolicy::Both,
                DstMode::Vixie | DstMode::Unspecified => DstPolicy::Vixie,
            },
            syntax: match cron.syntax() {
                CronSyntax::Quartz => Syntax::Quartz,
                CronSyntax::Unix | CronSyntax::Unspecified => Syntax::Unix,
            },
        },
    })
}

/// A schedule for the wire. Expressions and zones are judged by the scheduler; times are read here,
/// since "in 20m" counts from now, and now is here.
///
/// # Errors
/// Exit 2 for a time or zone that can't be read.
pub(crate) fn wire(spec: &ScheduleSpec, now: Timestamp) -> Result<Schedule, Failure> {
    let kind = match spec {
        ScheduleSpec::At { time, zone } => Kind::At(At {
            when: Some(moment(time, zone.as_deref(), now)?),
        }),
        ScheduleSpec::Every {
            period_ms,
            anchor_ms,
            mode,
        } => {
            let mode = match mode {
                creel_schedule::EveryMode::FixedRate => EveryMode::FixedRate,
                creel_schedule::EveryMode::FixedDelay => EveryMode::FixedDelay,
            };
            let period = time::duration(i64::try_from(*period_ms).unwrap_or(i64::MAX));
            Kind::Every(Every {
                period: Some(period),
                anchor: anchor_ms.map(time::timestamp),
                mode: mode.into(),
            })
        }
        ScheduleSpec::Cron {
            expr,
            zone,
            dst,
            syntax,
        } => {
            let dst = match dst {
                DstPolicy::Vixie => DstMode::Vixie,
                DstPolicy::Skip => DstMode::Skip,
                DstPolicy::Both => DstMode::Both,
            };
            let syntax = match syntax {
                Syntax::Unix => CronSyntax::Unix,
                Syntax::Quartz => CronSyntax::Quartz,
                other => {
                    return Err(Failure::usage(format!(
                        "the scheduler has no syntax `{}`",
                        other.as_str()
                    )));
                }
            };
            Kind::Cron(Cron {
                expression: expr.clone(),
                zone: zone.clone(),
                dst: dst.into(),
                syntax: syntax.into(),
            })
        }
    };
    Ok(Schedule { kind: Some(kind) })
}

/// A point in time; a clock reading needs a zone.
fn moment(text: &str, zone: Option<&str>, now: Timestamp) -> Result<When, Failure> {
    // Zone data is opened only for a reading: it costs more than all the rest of the command.
    let moment = match (parse_time(text, now, None), zone) {
        (Err(TimeError::ZoneMissing(_)), Some(zone)) => {
            let zones = Zones::load(&ZoneSources::of_this_machine());
            let zone = zones
                .get(zone)
                .map_err(|error| invalid("tz", &error, Some(error.hint())))?;
            parse_time(text, now, Some(&zone))
        }
        (moment, _) => moment,
    };
    match moment.map_err(|error| invalid("at", &error, Some(error.hint())))? {
        Moment::Instant(instant) => Ok(When::Time(time::timestamp(instant.as_millisecond()))),
        Moment::Civil { reading, zone } => Ok(When::Civil(CivilTime {
            time: reading.to_string(),
            zone: zone.name().to_owned(),
        })),
    }
}

/// A part of a schedule that can't be right.
pub(crate) fn invalid(field: &str, error: &dyn std::error::Error, hint: Option<String>) -> Failure {
    let mut told = Error::new(
        Code::InvalidArgument,
        "schedule_invalid",
        creel_kit::failure::chain(error),
    )
    .field(field);
    told.hint = hint;
    told.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_spellings_reach_the_wire_and_come_back() {
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        for (json, back) in [
            (
                r#"{"kind":"cron","expr":"0 19 * * *","tz":"Europe/Berlin"}"#,
                r#"{"kind":"cron","expr":"0 19 * * *","zone":"Europe/Berlin","dst":"vixie","syntax":"unix"}"#,
            ),
            (
                r#"{"kind":"interval","everyMs":1800000}"#,
                r#"{"kind":"every","everyMs":1800000,"mode":"fixed_rate"}"#,
            ),
            (
                r#"{"at":"in 20m"}"#,
                r#"{"kind":"at","at":"2026-11-22T10:20:00Z"}"#,
            ),
            (
                r#"{"at":"2026-12-01 07:00","zone":"Europe/Berlin"}"#,
                r#"{"kind":"at","at":"2026-12-01T07:00:00","zone":"Europe/Berlin"}"#,
            ),
        ] {
            let spec: ScheduleSpec = serde_json::from_str(json).unwrap();
            let schedule = wire(&spec, now).unwrap();
            assert_eq!(serde_json::to_string(&words(&schedule).unwrap()).unwrap(), back);
        }
    }

    #[test]
    fn bad_times_and_zones_are_usage_with_a_way_out() {
        let now = Timestamp::UNIX_EPOCH;
        let at = |time: &str, zone: Option<&str>| ScheduleSpec::At {
            time: time.into(),
            zone: zone.map(str::to_owned),
        };
        let failure = wire(&at("2026-12-01 07:00", Some("Europe/Berln")), now).unwrap_err();
        let error = failure.error().unwrap();
        assert_eq!(
            (error.code, error.hint.as_deref()),
            (Code::InvalidArgument, Some("did you mean `Europe/Berlin`?"))
        );
        assert_eq!(
            wire(&at("soon", None), now)
                .unwrap_err()
                .error()
                .unwrap()
                .field
                .as_deref(),
            Some("at")
        );
        assert!(
            wire(&at("2026-12-01 07:00", None), now).is_err(),
            "a reading without a zone"
        );
    }
}
