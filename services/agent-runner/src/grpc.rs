//! `creel.agent.v1` at the edge of the service: requests into domain types, records into answers.

use std::{pin::Pin, time::Duration};

use creel_kit::{idempotency::Begin, outbox::Event, page};
use creel_proto::{
    agent::v1::{
        AbortTurnRequest, Context, DeleteContextRequest, DeleteContextResponse, GetContextRequest,
        GetSandboxRequest, GetTranscriptRequest, GetTranscriptResponse, GetTurnRequest, ListContextsRequest,
        ListContextsResponse, Origin, Provenance, Sandbox, StartTurnRequest, SubscribeTurnRequest, Turn,
        TurnEvent, TurnRecord, TurnState, WaitTurnRequest, context_service_server::ContextService,
        turn_event, turn_service_server::TurnService,
    },
    time::duration_ms,
};
use creel_store::{Key, Txn};
use creel_wire::{Caller, Code, Error, Principal, SessionKey, authz};
use futures_util::Stream;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::{
    accept::NewTurn,
    contexts::blocking,
    convert,
    events::{self, EventReader},
    inbox,
    runner::{AbortOrder, Runner},
    session,
    store::{self, Kind},
    subscribe,
};

/// The longest input, in bytes.
pub(crate) const MAX_TEXT: usize = 1 << 20;
const MAX_TIMEOUT_MS: i64 = 24 * 3_600 * 1_000;
const MAX_WAIT: Duration = Duration::from_secs(600);
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// A page of a transcript holds no more once it has this many bytes: it fits a message.
const PAGE_BYTES: usize = 2 << 20;
const MAX_REASON: usize = 1_024;

/// Contexts, as others see them.
#[derive(Debug, Clone)]
pub struct Contexts(pub Runner);

/// Turns, as others see them.
#[derive(Debug, Clone)]
pub struct Turns(pub Runner);

#[tonic::async_trait]
impl ContextService for Contexts {
    async fn list(
        &self,
        request: Request<ListContextsRequest>,
    ) -> Result<Response<ListContextsResponse>, Status> {
        let (_, message) = authz::split(request)?;
        Ok(Response::new(self.list_of(message).await?))
    }

    async fn get(&self, request: Request<GetContextRequest>) -> Result<Response<Context>, Status> {
        let (_, message) = authz::split(request)?;
        let key = session::parse("session", &message.session)?;
        let locked = self.0.contexts.find(&key).await?;
        let context = locked
            .as_ref()
            .ok_or_else(|| Error::not_found("session", &message.session))?;
        let running = self.0.current_turn(&key);
        Ok(Response::new(convert::context(
            &context.record,
            running,
            context.inbox.events().len(),
        )))
    }

    async fn get_transcript(
        &self,
        request: Request<GetTranscriptRequest>,
    ) -> Result<Response<GetTranscriptResponse>, Status> {
        let (_, message) = authz::split(request)?;
        let size = page::size("page_size", message.page_size, page::DEFAULT)?;
        let key = session::parse("session", &message.session)?;
        let locked = self.0.contexts.find(&key).await?;
        let context = locked
            .as_ref()
            .ok_or_else(|| Error::not_found("session", &message.session))?;
        let view = context.transcript.view();
        drop(locked);
        let len = view.len();
        let page = move || match message.tail {
            true => view.tail(size, PAGE_BYTES),
            false => view.page(message.from_index, size, PAGE_BYTES),
        };
        let entries = blocking(page).await?;
        let next = entries.last().map_or(0, |entry| entry.index + 1);
        Ok(Response::new(GetTranscriptResponse {
            entries,
            next_index: if next < len { next } else { 0 },
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteContextRequest>,
    ) -> Result<Response<DeleteContextResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.delete_one(&caller, message).await?))
    }
}

