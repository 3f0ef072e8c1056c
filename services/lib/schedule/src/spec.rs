//! A schedule as people and stores write it, before zones and times are looked up.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::expr::{CronExpr, Syntax};
use crate::human::{parse_duration, parse_time};
use crate::schedule::{Cron, DstPolicy, Every, EveryMode, Moment, Schedule, ScheduleError};
use crate::zones::{ZoneError, Zones};

/// A schedule in words: what JSON carries and records keep. [`ScheduleSpec::resolve`] checks it against zone data.
///
/// JSON, with the spellings of the original read as well (unknown keys are errors):
/// - `{"kind":"at", "at":"2026-12-01T06:00:00Z"}`, or `"at":"2026-12-01 07:00"` with `"zone"`; also `"atMs"`
/// - `{"kind":"every", "everyMs":300000, "anchorMs":…, "mode":"fixed_rate"}`; also `"kind":"interval"`, and
///   `"period":"5m"` for `everyMs`
/// - `{"kind":"cron", "expr":"0 7 * * *", "zone":"Europe/Berlin", "dst":"vixie", "syntax":"unix"}`; also `"tz"`
///
/// Without `kind` it follows from the other keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub enum ScheduleSpec {
    /// Once.
    At {
        /// RFC 3339, or a reading (`2026-12-01 07:00`) in `zone`.
        time: String,
        /// IANA name, for a reading.
        zone: Option<String>,
    },
    /// Again and again.
    Every {
        /// Milliseconds from one to the next.
        period_ms: u64,
        /// Start of the grid in milliseconds since 1970; the time of creation if absent.
        anchor_ms: Option<i64>,
        /// What it counts from.
        mode: EveryMode,
    },
    /// By the calendar.
    Cron {
        /// The expression.
        expr: String,
        /// IANA name.
        zone: String,
        /// What happens when clocks change.
        dst: DstPolicy,
        /// The grammar of `expr`.
        syntax: Syntax,
    },
}

impl ScheduleSpec {
    /// Looks up zones and checks every part. `created` becomes the anchor of an interval that has none.
    ///
    /// Whether anything is still to come is another question: [`Schedule::first`].
    ///
    /// # Errors
    /// [`ScheduleError`] naming the part at fault.
    pub fn resolve(&self, zones: &Zones, created: Timestamp) -> Result<Schedule, ScheduleError> {
        match self {
            ScheduleSpec::At { time, zone } => {
                let zone = zone.as_deref().map(|name| zones.get(name)).transpose()?;
                Ok(Schedule::At(parse_time(time, created, zone.as_ref())?))
            }
            ScheduleSpec::Every {
                period_ms,
                anchor_ms,
                mode,
            } => {
                let anchor = match anchor_ms {
                    None => created,
                    // An anchor beyond the ends of time means the end it is beyond.
                    Some(ms) => Timestamp::from_millisecond(*ms).unwrap_or(if *ms < 0 {
                        Timestamp::MIN
                    } else {
                        Timestamp::MAX
                    }),
                };
                Ok(Schedule::Every(Every::new(*period_ms, anchor, *mode)?))
            }
            ScheduleSpec::Cron {
                expr,
                zone,
                dst,
                syntax,
            } => {
                if zone.is_empty() {
                    return Err(ZoneError::Missing.into());
                }
                let expr = CronExpr::parse(expr, *syntax)?;
                Ok(Schedule::Cron(Cron {
                    expr,
                    zone: zones.get(zone)?,
                    dst: *dst,
                }))
            }
        }
    }
}

impl Schedule {
    /// The words for it, complete: resolving them again at any later time gives the same schedule under the same
    /// zone data.
    pub fn spec(&self) -> ScheduleSpec {
        match self {
            Schedule::At(Moment::Instant(instant)) => ScheduleSpec::At {
                time: instant.to_string(),
                zone: None,
            },
            Schedule::At(Moment::Civil { reading, zone }) => ScheduleSpec::At {
                time: reading.to_string(),
                zone: Some(zone.name().to_owned()),
            },
            Schedule::Every(every) => ScheduleSpec::Every {
                period_ms: every.period_ms(),
                anchor_ms: Some(every.anchor_ms()),
                mode: every.mode(),
            },
            Schedule::Cron(cron) => ScheduleSpec::Cron {
                expr: cron.expr.text().to_owned(),
                zone: cron.zone.name().to_owned(),
                dst: cron.dst,
                syntax: cron.expr.syntax(),
            },
        }
    }
}

/// A resolved schedule is written as its words.
impl Serialize for Schedule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.spec().serialize(serializer)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    At,
    #[serde(alias = "interval")]
    Every,
    Cron,
}

