//! The stack, called through its edge by this machine's device. The first call makes the device over
//! identity's local socket; a certificate past half its life is renewed on the way.

mod resume;

use std::{env, fs, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration};

use creel_kit::Profile;
use creel_proto::identity::v1::{
    BootstrapRequest, IssueCertificateResponse, RenewCertificateRequest,
    local_service_client::LocalServiceClient,
};
use creel_wire::{
    Code, Error, ServiceName,
    channel::{Dialler, Target},
    tls::{Tls, Trust, edge_client},
};
use rustix::fs::{FlockOperation, flock};
use tonic::{Response, Status, transport::Channel};

use crate::{
    context::Context,
    contexts::{self, Joined},
    credentials::{Device, Files, Key, bundle},
    failure::Failure,
    reach::{self, Endpoint},
    stubs,
};

pub(crate) use resume::{Following, Messages};

/// Attempts of a call that is told "not now".
const ATTEMPTS: u32 = 3;

/// A certificate that could not be renewed is mentioned when it ends within a week.
const WARN_MS: i64 = 7 * 86_400_000;

impl Context {
    /// The stack, ready to be called.
    pub(crate) async fn client(&mut self) -> Result<Client, Failure> {
        Client::open(self).await
    }
}

/// The stack.
pub(crate) struct Client {
    channel: Channel,
    pub(crate) endpoint: Endpoint,
    pub(crate) device: Device,
    pub(crate) files: Files,
    profile: Profile,
    call_time: Duration,
}

impl Client {
    /// Finds the edge and this machine's device, and makes or renews the device where needed. The edge
    /// itself is dialled by the first call.
    pub(crate) async fn open(context: &mut Context) -> Result<Self, Failure> {
        let profile = context.profile()?;
        if let Some(joined) = in_use(context, &profile)? {
            return Self::of_context(context, profile, &joined).await;
        }
        let endpoint = Endpoint::find(context.global.endpoint.as_deref(), &profile)?;
        let files = match env::var_os("CREEL_CREDENTIALS").filter(|dir| !dir.is_empty()) {
            Some(dir) => Files::of_script(Path::new(&dir)),
            None => Files::of_cli(&profile),
        };
        let own = files.dir == profile.cli_credentials();
        let now_ms = context.clock.now_ms();
        let device = match files.load()? {
            Some(device) if own && is_foreign(&device, &endpoint, &profile)? => None,
            Some(device) if own && device.is_over(now_ms) && endpoint.local => None,
            found => found,
        };
        let device = match device {
            Some(device) => device,
            None if own => bootstrap(&profile, &files, &endpoint, now_ms).await?,
            None => {
                let message = format!("no credentials in `{}`", files.dir.display());
                return Err(Error::new(Code::Unauthenticated, "no_credentials", message)
                    .hint("creel devices cert --name NAME --scope operator.read --out DIR")
                    .into());
            }
        };
        let mut client = Self::with(endpoint, device, files, profile, context.call_time())?;
        if own && client.device.is_due(now_ms) && !client.device.is_over(now_ms) {
            client.renew_on_the_way(context, now_ms).await;
        }
        Ok(client)
    }

    /// The stack of a context, by the device that joined it.
    async fn of_context(context: &mut Context, profile: Profile, joined: &Joined) -> Result<Self, Failure> {
        let now_ms = context.clock.now_ms();
        let endpoint = joined.endpoint()?;
        let device = joined
            .files
            .load()?
            .filter(|device| !device.is_over(now_ms))
            .ok_or_else(|| {
                let message = format!(
                    "the context `{}` has no certificate that is good (any more)",
                    joined.name
                );
                Failure::from(
                    Error::new(Code::Unauthenticated, "no_credentials", message)
                        .hint("ask for an invite and join again, or: creel use local"),
                )
            })?;
        let mut client = Self::with(
            endpoint,
            device,
            joined.files.clone(),
            profile,
            context.call_time(),
        )?;
        if client.device.is_due(now_ms) {
            client.renew_on_the_way(context, now_ms).await;
        }
        Ok(client)
    }

