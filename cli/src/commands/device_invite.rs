//! `creel devices invite`: a code, as text and as a picture, that lets one device in.

use creel_kit::Config;
use creel_proto::{
    identity::v1::{CreateInviteRequest, Role},
    time,
};
use creel_wire::{Error, Secret};
use serde::Serialize;

use super::status;
use crate::{
    args::devices::Invite as Args,
    client::Client,
    context::{Context, request_id},
    failure::Failure,
    invite_code::{Invite, qr},
    reach::Endpoint,
    stubs,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InviteView {
    invite_id: Option<String>,
    name: String,
    role: String,
    scopes: Vec<String>,
    endpoint: String,
    code: Option<String>,
    /// For clients of the original.
    setup_code: Option<String>,
    expires_at: Option<String>,
    expires_at_ms: Option<i64>,
}

pub(super) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let client = context.client().await?;
    let endpoint = address(context, &args, &client)?;
    let role = if args.role == "node" {
        Role::Node
    } else {
        Role::Operator
    };
    let request = CreateInviteRequest {
        request_id: request_id(&args.repeatable),
        validate_only: args.checked.dry_run,
        name: args.name.clone(),
        role: role.into(),
        scopes: args.scopes.clone(),
        commands: args.commands.clone(),
        caps: Vec::new(),
        lifetime: Some(time::duration(i64::from(args.minutes) * 60_000)),
        person: args.person.clone().unwrap_or_default(),
    };
    // Asked for first, since the secret is shown once. A caller who may not read it gets no code of the original.
    let certificate = match status::of(&client).await {
        Ok(status) => Some(status.edge_certificate_sha256),
        Err(_) => None,
    };
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).create_invite(request).await
        })
        .await?;
    let invite = Invite {
        root_fingerprint: answer
            .ca_fingerprint
            .as_slice()
            .try_into()
            .map_err(|_| Error::internal("reading the invite"))?,
        secret: Secret::new(answer.secret),
        endpoint,
    };
    let made = !args.checked.dry_run;
    let code = match (made, invite.code()) {
        (true, None) => return Err(Error::internal("reading the invite").into()),
        (true, code) => code,
        (false, _) => None,
    };
    let expires_at_ms = crate::views::at_ms(answer.expires_at.as_ref());
    let setup_code = match (made, certificate, expires_at_ms) {
        (true, Some(sha256), Some(until_ms)) => Some(invite.setup_code(&sha256, until_ms)),
        _ => None,
    };
    let view = InviteView {
        invite_id: crate::views::text(&answer.invite_id),
        name: args.name,
        role: args.role,
        scopes: answer.scopes,
        endpoint: invite.endpoint.to_string(),
        setup_code,
        code,
        expires_at: crate::views::at(answer.expires_at.as_ref()),
        expires_at_ms,
    };
    show(context, &view, args.no_qr)
}

/// Where the other machine will dial: as given, else a name this stack is known by, else where its edge
/// listens.
fn address(context: &mut Context, args: &Args, client: &Client) -> Result<Endpoint, Failure> {
    if let Some(address) = &args.address {
        return Endpoint::parse(address);
    }
    let mut endpoint = client.endpoint.clone();
    if endpoint.local {
        let profile = context.profile()?;
        let config = Config::load(&profile.config_file())?;
        if let Some(name) = config.gateway.names.first() {
            endpoint = Endpoint::parse(&format!("{name}:{}", endpoint.port)).unwrap_or(endpoint);
        }
    }
    Ok(endpoint)
}

fn show(context: &mut Context, view: &InviteView, no_qr: bool) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.json(view);
    }
    let Some(code) = &view.code else {
        return context
            .out
            .line(&format!("{}: could be invited (dry run)", view.name));
    };
    if !no_qr && let Some(picture) = qr(code) {
        context.out.note(&picture);
    }
    let until = context.local().show_opt(view.expires_at_ms);
    let held = if view.scopes.is_empty() {
        "no scope".to_owned()
    } else {
        view.scopes.join(" ")
    };
    let here = ["127.", "localhost", "[::1]"];
    if here.iter().any(|prefix| view.endpoint.starts_with(prefix)) {
        context.out.note(
            "this address is of this machine alone; for another one set gateway.listen and gateway.names \
             in creel.toml, or give --address HOST:PORT",
        );
    }
    context.out.note(&format!(
        "lets one device in, as `{}` ({}, {held}), until {until}. On the other machine:",
        view.name, view.role
    ));
    context.out.line(&format!("creel join {code}"))?;
    if let Some(setup) = &view.setup_code {
        // Its command line reads no such code; its node host and its apps do.
        let command = if view.role == "node" {
            "openclaw node run --pair"
        } else {
            "its setup code"
        };
        context
            .out
            .note(&format!("or, for a client of OpenClaw: {command} {setup}"));
    }
    Ok(())
}
