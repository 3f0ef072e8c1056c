//! `creel devices …`, `creel whoami`: who may call, and who we are. Certificates for scripts have a
//! file of their own.

use std::{io::Read as _, path::Path};

use creel_proto::{
    gateway::v1::WhoAmIRequest,
    identity::v1::{
        GetDeviceRequest, IssueCertificateResponse, ListDevicesRequest, RecoverRequest, RejectRequest,
        RenameDeviceRequest, RevokeDeviceRequest, RotateTokenRequest, WithdrawInviteRequest,
        local_service_client::LocalServiceClient,
    },
};
use serde::Serialize;

use super::{
    MAX_ROWS, PAGE, device_cert, device_invite, device_invites, device_requests, device_show, status,
};
use crate::{
    args::devices::Devices,
    client,
    context::{Context, request_id},
    credentials::{Files, Key},
    failure::Failure,
    stubs,
    times::Local,
    views::{device::DeviceView, text},
};

/// What identity answers for a key that was revoked: a new key may be let in, this one never.
const REVOKED: &str = "device_revoked";

pub(super) async fn run(context: &mut Context, command: Devices) -> Result<(), Failure> {
    match command {
        Devices::List { all } => list(context, all).await,
        Devices::Show { name } => device_show::run(context, name).await,
        Devices::Cert(args) => device_cert::run(context, args).await,
        Devices::Requests { follow } => device_requests::list(context, follow).await,
        Devices::Approve(args) => device_requests::approve(context, args).await,
        Devices::Reject {
            pairing,
            reason,
            checked,
            repeatable,
        } => {
            let request = RejectRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                pairing,
                reason,
            };
            device_requests::reject(context, request).await
        }
        Devices::Rotate {
            name,
            scopes,
            checked,
            repeatable,
        } => {
            let request = RotateTokenRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                device: name,
                scopes,
            };
            device_requests::rotate(context, request).await
        }
        Devices::Invite(args) => device_invite::run(context, args).await,
        Devices::Invites => device_invites::list(context).await,
        Devices::Uninvite {
            invite,
            checked,
            repeatable,
        } => {
            let request = WithdrawInviteRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                invite,
            };
            device_invites::withdraw(context, request).await
        }
        Devices::Revoke {
            name,
            reason,
            checked,
            repeatable,
            versioned,
        } => {
            let request = RevokeDeviceRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                device: name,
                reason,
            };
            revoke(context, request).await
        }
        Devices::Rename {
            name,
            new_name,
            checked,
            repeatable,
            versioned,
        } => {
            let request = RenameDeviceRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                device: name,
                name: new_name,
            };
            rename(context, request).await
        }
        Devices::Recover { code_file } => recover(context, code_file.as_deref()).await,
    }
}

async fn list(context: &mut Context, all: bool) -> Result<(), Failure> {
    let client = context.client().await?;
    let own = client.device_id();
    let mut devices = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListDevicesRequest {
            page_size: PAGE,
            page_token,
            include_revoked: all,
        };
        let page = client
            .call(&request, |channel, request| async move {
                stubs::devices(channel).list_devices(request).await
            })
            .await?;
        devices.extend(
            page.devices
                .iter()
                .map(|device| DeviceView::of(device, own.as_deref())),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() || devices.len() >= MAX_ROWS {
            break;
        }
    }
    if context.out.is_json() {
        return context.out.json(&devices);
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = devices.iter().map(|device| row(device, &local)).collect();
    context.out.table(
        &[
            "NAME",
            "ID",
            "ROLE",
            "SCOPES",
            "STATE",
            "CERTIFICATE UNTIL",
            "CAME BY",
        ],
        &rows,
    )
}

fn row(device: &DeviceView, local: &Local) -> Vec<String> {
    let mark = if device.current { " *" } else { "" };
    let scopes: Vec<&str> = device
        .scopes
        .iter()
        .map(|scope| scope.strip_prefix("operator.").unwrap_or(scope))
        .collect();
    vec![
        format!("{}{mark}", device.name),
        device.device_id.chars().take(12).collect(),
        device.role.clone(),
        scopes.join(" "),
        device.state.clone(),
        local.show_opt(device.certificate_expires_at_ms),
        device.origin.clone(),
    ]
}

async fn revoke(context: &mut Context, request: RevokeDeviceRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let own = client.device_id();
    if !context.global.yes && !request.validate_only {
        // Asked about what will really end: a name may be a prefix of an id.
        let which = GetDeviceRequest {
            device: request.device.clone(),
        };
        let device = client
            .call(&which, |channel, which| async move {
                stubs::devices(channel).get_device(which).await
            })
            .await?;
        let this = if own.as_deref() == Some(device.device_id.as_str()) {
            ", THIS machine"
        } else {
            ""
        };
        let short: String = device.device_id.chars().take(12).collect();
        context.out.confirm(
            false,
            &format!(
                "Revoke `{}` ({short}{this})? Its key is never let in again.",
                device.name
            ),
        )?;
    }
    let device = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).revoke(request).await
        })
        .await?;
    device_show::changed(context, &device, own.as_deref(), request.validate_only, "revoked")
}

