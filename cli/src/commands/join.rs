//! `creel join CODE`: a device of another stack. The key is made here; the stack is believed when its root
//! is the one in the code; only then does the secret travel.

use std::{io::Read as _, sync::Arc};

use creel_kit::Profile;
use creel_proto::identity::v1::{
    Declaration, GetTrustBundleRequest, IssueCertificateResponse, RedeemInviteRequest, Role,
    ca_service_client::CaServiceClient, device_service_client::DeviceServiceClient,
};
use creel_wire::{
    Code, Error,
    channel::{Dialler, Target},
    names::sha256_hex,
    phrase,
    proof::{Signed, own_payload},
    tls::{edge_client, unproven_client},
};
use rcgen::SigningKey as _;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use tonic::Status;

use crate::{
    args::Join,
    client,
    context::Context,
    contexts::{self, Joined},
    credentials::{Files, Key},
    failure::Failure,
    invite_code::Invite,
    reach::{self, Endpoint},
    views::device::DeviceView,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JoinView {
    context: String,
    in_use: bool,
    endpoint: String,
    phrase: String,
    device: DeviceView,
}

pub(super) async fn run(context: &mut Context, args: Join) -> Result<(), Failure> {
    let code = if args.code == "-" {
        from_stdin()?
    } else {
        args.code
    };
    let mut invite = Invite::parse(&code)?;
    if let Some(address) = &args.address {
        invite.endpoint = Endpoint::parse(address)?;
    }
    let profile = context.profile()?;
    let name = args.context.unwrap_or_else(|| name_of(&invite.endpoint));
    let joined = Joined::named(&profile, &name)?;
    // A join whose answer was lost goes on with its key: for that one the code is still good.
    let begun = joined.files.load_key()?.filter(|_| !joined.files.cert.exists());
    if joined.exists() && begun.is_none() {
        let message = format!("there is a context `{name}` already");
        return Err(Error::new(Code::Conflict, "context_exists", message)
            .hint(format!(
                "give it another name: --context NAME; or forget the old one: creel leave {name}"
            ))
            .into());
    }
    let root = proven_root(context, &invite).await?;
    let key = match begun {
        Some(key) => key,
        None => Key::generate()?,
    };
    // Written before it is used: a key that is let in must not be lost.
    joined.keep_endpoint(&invite.endpoint)?;
    joined.files.keep_key(&key)?;
    let outcome = redeem(context, &invite, &root, &key).await;
    let answer = match outcome {
        Ok(answer) => answer,
        Err(failure) => {
            let undecided = matches!(
                failure.code(),
                Some(Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted)
            );
            if !undecided {
                joined.discard();
            }
            return Err(failure);
        }
    };
    client::keep(&joined.files, &answer)?;
    let device = answer.device.unwrap_or_default();
    let words = own_phrase(&key, &invite, &device.phrase_nonce)?;
    if words != device.phrase {
        let message = "the stack shows other words for this device than this machine works out";
        return Err(Error::new(Code::Unauthenticated, "phrase_mismatch", message)
            .hint("revoke it over there: creel devices list, creel devices revoke NAME")
            .into());
    }
    // The first stack this machine knows is the one that is meant.
    let alone = !Files::of_cli(&profile).cert.exists() && contexts::current(&profile)?.is_none();
    if alone {
        contexts::switch(&profile, &name)?;
    }
    let view = JoinView {
        context: name,
        in_use: alone,
        endpoint: invite.endpoint.to_string(),
        phrase: words,
        device: DeviceView::of(&device, Some(&device.device_id)),
    };
    show(context, &view)
}

fn show(context: &mut Context, view: &JoinView) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.json(view);
    }
    context.out.line(&format!(
        "{}: joined {} as `{}`, with {}",
        view.context,
        view.endpoint,
        view.device.name,
        if view.device.scopes.is_empty() {
            "no scope".to_owned()
        } else {
            view.device.scopes.join(" ")
        }
    ))?;
    context.out.line(&format!("six words: {}", view.phrase))?;
    context.out.note(&format!(
        "compare them with those that `creel devices show {}` shows over there",
        view.device.name
    ));
    if view.device.role == "node" {
        context
            .out
            .note("a node offers commands and calls none: no `creel` works by this context");
    }
    if !view.in_use {
        context
            .out
            .note(&format!("call it from now on: creel use {}", view.context));
    }
    Ok(())
}

/// The root of the stack at that address, if it is the one in the code.
async fn proven_root(context: &Context, invite: &Invite) -> Result<CertificateDer<'static>, Failure> {
    let tls = unproven_client().map_err(|error| Failure::internal("TLS", &error))?;
    let channel = dialler(&invite.endpoint, tls)?.channel();
    let profile = context.profile()?;
    let mut client = CaServiceClient::new(channel);
    let asked = client.get_trust_bundle(GetTrustBundleRequest {});
    let answer = tokio::time::timeout(context.call_time(), asked)
        .await
        .map_err(|_| too_slow(&invite.endpoint))?
        .map_err(|status| judge(&status, &invite.endpoint, &profile))?;
    let root = answer.into_inner().root_der;
    if sha256_hex(&root) != creel_wire::names::hex(&invite.root_fingerprint) {
        let message = format!("{} is not the stack that made this code", invite.endpoint);
        return Err(Error::new(Code::Unauthenticated, "server_not_trusted", message)
            .hint("check the address; somebody may stand in between")
            .into());
    }
    Ok(CertificateDer::from(root))
}

