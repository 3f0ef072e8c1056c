//! `creel devices requests|approve|reject|rotate`: devices that wait, and tokens.

use creel_proto::identity::v1::{
    ApproveRequest, DeviceEvent, DeviceEventKind, ListRequestsRequest, RejectRequest, RotateTokenRequest,
    WatchDevicesRequest,
};
use serde::Serialize;

use super::device_show::changed;
use crate::{
    args::devices::Approve,
    context::{Context, request_id},
    failure::Failure,
    stubs,
    times::Local,
    views::{
        self,
        device::{DeviceView, RequestView},
    },
};

pub(super) async fn list(context: &mut Context, follow: bool) -> Result<(), Failure> {
    if follow {
        return watch(context).await;
    }
    let client = context.client().await?;
    let answer = client
        .call(&ListRequestsRequest {}, |channel, request| async move {
            stubs::devices(channel).list_requests(request).await
        })
        .await?;
    let requests: Vec<RequestView> = answer.requests.iter().map(RequestView::from).collect();
    if context.out.is_json() {
        return context.out.json(&requests);
    }
    if requests.is_empty() {
        context
            .out
            .note("nobody waits; creel devices invite --name NAME lets one in");
        return Ok(());
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = requests.iter().map(|request| row(request, &local)).collect();
    let header = ["ID", "NAME", "ROLE", "ASKS FOR", "FROM", "SIX WORDS", "UNTIL"];
    context.out.table(&header, &rows)?;
    context
        .out
        .note("compare the six words with those the device shows, then: creel devices approve ID");
    Ok(())
}

fn row(request: &RequestView, local: &Local) -> Vec<String> {
    let name = request.name.clone().unwrap_or_else(|| "-".to_owned());
    let upgrade = if request.reason == "not_paired" {
        ""
    } else {
        " (wants more)"
    };
    let scopes = request
        .scopes
        .iter()
        .map(|scope| scope.strip_prefix("operator.").unwrap_or(scope).to_owned());
    let asks: Vec<String> = scopes.chain(request.surface.commands.iter().cloned()).collect();
    vec![
        views::short(&request.pairing_id),
        format!("{name}{upgrade}"),
        request.role.clone(),
        asks.join(" "),
        request.remote_address.clone(),
        request.phrase.clone(),
        local.show_opt(request.expires_at_ms),
    ]
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView {
    sequence: u64,
    kind: String,
    request: Option<RequestView>,
    device: Option<DeviceView>,
}

/// Changes as they come, until the stack or the reader ends.
async fn watch(context: &mut Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let mut stream = client
        .call(&WatchDevicesRequest {}, |channel, request| async move {
            stubs::devices(channel).watch(request).await
        })
        .await?;
    loop {
        match stream.message().await {
            Ok(Some(event)) => told(context, &event)?,
            Ok(None) => return Ok(()),
            Err(status) => return Err(client.judge(&status)),
        }
    }
}

fn told(context: &mut Context, event: &DeviceEvent) -> Result<(), Failure> {
    let kind = crate::views::word(event.kind().as_str_name(), "DEVICE_EVENT_KIND_");
    if context.out.is_json() {
        return context.out.json_line(&EventView {
            sequence: event.sequence,
            kind,
            request: event.request.as_ref().map(RequestView::from),
            device: event.device.as_ref().map(|device| DeviceView::of(device, None)),
        });
    }
    match (event.kind(), &event.request, &event.device) {
        (DeviceEventKind::Ready, ..) => Ok(()),
        (_, Some(request), _) => {
            let view = RequestView::from(request);
            let name = view.name.unwrap_or(view.device_id);
            context
                .out
                .line(&format!("{kind:<10}{}  {name}  {}", view.pairing_id, view.phrase))
        }
        (_, None, Some(device)) => context.out.line(&format!(
            "{kind:<10}{}  {}",
            device.name,
            DeviceView::of(device, None).state
        )),
        (_, None, None) => context.out.line(&kind),
    }
}

pub(super) async fn approve(context: &mut Context, args: Approve) -> Result<(), Failure> {
    let client = context.client().await?;
    let request = ApproveRequest {
        request_id: request_id(&args.repeatable),
        validate_only: args.checked.dry_run,
        if_match: args.versioned.if_match.unwrap_or_default(),
        pairing: args.pairing,
        scopes: args.scopes,
        commands: args.commands,
        caps: args.caps,
        chosen: false,
        name: args.name.unwrap_or_default(),
        person: args.person.unwrap_or_default(),
    };
    let device = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).approve(request).await
        })
        .await?;
    if !context.out.is_json() {
        let surface = device.surface.clone().unwrap_or_default();
        let held: Vec<String> = device.scopes.iter().cloned().chain(surface.commands).collect();
        context.out.note(&format!(
            "it has: {}",
            if held.is_empty() {
                "nothing".into()
            } else {
                held.join(" ")
            }
        ));
    }
    changed(context, &device, None, request.validate_only, "let in")
}

pub(super) async fn reject(context: &mut Context, request: RejectRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let rejected = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).reject(request).await
        })
        .await?;
    let view = RequestView::from(&rejected);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let done = if request.validate_only {
        "would be sent away (dry run)"
    } else {
        "sent away"
    };
    let name = view.name.unwrap_or(view.pairing_id);
    context.out.line(&format!("{name}: {done}"))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenView {
    device: DeviceView,
    token: Option<String>,
    scopes: Vec<String>,
}

pub(super) async fn rotate(context: &mut Context, request: RotateTokenRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let own = client.device_id();
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).rotate_token(request).await
        })
        .await?;
    let device = answer.device.unwrap_or_default();
    if context.out.is_json() {
        return context.out.json(&TokenView {
            device: DeviceView::of(&device, own.as_deref()),
            token: crate::views::text(&answer.token),
            scopes: answer.scopes,
        });
    }
    if request.validate_only {
        return context
            .out
            .line(&format!("{}: would get a new token (dry run)", device.name));
    }
    context.out.note(&format!(
        "{}: its new token, shown once, for {}; worthless without the device's key",
        device.name,
        answer.scopes.join(" ")
    ));
    context.out.line(&answer.token)
}