async fn rename(context: &mut Context, request: RenameDeviceRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let own = client.device_id();
    let device = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).rename(request).await
        })
        .await?;
    device_show::changed(context, &device, own.as_deref(), request.validate_only, "renamed")
}

/// All scopes for this machine. Its key stays, unless it was revoked.
async fn recover(context: &mut Context, code_file: Option<&Path>) -> Result<(), Failure> {
    let profile = context.profile()?;
    // The rest of the stack may be down, or be what is wrong: identity alone is enough.
    let alone = |failure: Failure| match failure.error() {
        Some(error) if matches!(error.reason.as_ref(), "not_running" | "edge_not_ready") => {
            failure.with_hint("`creeld identity` in another terminal is enough; then: creel devices recover")
        }
        _ => failure,
    };
    let channel = client::local_channel(&profile).map_err(alone)?;
    let recovery_code = match code_file {
        Some(path) => code_in(path)?,
        None => context
            .out
            .ask_hidden("Recovery code (printed at the first start):")?,
    };
    if recovery_code.is_empty() {
        return Err(Failure::usage_hint(
            "no recovery code was given",
            "creel devices recover --code-file FILE",
        ));
    }
    let files = Files::of_cli(&profile);
    let limit = context.call_time();
    let ask = async |key: &Key| -> Result<IssueCertificateResponse, Failure> {
        let request = RecoverRequest {
            request_id: uuid::Uuid::now_v7().to_string(),
            recovery_code: recovery_code.clone(),
            csr_der: key.request()?,
            name: client::device_name(),
        };
        client::call_local(&profile, limit, recover_call(channel.clone(), request))
            .await
            .map_err(alone)
    };
    // A key is kept before it is told of: if the answer is lost, the next try is for the same device.
    let new_key = || -> Result<Key, Failure> {
        let key = Key::generate()?;
        files.keep_key(&key)?;
        Ok(key)
    };
    let key = files.load_key()?.map_or_else(new_key, Ok)?;
    let answer = match ask(&key).await {
        Err(failure) if failure.error().is_some_and(|error| error.reason == REVOKED) => {
            ask(&new_key()?).await?
        }
        answer => answer?,
    };
    client::keep(&files, &answer)?;
    let device = answer.device.unwrap_or_default();
    if context.out.is_json() {
        return context
            .out
            .json(&DeviceView::of(&device, Some(&device.device_id)));
    }
    context.out.line(&format!(
        "{}: recovered, with {}",
        device.name,
        device.scopes.join(" ")
    ))
}

async fn recover_call(
    channel: tonic::transport::Channel,
    request: RecoverRequest,
) -> Result<tonic::Response<IssueCertificateResponse>, tonic::Status> {
    LocalServiceClient::new(channel).recover(request).await
}

fn code_in(path: &Path) -> Result<String, Failure> {
    /// A code has a dozen characters.
    const MAX: u64 = 1_024;
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file("read", path, &error))?;
    Ok(text.trim().to_owned())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WhoAmIView {
    principal: String,
    person: Option<String>,
    name: Option<String>,
    scopes: Vec<String>,
    device_id: Option<String>,
    endpoint: String,
    credentials: String,
    certificate_expires_at: Option<String>,
    certificate_expires_at_ms: i64,
}

pub(super) async fn whoami(context: &mut Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&WhoAmIRequest {}, |channel, request| async move {
            stubs::status(channel).who_am_i(request).await
        })
        .await?;
    let cli = status::cli(&client);
    let view = WhoAmIView {
        principal: answer.principal,
        person: text(&answer.person),
        name: text(&answer.name),
        scopes: answer.scopes,
        device_id: cli.device_id,
        endpoint: client.endpoint.to_string(),
        credentials: client.files.dir.display().to_string(),
        certificate_expires_at: cli.certificate_expires_at,
        certificate_expires_at_ms: cli.certificate_expires_at_ms,
    };
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let local = context.local();
    let dash = || "-".to_owned();
    for (name, value) in [
        ("principal", view.principal),
        ("person", view.person.unwrap_or_else(dash)),
        ("name", view.name.unwrap_or_else(dash)),
        ("scopes", view.scopes.join(" ")),
        ("endpoint", view.endpoint),
        (
            "certificate",
            format!(
                "until {}, in {}",
                local.show(view.certificate_expires_at_ms),
                view.credentials
            ),
        ),
    ] {
        context.out.line(&format!("{name:<13}{value}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use creel_proto::identity::v1::Device;

    use super::*;
    use crate::times::tests::berlin;

    #[test]
    fn a_code_is_read_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code");
        std::fs::write(&path, "ABCD-EFGH\n").unwrap();
        assert_eq!(code_in(&path).unwrap(), "ABCD-EFGH");
        assert!(code_in(&dir.path().join("none")).is_err());
    }

    #[test]
    fn our_own_device_is_marked() {
        let device = Device {
            name: "box".into(),
            device_id: "ab".repeat(32),
            scopes: vec!["operator.read".into()],
            ..Device::default()
        };
        let row = row(&DeviceView::of(&device, Some(&device.device_id)), &berlin());
        assert_eq!(
            (row[0].as_str(), row[1].as_str(), row[3].as_str()),
            ("box *", "abababababab", "read")
        );
    }
}