/// All keys of all kinds. Flat, so that a wrong key is named instead of "no variant matched".
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "time")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "atMs", alias = "at_ms")]
    at_ms: Option<i64>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        rename = "everyMs",
        alias = "every_ms",
        alias = "period_ms"
    )]
    every_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        rename = "anchorMs",
        alias = "anchor_ms"
    )]
    anchor_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<EveryMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "tz")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<DstPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syntax: Option<Syntax>,
}

impl TryFrom<Raw> for ScheduleSpec {
    type Error = String;

    fn try_from(raw: Raw) -> Result<ScheduleSpec, String> {
        let has_at = raw.at.is_some() || raw.at_ms.is_some();
        let has_period = raw.every_ms.is_some() || raw.period.is_some();
        let kind = match raw.kind {
            Some(kind) => kind,
            None if has_at => Kind::At,
            None if has_period => Kind::Every,
            None if raw.expr.is_some() => Kind::Cron,
            None => return Err("a schedule needs `kind`, or one of `at`, `everyMs`, `expr`".to_owned()),
        };
        let strays = [
            ("at", has_at, Kind::At),
            ("everyMs", has_period, Kind::Every),
            (
                "anchor",
                raw.anchor_ms.is_some() || raw.anchor.is_some(),
                Kind::Every,
            ),
            ("mode", raw.mode.is_some(), Kind::Every),
            ("expr", raw.expr.is_some(), Kind::Cron),
            ("dst", raw.dst.is_some(), Kind::Cron),
            ("syntax", raw.syntax.is_some(), Kind::Cron),
        ];
        if let Some((key, ..)) = strays
            .iter()
            .find(|(_, present, belongs)| *present && *belongs != kind)
        {
            return Err(format!("`{key}` does not belong in this kind of schedule"));
        }
        match kind {
            Kind::At => {
                let time = match (raw.at, raw.at_ms) {
                    (Some(time), None) => time,
                    (None, Some(ms)) => Timestamp::from_millisecond(ms)
                        .map_err(|_| format!("`atMs` {ms} is beyond the year 9999"))?
                        .to_string(),
                    _ => return Err("a one-shot needs `at` or `atMs`".to_owned()),
                };
                Ok(ScheduleSpec::At { time, zone: raw.zone })
            }
            Kind::Every => {
                if raw.zone.is_some() {
                    return Err("an interval has no zone".to_owned());
                }
                let period_ms = match (raw.every_ms, raw.period) {
                    (Some(ms), None) => ms,
                    (None, Some(text)) => {
                        let period = parse_duration(&text).map_err(|error| error.to_string())?;
                        u64::try_from(period.as_millis()).unwrap_or(u64::MAX)
                    }
                    _ => return Err("an interval needs `everyMs` or `period`".to_owned()),
                };
                let anchor_ms = raw.anchor_ms.or(raw.anchor.map(Timestamp::as_millisecond));
                Ok(ScheduleSpec::Every {
                    period_ms,
                    anchor_ms,
                    mode: raw.mode.unwrap_or_default(),
                })
            }
            Kind::Cron => Ok(ScheduleSpec::Cron {
                expr: raw.expr.ok_or("a calendar schedule needs `expr`")?,
                zone: raw.zone.ok_or("a calendar schedule needs `zone`")?,
                dst: raw.dst.unwrap_or_default(),
                syntax: raw.syntax.unwrap_or_default(),
            }),
        }
    }
}

