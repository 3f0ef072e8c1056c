//! A job as people write it, checked: every refusal names the field and says what to do. What passes here is
//! what the rest of the crate relies on.

use creel_proto::{
    scheduler::v1::{self as proto, delivery, payload},
    time::{duration_ms, unix_ms},
};
use creel_schedule::{Schedule, describe_span};
use creel_wire::{Code, Error, SessionKey, error::printable};
use jiff::Timestamp;

use crate::id::JobId;
use crate::policy::{
    Alert, CatchUp, MAX_ATTEMPTS, MAX_CATCH_UP, MIN_KEEP_MS, OnStuck, Overlap, Policy, Retry,
};

mod instants;
mod schedule;

use instants::cut_short;
pub(crate) use instants::{Sample, last_until, swallowed};
pub(crate) use schedule::{Origin, refused, schedule};

/// Longest text of a payload, in bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 64 * 1_024;
/// Longest name, in characters.
pub(crate) const MAX_NAME_CHARS: usize = 128;
/// Longest description, in bytes.
pub(crate) const MAX_DESCRIPTION_BYTES: usize = 4 * 1_024;
/// Longest name of a backend, in bytes.
pub(crate) const MAX_BACKEND_BYTES: usize = 128;
pub(crate) const BACKEND_FIELD: &str = "spec.payload.agent_turn.backend";
/// The agent whose main session `main` means.
const AGENT: &str = "default";

const SECOND: i64 = 1_000;
const DAY: i64 = 86_400 * SECOND;

/// A checked job.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) schedule: Schedule,
    pub(crate) kind: proto::WorkKind,
    pub(crate) policy: Policy,
    pub(crate) warnings: Vec<String>,
    /// As it was written.
    pub(crate) proto: proto::JobSpec,
}

/// What is refused where somebody writes it, and was not always: jobs that are kept go on as they are.
pub(crate) fn written(spec: &proto::JobSpec, before: Option<&proto::JobSpec>) -> Result<(), Error> {
    if before.is_none_or(|before| before.name != spec.name) && spec.name.parse::<JobId>().is_ok() {
        // By a name that is the id of another job nobody could say which of them is meant.
        return Err(Error::invalid(
            "spec.name",
            "a name can't look like the id of a job",
        ));
    }
    if before.is_some_and(|before| before.payload == spec.payload) {
        return Ok(());
    }
    let (text, field) = match spec.payload.as_ref().and_then(|payload| payload.kind.as_ref()) {
        Some(payload::Kind::SystemEvent(event)) => (&event.text, "spec.payload.system_event.text"),
        Some(payload::Kind::AgentTurn(turn)) => (&turn.message, "spec.payload.agent_turn.message"),
        _ => return Ok(()),
    };
    if text.trim().is_empty() {
        return Err(Error::invalid(field, "the text is blank"));
    }
    Ok(())
}

impl Spec {
    /// Checks a job. Whether its name is free and its time to come are other questions.
    pub(crate) fn check(spec: &proto::JobSpec, origin: Origin<'_>) -> Result<Self, Error> {
        name(&spec.name)?;
        if spec.description.len() > MAX_DESCRIPTION_BYTES {
            return Err(too_long("spec.description", MAX_DESCRIPTION_BYTES));
        }
        let (schedule, mut warnings) = schedule(spec.schedule.as_ref(), origin)?;
        let kind = payload(spec.payload.as_ref())?;
        session(&spec.target, "spec.target")?;
        delivery(spec.delivery.as_ref())?;
        let policy = policy(spec.policy.as_ref())?;
        if policy.jitter_ms > 0 {
            warnings.extend(cut_short(&schedule, policy.jitter_ms, origin.anchor_ms));
        }
        if proto::DeleteAfter::try_from(spec.delete_after).is_err() {
            let message = format!("{} is not known here", spec.delete_after);
            return Err(Error::invalid("spec.delete_after", message));
        }
        Ok(Self {
            schedule,
            kind,
            policy,
            warnings,
            proto: spec.clone(),
        })
    }
}

/// The session key that `main`, nothing, or a key itself means.
pub(crate) fn session(text: &str, field: &str) -> Result<SessionKey, Error> {
    if text.is_empty() || text == "main" {
        return Ok(SessionKey::main(AGENT));
    }
    match SessionKey::parse(text) {
        Ok(SessionKey::Run { .. }) => {
            Err(Error::invalid(field, "a run's session ends with the run")
                .hint("use `main` or a chat's session"))
        }
        Ok(key) => Ok(key),
        Err(error) => Err(Error::invalid(field, error.to_string())
            .hint("`main`, or a session key as `creel sessions list` shows it")),
    }
}

