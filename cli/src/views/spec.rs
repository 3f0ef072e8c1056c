//! A job's spec as JSON, both ways: what `cron show --json` prints, `cron add --json-spec` reads.

use creel_proto::{
    scheduler::v1::{
        AgentTurnPayload, Alert, AuditPayload, CatchUp, CatchUpMode, CommandPayload, DeleteAfter, Delivery,
        JobSpec, NoDelivery, OnStuck, Overlap, OverlapMode, Payload, Policy, Retry, SessionDelivery,
        SystemEventPayload, WebhookDelivery, delivery, payload,
    },
    time,
};
use creel_schedule::ScheduleSpec;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{lasting_ms, schedule, text, word};
use crate::failure::Failure;

/// See [`JobSpec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SpecView {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    pub(crate) schedule: Option<ScheduleSpec>,
    #[serde(default, alias = "sessionTarget")]
    pub(crate) target: Option<String>,
    pub(crate) payload: Option<PayloadView>,
    #[serde(default)]
    pub(crate) policy: PolicyView,
    #[serde(default)]
    pub(crate) delivery: Option<DeliveryView>,
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) delete_after_run: bool,
    /// `never`, `on_success`, `always`; more exact than `deleteAfterRun`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delete_after: Option<String>,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum PayloadView {
    SystemEvent {
        text: String,
    },
    AgentTurn {
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<i64>,
    },
    Command {
        #[serde(default)]
        argv: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cwd: Option<String>,
    },
    Audit {},
}

/// Only what was set; the scheduler fills in the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PolicyView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) catch_up: Option<CatchUpView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overlap: Option<OverlapView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jitter_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<RetryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_stuck: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quarantine_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_runs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_for_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alert: Option<AlertView>,
}