    /// A client of one device, whatever the profile has.
    pub(crate) fn with(
        endpoint: Endpoint,
        device: Device,
        files: Files,
        profile: Profile,
        call_time: Duration,
    ) -> Result<Self, Failure> {
        let tls = edge_client(&device.root, Some(&device.credentials))
            .map_err(|error| Failure::internal("TLS with this machine's credentials", &error))?;
        let source = Arc::new(move || Arc::clone(&tls));
        let dialler = Dialler::new(Target::Tcp(endpoint.to_string()), &endpoint.host, source)
            .map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self {
            channel: dialler.channel(),
            endpoint,
            device,
            files,
            profile,
            call_time,
        })
    }

    /// Makes one call within the limit of one call; again, with a copy of the request, when told "not
    /// now". So it must be safe to repeat: mutations carry a request id.
    pub(crate) async fn call<Q: Clone, T, F, R>(&self, request: &Q, call: F) -> Result<T, Failure>
    where
        F: Fn(Channel, Q) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(self.call_time, |channel| call(channel, request.clone()))
            .await
    }

    /// The same with a limit of its own.
    pub(crate) async fn call_within<T, F, R>(&self, limit: Duration, call: F) -> Result<T, Failure>
    where
        F: Fn(Channel) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let attempts = async {
            let mut attempt = 1;
            loop {
                match call(self.channel.clone()).await {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) if attempt < ATTEMPTS && reach::is_worth_repeating(&status) => {
                        tokio::time::sleep(Duration::from_millis(50) * attempt.pow(2)).await;
                        attempt += 1;
                    }
                    Err(status) => return Err(self.judge(&status)),
                }
            }
        };
        match tokio::time::timeout(limit, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!("no answer within {}", crate::times::took(millis(limit)));
                Err(Error::new(Code::DeadlineExceeded, "timeout", message)
                    .hint("creel status; --timeout D waits longer")
                    .into())
            }
        }
    }

    /// The device id of this machine.
    pub(crate) fn device_id(&self) -> Option<String> {
        let key = self.files.load_key().ok().flatten()?;
        key.device_id().map(|id| id.to_string())
    }

    /// What a failed call or a broken stream means.
    pub(crate) fn judge(&self, status: &Status) -> Failure {
        reach::judge(status, &self.endpoint, &self.profile)
    }

    /// A new certificate for the device's key, written to its files.
    pub(crate) async fn renew(&self) -> Result<IssueCertificateResponse, Failure> {
        let key = self.files.load_key()?.ok_or_else(|| {
            let message = format!("no key in `{}`", self.files.dir.display());
            Failure::from(Error::new(Code::NotFound, "no_key", message))
        })?;
        let csr_der = key.request()?;
        let request = RenewCertificateRequest {
            request_id: uuid::Uuid::now_v7().to_string(),
            validate_only: false,
            csr_der,
        };
        let answer = self
            .call(&request, |channel, request| async move {
                stubs::devices(channel).renew_certificate(request).await
            })
            .await?;
        keep(&self.files, &answer)?;
        Ok(answer)
    }

    async fn renew_on_the_way(&mut self, context: &mut Context, now_ms: i64) {
        if let Err(failure) = self.renew().await
            && self.device.until_ms - now_ms < WARN_MS
            && let Some(error) = failure.error()
        {
            let days = (self.device.until_ms - now_ms) / 86_400_000;
            context.out.note(&format!(
                "this machine's certificate ends in {days} days and can't be renewed: {error}"
            ));
        }
    }
}

/// A channel to identity's local socket, without a certificate.
///
/// # Errors
/// Exit 5 when there is no stack.
pub(crate) fn local_channel(profile: &Profile) -> Result<Channel, Failure> {
    let bundle = bundle(profile)?.ok_or_else(|| reach::not_running(profile))?;
    let wrong = |error| Failure::internal("the stack's trust bundle", &error);
    let trust = Trust::try_from(&bundle).map_err(wrong)?;
    let name = trust.domain.dns_name(ServiceName::Identity);
    let tls = Tls::new(trust, None).map_err(wrong)?;
    let target = Target::Unix(profile.socket(ServiceName::Identity));
    let dialler = Dialler::new(target, &name, Arc::new(move || tls.anonymous_client()))
        .map_err(|error| Failure::internal("identity's name", &error))?;
    Ok(dialler.channel())
}

