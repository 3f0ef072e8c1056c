//! `creel send`: a message to the agent, and its answer.

use std::{io::Read as _, time::Duration};

use creel_proto::{
    agent::v1::{TurnError, TurnEvent, turn_event::Event},
    gateway::v1::{
        SendMessageRequest, SendMessageResponse, SenderAnswer, SenderVerdict, SubscribeMessageRequest,
    },
    identity::v1::Sender,
};
use creel_wire::{Code, Error, error::printable};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::{
    args::Send,
    client::{Client, Following, Messages},
    context::{Context, request_id},
    failure::Failure,
    stubs, times, views,
};

/// The longest message, in bytes.
const MAX_TEXT: u64 = 1 << 20;

pub(super) async fn run(context: &mut Context, args: Send) -> Result<(), Failure> {
    let sender = args.sender.as_deref().map(super::people::sender).transpose()?;
    let request = SendMessageRequest {
        request_id: request_id(&args.repeatable),
        session: match &sender {
            // Its own, which the gateway knows.
            Some(_) => String::new(),
            None => super::sessions::name(&args.session)?,
        },
        text: message(&args.text)?,
        backend: args.backend.clone().unwrap_or_default(),
        timeout: None,
        sender,
    };
    let client = context.client().await?;
    let accepted = client
        .call(&request, |channel, request| async move {
            stubs::messages(channel).send(request).await
        })
        .await?;
    if let (Some(answer), Some(sender)) = (&accepted.answer, &request.sender) {
        return not_let_in(context, answer, sender);
    }
    if args.no_wait {
        return show_accepted(context, &accepted);
    }
    let limit = context.global.timeout;
    let waiting = client.resume(Turn {
        context,
        message_id: &accepted.message_id,
        follow: args.follow,
        reading: Reading::default(),
    });
    let outcome = match limit {
        None => waiting.await,
        Some(limit) => match tokio::time::timeout(limit, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => return Err(too_slow(limit, &args.session)),
        },
    };
    match outcome? {
        Ok(reply) if context.out.is_json() && !args.follow => context.out.json(&json!({
            "messageId": accepted.message_id,
            "session": accepted.session,
            "state": "succeeded",
            "reply": reply,
        })),
        Ok(reply) if !args.follow => context.out.line(&reply),
        Ok(_) => Ok(()),
        Err(error) => Err(failed(&error, &args.session)),
    }
}

/// What a sender who is not let in is answered, and what an operator can do about it.
fn not_let_in(context: &mut Context, answer: &SenderAnswer, sender: &Sender) -> Result<(), Failure> {
    let who = super::people::shown(sender);
    let until = context.local().show_opt(views::at_ms(answer.until.as_ref()));
    let approve = format!("creel pairing approve {} CODE", sender.channel);
    let waiting = |message: String| Error::new(Code::FailedPrecondition, "sender_waiting", message);
    let error = match answer.verdict() {
        SenderVerdict::CodeIssued => {
            if context.out.is_json() {
                context.out.json(&json!({
                    "sender": who,
                    "verdict": "code_issued",
                    "code": answer.code,
                    "untilMs": views::at_ms(answer.until.as_ref()),
                }))?;
            } else {
                context.out.line(&format!("pairing code: {}", answer.code))?;
            }
            let hint = format!("creel pairing approve {} {}", sender.channel, answer.code);
            return Err(Failure::waiting(
                waiting(format!("{who} is not let in; its code is good until {until}")).hint(hint),
            ));
        }
        SenderVerdict::Waiting => {
            let message = format!("{who} was given a code before, which is good until {until}");
            let allow = format!("{approve}; or, without it: {}", allow(sender));
            return Err(Failure::waiting(waiting(message).hint(allow)));
        }
        SenderVerdict::Full => {
            let message = format!("{who} gets no code: as many wait as may; a place may be free at {until}");
            Error::new(Code::ResourceExhausted, "senders_full", message).hint("creel pairing list")
        }
        SenderVerdict::Denied | SenderVerdict::Unspecified => Error::new(
            Code::PermissionDenied,
            "sender_denied",
            format!("{who} is not let in"),
        )
        .hint(allow(sender)),
    };
    Err(error.into())
}

/// The command that lets a sender in without a code.
fn allow(sender: &Sender) -> String {
    let shown = super::people::shown(sender);
    let id = shown.split_once(':').map_or(shown.as_str(), |(_, id)| id);
    format!("creel pairing allow {} {id}", sender.channel)
}

/// A turn on the way to its end: its reply, or why there is none. With `follow` what happens is shown as it does.
struct Turn<'a> {
    context: &'a mut Context,
    message_id: &'a str,
    follow: bool,
    reading: Reading,
}

impl Following for Turn<'_> {
    type Message = TurnEvent;
    type Found = Result<String, TurnError>;

    async fn open(&mut self, client: &Client) -> Result<Messages<TurnEvent>, Failure> {
        let request = SubscribeMessageRequest {
            message_id: self.message_id.to_owned(),
            from_sequence: self.reading.next,
        };
        let events = client
            .call(&request, |channel, request| async move {
                stubs::messages(channel).subscribe(request).await
            })
            .await?;
        Ok(events.boxed())
    }

    fn take(&mut self, event: TurnEvent) -> Result<Option<Self::Found>, Failure> {
        if self.follow {
            show(self.context, &self.reading, &event)?;
        }
        Ok(self.reading.take(event))
    }
}

/// What has been read of a turn.
#[derive(Debug)]
struct Reading {
    next: u64,
    /// Text written so far.
    text: String,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            next: 1,
            text: String::new(),
        }
    }
}

