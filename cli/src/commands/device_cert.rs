//! `creel devices cert`: a device for a script, as files; and its renewal, safe in a cron job.

use std::{fs, path::Path};

use creel_kit::profile::{private_dir, write_private};
use creel_proto::{
    gateway::v1::{WhoAmIRequest, status_service_client::StatusServiceClient},
    identity::v1::IssueCertificateRequest,
    time,
};
use creel_wire::{Code, Error, names::parse_scopes};
use serde::Serialize;
use serde_json::json;

use crate::{
    args::devices::{Cert, CertCommand},
    client::Client,
    context::{Context, request_id},
    credentials::{Files, Key, bundle},
    failure::Failure,
    reach::Endpoint,
    shell::quoted,
    stubs, times,
    views::device::DeviceView,
};

const DAY_MS: i64 = 86_400_000;

pub(super) async fn run(context: &mut Context, args: Cert) -> Result<(), Failure> {
    match args.renew {
        Some(CertCommand::Renew { dir, force }) => renew(context, &dir, force).await,
        None => issue(context, &args).await,
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertView {
    device: DeviceView,
    directory: String,
    ca: String,
    cert: String,
    key: String,
    env: String,
    endpoint: String,
    certificate_expires_at: Option<String>,
    certificate_expires_at_ms: Option<i64>,
    /// A line to try it with.
    try_it: String,
    written: bool,
}

async fn issue(context: &mut Context, args: &Cert) -> Result<(), Failure> {
    let (Some(name), Some(out)) = (&args.name, &args.out) else {
        return Err(Failure::usage("--name and --out are needed"));
    };
    parse_scopes(&args.scopes).map_err(|error| {
        let all: Vec<_> = creel_wire::Scope::ALL
            .iter()
            .map(|scope| scope.as_str())
            .collect();
        Failure::usage_hint(error.to_string(), format!("one of {}", all.join(", ")))
    })?;
    let out = std::path::absolute(out).map_err(|error| Failure::file("find", out, &error))?;
    let files = Files::of_script(&out);
    let env = out.join("env.sh");
    let there: Vec<&Path> = [&files.key, &files.cert, &files.trust, &env]
        .into_iter()
        .filter(|path| path.exists())
        .map(|path| path.as_path())
        .collect();
    if let Some(first) = there.first()
        && !context.global.yes
    {
        let message = format!("`{}` is there already", first.display());
        return Err(Error::new(Code::Conflict, "file_exists", message)
            .hint(format!(
                "creel devices cert renew {}, another --out, or --yes to replace it",
                out.display()
            ))
            .into());
    }
    let key = Key::generate()?;
    let request = IssueCertificateRequest {
        request_id: request_id(&args.repeatable),
        validate_only: args.checked.dry_run,
        csr_der: key.request()?,
        name: name.clone(),
        scopes: args.scopes.clone(),
        lifetime: Some(time::duration(i64::from(args.days) * DAY_MS)),
    };
    let client = context.client().await?;
    if !args.checked.dry_run {
        // A directory that can't be written to should fail before a device is made for it.
        private_dir(&out)?;
    }
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::devices(channel).issue_certificate(request).await
        })
        .await?;
    let device = answer.device.clone().unwrap_or_default();
    if !args.checked.dry_run {
        files.keep_key(&key)?;
        crate::client::keep(&files, &answer)?;
        let script = env_script(name, &files, &client.endpoint);
        write_private(&env, script.as_bytes()).map_err(|error| Failure::file("write", &env, &error))?;
    }
    let shown = |path: &Path| path.display().to_string();
    let view = CertView {
        certificate_expires_at: crate::views::at(device.certificate_expires_at.as_ref()),
        certificate_expires_at_ms: crate::views::at_ms(device.certificate_expires_at.as_ref()),
        device: DeviceView::of(&device, None),
        directory: shown(&out),
        ca: shown(&files.trust),
        cert: shown(&files.cert),
        key: shown(&files.key),
        env: shown(&env),
        try_it: grpcurl(&files, &client.endpoint),
        endpoint: client.endpoint.to_string(),
        written: !args.checked.dry_run,
    };
    show(context, &view)
}

fn show(context: &mut Context, view: &CertView) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.json(view);
    }
    let local = context.local();
    if !view.written {
        context.out.note("dry run: nothing was written");
    }
    let until = local.show_opt(view.certificate_expires_at_ms);
    context.out.line(&format!(
        "{}: {}, until {until}",
        view.device.name,
        view.device.scopes.join(" ")
    ))?;
    context.out.line(&format!("files: {}", view.directory))?;
    context.out.line(&format!("try:   {}", view.try_it))?;
    context.out.note(&format!(
        "renew it from a cron job with: creel devices cert renew {}",
        quoted(&view.directory)
    ));
    Ok(())
}

