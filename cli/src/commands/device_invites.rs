//! `creel devices invites|uninvite`: invites that can still be used.

use creel_proto::identity::v1::{Invite, ListInvitesRequest, WithdrawInviteRequest};
use serde::Serialize;

use crate::{
    context::Context,
    failure::Failure,
    stubs,
    times::Local,
    views::{self, at, at_ms, text, word},
};

/// See [`Invite`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InviteView {
    invite_id: String,
    name: String,
    role: String,
    scopes: Vec<String>,
    commands: Vec<String>,
    caps: Vec<String>,
    person: String,
    inviter: Option<String>,
    created_at: Option<String>,
    created_at_ms: Option<i64>,
    expires_at: Option<String>,
    expires_at_ms: Option<i64>,
}

impl From<Invite> for InviteView {
    fn from(invite: Invite) -> Self {
        Self {
            role: word(invite.role().as_str_name(), "ROLE_"),
            invite_id: invite.invite_id,
            name: invite.name,
            scopes: invite.scopes,
            commands: invite.commands,
            caps: invite.caps,
            person: invite.person,
            inviter: text(&invite.inviter),
            created_at: at(invite.created_at.as_ref()),
            created_at_ms: at_ms(invite.created_at.as_ref()),
            expires_at: at(invite.expires_at.as_ref()),
            expires_at_ms: at_ms(invite.expires_at.as_ref()),
        }
    }
}

pub(super) async fn list(context: &mut Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&ListInvitesRequest {}, |channel, request| async move {
            stubs::devices(channel).list_invites(request).await
        })
        .await?;
    let invites: Vec<InviteView> = answer.invites.into_iter().map(InviteView::from).collect();
    if context.out.is_json() {
        return context.out.json(&invites);
    }
    if invites.is_empty() {
        context
            .out
            .note("no invite is open; creel devices invite --name NAME makes one");
        return Ok(());
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = invites.iter().map(|invite| row(invite, &local)).collect();
    context
        .out
        .table(&["ID", "FOR", "ROLE", "GIVES", "PERSON", "UNTIL"], &rows)
}

fn row(invite: &InviteView, local: &Local) -> Vec<String> {
    let scopes = invite
        .scopes
        .iter()
        .map(|scope| scope.strip_prefix("operator.").unwrap_or(scope));
    let gives: Vec<&str> = scopes.chain(invite.commands.iter().map(String::as_str)).collect();
    vec![
        views::short(&invite.invite_id),
        invite.name.clone(),
        invite.role.clone(),
        gives.join(" "),
        invite.person.clone(),
        local.show_opt(invite.expires_at_ms),
    ]
}

pub(super) async fn withdraw(context: &mut Context, request: WithdrawInviteRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let invite = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).withdraw_invite(request).await
        })
        .await?;
    let view = InviteView::from(invite);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let done = if request.validate_only {
        "would be withdrawn (dry run)"
    } else {
        "withdrawn; its code lets nobody in"
    };
    context.out.line(&format!("invite for {}: {done}", view.name))
}
