//! Runs of jobs that the scheduler gave us: remembered until it has acknowledged the result, so that
//! one that comes twice never runs twice. Each run's turn ends it, whatever happens to the stream.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use creel_proto::{
    agent::v1::{Origin, Provenance, QueuedEventRecord, TurnRecord, WorkRecord},
    scheduler::v1::{Delivery, RunState, Work, WorkKind, delivery::To, payload::Kind as Payload},
};
use creel_wire::{Error, SessionKey, error::printable};
use tokio::sync::watch;

use crate::{
    session,
    turn::{End, Outcome},
};

/// Runs remembered, ended ones included: as many as a hello names. More are not begun.
pub(crate) const MAX_HELD: usize = 1_024;
/// Most runs at once: ended ones that wait for their ack need room, too.
const MAX_CAPACITY: usize = MAX_HELD / 4 * 3;
/// The part of a reply that is a run's summary, in bytes.
pub(crate) const MAX_SUMMARY: usize = 4 << 10;
/// The longest text of a job, in bytes.
const MAX_TEXT: usize = 64 << 10;
/// What a job's failure may say, in bytes.
const MAX_ERROR: usize = 1 << 10;

/// The runs that are held. Every change wakes the stream.
#[derive(Debug)]
pub(crate) struct Works {
    /// Runs taken at once.
    pub(crate) capacity: usize,
    held: Mutex<BTreeMap<String, WorkRecord>>,
    changed: watch::Sender<u64>,
}

