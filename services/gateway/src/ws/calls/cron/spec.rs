//! Jobs as clients of the original write them. Pure.
//!
//! What the original can say and a job here can't is refused by name, never left out silently: by the table of
//! parameters, and by what is left to see here.

use creel_proto::{
    scheduler::v1::{
        AgentTurnPayload, At, Cron, Delivery, Every, EveryMode, JobSpec, NoDelivery, Payload, Schedule,
        SystemEventPayload, at::When, delivery::To, payload::Kind as PayloadKind,
        schedule::Kind as ScheduleKind,
    },
    time::{duration, timestamp},
};
use serde::Deserialize;

use crate::ws::{calls::timeout, failure::Failure, params::MAX_COUNT};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum ScheduleIn {
    At {
        /// ISO 8601, or Unix milliseconds as text.
        at: Option<String>,
        at_ms: Option<u64>,
    },
    Every {
        every_ms: u64,
        anchor_ms: Option<u64>,
    },
    Cron {
        expr: String,
        tz: Option<String>,
    },
}

/// A payload, or what a patch changes of one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum PayloadIn {
    SystemEvent {
        text: Option<String>,
    },
    AgentTurn {
        message: Option<String>,
        timeout_seconds: Option<u64>,
        deliver: Option<bool>,
    },
}

impl PayloadIn {
    /// The target that goes with it.
    pub(super) const fn target(&self) -> &'static str {
        match self {
            Self::SystemEvent { .. } => "main",
            Self::AgentTurn { .. } => "isolated",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryIn {
    pub(super) mode: Option<String>,
}

impl DeliveryIn {
    /// Whether nothing is delivered; none when it doesn't say.
    pub(super) fn is_silent(&self) -> Option<bool> {
        self.mode.as_deref().map(|mode| mode == "none")
    }
}

/// `params` of `cron.add`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    delete_after_run: Option<bool>,
    schedule: ScheduleIn,
    session_target: String,
    payload: PayloadIn,
    #[serde(default)]
    delivery: Option<DeliveryIn>,
}

pub(super) fn invalid(why: &str) -> Failure {
    Failure::invalid(why)
}

/// The job that `cron.add` asks for.
pub(super) fn spec_of(add: Add) -> Result<JobSpec, Failure> {
    if add.name.trim().is_empty() {
        return Err(invalid("cron job name is required"));
    }
    check_target(&add.session_target, add.payload.target())?;
    let deliver = match add.payload {
        PayloadIn::AgentTurn { deliver, .. } => deliver,
        PayloadIn::SystemEvent { .. } => None,
    };
    let silent = add.delivery.and_then(|delivery| delivery.is_silent());
    let silent = silent.unwrap_or(deliver == Some(false));
    Ok(JobSpec {
        name: add.name,
        description: add.description.unwrap_or_default(),
        schedule: Some(schedule_of(add.schedule)?),
        target: "main".to_owned(),
        payload: Some(payload_of(add.payload, None)?),
        policy: None,
        delivery: delivery(silent),
        disabled: add.enabled == Some(false),
        delete_after_run: add.delete_after_run == Some(true),
        ..JobSpec::default()
    })
}

/// Main jobs are events, isolated ones are turns.
pub(super) fn check_target(target: &str, of_payload: &str) -> Result<(), Failure> {
    match target {
        target if target == of_payload => Ok(()),
        "main" => Err(invalid("main cron jobs require payload.kind=\"systemEvent\"")),
        _ => Err(invalid("isolated cron jobs require payload.kind=\"agentTurn\"")),
    }
}

/// To nobody, or as the scheduler does it by itself.
pub(super) fn delivery(silent: bool) -> Option<Delivery> {
    silent.then_some(Delivery {
        to: Some(To::None(NoDelivery {})),
    })
}

pub(super) fn schedule_of(schedule: ScheduleIn) -> Result<Schedule, Failure> {
    let kind = match schedule {
        ScheduleIn::At { at, at_ms } => {
            let at = match (at_ms, at) {
                (Some(at), _) => ms(at),
                (None, Some(text)) => {
                    instant(&text).ok_or_else(|| invalid("invalid schedule.at: ISO 8601"))?
                }
                (None, None) => return Err(invalid("invalid cron params: schedule.at is missing")),
            };
            ScheduleKind::At(At {
                when: Some(When::Time(timestamp(at))),
            })
        }
        ScheduleIn::Every { every_ms, anchor_ms } => ScheduleKind::Every(Every {
            period: Some(duration(ms(every_ms))),
            anchor: anchor_ms.map(|at| timestamp(ms(at))),
            mode: EveryMode::FixedRate.into(),
        }),
        ScheduleIn::Cron { expr, tz } => ScheduleKind::Cron(Cron {
            expression: expr,
            zone: tz.filter(|tz| !tz.is_empty()).unwrap_or_else(host_zone),
            ..Cron::default()
        }),
    };
    Ok(Schedule { kind: Some(kind) })
}

/// Milliseconds; a client's are never more than [`MAX_COUNT`](crate::ws::params::MAX_COUNT).
fn ms(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The original's rule for what has no zone: the host's.
fn host_zone() -> String {
    let zone = jiff::tz::TimeZone::system();
    zone.iana_name().unwrap_or("UTC").to_owned()
}

/// The original's reading: all digits are milliseconds, a date is its midnight in UTC, no zone is UTC.
fn instant(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let at: u64 = text.parse().ok()?;
        return (at <= MAX_COUNT).then(|| ms(at));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_millisecond());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let utc = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
    Some(utc.as_millisecond())
}

/// A payload; what it leaves open is as `before`, if that is of its kind.
pub(super) fn payload_of(payload: PayloadIn, before: Option<&PayloadKind>) -> Result<Payload, Failure> {
    let kind = match (payload, before) {
        (PayloadIn::SystemEvent { text }, before) => {
            let kept = match before {
                Some(PayloadKind::SystemEvent(event)) => Some(event.text.clone()),
                _ => None,
            };
            let text = text.or(kept);
            let text = text.ok_or_else(|| invalid("cron payload.kind=\"systemEvent\" requires text"))?;
            PayloadKind::SystemEvent(SystemEventPayload { text })
        }
        (
            PayloadIn::AgentTurn {
                message,
                timeout_seconds,
                ..
            },
            before,
        ) => {
            let mut turn = match before {
                Some(PayloadKind::AgentTurn(turn)) => turn.clone(),
                _ => AgentTurnPayload::default(),
            };
            if let Some(message) = message {
                turn.message = message;
            }
            if let Some(seconds) = timeout_seconds {
                turn.timeout = timeout(Some(seconds.saturating_mul(1_000)));
            }
            if turn.message.is_empty() {
                return Err(invalid("cron payload.kind=\"agentTurn\" requires message"));
            }
            PayloadKind::AgentTurn(turn)
        }
    };
    Ok(Payload { kind: Some(kind) })
}

#[cfg(test)]
pub(super) mod tests {
    use crate::ws::{
        calls::{self, Asked},
        frame::Request,
        methods,
    };