async fn renew(context: &mut Context, dir: &Path, force: bool) -> Result<(), Failure> {
    let dir = std::path::absolute(dir).map_err(|error| Failure::file("find", dir, &error))?;
    let files = Files::of_script(&dir);
    let device = files.load()?.ok_or_else(|| {
        let message = format!("`{}` holds no ca.pem, cert.pem and key.pem", dir.display());
        Failure::from(
            Error::new(Code::NotFound, "no_credentials", message)
                .hint("creel devices cert --out DIR makes them"),
        )
    })?;
    let now_ms = context.clock.now_ms();
    let until_ms = device.until_ms;
    if device.is_over(now_ms) {
        let message = format!(
            "the certificate in `{}` has ended: it can't renew itself any more",
            dir.display()
        );
        return Err(Error::new(Code::FailedPrecondition, "certificate_ended", message)
            .hint("creel devices revoke NAME, then creel devices cert --name NAME --out DIR --yes")
            .into());
    }
    let due = device.is_due(now_ms) || force;
    let profile = context.profile()?;
    let endpoint = endpoint_of(context, &dir, &device.root)?;
    let client = Client::with(endpoint, device, files, profile, context.call_time())?;
    let until_ms = if due {
        let renewed = client.renew().await?.device;
        let until = renewed
            .as_ref()
            .and_then(|device| device.certificate_expires_at.as_ref());
        until.map_or(until_ms, time::unix_ms)
    } else {
        // A device that was revoked should be heard of at the next run, not at half of its life.
        client
            .call(&WhoAmIRequest {}, |channel, request| async move {
                StatusServiceClient::new(channel).who_am_i(request).await
            })
            .await?;
        until_ms
    };
    if context.out.is_json() {
        return context.out.json(&json!({
            "directory": dir.display().to_string(),
            "renewed": due,
            "certificateExpiresAt": times::rfc3339(until_ms),
            "certificateExpiresAtMs": until_ms,
        }));
    }
    let done = if due {
        "renewed"
    } else {
        "not due yet, and still let in"
    };
    context.out.line(&format!(
        "{}: {done}, until {}",
        dir.display(),
        context.local().show(until_ms)
    ))
}

/// Which edge to ask: the one given; that of the profile when it is the same stack (its port may have
/// changed); else what the files say.
fn endpoint_of(context: &Context, dir: &Path, root: &[u8]) -> Result<Endpoint, Failure> {
    let profile = context.profile()?;
    let given = context.global.endpoint.is_some()
        || std::env::var_os("CREEL_ENDPOINT").is_some_and(|text| !text.is_empty());
    let same = bundle(&profile)?.is_some_and(|bundle| bundle.root_der == root);
    if !given
        && !same
        && let Some(text) = fs::read_to_string(dir.join("env.sh"))
            .ok()
            .and_then(|script| endpoint_in(&script))
    {
        return Endpoint::parse(&text);
    }
    Endpoint::find(context.global.endpoint.as_deref(), &profile)
}

/// What a shell sources: creel and grpcurl then act as this device.
fn env_script(name: &str, files: &Files, endpoint: &Endpoint) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let shown = |path: &Path| quoted(&path.display().to_string());
    format!(
        "# A device of Creel: {name}. Source this file; creel and the line below then act as that device.\n\
         #   grpcurl -cacert \"$CREEL_CA\" -cert \"$CREEL_CERT\" -key \"$CREEL_KEY\" \"$CREEL_ENDPOINT\" list\n\
         export CREEL_ENDPOINT={}\n\
         export CREEL_CREDENTIALS={}\n\
         export CREEL_CA={}\n\
         export CREEL_CERT={}\n\
         export CREEL_KEY={}\n",
        quoted(&endpoint.to_string()),
        shown(&files.dir),
        shown(&files.trust),
        shown(&files.cert),
        shown(&files.key),
    )
}

fn endpoint_in(script: &str) -> Option<String> {
    let line = script
        .lines()
        .find_map(|line| line.strip_prefix("export CREEL_ENDPOINT="))?;
    Some(line.trim().trim_matches('\'').to_owned())
}

fn grpcurl(files: &Files, endpoint: &Endpoint) -> String {
    let shown = |path: &Path| quoted(&path.display().to_string());
    let (ca, cert, key) = (shown(&files.trust), shown(&files.cert), shown(&files.key));
    format!("grpcurl -cacert {ca} -cert {cert} -key {key} {endpoint} list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_can_be_sourced_and_read_back() {
        let files = Files::of_script(Path::new("/home/o'neil/ci"));
        let endpoint = Endpoint::parse("[::1]:7").unwrap();
        let script = env_script("ci\n$(rm)", &files, &endpoint);
        assert!(
            script.contains("export CREEL_KEY='/home/o'\\''neil/ci/key.pem'\n"),
            "{script}"
        );
        assert!(
            script
                .lines()
                .all(|line| line.starts_with('#') || line.starts_with("export CREEL_")),
            "{script}"
        );
        assert_eq!(endpoint_in(&script).as_deref(), Some("[::1]:7"));
        let plain = env_script(
            "ci",
            &Files::of_script(Path::new("/x")),
            &Endpoint::parse("box:7").unwrap(),
        );
        assert_eq!(endpoint_in(&plain).as_deref(), Some("box:7"));
    }

    #[test]
    fn the_line_to_try_is_one_line_of_shell() {
        let line = grpcurl(
            &Files::of_script(Path::new("/tmp/a b")),
            &Endpoint::parse("127.0.0.1:1").unwrap(),
        );
        assert_eq!(
            line,
            "grpcurl -cacert '/tmp/a b/ca.pem' -cert '/tmp/a b/cert.pem' -key '/tmp/a b/key.pem' 127.0.0.1:1 list"
        );
    }
}
