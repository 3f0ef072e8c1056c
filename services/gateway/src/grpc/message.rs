//! `MessageService`: a message becomes a turn of the context that its sender's identity names.

use creel_kit::Deps;
use creel_proto::{
    agent::v1::{StartTurnRequest, SubscribeTurnRequest, TurnEvent, turn_service_client::TurnServiceClient},
    gateway::v1::{
        SendMessageRequest, SendMessageResponse, SubscribeMessageRequest,
        message_service_server::MessageService,
    },
};
use creel_wire::{Error, ServiceName, authz};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    AGENT, on_behalf,
    sender::{Entrance, Senders},
    session_key,
};

/// A message, in bytes.
const MAX_TEXT: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Messages {
    turns: TurnServiceClient<Channel>,
    senders: Senders,
}

impl Messages {
    pub(crate) fn new(deps: &Deps) -> anyhow::Result<Self> {
        let channel = deps.peers.channel(ServiceName::AgentRunner)?;
        Ok(Self {
            turns: TurnServiceClient::new(channel).max_decoding_message_size(8 << 20),
            senders: Senders::new(deps)?,
        })
    }
}

#[tonic::async_trait]
impl MessageService for Messages {
    async fn send(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        if message.text.is_empty() || message.text.len() > MAX_TEXT {
            return Err(Error::invalid("text", format!("1 to {MAX_TEXT} bytes")).into());
        }
        let mut start = StartTurnRequest {
            request_id: message.request_id,
            session: String::new(),
            text: message.text,
            backend: message.backend,
            timeout: message.timeout,
        };
        let start = match message.sender {
            Some(_) if !message.session.is_empty() => {
                let why = "a chat sender has a session of its own";
                return Err(Error::invalid("session", why).into());
            }
            Some(sender) => match self.senders.enter(&caller, sender, AGENT, start).await? {
                Entrance::Turn(start) => start,
                Entrance::Answer(answer) => {
                    return Ok(Response::new(SendMessageResponse {
                        answer: Some(answer),
                        ..SendMessageResponse::default()
                    }));
                }
            },
            None => {
                start.session = session_key(&message.session)?.to_string();
                on_behalf(&caller, start)?
            }
        };
        let turn = self.turns.clone().start(start).await?.into_inner();
        Ok(Response::new(SendMessageResponse {
            message_id: turn.turn_id,
            session: turn.session,
            accepted_at: turn.accepted_at,
            answer: None,
        }))
    }

    type SubscribeStream = tonic::Streaming<TurnEvent>;

    async fn subscribe(
        &self,
        request: Request<SubscribeMessageRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (caller, message) = authz::split(request)?;
        let subscribe = SubscribeTurnRequest {
            turn_id: message.message_id,
            from_sequence: message.from_sequence,
        };
        let events = self
            .turns
            .clone()
            .subscribe(on_behalf(&caller, subscribe)?)
            .await?;
        Ok(Response::new(events.into_inner()))
    }
}
