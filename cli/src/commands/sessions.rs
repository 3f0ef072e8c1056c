//! `creel sessions`: what the agent remembers, by conversation.

use creel_proto::agent::v1::{
    AbortTurnRequest, GetContextRequest, GetTranscriptRequest, ListContextsRequest, Turn,
};
use creel_wire::{Code, Error, SessionKey, error::printable};

use super::{MAX_ROWS, PAGE};
use crate::{
    args::Sessions,
    client::Client,
    context::{Context, request_id},
    failure::Failure,
    stubs,
    views::{
        session::{EntryView, SessionView},
        turn::TurnView,
    },
};

/// The agent that conversations belong to.
const AGENT: &str = "default";

/// Where named conversations of this command line take place.
const CHANNEL: &str = "webchat";
const ACCOUNT: &str = "local";

pub(super) async fn run(context: &mut Context, command: Sessions) -> Result<(), Failure> {
    match command {
        Sessions::List { prefix } => list(context, prefix.unwrap_or_default()).await,
        Sessions::Show { key, limit } => show(context, &key, limit).await,
        Sessions::Abort {
            which,
            reason,
            repeatable,
        } => {
            let request = AbortTurnRequest {
                request_id: request_id(&repeatable),
                reason,
                ..AbortTurnRequest::default()
            };
            abort(context, &which, request).await
        }
    }
}

/// The session key of what was typed: `main`, a key, or the name of a conversation.
pub(super) fn key(text: &str) -> Result<SessionKey, Failure> {
    match text {
        "main" => Ok(SessionKey::main(AGENT)),
        text if text.contains(':') => SessionKey::parse(text).map_err(|error| {
            Failure::usage_hint(error.to_string(), "creel sessions list shows the keys there are")
        }),
        "" => Err(Failure::usage("the session is empty")),
        name => Ok(SessionKey::Direct {
            agent: AGENT.to_owned(),
            channel: CHANNEL.to_owned(),
            account: ACCOUNT.to_owned(),
            sender: name.to_owned(),
        }),
    }
}

/// The name of a conversation that messages can be sent to. Keys as `sessions list` shows them are taken
/// for what they name; the edge would take them for a name that happens to hold colons.
pub(super) fn name(text: &str) -> Result<String, Failure> {
    match key(text)? {
        SessionKey::Main { agent } if agent == AGENT => Ok("main".to_owned()),
        SessionKey::Direct {
            agent,
            channel,
            account,
            sender,
        } if (agent.as_str(), channel.as_str(), account.as_str()) == (AGENT, CHANNEL, ACCOUNT) => Ok(sender),
        _ => Err(Failure::usage_hint(
            format!("`{}` takes no messages from here", printable(text, 128)),
            "--session main, or a name for a conversation of its own",
        )),
    }
}

async fn list(context: &mut Context, prefix: String) -> Result<(), Failure> {
    let client = context.client().await?;
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListContextsRequest {
            page_size: PAGE,
            page_token,
            prefix: prefix.clone(),
        };
        let page = client
            .call(&request, |channel, request| async move {
                stubs::contexts(channel).list(request).await
            })
            .await?;
        found.extend(page.contexts.iter().map(SessionView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || found.len() >= MAX_ROWS {
            break;
        }
    }
    if context.out.is_json() {
        return context.out.json(&found);
    }
    if found.is_empty() {
        context.out.note("no sessions yet; next: creel send hello");
        return Ok(());
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|one| {
            vec![
                one.session.clone(),
                one.turns.to_string(),
                local.show_opt(one.last_active_at_ms),
                if one.current_turn_id.is_some() {
                    "running".to_owned()
                } else {
                    "idle".to_owned()
                },
                one.queued_events.to_string(),
                one.trust.clone(),
            ]
        })
        .collect();
    context.out.table(
        &["SESSION", "TURNS", "LAST ACTIVE", "STATE", "QUEUED", "TRUST"],
        &rows,
    )
}

async fn show(context: &mut Context, text: &str, limit: u16) -> Result<(), Failure> {
    let session = key(text)?.to_string();
    let client = context.client().await?;
    let request = GetContextRequest {
        session: session.clone(),
    };
    let found = client
        .call(&request, |channel, request| async move {
            stubs::contexts(channel).get(request).await
        })
        .await?;
    let mut view = SessionView::from(&found);
    view.entries = Some(transcript(&client, &session, limit).await?);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let local = context.local();
    let running = view
        .current_turn_id
        .as_ref()
        .map_or_else(String::new, |turn| format!(" · running turn {turn}"));
    context.out.line(&format!(
        "{} · {} · {} turns · last active {}{running}",
        view.session,
        view.trust,
        view.turns,
        local.show_opt(view.last_active_at_ms)
    ))?;
    for entry in view.entries.iter().flatten() {
        let when = entry
            .time_ms
            .map_or_else(|| "-".to_owned(), |ms| local.show_seconds(ms));
        context.out.line(&format!("\n[{when}] {}", heading(entry)))?;
        if let Some(text) = &entry.text {
            context.out.line(text)?;
        }
    }
    Ok(())
}

/// The last `limit` entries; at most 500, one page.
async fn transcript(client: &Client, session: &str, limit: u16) -> Result<Vec<EntryView>, Failure> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let request = GetTranscriptRequest {
        session: session.to_owned(),
        from_index: 0,
        page_size: i32::from(limit),
        tail: true,
    };
    let page = client
        .call(&request, |channel, request| async move {
            stubs::contexts(channel).get_transcript(request).await
        })
        .await?;
    Ok(page.entries.iter().map(EntryView::from).collect())
}

