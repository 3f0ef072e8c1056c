//! A message from a chat sender: identity says who that is; a known one gets a turn in a session of its
//! own, an unknown one at most a code.

use creel_kit::Deps;
use creel_proto::{
    agent::v1::StartTurnRequest,
    gateway::v1::{SenderAnswer, SenderVerdict},
    identity::v1::{
        KnownSender, MintRequest, ResolveSenderRequest, Sender, SenderSubject,
        assertion_service_client::AssertionServiceClient, mint_request::Subject,
        resolve_sender_response::Outcome, sender_service_client::SenderServiceClient,
    },
};
use creel_wire::{Caller, Code, Error, Scope, ServiceName, SessionKey, authz};
use tonic::{Request, Status, transport::Channel};

/// Asks identity about senders, and speaks for those it knows.
#[derive(Debug)]
pub(super) struct Senders {
    senders: SenderServiceClient<Channel>,
    assertions: AssertionServiceClient<Channel>,
}

/// What becomes of a sender's message.
pub(super) enum Entrance {
    /// It is taken in: this starts its turn.
    Turn(Request<StartTurnRequest>),
    /// It is not.
    Answer(SenderAnswer),
}

impl Senders {
    pub(super) fn new(deps: &Deps) -> anyhow::Result<Self> {
        let channel = deps.peers.channel(ServiceName::Identity)?;
        Ok(Self {
            senders: SenderServiceClient::new(channel.clone()),
            assertions: AssertionServiceClient::new(channel),
        })
    }

    /// A direct message that `caller` passes on as `sender`'s. `start` has everything but its session.
    pub(super) async fn enter(
        &self,
        caller: &Caller,
        sender: Sender,
        agent: &str,
        mut start: StartTurnRequest,
    ) -> Result<Entrance, Status> {
        may_speak_for_others(caller)?;
        let resolve = ResolveSenderRequest {
            sender: Some(sender.clone()),
            direct: true,
            may_pair: true,
            display_name: String::new(),
        };
        let resolved = self.senders.clone().resolve(resolve).await?.into_inner();
        let answer = |verdict: SenderVerdict, code: String, until| {
            Ok(Entrance::Answer(SenderAnswer {
                verdict: verdict.into(),
                code,
                until,
            }))
        };
        let known = match resolved.outcome {
            Some(Outcome::Known(known)) => known,
            Some(Outcome::CodeIssued(issued)) => {
                return answer(SenderVerdict::CodeIssued, issued.code, issued.expires_at);
            }
            Some(Outcome::Waiting(waiting)) => {
                return answer(SenderVerdict::Waiting, String::new(), waiting.expires_at);
            }
            Some(Outcome::Full(full)) => return answer(SenderVerdict::Full, String::new(), full.retry_at),
            // An answer that this program does not know lets nobody in.
            Some(Outcome::Denied(_)) | None => return answer(SenderVerdict::Denied, String::new(), None),
        };
        start.session = session_of(agent, &sender, &known).to_string();
        let subject = SenderSubject {
            sender: Some(sender),
            binding: start.session.clone(),
        };
        let mint = MintRequest {
            subject: Some(Subject::Sender(subject)),
        };
        let minted = self.assertions.clone().mint(mint).await?.into_inner();
        let mut request = Request::new(start);
        authz::attach(&mut request, &minted.assertion);
        Ok(Entrance::Turn(request))
    }
}

/// Only who may change the stack may write in another's name.
fn may_speak_for_others(caller: &Caller) -> Result<(), Error> {
    if caller.has(Scope::Admin) {
        return Ok(());
    }
    let message = "writing as a chat sender needs operator.admin";
    Err(Error::new(Code::PermissionDenied, "scope_missing", message)
        .field("sender")
        .hint("creel whoami shows what this machine may do"))
}

/// The sender's own context; all senders of one person share that person's.
fn session_of(agent: &str, sender: &Sender, known: &KnownSender) -> SessionKey {
    if known.person.is_empty() {
        let account = if sender.account.is_empty() {
            "default"
        } else {
            &sender.account
        };
        SessionKey::Direct {
            agent: agent.to_owned(),
            channel: sender.channel.clone(),
            account: account.to_owned(),
            sender: sender.platform_id.clone(),
        }
    } else {
        SessionKey::Person {
            agent: agent.to_owned(),
            person: known.person.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(channel: &str, account: &str, id: &str, person: &str) -> SessionKey {
        let sender = Sender {
            channel: channel.into(),
            account: account.into(),
            platform_id: id.into(),
        };
        let person = person.into();
        session_of("default", &sender, &KnownSender { person })
    }

    #[test]
    fn each_sender_has_its_own_context_and_a_persons_senders_share_one() {
        let keys = [
            key("telegram", "", "7", ""),
            key("telegram", "work", "7", ""),
            key("signal", "", "7", ""),
            key("telegram", "", "8", ""),
            key("telegram", "", "7", "anna"),
            SessionKey::main("default"),
        ];
        for (n, one) in keys.iter().enumerate() {
            assert!(keys[n + 1..].iter().all(|other| other != one), "{one}");
        }
        assert_eq!(key("telegram", "", "7", "anna"), key("signal", "x", "9", "anna"));
        assert_eq!(key("telegram", "", "7", ""), key("telegram", "default", "7", ""));
    }
}