    use serde_json::{Value, json};

    use super::*;

    pub(in super::super) fn spec(params: &Value) -> Result<JobSpec, String> {
        let frame = json!({ "type": "req", "id": "1", "method": "cron.add", "params": params });
        let request = Request::parse(frame.to_string()).map_err(|bad| bad.why)?;
        let method = methods::find("cron.add").map_err(|failure| failure.message)?;
        match calls::read(method, &request) {
            Ok(Asked::Cron(super::super::Asked::Add(spec))) => Ok(*spec),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Err(failure.message),
        }
    }

    pub(in super::super) fn sample() -> Value {
        json!({
            "name": "morning", "schedule": {"kind":"cron","expr":"0 7 * * *","tz":"Europe/Berlin"},
            "sessionTarget": "isolated", "wakeMode": "now", "payload": {"kind":"agentTurn","message":"hello","timeoutSeconds":60},
        })
    }

    #[test]
    fn targets_and_payloads_belong_together() {
        let mut wrong = sample();
        wrong["sessionTarget"] = json!("main");
        assert_eq!(
            spec(&wrong).unwrap_err(),
            "main cron jobs require payload.kind=\"systemEvent\""
        );
        wrong["payload"] = json!({"kind":"systemEvent","text":"x"});
        assert!(spec(&wrong).is_ok());
        wrong["sessionTarget"] = json!("isolated");
        assert_eq!(
            spec(&wrong).unwrap_err(),
            "isolated cron jobs require payload.kind=\"agentTurn\""
        );
    }

    #[test]
    fn what_a_job_here_cannot_do_is_refused_by_name() {
        let said = |field: &str, value: Value| {
            let mut job = sample();
            let place = field.rsplit_once('/');
            let (object, key) = place.unwrap_or(("", field));
            job.pointer_mut(object).unwrap()[key] = value;
            spec(&job).err()
        };
        for (field, value) in [
            ("/payload/model", json!("x")),
            ("/payload/toolsAllow", json!([])),
            ("/schedule/kind", json!("on-exit")),
            ("/schedule/staggerMs", json!(300_000)),
            ("/delivery", json!({"mode":"webhook","to":"https://x"})),
            ("/delivery", json!({"mode":"announce","channel":"telegram"})),
            ("/trigger", json!({"script":"x"})),
            ("/failureAlert", json!({"after":1})),
            ("/wakeMode", json!("next-heartbeat")),
            ("/agentId", json!("other")),
        ] {
            let why = said(field, value.clone());
            assert!(
                why.as_ref().is_some_and(|why| why.contains(field)),
                "{field} {value}: {why:?}"
            );
        }
        // What its command line sends for nothing in particular, and for "exactly on time".
        for (field, value) in [
            ("/delivery", json!({"mode":"announce","channel":"last"})),
            ("/schedule/staggerMs", json!(0)),
            ("/failureAlert", json!(false)),
            ("/trigger", Value::Null),
            ("/agentId", json!("main")),
        ] {
            assert_eq!(said(field, value), None, "{field}");
        }
    }

    #[test]
    fn instants_are_read_as_the_original_reads_them() {
        assert_eq!(instant("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(instant("1970-01-02"), Some(86_400_000));
        assert_eq!(instant("1970-01-01T00:00:01"), Some(1_000));
        assert_eq!(instant("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(instant("tomorrow"), None);
        assert_eq!(instant("99999999999999999"), None);
    }
}