impl Reading {
    /// Takes an event; the outcome, if it was the last.
    fn take(&mut self, event: TurnEvent) -> Option<Result<String, TurnError>> {
        self.next = event.sequence + 1;
        match event.event? {
            Event::Delta(delta) => {
                self.text.push_str(&delta.text);
                None
            }
            Event::Final(last) => Some(Ok(last.text)),
            Event::Error(error) => Some(Err(error)),
            _ => None,
        }
    }

    /// What is left to write when the final text is there.
    fn rest(&self, last: &str) -> String {
        match last.strip_prefix(self.text.as_str()) {
            Some(rest) => format!("{rest}\n"),
            // The backend thought better of it.
            None => format!("\n{last}\n"),
        }
    }
}

fn show(context: &mut Context, reading: &Reading, event: &TurnEvent) -> Result<(), Failure> {
    if context.out.is_json() {
        return views::turn::event(event).map_or(Ok(()), |event| context.out.json_line(&event));
    }
    match &event.event {
        Some(Event::Delta(delta)) => context.out.piece(&delta.text),
        Some(Event::Final(last)) => {
            let rest = reading.rest(&last.text);
            context.out.piece(&rest)
        }
        Some(Event::Error(_)) if !reading.text.is_empty() => context.out.piece("\n"),
        Some(Event::Accepted(accepted)) if accepted.queued_behind > 0 => {
            context.out.note(&format!(
                "waiting for {} turns of this session before it",
                accepted.queued_behind
            ));
            Ok(())
        }
        Some(Event::ToolCall(call)) => {
            context.out.note(&format!(
                "→ {} {}",
                printable(&call.tool, 64),
                printable(&call.arguments_json, 200)
            ));
            Ok(())
        }
        Some(Event::ToolResult(result)) => {
            let (mark, what) = if result.ok {
                ("←", &result.content)
            } else {
                ("← refused:", &result.reason)
            };
            context.out.note(&format!("{mark} {}", printable(what, 200)));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn show_accepted(context: &mut Context, accepted: &SendMessageResponse) -> Result<(), Failure> {
    if !context.out.is_json() {
        return context.out.line(&accepted.message_id);
    }
    context.out.json(&json!({
        "messageId": accepted.message_id,
        "session": accepted.session,
        "state": "accepted",
        "acceptedAt": views::at(accepted.accepted_at.as_ref()),
        "acceptedAtMs": views::at_ms(accepted.accepted_at.as_ref()),
    }))
}

fn failed(error: &TurnError, session: &str) -> Failure {
    let message = if error.message.is_empty() {
        format!("the turn failed: {}", error.reason)
    } else {
        error.message.clone()
    };
    let hint = if error.hint.is_empty() {
        format!("creel sessions show {session}; creel logs agent-runner")
    } else {
        error.hint.clone()
    };
    Failure::failed(Error::new(Code::Internal, error.reason.clone(), message).hint(hint))
}

fn too_slow(limit: Duration, session: &str) -> Failure {
    let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    Error::new(
        Code::DeadlineExceeded,
        "timeout",
        format!("no answer within {}; the turn goes on", times::took(limit)),
    )
    .hint(format!(
        "creel sessions show {session}, or creel sessions abort {session}"
    ))
    .into()
}

/// The text, from stdin for `-`.
fn message(text: &str) -> Result<String, Failure> {
    let text = if text == "-" {
        from_stdin()?
    } else {
        text.to_owned()
    };
    if text.trim().is_empty() {
        return Err(Failure::usage("the message is empty"));
    }
    if text.len() as u64 > MAX_TEXT {
        return Err(Failure::usage("the message is longer than 1 MiB"));
    }
    Ok(text)
}

fn from_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_TEXT + 2).read_to_end(&mut bytes);
    read.map_err(|error| Failure::internal("reading stdin", &error))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Failure::usage("the message is not UTF-8"))?;
    // The line's end that `echo` adds is no part of the message.
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use creel_proto::agent::v1::{Final, TextDelta};

    use super::*;

    fn event(sequence: u64, event: Event) -> TurnEvent {
        TurnEvent {
            sequence,
            event: Some(event),
            ..TurnEvent::default()
        }
    }

    #[test]
    fn a_turn_is_read_to_its_end_and_resumed_after_what_was_seen() {
        let mut reading = Reading::default();
        assert_eq!(reading.next, 1);
        assert_eq!(
            reading.take(event(4, Event::Delta(TextDelta { text: "Hel".into() }))),
            None
        );
        assert_eq!(reading.next, 5);
        assert_eq!(reading.rest("Hello"), "lo\n");
        assert_eq!(reading.rest("Bye"), "\nBye\n");
        assert_eq!(
            reading.take(event(5, Event::Final(Final { text: "Hello".into() }))),
            Some(Ok("Hello".into()))
        );
        let error = TurnError {
            reason: "timeout".into(),
            message: "took too long".into(),
            hint: String::new(),
        };
        assert_eq!(
            Reading::default().take(event(1, Event::Error(error.clone()))),
            Some(Err(error.clone()))
        );
        let failure = failed(&error, "main");
        let told = failure.error().unwrap();
        assert_eq!((told.reason.as_ref(), told.code.exit()), ("timeout", 1));
    }

    #[test]
    fn empty_and_huge_messages_are_usage() {
        for bad in [" \n".to_owned(), "x".repeat(1 + (1 << 20))] {
            assert_eq!(message(&bad).unwrap_err().code(), Some(Code::InvalidArgument));
        }
        assert!(message(&"x".repeat(1 << 20)).is_ok());
    }
}
