//! Contexts and their transcripts.

use creel_proto::agent::v1::{Context, TranscriptEntry, transcript_entry::Entry};
use serde::Serialize;

use super::{at, at_ms, text, turn::ProvenanceView, word};

/// See [`Context`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionView {
    pub(crate) session: String,
    pub(crate) trust: String,
    pub(crate) created_at: Option<String>,
    pub(crate) created_at_ms: Option<i64>,
    pub(crate) last_active_at: Option<String>,
    pub(crate) last_active_at_ms: Option<i64>,
    pub(crate) turns: u64,
    pub(crate) current_turn_id: Option<String>,
    pub(crate) queued_events: u32,
    pub(crate) entry_count: u64,
    pub(crate) backend: Option<String>,
    /// The transcript's end; only in `show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<Vec<EntryView>>,
}

impl From<&Context> for SessionView {
    fn from(context: &Context) -> Self {
        Self {
            session: context.session.clone(),
            trust: word(context.trust().as_str_name(), "TRUST_"),
            created_at: at(context.created_at.as_ref()),
            created_at_ms: at_ms(context.created_at.as_ref()),
            last_active_at: at(context.last_active_at.as_ref()),
            last_active_at_ms: at_ms(context.last_active_at.as_ref()),
            turns: context.turns,
            current_turn_id: text(&context.current_turn_id),
            queued_events: context.queued_events,
            entry_count: context.entries,
            backend: text(&context.backend),
            entries: None,
        }
    }
}

/// See [`TranscriptEntry`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntryView {
    pub(crate) index: u64,
    pub(crate) time: Option<String>,
    pub(crate) time_ms: Option<i64>,
    pub(crate) turn_id: Option<String>,
    /// `user`, `assistant`, `system`, `ended`.
    pub(crate) kind: &'static str,
    pub(crate) text: Option<String>,
    pub(crate) topic: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) provenance: Option<ProvenanceView>,
}

impl From<&TranscriptEntry> for EntryView {
    fn from(entry: &TranscriptEntry) -> Self {
        let mut view = Self {
            index: entry.index,
            time: at(entry.time.as_ref()),
            time_ms: at_ms(entry.time.as_ref()),
            turn_id: text(&entry.turn_id),
            kind: "unknown",
            text: None,
            topic: None,
            state: None,
            reason: None,
            provenance: entry.provenance.as_ref().map(ProvenanceView::from),
        };
        match &entry.entry {
            Some(Entry::User(user)) => (view.kind, view.text) = ("user", Some(user.text.clone())),
            Some(Entry::Assistant(assistant)) => {
                (view.kind, view.text) = ("assistant", Some(assistant.text.clone()))
            }
            Some(Entry::System(event)) => {
                (view.kind, view.text, view.topic) = ("system", Some(event.text.clone()), text(&event.topic));
            }
            Some(Entry::Ended(ended)) => {
                view.kind = "ended";
                view.state = Some(word(ended.state().as_str_name(), "TURN_STATE_"));
                view.reason = text(&ended.reason);
            }
            None => {}
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::agent::v1::{TurnEnded, TurnState, UserMessage};

    use super::*;

    #[test]
    fn entries_say_what_they_are() {
        let of = |entry| {
            serde_json::to_value(EntryView::from(&TranscriptEntry {
                entry,
                ..Default::default()
            }))
            .unwrap()
        };
        let user = of(Some(Entry::User(UserMessage { text: "hi".into() })));
        assert_eq!((&user["kind"], &user["text"]), (&"user".into(), &"hi".into()));
        let ended = of(Some(Entry::Ended(TurnEnded {
            state: TurnState::Lost.into(),
            reason: "worker_died".into(),
        })));
        assert_eq!(
            (&ended["kind"], &ended["state"]),
            (&"ended".into(), &"lost".into())
        );
        assert_eq!(ended["reason"], "worker_died");
        let plain = serde_json::to_value(SessionView::from(&Context {
            session: "s".into(),
            ..Context::default()
        }))
        .unwrap();
        assert!(plain.get("entries").is_none(), "a list has no transcripts");
    }
}