impl From<ScheduleSpec> for Raw {
    fn from(spec: ScheduleSpec) -> Raw {
        match spec {
            ScheduleSpec::At { time, zone } => Raw {
                kind: Some(Kind::At),
                at: Some(time),
                zone,
                ..Raw::default()
            },
            ScheduleSpec::Every {
                period_ms,
                anchor_ms,
                mode,
            } => Raw {
                kind: Some(Kind::Every),
                every_ms: Some(period_ms),
                anchor_ms,
                mode: Some(mode),
                ..Raw::default()
            },
            ScheduleSpec::Cron {
                expr,
                zone,
                dst,
                syntax,
            } => Raw {
                kind: Some(Kind::Cron),
                expr: Some(expr),
                zone: Some(zone),
                dst: Some(dst),
                syntax: Some(syntax),
                ..Raw::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ScheduleSpec, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn both_spellings_of_every_kind_are_read() {
        let berlin = |expr: &str| ScheduleSpec::Cron {
            expr: expr.to_owned(),
            zone: "Europe/Berlin".to_owned(),
            dst: DstPolicy::Vixie,
            syntax: Syntax::Unix,
        };
        let every = |period_ms, anchor_ms| ScheduleSpec::Every {
            period_ms,
            anchor_ms,
            mode: EveryMode::FixedRate,
        };
        let at = |time: &str, zone: Option<&str>| ScheduleSpec::At {
            time: time.to_owned(),
            zone: zone.map(str::to_owned),
        };
        let cases = [
            (
                r#"{"kind":"cron","expr":"0 8 28 1 *","tz":"Europe/Berlin"}"#,
                berlin("0 8 28 1 *"),
            ),
            (
                r#"{"expr":"0 19 * * *","zone":"Europe/Berlin","dst":"vixie"}"#,
                berlin("0 19 * * *"),
            ),
            (r#"{"kind":"interval","everyMs":60000}"#, every(60_000, None)),
            (
                r#"{"kind":"every","everyMs":60000,"anchorMs":5}"#,
                every(60_000, Some(5)),
            ),
            (
                r#"{"kind":"every","period":"2h30m","anchor":"1970-01-01T00:00:01Z"}"#,
                every(9_000_000, Some(1_000)),
            ),
            (r#"{"kind":"at","atMs":1000}"#, at("1970-01-01T00:00:01Z", None)),
            (
                r#"{"kind":"at","at":"2026-12-01 07:00","tz":"Europe/Berlin"}"#,
                at("2026-12-01 07:00", Some("Europe/Berlin")),
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(read(json), Ok(expected), "{json}");
        }
    }

    #[test]
    fn wrong_keys_are_named() {
        let cases = [
            (r#"{"kind":"cron","expr":"* * * * *"}"#, "`zone`"),
            (r#"{"kind":"cron","zone":"UTC"}"#, "`expr`"),
            (
                r#"{"kind":"cron","expr":"* * * * *","tz":"UTC","everyMs":1}"#,
                "`everyMs`",
            ),
            (r#"{"kind":"interval","everyMs":1000,"tz":"UTC"}"#, "no zone"),
            (r#"{"kind":"interval","everyMs":-1}"#, "-1"),
            (
                r#"{"kind":"interval","everyMs":1000,"period":"1s"}"#,
                "`everyMs` or `period`",
            ),
            (r#"{"kind":"interval","period":"1fortnight"}"#, "fortnight"),
            (r#"{"kind":"at"}"#, "`atMs`"),
            (r#"{"kind":"at","atMs":9223372036854775807}"#, "9999"),
            (r#"{"kind":"sometimes"}"#, "sometimes"),
            (
                r#"{"kind":"cron","expression":"* * * * *","tz":"UTC"}"#,
                "expression",
            ),
            (r#"{}"#, "`kind`"),
        ];
        for (json, part) in cases {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn a_resolved_schedule_keeps_its_words() {
        let zones = Zones::bundled();
        let created: Timestamp = "2026-11-22T10:00:00.123456Z".parse().unwrap();
        for json in [
            r#"{"kind":"cron","expr":"0 7 * * *","zone":"Europe/Berlin","dst":"both","syntax":"unix"}"#,
            r#"{"kind":"cron","expr":"0 0 7 ? * MON","zone":"UTC","dst":"skip","syntax":"quartz"}"#,
            r#"{"kind":"every","everyMs":1000,"anchorMs":17,"mode":"fixed_delay"}"#,
            r#"{"kind":"at","at":"2026-12-01T06:00:00Z"}"#,
            r#"{"kind":"at","at":"2026-12-01T07:00:00","zone":"Europe/Berlin"}"#,
        ] {
            let schedule = read(json).unwrap().resolve(&zones, created).unwrap();
            assert_eq!(serde_json::to_string(&schedule).unwrap(), json);
        }
        let every = read(r#"{"kind":"interval","everyMs":60000}"#)
            .unwrap()
            .resolve(&zones, created)
            .unwrap();
        let kept = ScheduleSpec::Every {
            period_ms: 60_000,
            anchor_ms: Some(created.as_millisecond()),
            mode: EveryMode::FixedRate,
        };
        assert_eq!(every.spec(), kept);
    }

    #[test]
    fn refusals_name_the_part() {
        let zones = Zones::bundled();
        let resolve = |json: &str| {
            read(json)
                .unwrap()
                .resolve(&zones, Timestamp::UNIX_EPOCH)
                .unwrap_err()
        };
        let zone = resolve(r#"{"expr":"* * * * *","tz":"Europe/Berln"}"#);
        assert_eq!(zone.hint().as_deref(), Some("did you mean `Europe/Berlin`?"));
        assert!(matches!(
            resolve(r#"{"expr":"* * * * *","tz":""}"#),
            ScheduleError::Zone(ZoneError::Missing)
        ));
        assert!(matches!(
            resolve(r#"{"expr":"60 * * * *","tz":"UTC"}"#),
            ScheduleError::Expression(_)
        ));
        assert!(matches!(
            resolve(r#"{"everyMs":999}"#),
            ScheduleError::Period { period_ms: 999 }
        ));
        assert!(matches!(
            resolve(r#"{"everyMs":18446744073709551615}"#),
            ScheduleError::Period { .. }
        ));
        assert!(matches!(
            resolve(r#"{"at":"2026-12-01 07:00"}"#),
            ScheduleError::Time(_)
        ));
    }
}