async fn redeem(
    context: &Context,
    invite: &Invite,
    root: &CertificateDer<'static>,
    key: &Key,
) -> Result<IssueCertificateResponse, Failure> {
    let tls = edge_client(root, None).map_err(|error| Failure::internal("TLS", &error))?;
    let dialler = dialler(&invite.endpoint, tls)?;
    let mut request = RedeemInviteRequest {
        secret: invite.secret.expose().clone(),
        csr_der: key.request()?,
        declared: Some(Declaration {
            display_name: client::device_name(),
            role: Role::Unspecified.into(),
            platform: std::env::consts::OS.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            client_id: "creel".to_owned(),
            client_mode: "cli".to_owned(),
            ..Declaration::default()
        }),
        signature: Vec::new(),
    };
    let profile = context.profile()?;
    let called = async {
        let (channel, exporter) = dialler
            .bound()
            .await
            .map_err(|status| judge(&status, &invite.endpoint, &profile))?;
        request.signature = sign(key, &request.secret, &exporter)?;
        let answer = DeviceServiceClient::new(channel).redeem_invite(request).await;
        answer.map_err(|status| judge(&status, &invite.endpoint, &profile))
    };
    let answer = tokio::time::timeout(context.call_time(), called)
        .await
        .map_err(|_| too_slow(&invite.endpoint))??;
    Ok(answer.into_inner())
}

/// Over the connection on which the invite is used: what a server in between passes on is refused. What the device
/// will be, the invite says.
fn sign(key: &Key, secret: &str, exporter: &[u8; 32]) -> Result<Vec<u8>, Failure> {
    let device = key.device_id();
    let signed = Signed {
        device: &device.ok_or_else(|| Error::internal("reading the device's key"))?,
        role: "unspecified",
        scopes: &[],
        nonce: "",
        secret,
    };
    let payload = own_payload(signed, exporter);
    key.pair
        .sign(&payload)
        .map_err(|error| Failure::internal("signing with the device's key", &error))
}

fn judge(status: &Status, endpoint: &Endpoint, profile: &Profile) -> Failure {
    let failure = reach::judge(status, endpoint, profile);
    match failure.error() {
        // The address is the code's, not that of a flag or a profile.
        Some(error) if error.reason == "unreachable" => failure
            .with_hint("check that the stack runs there; if it has another address: --address HOST:PORT"),
        _ => failure,
    }
}

fn dialler(endpoint: &Endpoint, tls: Arc<rustls::ClientConfig>) -> Result<Dialler, Failure> {
    let source = Arc::new(move || Arc::clone(&tls));
    Dialler::new(Target::Tcp(endpoint.to_string()), &endpoint.host, source)
        .map_err(|error| Failure::usage(error.to_string()))
}

fn too_slow(endpoint: &Endpoint) -> Failure {
    Error::new(
        Code::DeadlineExceeded,
        "timeout",
        format!("{endpoint} did not answer in time"),
    )
    .hint("--timeout D waits longer")
    .into()
}

fn own_phrase(key: &Key, invite: &Invite, nonce: &[u8]) -> Result<String, Failure> {
    let wrong = || Failure::from(Error::internal("working out the six words"));
    let public: [u8; 32] = key.pair.public_key_raw().try_into().map_err(|_| wrong())?;
    let nonce: [u8; 16] = nonce.try_into().map_err(|_| wrong())?;
    Ok(phrase::phrase(&public, &invite.root_fingerprint, &nonce))
}

/// What a context is called when nobody says: the host's first label, or its address.
fn name_of(endpoint: &Endpoint) -> String {
    let host = endpoint.host.trim_matches(['[', ']']);
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let label = if is_address {
        host
    } else {
        host.split('.').next().unwrap_or(host)
    };
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
            c
        } else {
            '-'
        }
    };
    let name: String = label.chars().take(60).map(safe).collect();
    match name.as_str() {
        "" | "local" | "current" => "stack".to_owned(),
        name if name.starts_with(|c: char| c.is_ascii_alphanumeric()) => name.to_owned(),
        name => format!("stack{name}"),
    }
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(4_096)
        .read_to_string(&mut text)
        .map_err(|error| Failure::internal("reading stdin", &error))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_named_after_its_host() {
        for (address, name) in [
            ("box.example.net:1", "box"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:1", "stack--1"),
            ("localhost:1", "localhost"),
            ("local.example:1", "stack"),
        ] {
            assert_eq!(name_of(&Endpoint::parse(address).unwrap()), name);
        }
    }
}
