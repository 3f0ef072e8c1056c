//! Jobs that agents make: narrow ones, for their own session, and asleep until a person approves them. A turn that
//! was talked into making jobs can't outlive its conversation that way, multiply, or wake another one.

use creel_proto::scheduler::v1::{JobSpec, delivery, payload};
use creel_schedule::Schedule;
use creel_wire::{Caller, Code, Error, Principal, SessionKey};
use jiff::Timestamp;

use crate::spec::{Spec, session};

/// Jobs of one context at once.
pub(crate) const MAX_PER_CONTEXT: usize = 10;
/// The shortest time between two occurrences, milliseconds.
const MIN_PERIOD_MS: i64 = 300_000;
/// Occurrences of a calendar whose distances are looked at.
const LOOKED_AT: usize = 64;

/// The session of the turn that calls; `None` for anyone else.
///
/// # Errors
/// When a turn of a job calls: jobs make no jobs.
pub(super) fn context_of(caller: &Caller) -> Result<Option<SessionKey>, Error> {
    let Principal::AgentTurn(_) = caller.principal() else {
        return Ok(None);
    };
    match SessionKey::parse(caller.label()) {
        Ok(SessionKey::Run { .. }) | Err(_) => Err(Error::new(
            Code::PermissionDenied,
            "inside_job",
            "a run of a job makes no jobs",
        )
        .hint("make it from a conversation")),
        Ok(key) => Ok(Some(key)),
    }
}

/// Puts a job into the session it was made in, if it names none.
pub(super) fn placed(spec: &JobSpec, context: &SessionKey) -> JobSpec {
    let mut spec = spec.clone();
    if spec.target.is_empty() {
        spec.target = context.to_string();
    }
    if let Some(alert) = spec.policy.as_mut().and_then(|policy| policy.alert.as_mut())
        && alert.session.is_empty()
    {
        alert.session = context.to_string();
    }
    spec
}

/// Whether a checked job is one that an agent may make.
///
/// # Errors
/// `agent_limit`, with the field.
pub(super) fn within_limits(spec: &Spec, context: &SessionKey, now_ms: i64) -> Result<(), Error> {
    let limit = |field: &str, message: &str| {
        Error::new(Code::PermissionDenied, "agent_limit", message)
            .field(field)
            .hint("ask a person to make this job")
    };
    let own = |text: &str, field: &str| session(text, field).is_ok_and(|key| key == *context);
    let proto = &spec.proto;
    if !own(&proto.target, "spec.target") {
        return Err(limit("spec.target", "an agent's job is for its own session"));
    }
    if let Some(delivery::To::Session(to)) = proto.delivery.as_ref().and_then(|delivery| delivery.to.as_ref())
        && !own(&to.session, "spec.delivery")
    {
        return Err(limit(
            "spec.delivery",
            "an agent's job reports to its own session",
        ));
    }
    let alert = proto.policy.as_ref().and_then(|policy| policy.alert.as_ref());
    if alert.is_some_and(|alert| !alert.off && !own(&alert.session, "spec.policy.alert")) {
        return Err(limit(
            "spec.policy.alert.session",
            "an agent's job tells its own session",
        ));
    }
    let kind = proto.payload.as_ref().and_then(|payload| payload.kind.as_ref());
    if !matches!(kind, Some(payload::Kind::AgentTurn(_))) {
        return Err(limit("spec.payload", "an agent's job is a turn of an agent"));
    }
    if closest_ms(&spec.schedule, now_ms) < MIN_PERIOD_MS {
        return Err(limit(
            "spec.schedule",
            "an agent's job runs every five minutes at most",
        ));
    }
    Ok(())
}

/// The shortest distance between two of the next occurrences.
fn closest_ms(schedule: &Schedule, now_ms: i64) -> i64 {
    match schedule {
        Schedule::At(_) => i64::MAX,
        Schedule::Every(every) => i64::try_from(every.period_ms()).unwrap_or(i64::MAX),
        Schedule::Cron(_) => {
            let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
            let times: Vec<_> = schedule
                .preview(now, LOOKED_AT)
                .occurrences
                .iter()
                .map(|at| at.nominal.as_millisecond())
                .collect();
            times
                .windows(2)
                .map(|pair| pair[1] - pair[0])
                .min()
                .unwrap_or(i64::MAX)
        }
    }
}