/// Who is told when the job goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct AlertView {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) off: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cool_down_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CatchUpView {
    pub(crate) mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OverlapView {
    pub(crate) mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RetryView {
    pub(crate) attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backoff_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_backoff_ms: Option<i64>,
    /// A retry may come after the next occurrence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) past_next: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum DeliveryView {
    None {},
    Session { session: String },
    Webhook { url: String },
}

impl From<&JobSpec> for SpecView {
    fn from(spec: &JobSpec) -> Self {
        Self {
            name: spec.name.clone(),
            description: text(&spec.description),
            schedule: spec.schedule.as_ref().and_then(schedule::words),
            target: text(&spec.target),
            payload: spec
                .payload
                .as_ref()
                .and_then(|payload| payload.kind.as_ref())
                .map(PayloadView::from),
            policy: spec.policy.as_ref().map(PolicyView::from).unwrap_or_default(),
            delivery: spec
                .delivery
                .as_ref()
                .and_then(|delivery| delivery.to.as_ref())
                .map(DeliveryView::from),
            enabled: !spec.disabled,
            delete_after_run: spec.delete_after_run,
            delete_after: match spec.delete_after() {
                DeleteAfter::Unspecified => None,
                other => Some(word(other.as_str_name(), "DELETE_AFTER_")),
            },
        }
    }
}

impl SpecView {
    /// For the wire.
    ///
    /// # Errors
    /// Exit 2 for a word or a time that can't be read.
    pub(crate) fn wire(&self, now: Timestamp) -> Result<JobSpec, Failure> {
        Ok(JobSpec {
            name: self.name.clone(),
            description: self.description.clone().unwrap_or_default(),
            schedule: self
                .schedule
                .as_ref()
                .map(|spec| schedule::wire(spec, now))
                .transpose()?,
            target: self.target.clone().unwrap_or_else(|| "main".to_owned()),
            payload: self.payload.clone().map(|payload| Payload {
                kind: Some(payload.into()),
            }),
            policy: (self.policy != PolicyView::default())
                .then(|| self.policy.wire())
                .transpose()?,
            delivery: self.delivery.clone().map(|delivery| Delivery {
                to: Some(delivery.into()),
            }),
            disabled: !self.enabled,
            delete_after_run: self.delete_after_run,
            delete_after: self
                .delete_after
                .as_ref()
                .map(|word| value(word, "deleteAfter", "DELETE_AFTER_", DeleteAfter::from_str_name))
                .transpose()?
                .map_or(0, Into::into),
        })
    }
}

impl From<&payload::Kind> for PayloadView {
    fn from(kind: &payload::Kind) -> Self {
        match kind {
            payload::Kind::SystemEvent(event) => Self::SystemEvent {
                text: event.text.clone(),
            },
            payload::Kind::AgentTurn(turn) => Self::AgentTurn {
                message: turn.message.clone(),
                backend: text(&turn.backend),
                timeout_ms: lasting_ms(turn.timeout.as_ref()),
            },
            payload::Kind::Command(command) => Self::Command {
                argv: command.argv.clone(),
                text: text(&command.text),
                cwd: text(&command.cwd),
            },
            payload::Kind::Audit(_) => Self::Audit {},
        }
    }
}

impl From<PayloadView> for payload::Kind {
    fn from(view: PayloadView) -> Self {
        match view {
            PayloadView::SystemEvent { text } => Self::SystemEvent(SystemEventPayload { text }),
            PayloadView::AgentTurn {
                message,
                backend,
                timeout_ms,
            } => Self::AgentTurn(AgentTurnPayload {
                message,
                backend: backend.unwrap_or_default(),
                timeout: timeout_ms.map(time::duration),
            }),
            PayloadView::Command { argv, text, cwd } => Self::Command(CommandPayload {
                argv,
                text: text.unwrap_or_default(),
                cwd: cwd.unwrap_or_default(),
            }),
            PayloadView::Audit {} => Self::Audit(AuditPayload {}),
        }
    }
}

impl From<&delivery::To> for DeliveryView {
    fn from(to: &delivery::To) -> Self {
        match to {
            delivery::To::None(_) => Self::None {},
            delivery::To::Session(to) => Self::Session {
                session: to.session.clone(),
            },
            delivery::To::Webhook(to) => Self::Webhook { url: to.url.clone() },
        }
    }
}

impl From<DeliveryView> for delivery::To {
    fn from(view: DeliveryView) -> Self {
        match view {
            DeliveryView::None {} => Self::None(NoDelivery {}),
            DeliveryView::Session { session } => Self::Session(SessionDelivery { session }),
            DeliveryView::Webhook { url } => Self::Webhook(WebhookDelivery { url }),
        }
    }
}

impl From<&Policy> for PolicyView {
    fn from(policy: &Policy) -> Self {
        let some = |value: u32| (value != 0).then_some(value);
        Self {
            catch_up: policy.catch_up.as_ref().map(|catch_up| CatchUpView {
                mode: word(catch_up.mode().as_str_name(), "CATCH_UP_MODE_"),
                max: some(catch_up.max),
                window_ms: lasting_ms(catch_up.window.as_ref()),
            }),
            overlap: policy.overlap.as_ref().map(|overlap| OverlapView {
                mode: word(overlap.mode().as_str_name(), "OVERLAP_MODE_"),
                max: some(overlap.max),
            }),
            jitter_ms: lasting_ms(policy.jitter.as_ref()),
            timeout_ms: lasting_ms(policy.timeout.as_ref()),
            expected_ms: lasting_ms(policy.expected.as_ref()),
            retry: policy.retry.as_ref().map(|retry| RetryView {
                attempts: retry.attempts,
                backoff_ms: lasting_ms(retry.backoff.as_ref()),
                max_backoff_ms: lasting_ms(retry.max_backoff.as_ref()),
                past_next: retry.past_next,
            }),
            on_stuck: match policy.on_stuck() {
                OnStuck::Unspecified => None,
                other => Some(word(other.as_str_name(), "ON_STUCK_")),
            },
            quarantine_after: some(policy.quarantine_after),
            keep_runs: some(policy.keep_runs),
            keep_for_ms: lasting_ms(policy.keep_for.as_ref()),
            alert: policy.alert.as_ref().map(|alert| AlertView {
                off: alert.off,
                after: some(alert.after),
                cool_down_ms: lasting_ms(alert.cool_down.as_ref()),
                session: text(&alert.session),
            }),
        }
    }
}

impl PolicyView {
    fn wire(&self) -> Result<Policy, Failure> {
        let catch_up = self.catch_up.as_ref().map(|view| {
            Ok::<_, Failure>(CatchUp {
                mode: value(
                    &view.mode,
                    "policy.catchUp.mode",
                    "CATCH_UP_MODE_",
                    CatchUpMode::from_str_name,
                )?
                .into(),
                max: view.max.unwrap_or_default(),
                window: view.window_ms.map(time::duration),
            })
        });
        let overlap = self.overlap.as_ref().map(|view| {
            Ok::<_, Failure>(Overlap {
                mode: value(
                    &view.mode,
                    "policy.overlap.mode",
                    "OVERLAP_MODE_",
                    OverlapMode::from_str_name,
                )?
                .into(),
                max: view.max.unwrap_or_default(),
            })
        });
        let on_stuck = self
            .on_stuck
            .as_ref()
            .map(|word| value(word, "policy.onStuck", "ON_STUCK_", OnStuck::from_str_name));
        Ok(Policy {
            catch_up: catch_up.transpose()?,
            overlap: overlap.transpose()?,
            jitter: self.jitter_ms.map(time::duration),
            timeout: self.timeout_ms.map(time::duration),
            expected: self.expected_ms.map(time::duration),
            retry: self.retry.as_ref().map(|view| Retry {
                attempts: view.attempts,
                backoff: view.backoff_ms.map(time::duration),
                max_backoff: view.max_backoff_ms.map(time::duration),
                past_next: view.past_next,
            }),
            on_stuck: on_stuck.transpose()?.map_or(0, Into::into),
            quarantine_after: self.quarantine_after.unwrap_or_default(),
            keep_runs: self.keep_runs.unwrap_or_default(),
            keep_for: self.keep_for_ms.map(time::duration),
            alert: self.alert.as_ref().map(|view| Alert {
                off: view.off,
                after: view.after.unwrap_or_default(),
                cool_down: view.cool_down_ms.map(time::duration),
                session: view.session.clone().unwrap_or_default(),
            }),
        })
    }
}

/// The enum value of a word; the inverse of [`word`].
fn value<T>(word: &str, field: &str, prefix: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
    let name = format!("{prefix}{}", word.to_ascii_uppercase());
    read(&name)
        .filter(|_| !name.ends_with("_UNSPECIFIED"))
        .ok_or_else(|| {
            let shown = creel_wire::error::printable(word, 64);
            Failure::usage(format!("`{shown}` is no value of {field}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_both_ways() {
        let json = serde_json::json!({
            "name": "report", "description": null,
            "schedule": { "kind": "cron", "expr": "0 9 * * MON", "zone": "UTC", "dst": "skip", "syntax": "unix" },
            "target": "agent:default:main",
            "payload": { "kind": "agentTurn", "message": "Write it", "backend": "py", "timeoutMs": 60_000 },
            "policy": {
                "catchUp": { "mode": "all", "max": 7, "windowMs": 3_600_000 },
                "overlap": { "mode": "buffer_one" },
                "timeoutMs": 300_000, "onStuck": "retry",
                "retry": { "attempts": 3, "backoffMs": 1_000, "pastNext": true },
                "quarantineAfter": 4,
                "alert": { "after": 2, "coolDownMs": 600_000, "session": "main" },
            },
            "delivery": { "kind": "session", "session": "main" },
            "enabled": false, "deleteAfterRun": true, "deleteAfter": "always",
        });
        let view: SpecView = serde_json::from_value(json.clone()).unwrap();
        let wire = view.wire(Timestamp::UNIX_EPOCH).unwrap();
        assert!(wire.disabled && wire.delete_after_run);
        assert_eq!(serde_json::to_value(SpecView::from(&wire)).unwrap(), json);
    }

    #[test]
    fn unknown_keys_and_words_are_refused() {
        let read = |json: &str| serde_json::from_str::<SpecView>(json);
        assert!(read(r#"{"schedule":null,"payload":null,"wakeMode":"now"}"#).is_err());
        let view = read(r#"{"schedule":null,"payload":null,"policy":{"overlap":{"mode":"maybe"}}}"#).unwrap();
        let failure = view.wire(Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(failure.error().unwrap().message.contains("policy.overlap.mode"));
        assert!(value("unspecified", "x", "OVERLAP_MODE_", OverlapMode::from_str_name).is_err());
    }
}
