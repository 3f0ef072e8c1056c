//! Records as messages of the API, and the entries that turns leave in transcripts.

use creel_proto::{
    agent::v1::{
        AssistantMessage, Context, ContextRecord, Origin, Provenance, QueuedEventRecord, Sandbox,
        SandboxWall, SystemEvent, TranscriptEntry, Turn, TurnEnded, TurnRecord, TurnState, UserMessage,
        transcript_entry::Entry,
    },
    time::{timestamp, timestamp_opt},
};
use creel_sandbox::{Enforced, Level, Wall};

use crate::{
    protocol::{Past, TaskEvent},
    turn::{Failure, Outcome},
};

/// The state of a record.
pub(crate) fn state(record: &TurnRecord) -> TurnState {
    TurnState::try_from(record.state).unwrap_or_default()
}

/// A turn as it is told. `last_sequence` is the newest visible event.
pub(crate) fn turn(record: &TurnRecord, last_sequence: u64, reply: String) -> Turn {
    Turn {
        turn_id: record.turn_id.clone(),
        session: record.session.clone(),
        state: record.state,
        backend: record.backend.clone(),
        accepted_at: timestamp_opt(record.accepted_at_unix_ms),
        started_at: timestamp_opt(record.started_at_unix_ms),
        finished_at: timestamp_opt(record.finished_at_unix_ms),
        reply,
        error: record.error.clone(),
        last_sequence,
        provenance: record.provenance.clone(),
        sandbox: record.sandbox.clone(),
    }
}

/// A context as it is told.
pub(crate) fn context(record: &ContextRecord, current_turn: Option<String>, queued: usize) -> Context {
    Context {
        session: record.session.clone(),
        trust: record.trust,
        created_at: timestamp_opt(record.created_at_unix_ms),
        last_active_at: timestamp_opt(record.last_active_at_unix_ms),
        turns: record.turns,
        current_turn_id: current_turn.unwrap_or_default(),
        queued_events: u32::try_from(queued).unwrap_or(u32::MAX),
        entries: record.entries,
        backend: record.backend.clone(),
    }
}

fn entry(now_ms: i64, turn: &str, provenance: Option<Provenance>, entry: Entry) -> TranscriptEntry {
    TranscriptEntry {
        index: 0,
        time: Some(timestamp(now_ms)),
        turn_id: turn.to_owned(),
        provenance,
        entry: Some(entry),
    }
}

/// What somebody said to the agent.
pub(crate) fn user(record: &TurnRecord, text: String, now_ms: i64) -> TranscriptEntry {
    entry(
        now_ms,
        &record.turn_id,
        record.provenance.clone(),
        Entry::User(UserMessage { text }),
    )
}

/// An event, as it arrived.
pub(crate) fn event(event: &QueuedEventRecord) -> TranscriptEntry {
    let told = Entry::System(SystemEvent {
        text: event.text.clone(),
        topic: event.topic.clone(),
    });
    entry(event.created_at_unix_ms, "", event.provenance.clone(), told)
}

/// What a turn's end leaves in the transcript.
pub(crate) fn end(record: &TurnRecord, outcome: &Outcome, now_ms: i64) -> Vec<TranscriptEntry> {
    let agent = Provenance {
        origin: Origin::Agent.into(),
        principal: format!("turn/{}", record.turn_id),
        ..Provenance::default()
    };
    let system = || {
        Some(Provenance {
            origin: Origin::System.into(),
            ..Provenance::default()
        })
    };
    let mut entries = Vec::new();
    if !outcome.reply.is_empty() {
        let text = outcome.reply.clone();
        entries.push(entry(
            now_ms,
            &record.turn_id,
            Some(agent),
            Entry::Assistant(AssistantMessage { text }),
        ));
    }
    let state = outcome.end.state();
    if let (TurnState::Interrupted, Some(failure)) = (state, &outcome.failure) {
        let told = SystemEvent {
            text: failure.message.clone(),
            topic: "turn interrupted".to_owned(),
        };
        entries.push(entry(now_ms, &record.turn_id, system(), Entry::System(told)));
    }
    let reason = outcome
        .failure
        .as_ref()
        .map(|failure| failure.reason.to_string())
        .unwrap_or_default();
    let ended = Entry::Ended(TurnEnded {
        state: state.into(),
        reason,
    });
    entries.push(entry(now_ms, &record.turn_id, system(), ended));
    entries
}

/// An event as a worker is told of it.
pub(crate) fn task_event(event: &QueuedEventRecord) -> TaskEvent {
    let from = event.provenance.clone().unwrap_or_default();
    TaskEvent {
        topic: event.topic.clone(),
        text: event.text.clone(),
        origin: origin(from.origin()).to_owned(),
        job_id: from.job_id,
        job_name: from.job_name,
        run_id: from.run_id,
        time: jiff::Timestamp::from_millisecond(event.created_at_unix_ms)
            .unwrap_or_default()
            .to_string(),
        count: event.count,
    }
}

/// The transcript as a worker is told of it, without the events it gets anew.
pub(crate) fn history(entries: Vec<TranscriptEntry>, events: &[QueuedEventRecord]) -> Vec<Past> {
    let anew = |told: &SystemEvent| {
        events
            .iter()
            .any(|event| event.text == told.text && event.topic == told.topic)
    };
    let past = |entry: TranscriptEntry| match entry.entry? {
        Entry::User(user) => Some(Past::User { text: user.text }),
        Entry::Assistant(assistant) => Some(Past::Assistant { text: assistant.text }),
        Entry::System(told) if !anew(&told) => Some(Past::System {
            topic: told.topic,
            text: told.text,
        }),
        Entry::System(_) | Entry::Ended(_) => None,
    };
    entries.into_iter().filter_map(past).collect()
}

/// The word for an origin.
pub(crate) const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Operator => "operator",
        Origin::Sender => "sender",
        Origin::Job => "job",
        Origin::Agent => "agent",
        Origin::System | Origin::Unspecified => "system",
    }
}

/// What stands around a turn, or why none can run.
pub(crate) fn sandbox(found: Result<Enforced, Failure>) -> Sandbox {
    match found {
        Ok(enforced) => Sandbox {
            level: enforced.level().to_string(),
            walls: [Wall::Fs, Wall::Net, Wall::Ipc, Wall::Kill]
                .map(|wall| SandboxWall {
                    name: wall.to_string(),
                    level: enforced.wall(wall).level.to_string(),
                    detail: enforced.wall(wall).detail.clone().into_owned(),
                })
                .into(),
            refusal: None,
        },
        Err(failure) => Sandbox {
            level: Level::None.to_string(),
            walls: Vec::new(),
            refusal: Some(failure.to_proto()),
        },
    }
}
