//! `creel pairing …`: chat senders that wait with a code, and those that may write.

use creel_proto::identity::v1::{
    AllowSenderRequest, AllowedSender, ApproveSenderRequest, ListAllowedSendersRequest,
    ListPendingSendersRequest, PendingSender, RemoveSenderRequest, Sender,
};
use serde::Serialize;

use super::{
    MAX_ROWS, PAGE,
    people::{sender, shown},
};
use crate::{
    args::people::Pairing,
    client::Client,
    context::{Context, request_id},
    failure::Failure,
    stubs,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SenderView {
    sender: String,
    /// "waiting" or "allowed".
    state: &'static str,
    display_name: Option<String>,
    person: Option<String>,
    since: Option<String>,
    since_ms: Option<i64>,
    expires_at: Option<String>,
    expires_at_ms: Option<i64>,
}

fn name(sender: Option<&Sender>) -> String {
    sender.map(shown).unwrap_or_default()
}

impl From<&PendingSender> for SenderView {
    fn from(pending: &PendingSender) -> Self {
        Self {
            sender: name(pending.sender.as_ref()),
            state: "waiting",
            display_name: crate::views::text(&pending.display_name),
            person: None,
            since: crate::views::at(pending.requested_at.as_ref()),
            since_ms: crate::views::at_ms(pending.requested_at.as_ref()),
            expires_at: crate::views::at(pending.expires_at.as_ref()),
            expires_at_ms: crate::views::at_ms(pending.expires_at.as_ref()),
        }
    }
}

impl From<&AllowedSender> for SenderView {
    fn from(allowed: &AllowedSender) -> Self {
        Self {
            sender: name(allowed.sender.as_ref()),
            state: "allowed",
            display_name: None,
            person: crate::views::text(&allowed.person),
            since: crate::views::at(allowed.allowed_at.as_ref()),
            since_ms: crate::views::at_ms(allowed.allowed_at.as_ref()),
            expires_at: None,
            expires_at_ms: None,
        }
    }
}

pub(super) async fn run(context: &mut Context, command: Pairing) -> Result<(), Failure> {
    let client = context.client().await?;
    match command {
        Pairing::List { channel } => list(context, &client, channel.unwrap_or_default()).await,
        Pairing::Approve {
            channel,
            code,
            repeatable,
        } => {
            let request = ApproveSenderRequest {
                request_id: request_id(&repeatable),
                channel,
                code,
            };
            let call = client.call(&request, |channel, request| async move {
                stubs::senders(channel).approve(request).await
            });
            done(context, &call.await?, "may write now")
        }
        Pairing::Allow {
            channel,
            id,
            checked,
            repeatable,
        } => {
            let request = AllowSenderRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                sender: Some(sender(&format!("{channel}:{id}"))?),
            };
            let call = client.call(&request, |channel, request| async move {
                stubs::senders(channel).allow(request).await
            });
            let told = if checked.dry_run {
                "would be let in (dry run)"
            } else {
                "may write now"
            };
            done(context, &call.await?, told)
        }
        Pairing::Remove {
            channel,
            id,
            checked,
            repeatable,
        } => {
            let request = RemoveSenderRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                sender: Some(sender(&format!("{channel}:{id}"))?),
            };
            let call = client.call(&request, |channel, request| async move {
                stubs::senders(channel).remove(request).await
            });
            let told = if checked.dry_run {
                "would be removed (dry run)"
            } else {
                "may not write any more"
            };
            done(context, &call.await?, told)
        }
    }
}

fn done(context: &mut Context, sender: &AllowedSender, told: &str) -> Result<(), Failure> {
    let view = SenderView::from(sender);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    context.out.line(&format!("{}: {told}", view.sender))
}

async fn list(context: &mut Context, client: &Client, channel: String) -> Result<(), Failure> {
    let request = ListPendingSendersRequest {
        channel: channel.clone(),
    };
    let pending = client
        .call(&request, |channel, request| async move {
            stubs::senders(channel).list_pending(request).await
        })
        .await?;
    let mut senders: Vec<SenderView> = pending.senders.iter().map(SenderView::from).collect();
    let mut page_token = String::new();
    loop {
        let request = ListAllowedSendersRequest {
            channel: channel.clone(),
            page_size: PAGE,
            page_token,
        };
        let page = client
            .call(&request, |channel, request| async move {
                stubs::senders(channel).list_allowed(request).await
            })
            .await?;
        senders.extend(page.senders.iter().map(SenderView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || senders.len() >= MAX_ROWS {
            break;
        }
    }
    if context.out.is_json() {
        return context.out.json(&senders);
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = senders
        .into_iter()
        .map(|one| {
            let until = if one.expires_at_ms.is_some() {
                local.show_opt(one.expires_at_ms)
            } else {
                String::new()
            };
            vec![
                one.sender,
                one.state.to_owned(),
                one.person.or(one.display_name).unwrap_or_default(),
                local.show_opt(one.since_ms),
                until,
            ]
        })
        .collect();
    context
        .out
        .table(&["SENDER", "STATE", "WHO", "SINCE", "CODE UNTIL"], &rows)
}