fn heading(entry: &EntryView) -> String {
    let from = entry.provenance.as_ref().map_or_else(String::new, |from| {
        let who = from
            .job_name
            .as_ref()
            .map(|job| format!("job {job}"))
            .or_else(|| from.principal.clone());
        who.map_or_else(
            || format!(" ({})", from.origin),
            |who| format!(" ({}: {})", from.origin, printable(&who, 64)),
        )
    });
    let topic = entry
        .topic
        .as_ref()
        .map_or_else(String::new, |topic| format!(" · {topic}"));
    let state = entry
        .state
        .as_ref()
        .map_or_else(String::new, |state| format!(" · {state}"));
    let reason = entry
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(" · {reason}"));
    format!("{}{topic}{state}{reason}{from}", entry.kind)
}

async fn abort(context: &mut Context, which: &str, request: AbortTurnRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let of_session = |session: SessionKey| AbortTurnRequest {
        session: session.to_string(),
        ..request.clone()
    };
    let turn = if which == "main" || which.contains(':') {
        stop(&client, of_session(key(which)?)).await?
    } else {
        // A turn's id or a conversation's name: only the runner can tell.
        match stop(
            &client,
            AbortTurnRequest {
                turn_id: which.to_owned(),
                ..request.clone()
            },
        )
        .await
        {
            Err(failure) if matches!(failure.code(), Some(Code::NotFound | Code::InvalidArgument)) => {
                match stop(&client, of_session(key(which)?)).await {
                    Err(failure) if failure.code() == Some(Code::NotFound) => return Err(nothing(which)),
                    other => other?,
                }
            }
            other => other?,
        }
    };
    let view = TurnView::from(&turn);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    context.out.line(&format!(
        "turn {} of {}: {}",
        view.turn_id, view.session, view.state
    ))
}

async fn stop(client: &Client, request: AbortTurnRequest) -> Result<Turn, Failure> {
    client
        .call(&request, |channel, request| async move {
            stubs::turns(channel).abort(request).await
        })
        .await
}

fn nothing(which: &str) -> Failure {
    let message = format!("no turn and no session `{}`", printable(which, 128));
    Error::new(Code::NotFound, "not_found", message)
        .hint("creel sessions list")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_a_session_key() {
        for (typed, written) in [
            ("main", "agent:default:main"),
            ("agent:default:main", "agent:default:main"),
            ("anna", "agent:default:webchat:local:dm:anna"),
            ("a/b", "agent:default:webchat:local:dm:a%2Fb"),
            ("cron:j1:run:r1", "cron:j1:run:r1"),
        ] {
            assert_eq!(key(typed).unwrap().to_string(), written);
        }
        assert_eq!(name("agent:default:main").unwrap(), "main");
        assert_eq!(name("agent:default:webchat:local:dm:a%2Fb").unwrap(), "a/b");
        assert_eq!(name("anna").unwrap(), "anna");
        assert!(name("cron:j1:run:r1").is_err());
        for bad in ["", "agent:x", "agent:default:main:more"] {
            assert_eq!(key(bad).unwrap_err().code(), Some(Code::InvalidArgument), "{bad}");
        }
    }
}
