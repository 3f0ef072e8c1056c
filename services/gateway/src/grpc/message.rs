//! `MessageService`: a message becomes a turn of the context that its sender's identity names.

use creel_kit::Deps;
use creel_proto::{
    agent::v1::{StartTurnRequest, SubscribeTurnRequest, TurnEvent, turn_service_client::TurnServiceClient},
    gateway::v1::{
        SendMessageRequest, SendMessageResponse, SubscribeMessageRequest,
        message_service_server::MessageService,
    },
};
use creel_wire::{Caller, Error, ServiceName, SessionKey, authz};
use tonic::{Request, Response, Status, transport::Channel};

use super::sender::{Entrance, Senders};

/// The one agent there is.
const AGENT: &str = "default";
/// A message, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// A session's name, in characters.
const MAX_NAME: usize = 64;

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

/// The context a person's message goes to. Keys are derived, never taken from text: a name is one
/// segment, whatever characters it has.
fn session_key(name: &str) -> Result<SessionKey, Error> {
    if name.is_empty() || name == "main" {
        return Ok(SessionKey::main(AGENT));
    }
    let plain = creel_wire::error::printable(name, MAX_NAME) == name && name.trim() == name;
    if !plain {
        return Err(Error::invalid(
            "session",
            format!("`main`, or a name of 1 to {MAX_NAME} printable characters"),
        ));
    }
    Ok(SessionKey::Direct {
        agent: AGENT.to_owned(),
        channel: "webchat".to_owned(),
        account: "local".to_owned(),
        sender: name.to_owned(),
    })
}

fn on_behalf<T>(caller: &Caller, message: T) -> Result<Request<T>, Error> {
    let assertion = caller
        .assertion()
        .ok_or_else(|| Error::internal("authorization"))?;
    let mut request = Request::new(message);
    authz::attach(&mut request, assertion);
    Ok(request)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_reaches_another_context() {
        assert_eq!(session_key("").unwrap(), SessionKey::main(AGENT));
        assert_eq!(session_key("main").unwrap(), SessionKey::main(AGENT));
        let tricky = session_key("agent:default:main").unwrap();
        assert_eq!(
            tricky.to_string(),
            "agent:default:webchat:local:dm:agent%3Adefault%3Amain"
        );
        for bad in [" x", "a\nb", "a\u{202e}", &"a".repeat(MAX_NAME + 1)] {
            assert!(session_key(bad).is_err(), "{bad:?}");
        }
    }
}