impl Works {
    /// For so many turns at once, of which jobs take three quarters at most: however many of them hang,
    /// conversations go on.
    pub(crate) fn new(running_turns: usize) -> Self {
        Self {
            capacity: (running_turns / 4 * 3).clamp(1, MAX_CAPACITY),
            held: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn get(&self, run: &str) -> Option<WorkRecord> {
        self.held().get(run).cloned()
    }

    pub(crate) fn all(&self) -> Vec<WorkRecord> {
        self.held().values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.held().len()
    }

    /// Keeps the newest state of a run; an older attempt never replaces a newer one.
    pub(crate) fn put(&self, record: WorkRecord) {
        let mut held = self.held();
        if held
            .get(&record.run_id)
            .is_none_or(|known| known.attempt <= record.attempt)
        {
            held.insert(record.run_id.clone(), record);
        }
        drop(held);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn remove(&self, run: &str) {
        self.held().remove(run);
    }

    /// Woken after every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The run of a turn that has ended, with its outcome; `None` when it is none, or another attempt
    /// has taken over.
    pub(crate) fn ended(&self, turn: &TurnRecord, outcome: &Outcome) -> Option<WorkRecord> {
        if turn.run_id.is_empty() {
            return None;
        }
        let known = self
            .get(&turn.run_id)
            .filter(|known| known.attempt == turn.attempt && known.outcome == 0)?;
        Some(with_outcome(known, outcome))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, WorkRecord>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run asks for, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) record: WorkRecord,
    /// The context of its turn.
    pub(crate) key: SessionKey,
    pub(crate) text: String,
    pub(crate) backend: String,
    /// 0 for the config's.
    pub(crate) timeout_ms: i64,
    pub(crate) owner: String,
    /// What arrives in the context with the turn.
    pub(crate) event: Option<QueuedEventRecord>,
}

/// Reads a run.
///
/// # Errors
/// What of it can't be right; with its record, so that this can be reported.
pub(crate) fn read(work: &Work, now_ms: i64) -> Result<Job, Box<(WorkRecord, Error)>> {
    let reference = work.r#ref.clone().unwrap_or_default();
    let mut record = WorkRecord {
        run_id: reference.run_id,
        attempt: reference.attempt,
        job_id: work.job_id.clone(),
        job_name: work.job_name.clone(),
        ..WorkRecord::default()
    };
    match checked(work, &mut record, now_ms) {
        Ok(job) => Ok(job),
        Err(error) => Err(Box::new((record, error))),
    }
}

fn checked(work: &Work, record: &mut WorkRecord, now_ms: i64) -> Result<Job, Error> {
    let target = || session::parse_target(&work.target);
    let text_of = |text: &str| match text.len() {
        1..=MAX_TEXT => Ok(text.to_owned()),
        _ => Err(Error::invalid(
            "payload",
            format!("a job's text has 1 to {MAX_TEXT} bytes"),
        )),
    };
    let limit = work
        .timeout
        .as_ref()
        .map_or(0, creel_proto::time::duration_ms)
        .max(0);
    // Not the owner as a person: however many runs wait or hang, the owner's conversations go on.
    let owner = match work.owner.as_str() {
        "" => format!("job/{}", work.job_id),
        owner => format!("jobs of {owner}"),
    };
    match work.payload.as_ref().and_then(|payload| payload.kind.as_ref()) {
        Some(Payload::SystemEvent(payload)) => {
            let key = target()?;
            if session::is_ephemeral(&key) {
                return Err(Error::invalid("target", "the context of a run takes no events"));
            }
            record.kind = WorkKind::SystemEvent.into();
            record.session = key.to_string();
            // Told with the turn itself.
            record.deliver_to = key.to_string();
            record.delivery_state = "delivered".to_owned();
            let event = QueuedEventRecord {
                event_id: format!("run/{}/{}", record.run_id, record.attempt),
                topic: "job event".to_owned(),
                text: text_of(&payload.text)?,
                provenance: Some(provenance(record)),
                created_at_unix_ms: now_ms,
                coalesce_key: format!("event/{}", record.job_id),
                count: 1,
            };
            let (text, backend) = (String::new(), String::new());
            Ok(Job {
                record: record.clone(),
                key,
                text,
                backend,
                timeout_ms: limit,
                owner,
                event: Some(event),
            })
        }
        Some(Payload::AgentTurn(payload)) => {
            record.kind = WorkKind::AgentTurn.into();
            let key = SessionKey::Run {
                job: record.job_id.clone(),
                run: record.run_id.clone(),
            };
            // One that could not be read back is none.
            SessionKey::parse(&key.to_string())
                .map_err(|error| Error::invalid("job_id", error.to_string()))?;
            record.session = key.to_string();
            deliver_to(record, work.delivery.as_ref(), &work.target)?;
            let own = payload
                .timeout
                .as_ref()
                .map_or(0, creel_proto::time::duration_ms)
                .max(0);
            let timeout_ms = match (own, limit) {
                (0, limit) => limit,
                (own, 0) => own,
                (own, limit) => own.min(limit),
            };
            let (text, backend) = (text_of(&payload.message)?, payload.backend.clone());
            Ok(Job {
                record: record.clone(),
                key,
                text,
                backend,
                timeout_ms,
                owner,
                event: None,
            })
        }
        Some(Payload::Command(_) | Payload::Audit(_)) | None => Err(Error::invalid(
            "payload",
            "agent-runner takes events and turns only",
        )),
    }
}

fn deliver_to(record: &mut WorkRecord, delivery: Option<&Delivery>, target: &str) -> Result<(), Error> {
    let to = match delivery.and_then(|delivery| delivery.to.as_ref()) {
        Some(To::None(_)) => {
            record.delivery_state = "none".to_owned();
            return Ok(());
        }
        Some(To::Webhook(_)) => {
            record.delivery_state = "failed".to_owned();
            record.delivery_error = "webhook_unavailable: agent-runner delivers to sessions only".to_owned();
            return Ok(());
        }
        Some(To::Session(session)) if !session.session.is_empty() => session.session.as_str(),
        Some(To::Session(_)) | None => target,
    };
    let key = session::parse_target(to)?;
    if session::is_ephemeral(&key) {
        return Err(Error::invalid(
            "delivery",
            "the context of a run takes no summaries",
        ));
    }
    record.deliver_to = key.to_string();
    record.delivery_state = "pending".to_owned();
    Ok(())
}

/// Where a run's inputs and events come from.
pub(crate) fn provenance(record: &WorkRecord) -> Provenance {
    Provenance {
        origin: Origin::Job.into(),
        principal: format!("job/{}", record.job_id),
        job_id: record.job_id.clone(),
        job_name: record.job_name.clone(),
        run_id: record.run_id.clone(),
    }
}

/// A run whose turn has ended.
pub(crate) fn with_outcome(mut record: WorkRecord, outcome: &Outcome) -> WorkRecord {
    let state = match outcome.end {
        End::Succeeded => RunState::Succeeded,
        End::TimedOut => RunState::TimedOut,
        End::Aborted => RunState::Cancelled,
        End::Failed | End::Lost | End::Interrupted => RunState::Failed,
    };
    record.outcome = state.into();
    record.summary = cut(&outcome.reply, MAX_SUMMARY);
    if let Some(failure) = &outcome.failure {
        record.reason = failure.reason.to_string();
        record.error = cut(&failure.message, MAX_ERROR);
    }
    record
}

/// A run that could not become a turn.
pub(crate) fn refused(mut record: WorkRecord, error: &Error) -> WorkRecord {
    record.outcome = RunState::Failed.into();
    record.reason = error.reason.to_string();
    record.error = cut(&error.message, MAX_ERROR);
    if record.kind == i32::from(WorkKind::SystemEvent) {
        record.delivery_state = "failed".to_owned();
        record.delivery_error = record.reason.clone();
    } else {
        // Its own context was never made: nobody is sent to look there.
        record.session.clear();
    }
    record
}

/// What the target session is told of a run that has ended.
pub(crate) fn summary(record: &WorkRecord, now_ms: i64) -> QueuedEventRecord {
    let text = match RunState::try_from(record.outcome) {
        Ok(RunState::Succeeded) => record.summary.clone(),
        state => {
            let how = match state {
                Ok(RunState::TimedOut) => "timed out",
                Ok(RunState::Cancelled) => "was cancelled",
                _ => "failed",
            };
            format!(
                "{} {how}: {}: {}",
                printable(&record.job_name, 128),
                record.reason,
                record.error
            )
        }
    };
    QueuedEventRecord {
        event_id: format!("run/{}/{}", record.run_id, record.attempt),
        topic: "job summary".to_owned(),
        text,
        provenance: Some(provenance(record)),
        created_at_unix_ms: now_ms,
        coalesce_key: format!("summary/{}", record.job_id),
        count: 1,
    }
}

fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

#[cfg(test)]
#[path = "works_tests.rs"]
mod tests;