impl Contexts {
    async fn list_of(&self, message: ListContextsRequest) -> Result<ListContextsResponse, Error> {
        let size = page::size("page_size", message.page_size, page::DEFAULT)?;
        for (field, text) in [("prefix", &message.prefix), ("page_token", &message.page_token)] {
            if text.len() > creel_wire::session_key::MAX_BYTES {
                return Err(Error::invalid(field, "longer than a session key"));
            }
        }
        let mut range = store::contexts_with(&message.prefix);
        if !message.page_token.is_empty() {
            range = range.starting_at(Key::successor(&Kind::Context.key([&message.page_token])));
        }
        let page = store::page(&self.0.store, range, size).await?;
        let mut contexts = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            let record: creel_proto::agent::v1::ContextRecord = store::decode(&entry.value)?;
            let running = SessionKey::parse(&record.session)
                .ok()
                .and_then(|key| self.0.current_turn(&key));
            let queued = store::page(
                &self.0.store,
                Kind::Queued.range_of([&record.folder]),
                inbox::MAX_EVENTS,
            )
            .await?;
            contexts.push(convert::context(&record, running, queued.entries.len()));
        }
        let last = contexts.last().map(|context| context.session.clone());
        let next_page_token = page.next.and(last).unwrap_or_default();
        Ok(ListContextsResponse {
            contexts,
            next_page_token,
        })
    }

    async fn delete_one(
        &self,
        caller: &Caller,
        message: DeleteContextRequest,
    ) -> Result<DeleteContextResponse, Error> {
        let key = session::parse("session", &message.session)?;
        let runner = &self.0;
        let slot = match runner
            .idempotency
            .begin(caller, "ContextService/Delete", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        if message.validate_only {
            let locked = runner.contexts.find(&key).await?;
            let context = locked
                .as_ref()
                .ok_or_else(|| Error::not_found("session", &message.session))?;
            return Ok(DeleteContextResponse {
                entries: context.record.entries,
            });
        }
        let mut audit = Txn::new();
        let event = Event::new("context.deleted", caller.principal(), format!("session/{key}"));
        runner.outbox.push(&mut audit, event)?;
        runner.delete_context(&key, audit, &slot).await
    }
}

#[tonic::async_trait]
impl TurnService for Turns {
    async fn start(&self, request: Request<StartTurnRequest>) -> Result<Response<Turn>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.start_one(&caller, message).await?))
    }

    async fn get(&self, request: Request<GetTurnRequest>) -> Result<Response<Turn>, Status> {
        let (_, message) = authz::split(request)?;
        Ok(Response::new(self.0.turn(&message.turn_id).await?))
    }

    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<TurnEvent, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeTurnRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (_, message) = authz::split(request)?;
        let stream = subscribe::events(self.0.clone(), &message.turn_id, message.from_sequence).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn abort(&self, request: Request<AbortTurnRequest>) -> Result<Response<Turn>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(self.abort_one(&caller, message).await?))
    }

    async fn get_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<Sandbox>, Status> {
        let _ = authz::split(request)?;
        Ok(Response::new(convert::sandbox(self.0.launcher.sandbox().await)))
    }

    async fn wait(&self, request: Request<WaitTurnRequest>) -> Result<Response<Turn>, Status> {
        let (_, message) = authz::split(request)?;
        let limit = match message.timeout.as_ref().map(duration_ms) {
            None => DEFAULT_WAIT,
            Some(ms) => match u64::try_from(ms).map(Duration::from_millis) {
                Ok(limit) if limit <= MAX_WAIT => limit,
                _ => return Err(Error::invalid("timeout", "from 0 to 10 minutes").into()),
            },
        };
        if let Some(mut follow) = self.0.follow(&message.turn_id) {
            // Whether it ended or the time did: the answer is its state now.
            let _ = tokio::time::timeout(limit, follow.wait_for(|progress| progress.ended)).await;
        }
        Ok(Response::new(self.0.turn(&message.turn_id).await?))
    }
}

impl Turns {
    async fn start_one(&self, caller: &Caller, message: StartTurnRequest) -> Result<Turn, Error> {
        let key = session::parse("session", &message.session)?;
        session::may_start(caller, &key)?;
        if message.text.is_empty() || message.text.len() > MAX_TEXT {
            return Err(Error::invalid("text", format!("from 1 to {MAX_TEXT} bytes")));
        }
        let timeout_ms = match message.timeout.as_ref().map(duration_ms) {
            None => 0,
            Some(ms @ 1..=MAX_TIMEOUT_MS) => ms,
            Some(_) => return Err(Error::invalid("timeout", "more than nothing and at most 24 h")),
        };
        let runner = &self.0;
        loop {
            let slot = match runner
                .idempotency
                .begin(caller, "TurnService/Start", &message.request_id, &message)
                .await?
            {
                Begin::Done(answer) => return Ok(answer),
                Begin::Go(slot) => slot,
            };
            let new = NewTurn {
                key: key.clone(),
                text: message.text.clone(),
                backend: message.backend.clone(),
                timeout_ms,
                provenance: provenance(caller),
                owner: owner(caller),
                slot: Some(slot),
                event: None,
                work: None,
            };
            // `None`: the same request was faster on another stream; its answer is there now.
            if let Some(record) = runner.accept(new).await? {
                return Ok(convert::turn(&record, 1, String::new()));
            }
        }
    }