/// Makes a call on the local socket; whoever isn't there is the stack itself.
pub(crate) async fn call_local<T>(
    profile: &Profile,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    let here = Endpoint {
        host: "identity's local socket".to_owned(),
        port: 0,
        local: true,
    };
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(reach::judge(&status, &here, profile)),
        Err(_) => Err(Error::new(
            Code::DeadlineExceeded,
            "timeout",
            "identity did not answer in time",
        )
        .hint("creel logs identity")
        .into()),
    }
}

/// `user@host`, what a device is called unless someone names it.
pub(crate) fn device_name() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Identity takes 64 printable characters.
    format!("{user}@{host}")
        .chars()
        .filter(|c| c.is_ascii_graphic())
        .take(64)
        .collect()
}

/// Writes a new certificate to a device's files.
pub(crate) fn keep(files: &Files, answer: &IssueCertificateResponse) -> Result<(), Failure> {
    match &answer.certificate {
        Some(certificate) => files.keep_certificate(certificate),
        None => Err(Error::internal("issuing a certificate").into()),
    }
}

/// The context in use, unless another stack or device was named for this call.
fn in_use(context: &Context, profile: &Profile) -> Result<Option<Joined>, Failure> {
    let named = |variable: &str| env::var_os(variable).is_some_and(|value| !value.is_empty());
    if context.global.endpoint.is_some() || named("CREEL_ENDPOINT") || named("CREEL_CREDENTIALS") {
        return Ok(None);
    }
    contexts::current(profile)
}

/// Whether the device belongs to an earlier stack of this profile.
fn is_foreign(device: &Device, endpoint: &Endpoint, profile: &Profile) -> Result<bool, Failure> {
    Ok(endpoint.local
        && bundle(profile)?.is_some_and(|bundle| bundle.root_der.as_slice() != device.root.as_ref()))
}

/// Makes this machine a device of the stack, over identity's local socket.
async fn bootstrap(
    profile: &Profile,
    files: &Files,
    endpoint: &Endpoint,
    now_ms: i64,
) -> Result<Device, Failure> {
    if !endpoint.local && !profile.socket(ServiceName::Identity).exists() {
        let message = format!("this machine has no credentials for {endpoint}");
        return Err(Error::new(Code::Unauthenticated, "no_credentials", message)
            .hint("creel devices cert --out DIR on the machine of the stack; here CREEL_CREDENTIALS=DIR")
            .into());
    }
    let channel = local_channel(profile)?;
    creel_kit::profile::private_dir(&files.dir)?;
    let _turn = take_turn(&files.dir)?;
    // Another `creel` may have been first.
    if let Some(device) = files.load()?
        && !device.is_over(now_ms)
        && !is_foreign(&device, endpoint, profile)?
    {
        return Ok(device);
    }
    let key = match files.load_key()? {
        Some(key) => key,
        None => {
            let key = Key::generate()?;
            files.keep_key(&key)?;
            key
        }
    };
    let request = BootstrapRequest {
        request_id: uuid::Uuid::now_v7().to_string(),
        csr_der: key.request()?,
        name: device_name(),
    };
    let mut local = LocalServiceClient::new(channel);
    let answer = call_local(profile, Duration::from_secs(10), local.bootstrap(request)).await?;
    keep(files, &answer)?;
    files
        .load()?
        .ok_or_else(|| Error::internal("keeping the new certificate").into())
}

/// One process at a time makes a device: two would mix the key of one with the certificate of the other.
fn take_turn(dir: &Path) -> Result<fs::File, Failure> {
    let path = dir.join(".lock");
    let open = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = open.map_err(|error| Failure::file("write", &path, &error))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| Failure::file("lock", &path, &error.into()))?;
    Ok(file)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
