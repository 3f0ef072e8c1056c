//! Turns, and what happens in them.

use creel_proto::agent::v1::{Provenance, Turn, TurnEvent, turn_event::Event};
use serde::Serialize;
use serde_json::{Value, json};

use super::{at, at_ms, text, word};

/// See [`Turn`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TurnView {
    pub(crate) turn_id: String,
    pub(crate) session: String,
    pub(crate) state: String,
    pub(crate) backend: Option<String>,
    pub(crate) accepted_at: Option<String>,
    pub(crate) accepted_at_ms: Option<i64>,
    pub(crate) started_at: Option<String>,
    pub(crate) started_at_ms: Option<i64>,
    pub(crate) finished_at: Option<String>,
    pub(crate) finished_at_ms: Option<i64>,
    pub(crate) reply: Option<String>,
    pub(crate) error: Option<TurnErrorView>,
    pub(crate) sandbox: Option<String>,
    pub(crate) provenance: Option<ProvenanceView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TurnErrorView {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// Where an input came from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProvenanceView {
    pub(crate) origin: String,
    pub(crate) principal: Option<String>,
    pub(crate) job_id: Option<String>,
    pub(crate) job_name: Option<String>,
    pub(crate) run_id: Option<String>,
}

impl From<&Provenance> for ProvenanceView {
    fn from(provenance: &Provenance) -> Self {
        Self {
            origin: word(provenance.origin().as_str_name(), "ORIGIN_"),
            principal: text(&provenance.principal),
            job_id: text(&provenance.job_id),
            job_name: text(&provenance.job_name),
            run_id: text(&provenance.run_id),
        }
    }
}

impl From<&Turn> for TurnView {
    fn from(turn: &Turn) -> Self {
        Self {
            turn_id: turn.turn_id.clone(),
            session: turn.session.clone(),
            state: word(turn.state().as_str_name(), "TURN_STATE_"),
            backend: text(&turn.backend),
            accepted_at: at(turn.accepted_at.as_ref()),
            accepted_at_ms: at_ms(turn.accepted_at.as_ref()),
            started_at: at(turn.started_at.as_ref()),
            started_at_ms: at_ms(turn.started_at.as_ref()),
            finished_at: at(turn.finished_at.as_ref()),
            finished_at_ms: at_ms(turn.finished_at.as_ref()),
            reply: text(&turn.reply),
            error: turn.error.as_ref().map(|error| TurnErrorView {
                reason: error.reason.clone(),
                message: error.message.clone(),
                hint: text(&error.hint),
            }),
            sandbox: text(&turn.sandbox),
            provenance: turn.provenance.as_ref().map(ProvenanceView::from),
        }
    }
}

/// An event of a turn as one JSON object. `None` for a kind that this program does not know.
pub(crate) fn event(event: &TurnEvent) -> Option<Value> {
    let (kind, body) = match event.event.as_ref()? {
        Event::Accepted(accepted) => ("accepted", json!({ "queuedBehind": accepted.queued_behind })),
        Event::Started(started) => (
            "started",
            json!({ "backend": text(&started.backend), "sandbox": text(&started.sandbox) }),
        ),
        Event::Delta(delta) => ("delta", json!({ "text": delta.text })),
        Event::ToolCall(call) => (
            "toolCall",
            json!({ "callId": call.call_id, "tool": call.tool, "argumentsJson": call.arguments_json }),
        ),
        Event::ToolResult(result) => (
            "toolResult",
            json!({
                "callId": result.call_id, "ok": result.ok, "reason": text(&result.reason), "content": result.content,
            }),
        ),
        Event::Usage(usage) => (
            "usage",
            json!({ "inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens }),
        ),
        Event::Final(last) => ("final", json!({ "text": last.text })),
        Event::Error(error) => (
            "error",
            json!({ "reason": error.reason, "message": error.message, "hint": text(&error.hint) }),
        ),
    };
    let mut value = json!({
        "turnId": event.turn_id,
        "sequence": event.sequence,
        "time": at(event.time.as_ref()),
        "timeMs": at_ms(event.time.as_ref()),
        "event": kind,
    });
    if let (Value::Object(all), Value::Object(body)) = (&mut value, body) {
        all.extend(body);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use creel_proto::{
        agent::v1::{TextDelta, TurnError, TurnState},
        time::timestamp,
    };

    use super::*;

    #[test]
    fn events_are_flat_objects() {
        let delta = TurnEvent {
            turn_id: "t".into(),
            sequence: 3,
            time: Some(timestamp(1_000)),
            event: Some(Event::Delta(TextDelta { text: "hel".into() })),
        };
        let expected = json!({
            "turnId": "t", "sequence": 3, "time": "1970-01-01T00:00:01Z", "timeMs": 1_000, "event": "delta", "text": "hel",
        });
        assert_eq!(event(&delta), Some(expected));
        assert_eq!(event(&TurnEvent::default()), None);
    }

    #[test]
    fn a_turn_that_failed_says_why() {
        let turn = Turn {
            state: TurnState::TimedOut.into(),
            error: Some(TurnError {
                reason: "timeout".into(),
                message: "took too long".into(),
                hint: "creel send --timeout 5m".into(),
            }),
            ..Turn::default()
        };
        let view = serde_json::to_value(TurnView::from(&turn)).unwrap();
        assert_eq!(view["state"], "timed_out");
        assert_eq!(
            view["error"],
            json!({ "reason": "timeout", "message": "took too long", "hint": "creel send --timeout 5m" })
        );
        assert!(view["reply"].is_null());
    }
}