    async fn abort_one(&self, caller: &Caller, message: AbortTurnRequest) -> Result<Turn, Error> {
        if message.reason.len() > MAX_REASON {
            return Err(Error::invalid("reason", format!("at most {MAX_REASON} bytes")));
        }
        let runner = &self.0;
        let slot = match runner
            .idempotency
            .begin(caller, "TurnService/Abort", &message.request_id, &message)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let turn = match (message.turn_id.is_empty(), message.session.is_empty()) {
            (false, true) => message.turn_id.clone(),
            (true, false) => {
                let key = session::parse("session", &message.session)?;
                let waiting = runner.turns_of(&key).1.into_iter().next();
                runner.current_turn(&key).or(waiting).ok_or_else(|| {
                    Error::new(
                        Code::FailedPrecondition,
                        "no_turn",
                        "no turn runs or waits in this session",
                    )
                })?
            }
            _ => return Err(Error::invalid("turn_id", "either a turn or a session")),
        };
        let record = runner.turn_record(&turn).await?;
        let mut txn = Txn::new();
        let event = Event::new("turn.aborted", caller.principal(), format!("turn/{turn}"))
            .with("session", &record.session)
            .with("reason", &message.reason);
        runner.outbox.push(&mut txn, event)?;
        let (answer, answered) = oneshot::channel();
        let order = AbortOrder { txn, slot, answer };
        let told = runner.abort(&turn, &message.reason, Some(order)).await;
        match answered.await {
            Ok(answer) if told => answer,
            // It ended by itself in the meantime, or long ago.
            _ => {
                let state = convert::state(&runner.turn_record(&turn).await?);
                if matches!(state, TurnState::Accepted | TurnState::Running) {
                    let message = "the turn can't be ended now";
                    return Err(Error::new(Code::Unavailable, "not_aborted", message).hint("try again"));
                }
                let message = format!(
                    "the turn has ended: {}",
                    state.as_str_name().trim_start_matches("TURN_STATE_")
                );
                Err(Error::new(
                    Code::FailedPrecondition,
                    "turn_ended",
                    message.to_lowercase(),
                ))
            }
        }
    }
}

impl Runner {
    /// A turn's record.
    ///
    /// # Errors
    /// `NotFound`, and what the store said.
    pub(crate) async fn turn_record(&self, turn: &str) -> Result<TurnRecord, Error> {
        if turn.is_empty() || turn.len() > 64 {
            return Err(Error::invalid("turn_id", "not the id of a turn"));
        }
        store::get(&self.store, &store::turn_key(turn))
            .await?
            .ok_or_else(|| Error::not_found("turn", turn))
    }

    /// A turn as it is told now.
    ///
    /// # Errors
    /// As [`Self::turn_record`], and what files said.
    pub(crate) async fn turn(&self, turn: &str) -> Result<Turn, Error> {
        let visible = self.follow(turn).map(|follow| follow.borrow().visible);
        let record = self.turn_record(turn).await?;
        let ended = !matches!(convert::state(&record), TurnState::Accepted | TurnState::Running);
        let last = if ended {
            record.last_sequence
        } else {
            visible.unwrap_or(record.last_sequence)
        };
        let reply = if record.reply_in_events {
            self.reply_of(&record).await?
        } else {
            record.reply.clone()
        };
        Ok(convert::turn(&record, last, reply))
    }

    async fn reply_of(&self, record: &TurnRecord) -> Result<String, Error> {
        let path = events::path_of(&self.dirs.events, &record.folder, &record.turn_id);
        let last = record.last_sequence;
        let page = blocking(move || EventReader::open(&path, last)?.page(last, 1, usize::MAX)).await?;
        Ok(match page.into_iter().next().and_then(|event| event.event) {
            Some(turn_event::Event::Final(last)) => last.text,
            _ => String::new(),
        })
    }
}

fn provenance(caller: &Caller) -> Provenance {
    let origin = match caller.principal() {
        Principal::Sender(_) => Origin::Sender,
        Principal::Job(_) => Origin::Job,
        Principal::AgentTurn(_) | Principal::Plugin(_) => Origin::Agent,
        Principal::Operator(_) | Principal::Node(_) => Origin::Operator,
        Principal::Service(_) | Principal::Local(_) | Principal::Anonymous => Origin::System,
    };
    Provenance {
        origin: origin.into(),
        principal: caller.principal().to_string(),
        ..Provenance::default()
    }
}

/// Whose share of the waiting room a caller's turns take.
fn owner(caller: &Caller) -> String {
    match (caller.principal(), caller.person()) {
        (Principal::Sender(_), _) | (_, "") => caller.principal().to_string(),
        (_, person) => person.to_owned(),
    }
}