/// Where a summary goes: what the job says, or its target. Events go into a session themselves.
pub(crate) fn resolved_delivery(spec: &proto::JobSpec) -> proto::Delivery {
    let to = match spec.delivery.as_ref().and_then(|delivery| delivery.to.as_ref()) {
        Some(delivery::To::Session(to)) => session_delivery(&to.session),
        Some(other) => other.clone(),
        None if matches!(
            spec.payload.as_ref().map(|p| &p.kind),
            Some(Some(payload::Kind::SystemEvent(_)))
        ) =>
        {
            delivery::To::None(proto::NoDelivery {})
        }
        None => session_delivery(&spec.target),
    };
    proto::Delivery { to: Some(to) }
}

fn session_delivery(text: &str) -> delivery::To {
    // Checked when the job was written; a text that no longer parses stays as it is.
    let session = session(text, "session").map_or_else(|_| text.to_owned(), |key| key.to_string());
    delivery::To::Session(proto::SessionDelivery { session })
}

pub(crate) fn name(name: &str) -> Result<(), Error> {
    let chars = name.chars().count();
    if chars == 0 || chars > MAX_NAME_CHARS {
        return Err(Error::invalid(
            "spec.name",
            format!("a name has 1 to {MAX_NAME_CHARS} characters, not {chars}"),
        ));
    }
    if name.trim() != name || printable(name, MAX_NAME_CHARS) != name {
        let message = "a name has no control characters, and no blanks around it";
        return Err(Error::invalid("spec.name", message));
    }
    Ok(())
}

pub(crate) fn payload(payload: Option<&proto::Payload>) -> Result<proto::WorkKind, Error> {
    match payload.and_then(|payload| payload.kind.as_ref()) {
        Some(payload::Kind::SystemEvent(event)) => {
            text(&event.text, "spec.payload.system_event.text")?;
            Ok(proto::WorkKind::SystemEvent)
        }
        Some(payload::Kind::AgentTurn(turn)) => {
            text(&turn.message, "spec.payload.agent_turn.message")?;
            if turn.backend.len() > MAX_BACKEND_BYTES {
                return Err(too_long(BACKEND_FIELD, MAX_BACKEND_BYTES));
            }
            if let Some(timeout) = &turn.timeout {
                between(
                    "spec.payload.agent_turn.timeout",
                    duration_ms(timeout),
                    SECOND,
                    7 * DAY,
                )?;
            }
            Ok(proto::WorkKind::AgentTurn)
        }
        Some(payload::Kind::Command(_)) => Err(unavailable(
            "spec.payload.command",
            "a command as a job",
            TURN_OR_EVENT,
        )),
        Some(payload::Kind::Audit(_)) => Err(unavailable(
            "spec.payload.audit",
            "an audit as a job",
            TURN_OR_EVENT,
        )),
        None => Err(Error::invalid("spec.payload", "a job needs something to do")
            .hint("creel cron add NAME WHEN --message TEXT, or --event TEXT")),
    }
}

fn text(text: &str, field: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::invalid(field, "the text is empty"));
    }
    if text.len() > MAX_TEXT_BYTES {
        Err(too_long(field, MAX_TEXT_BYTES))
    } else {
        Ok(())
    }
}

fn delivery(delivery: Option<&proto::Delivery>) -> Result<(), Error> {
    match delivery.and_then(|delivery| delivery.to.as_ref()) {
        Some(delivery::To::Webhook(_)) => Err(unavailable(
            "spec.delivery.webhook",
            "delivery to a webhook",
            "deliver to a session: --deliver main",
        )),
        Some(delivery::To::Session(to)) => session(&to.session, "spec.delivery.session.session").map(|_| ()),
        Some(delivery::To::None(_)) | None => Ok(()),
    }
}

const TURN_OR_EVENT: &str = "use an agent turn (--message TEXT) or a system event (--event TEXT)";

fn unavailable(field: &str, what: &str, hint: &str) -> Error {
    Error::new(
        Code::Unimplemented,
        "not_available_yet",
        format!("{what} is not available yet"),
    )
    .field(field)
    .hint(hint)
}

fn too_long(field: &str, bytes: usize) -> Error {
    Error::new(
        Code::InvalidArgument,
        "too_long",
        format!("longer than {bytes} bytes"),
    )
    .field(field)
}

fn between(field: &str, ms: i64, least: i64, most: i64) -> Result<i64, Error> {
    if (least..=most).contains(&ms) {
        return Ok(ms);
    }
    let span = |ms: i64| u64::try_from(ms).map_or_else(|_| format!("{ms} ms"), describe_span);
    let message = format!("{} is not between {} and {}", span(ms), span(least), span(most));
    Err(Error::new(Code::InvalidArgument, "out_of_range", message).field(field))
}

