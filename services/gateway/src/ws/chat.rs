//! `chat.*`: messages to the agent, what was said, and the answers as they come.
//!
//! A turn's events go to every connection that has sent to its session or read its history. One follower
//! per turn reads them once, however many get them.

use std::{collections::BTreeSet, sync::Arc};

use creel_proto::{
    agent::v1::{
        AbortTurnRequest, GetTranscriptRequest, TranscriptEntry, TurnEvent, TurnState,
        context_service_client::ContextServiceClient, transcript_entry::Entry, turn_event::Event as Happened,
        turn_service_client::TurnServiceClient,
    },
    gateway::v1::{
        SendMessageRequest, SubscribeMessageRequest, message_service_client::MessageServiceClient,
    },
    time,
};
use creel_wire::{Code, Error, Scope, SessionKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    calls::{limit, request_id, timeout},
    failure::Failure,
    frame::Request,
    machine::{Audience, Event},
    session::Session,
};
use crate::grpc::session_key;

/// The one agent there is.
pub(crate) use crate::grpc::AGENT;

/// Turns followed at once; the events of further ones are in the history alone.
pub(crate) const MAX_FOLLOWERS: usize = 256;
/// Entries of one history.
const MAX_HISTORY: usize = 500;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Send {
    session_key: String,
    message: String,
    idempotency_key: String,
    timeout_ms: Option<u64>,
    attachments: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct History {
    session_key: String,
    limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Abort {
    session_key: String,
    run_id: Option<String>,
}

/// The key of the owner's main session.
pub(crate) fn main_key() -> String {
    SessionKey::main(AGENT).to_string()
}

/// The name of a session for [`session_key`]: as clients say it, by name or by its full key.
fn name_of(given: &str) -> Result<String, Failure> {
    match SessionKey::parse(given) {
        Ok(SessionKey::Main { agent }) if agent == AGENT => Ok("main".to_owned()),
        Ok(SessionKey::Direct {
            agent,
            channel,
            account,
            sender,
        }) if agent == AGENT && channel == "webchat" && account == "local" => Ok(sender),
        // The original's name of its main session.
        _ if given == "agent:main:main" => Ok("main".to_owned()),
        _ if given.contains(':') => Err(Failure::invalid(
            "unknown sessionKey: a name, or a key of sessions.list",
        )),
        _ => Ok(given.to_owned()),
    }
}

/// What can be asked of a conversation.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Send(SendMessageRequest),
    History(GetTranscriptRequest),
    Abort(AbortTurnRequest),
}

pub(super) fn read(request: &Request) -> Result<Asked, Failure> {
    match request.method.as_str() {
        "chat.send" => read_send(request).map(Asked::Send),
        "chat.history" => {
            let params: History = request.params()?;
            Ok(Asked::History(GetTranscriptRequest {
                session: key_of(&params.session_key)?,
                page_size: i32::try_from(limit(params.limit, 200, MAX_HISTORY)).unwrap_or(i32::MAX),
                tail: true,
                ..GetTranscriptRequest::default()
            }))
        }
        "chat.abort" => {
            let params: Abort = request.params()?;
            let key = key_of(&params.session_key)?;
            let run = params.run_id.unwrap_or_default();
            Ok(Asked::Abort(AbortTurnRequest {
                session: if run.is_empty() { key } else { String::new() },
                turn_id: run,
                reason: "chat.abort".to_owned(),
                ..AbortTurnRequest::default()
            }))
        }
        other => Err(Failure::unknown_method(other)),
    }
}

fn read_send(request: &Request) -> Result<SendMessageRequest, Failure> {
    let params: Send = request.params()?;
    if params.attachments.is_some_and(|attached| !attached.is_empty()) {
        return Err(Failure::invalid("attachments are not supported here"));
    }
    let name = name_of(&params.session_key)?;
    session_key(&name)?;
    Ok(SendMessageRequest {
        request_id: params.idempotency_key,
        session: name,
        text: params.message,
        timeout: timeout(params.timeout_ms),
        ..SendMessageRequest::default()
    })
}

fn key_of(given: &str) -> Result<String, Failure> {
    Ok(session_key(&name_of(given)?)?.to_string())
}

pub(super) async fn run(session: &Arc<Session>, asked: Asked) -> Result<Value, Failure> {
    match asked {
        Asked::Send(message) => send(session, message).await,
        Asked::History(wanted) => history(session, wanted).await,
        Asked::Abort(turn) => abort(session, turn).await,
    }
}

async fn send(session: &Arc<Session>, send: SendMessageRequest) -> Result<Value, Failure> {
    let services = session.services().await?;
    let mut messages = MessageServiceClient::new(services.clone()).max_encoding_message_size(2 << 20);
    let sent = messages.send(send).await?.into_inner();
    let hub = &session.door.0.parts.hub;
    // Before the first event can come.
    hub.follow(session.connection, &sent.session);
    follow(
        session,
        MessageServiceClient::new(services),
        &sent.message_id,
        &sent.session,
    );
    Ok(json!({ "runId": sent.message_id, "status": "started", "sessionKey": sent.session }))
}

/// Publishes a turn's events to whoever follows its session, once per turn.
fn follow(
    session: &Arc<Session>,
    mut messages: MessageServiceClient<crate::backend::AsCaller>,
    turn: &str,
    key: &str,
) {
    let door = session.door.clone();
    let Ok(place) = Arc::clone(&door.0.followers).try_acquire_owned() else {
        return;
    };
    if !door.0.following(turn, true) {
        return;
    }
    let (turn, key) = (turn.to_owned(), key.to_owned());
    tokio::spawn(async move {
        let subscribe = SubscribeMessageRequest {
            message_id: turn.clone(),
            from_sequence: 1,
        };
        let drain = door.0.parts.drain.clone();
        let relay = async {
            let mut events = match messages.subscribe(subscribe).await {
                Ok(events) => events.into_inner(),
                Err(status) => return tracing::info!(%status, "a turn can't be followed"),
            };
            let mut said = String::new();
            while let Ok(Some(event)) = events.message().await {
                if let Some(payload) = event_json(&event, &key, &mut said) {
                    let event = Event {
                        name: "chat",
                        payload,
                        audience: Audience::Operators(Scope::Read),
                    };
                    door.0.parts.hub.publish_to(&key, event);
                }
            }
        };
        tokio::select! {
            () = drain.cancelled() => {}
            () = relay => {}
        }
        door.0.following(&turn, false);
        drop(place);
    });
}

/// A turn's event as the original's `chat` event; none for what its clients don't know.
fn event_json(event: &TurnEvent, key: &str, said: &mut String) -> Option<Value> {
    let mut payload = json!({ "runId": event.turn_id, "sessionKey": key, "seq": event.sequence });
    let at = event.time.as_ref().map_or(0, time::unix_ms);
    match event.event.as_ref()? {
        Happened::Delta(delta) => {
            said.push_str(&delta.text);
            payload["state"] = json!("delta");
            payload["deltaText"] = json!(delta.text);
            payload["message"] = message("assistant", said, at);
        }
        Happened::Final(last) => {
            payload["state"] = json!("final");
            payload["message"] = message("assistant", &last.text, at);
        }
        Happened::Error(error) if error.reason == "aborted" => {
            payload["state"] = json!("aborted");
            payload["errorMessage"] = json!(error.message);
        }
        Happened::Error(error) => {
            payload["state"] = json!("error");
            payload["errorMessage"] = json!(error.message);
            payload["errorKind"] = json!(if error.reason == "timeout" {
                "timeout"
            } else {
                "unknown"
            });
        }
        Happened::Accepted(_)
        | Happened::Started(_)
        | Happened::ToolCall(_)
        | Happened::ToolResult(_)
        | Happened::Usage(_) => return None,
    }
    Some(payload)
}

async fn history(session: &Arc<Session>, get: GetTranscriptRequest) -> Result<Value, Failure> {
    let key = get.session.clone();
    let services = session.services().await?;
    let mut contexts = ContextServiceClient::new(services).max_decoding_message_size(16 << 20);
    let entries = match contexts.get_transcript(get).await {
        Ok(answer) => answer.into_inner().entries,
        // A session that nobody has written to has no history; the original's clients expect that.
        Err(status) if Error::of_status(&status).code == Code::NotFound => Vec::new(),
        Err(status) => return Err(status.into()),
    };
    session.door.0.parts.hub.follow(session.connection, &key);
    let messages: Vec<Value> = entries.iter().filter_map(entry_json).collect();
    Ok(json!({ "sessionKey": key, "messages": messages }))
}

fn entry_json(entry: &TranscriptEntry) -> Option<Value> {
    let at = entry.time.as_ref().map_or(0, time::unix_ms);
    match entry.entry.as_ref()? {
        Entry::User(user) => Some(message("user", &user.text, at)),
        Entry::Assistant(assistant) => Some(message("assistant", &assistant.text, at)),
        Entry::System(event) => Some(message("system", &event.text, at)),
        Entry::Ended(_) => None,
    }
}

fn message(role: &str, text: &str, at_unix_ms: i64) -> Value {
    json!({ "role": role, "content": [{ "type": "text", "text": text }], "timestamp": at_unix_ms })
}

async fn abort(session: &Arc<Session>, mut abort: AbortTurnRequest) -> Result<Value, Failure> {
    abort.request_id = request_id();
    let mut turns = TurnServiceClient::new(session.services().await?);
    match turns.abort(abort).await {
        Ok(answer) => {
            let turn = answer.into_inner();
            let aborted = turn.state() == TurnState::Aborted;
            let ids: Vec<_> = aborted.then_some(turn.turn_id).into_iter().collect();
            Ok(json!({ "ok": true, "aborted": aborted, "runIds": ids }))
        }
        // Nothing runs: nothing to end.
        Err(status)
            if matches!(
                Error::of_status(&status).code,
                Code::NotFound | Code::FailedPrecondition
            ) =>
        {
            Ok(json!({ "ok": true, "aborted": false, "runIds": [] }))
        }
        Err(status) => Err(status.into()),
    }
}

/// Turns that are followed, so that a repeated `chat.send` doesn't tell everything twice. Bounded by the
/// followers' places.
pub(super) type Followed = BTreeSet<String>;

#[cfg(test)]
mod tests {
    use creel_proto::agent::v1::{Final, TextDelta, TurnError};

    use super::*;

    #[test]
    fn sessions_are_named_by_name_or_key_and_nothing_else_is_reached() {
        let name = |given: &str| name_of(given).map_err(|failure| failure.message);
        for main in ["main", "agent:default:main", "agent:main:main"] {
            assert_eq!(name(main).unwrap(), "main");
        }
        assert_eq!(name("notes").unwrap(), "notes");
        let key = session_key("notes").unwrap().to_string();
        assert_eq!(name(&key).unwrap(), "notes");
        for foreign in [
            "agent:other:main",
            "cron:a:run:b",
            "agent:default:telegram:x:dm:1",
            "global:",
        ] {
            assert!(name(foreign).is_err(), "{foreign}");
        }
    }

    #[test]
    fn a_turn_is_told_as_deltas_and_one_end() {
        let mut said = String::new();
        let mut tell = |sequence, event| {
            let event = TurnEvent {
                turn_id: "t".to_owned(),
                sequence,
                time: None,
                event: Some(event),
            };
            event_json(&event, "k", &mut said)
        };
        let delta = |text: &str| {
            Happened::Delta(TextDelta {
                text: text.to_owned(),
            })
        };
        tell(1, delta("a"));
        let second = tell(2, delta("b")).unwrap();
        assert_eq!(
            (&second["state"], &second["deltaText"]),
            (&json!("delta"), &json!("b"))
        );
        assert_eq!(second["message"]["content"][0]["text"], "ab", "the whole so far");
        let last = tell(
            3,
            Happened::Final(Final {
                text: "ab".to_owned(),
            }),
        )
        .unwrap();
        assert_eq!((&last["state"], &last["seq"]), (&json!("final"), &json!(3)));
        let failed = |reason: &str| {
            Happened::Error(TurnError {
                reason: reason.to_owned(),
                message: "m".to_owned(),
                hint: String::new(),
            })
        };
        assert_eq!(tell(4, failed("aborted")).unwrap()["state"], "aborted");
        assert_eq!(tell(5, failed("timeout")).unwrap()["errorKind"], "timeout");
    }
}