fn policy(policy: Option<&proto::Policy>) -> Result<Policy, Error> {
    let default = Policy::default();
    let Some(policy) = policy else { return Ok(default) };
    let ms = |field: &str, value: &Option<prost_types::Duration>, least, most| {
        let value = value.as_ref().map(duration_ms);
        value
            .map(|value| between(&format!("spec.policy.{field}"), value, least, most))
            .transpose()
    };
    let catch_up = policy.catch_up.unwrap_or_default();
    let retry = policy.retry.unwrap_or_default();
    let attempts = at_most("retry.attempts", retry.attempts, MAX_ATTEMPTS)?;
    Ok(Policy {
        catch_up: catch_up_mode(&catch_up)?,
        window_ms: ms("catch_up.window", &catch_up.window, 0, 366 * DAY)?,
        overlap: overlap(&policy.overlap.unwrap_or_default())?,
        jitter_ms: ms("jitter", &policy.jitter, 0, DAY)?.unwrap_or(0),
        timeout_ms: ms("timeout", &policy.timeout, SECOND, 7 * DAY)?.unwrap_or(default.timeout_ms),
        expected_ms: ms("expected", &policy.expected, 1, 7 * DAY)?,
        retry: Retry {
            attempts: attempts.max(1),
            backoff_ms: ms("retry.backoff", &retry.backoff, 0, DAY)?.unwrap_or(default.retry.backoff_ms),
            max_backoff_ms: ms("retry.max_backoff", &retry.max_backoff, 0, DAY)?
                .unwrap_or(default.retry.max_backoff_ms),
            past_next: retry.past_next,
        },
        on_stuck: match policy.on_stuck() {
            proto::OnStuck::Retry => OnStuck::Retry,
            proto::OnStuck::Fail => OnStuck::Fail,
            proto::OnStuck::Unspecified => known("on_stuck", policy.on_stuck, default.on_stuck)?,
        },
        quarantine_after: match at_most("quarantine_after", policy.quarantine_after, 1_000)? {
            0 => default.quarantine_after,
            after => after,
        },
        keep_runs: match at_most("keep_runs", policy.keep_runs, 10_000)? {
            0 => default.keep_runs,
            keep => keep,
        },
        keep_ms: ms("keep_for", &policy.keep_for, MIN_KEEP_MS, 3_660 * DAY)?.unwrap_or(default.keep_ms),
        alert: alert(policy.alert.as_ref(), default.alert)?,
    })
}

fn alert(alert: Option<&proto::Alert>, default: Option<Alert>) -> Result<Option<Alert>, Error> {
    let Some(alert) = alert else { return Ok(default) };
    session(&alert.session, "spec.policy.alert.session")?;
    let after = at_most("alert.after", alert.after, 1_000)?;
    let cool_down_ms = match &alert.cool_down {
        Some(wait) => Some(between(
            "spec.policy.alert.cool_down",
            duration_ms(wait),
            60 * SECOND,
            30 * DAY,
        )?),
        None => None,
    };
    Ok(default.filter(|_| !alert.off).map(|default| Alert {
        after: if after == 0 { default.after } else { after },
        cool_down_ms: cool_down_ms.unwrap_or(default.cool_down_ms),
    }))
}

fn catch_up_mode(catch_up: &proto::CatchUp) -> Result<CatchUp, Error> {
    let max = at_most("catch_up.max", catch_up.max, MAX_CATCH_UP)?;
    Ok(match catch_up.mode() {
        proto::CatchUpMode::Last => CatchUp::Last,
        proto::CatchUpMode::Skip => CatchUp::Skip,
        proto::CatchUpMode::All => CatchUp::All {
            max: if max == 0 { MAX_CATCH_UP } else { max },
        },
        proto::CatchUpMode::Unspecified => known("catch_up.mode", catch_up.mode, CatchUp::Last)?,
    })
}

fn overlap(overlap: &proto::Overlap) -> Result<Overlap, Error> {
    let max = at_most("overlap.max", overlap.max, 1_000)?;
    Ok(match overlap.mode() {
        proto::OverlapMode::Forbid => Overlap::Forbid,
        proto::OverlapMode::BufferOne => Overlap::BufferOne,
        proto::OverlapMode::Replace => Overlap::Replace,
        proto::OverlapMode::Allow if max == 0 => {
            let message = "say how many runs may be at once, 1 to 1,000";
            return Err(Error::invalid("spec.policy.overlap.max", message));
        }
        proto::OverlapMode::Allow => Overlap::Allow { max },
        proto::OverlapMode::Unspecified => known("overlap.mode", overlap.mode, Overlap::Forbid)?,
    })
}

/// The default for an absent value. A number that names nothing is refused: it may be of a newer client.
fn known<T>(field: &str, value: i32, default: T) -> Result<T, Error> {
    if value == 0 {
        return Ok(default);
    }
    Err(Error::invalid(
        format!("spec.policy.{field}"),
        format!("{value} is not known here"),
    ))
}

fn at_most(field: &str, value: u32, most: u32) -> Result<u32, Error> {
    if value <= most {
        return Ok(value);
    }
    let message = format!("{value} is more than {most}");
    Err(Error::new(Code::InvalidArgument, "out_of_range", message).field(format!("spec.policy.{field}")))
}

/// Milliseconds of a client's timestamp, if it is one jiff can hold.
fn instant(field: &str, timestamp: &prost_types::Timestamp) -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(unix_ms(timestamp))
        .map_err(|_| Error::invalid(field, "the time is out of range (years -9999 to 9999)"))
}

#[cfg(test)]
mod tests;
