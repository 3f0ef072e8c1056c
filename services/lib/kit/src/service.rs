//! How a service runs, the same for all: config, clock, lockdown, store, certificate, audit, drain.

use std::{io, path::Path, process::ExitCode, sync::Arc, time::Duration};

use creel_sandbox::{LockSpec, Ports};
use creel_store::Store;
use creel_wire::{
    Secret, ServiceName,
    accept::{JudgeLocal, Listener},
    tls::{ClientAuth, Tls},
};
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    Clock, Config, Profile,
    audit_file::AuditFile,
    cert::Enrolment,
    config::{SERVICE_PORT, Transport},
    failure::chain,
    idempotency::Idempotency,
    metrics::Metrics,
    outbox::Outbox,
    peers::Peers,
    serving::{Common, serve_routes},
};

/// Exit status for a config that can't be used; a service manager must not start it again.
pub const EXIT_CONFIG: u8 = 78;

/// What a service is built from.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Who it is.
    pub name: ServiceName,
    /// Where its files lie.
    pub profile: Profile,
    /// What is deployed.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Clock,
    /// Its own store.
    pub store: Store,
    /// Its audit records.
    pub outbox: Outbox,
    /// Its answers by request id.
    pub idempotency: Idempotency,
    /// Its certificate and whom it trusts.
    pub tls: Arc<Tls>,
    /// The other services.
    pub peers: Peers,
    /// Its metrics.
    pub metrics: Metrics,
    /// Cancelled when it should stop.
    pub drain: CancellationToken,
}

/// A built service.
pub struct Built {
    /// What it serves on its own port.
    pub routes: Routes,
    /// What it does besides, until the drain. An error ends the process.
    pub run: BoxFuture<'static, anyhow::Result<()>>,
}

impl std::fmt::Debug for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Built").finish_non_exhaustive()
    }
}

/// Where a service's certificate comes from.
pub enum CertificateSource {
    /// From identity.
    Enrolled,
    /// It is identity: from its own CA. The function gets store, profile and clock.
    Own(Box<dyn FnOnce(OwnCertificate) -> BoxFuture<'static, anyhow::Result<Arc<Tls>>> + Send>),
}

/// What identity makes its own certificate from.
#[derive(Debug, Clone)]
pub struct OwnCertificate {
    /// Where its files lie.
    pub profile: Profile,
    /// Its store.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Stops the renewal.
    pub drain: CancellationToken,
}

/// How a service differs from the others.
pub struct Spec {
    /// Who it is.
    pub name: ServiceName,
    /// Where its certificate comes from.
    pub certificate: CertificateSource,
    /// Judges local processes without a certificate (identity's socket only).
    pub judge_local: Option<JudgeLocal>,
    /// Threads; 0 for one that does everything.
    pub threads: usize,
    /// What it may do after it has locked itself, besides its own directories.
    pub lock: Lock,
    /// Builds it.
    pub build: Box<dyn FnOnce(Deps) -> BoxFuture<'static, anyhow::Result<Built>> + Send>,
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spec")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a service may reach after its lockdown, besides its own state, credentials, log and sockets.
#[derive(Debug, Clone, Default)]
pub struct Lock {
    /// More directories to read and write; they are made if missing.
    pub write: Vec<std::path::PathBuf>,
    /// TCP ports it listens on, besides the service port where services talk TCP.
    pub tcp_bind: Ports,
    /// It has started a spawner, whose strays it must be able to end.
    pub has_spawner: bool,
}

/// How a store is opened; given by `creeld`, so that only it links an engine.
pub type OpenStore = fn(&Path) -> Result<Store, creel_store::Error>;

/// Runs a service to its end. The whole of its `main` after arguments were read.
#[must_use]
pub fn run(profile: Profile, spec: Spec, open_store: OpenStore) -> ExitCode {
    creel_wire::install_crypto();
    let name = spec.name;
    let config = match Config::load(&profile.config_file()) {
        Ok(config) => Arc::new(config),
        Err(error) => return fail(EXIT_CONFIG, name, &error),
    };
    if let Err(error) = profile.create(&[name]) {
        return fail(1, name, &error);
    }
    if let Err(error) = crate::logs::init(&config.log, &profile.log_file(name)) {
        return fail(1, name, error.as_ref());
    }
    // Before any thread exists: the walls are inherited by all that are made later.
    if let Err(error) = lockdown(&profile, &config, name, &spec.lock) {
        return fail(1, name, error.as_ref());
    }
    let mut builder = if spec.threads == 0 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(spec.threads);
        builder
    };
    let runtime = match builder
        .enable_all()
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, name, &error),
    };
    let outcome = runtime.block_on(serve(profile, config, spec, open_store));
    runtime.shutdown_timeout(Duration::from_millis(200));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, name, error.as_ref()),
    }
}

#[expect(clippy::print_stderr, reason = "the supervisor and people read it there")]
fn fail(status: u8, name: ServiceName, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let text = chain(error);
    tracing::error!(error = %text, "{name} stops");
    let hint = hint_of(error).map_or_else(String::new, |hint| format!("\n  {hint}"));
    eprintln!("{name}: {text}{hint}");
    ExitCode::from(status)
}

/// The next step of a failed start, if its cause knows one.
fn hint_of(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(hint) = error
            .downcast_ref::<creel_store::Error>()
            .and_then(creel_store::Error::hint)
        {
            return Some(hint);
        }
        cause = error.source();
    }
    None
}

fn lockdown(profile: &Profile, config: &Config, name: ServiceName, lock: &Lock) -> anyhow::Result<()> {
    for dir in &lock.write {
        crate::profile::private_dir(dir)?;
    }
    let own = [
        profile.state(name),
        profile.credentials(name),
        profile.logs(),
        profile.run(),
    ];
    let tcp = config.network.transport == Transport::Tcp;
    // Endpoints may name any port, and name resolution over TCP its own.
    let far = tcp
        || config
            .endpoints
            .values()
            .any(|target| !target.starts_with("unix:"));
    let report = creel_sandbox::lock_service(&LockSpec {
        read: vec![profile.public()],
        write: [own.to_vec(), lock.write.clone()].concat(),
        tcp_bind: match &lock.tcp_bind {
            Ports::Any => Ports::Any,
            Ports::Only(ports) if tcp => Ports::Only([ports.as_slice(), &[SERVICE_PORT]].concat()),
            Ports::None if tcp => Ports::Only(vec![SERVICE_PORT]),
            other => other.clone(),
        },
        tcp_connect: if far { Ports::Any } else { Ports::None },
        low_ports: false,
        has_spawner: lock.has_spawner,
    })?;
    if !report.gaps.is_empty() {
        tracing::warn!(gaps = ?report.gaps, "the kernel can't raise all walls around this service");
    }
    Ok(())
}

async fn serve(
    profile: Profile,
    config: Arc<Config>,
    spec: Spec,
    open_store: OpenStore,
) -> anyhow::Result<()> {
    let Spec {
        name,
        certificate,
        judge_local,
        build,
        ..
    } = spec;
    let clock = Clock::system();
    let drain = crate::drain::on_signals()?;
    let join_secret = join_secret(&drain)?;
    wait_for_time(&clock, &drain).await;
    let listener = bind(&profile, &config, name)?;
    let store = open_store(&profile.state(name).join("db"))?;
    let metrics = Metrics::new(name);
    let optional = matches!(certificate, CertificateSource::Own(_));
    let tls = match certificate {
        CertificateSource::Own(make) => {
            make(OwnCertificate {
                profile: profile.clone(),
                store: store.clone(),
                clock: clock.clone(),
                drain: drain.clone(),
            })
            .await?
        }
        CertificateSource::Enrolled => {
            let enrolment = Enrolment {
                profile: profile.clone(),
                config: Arc::clone(&config),
                name,
                join_secret,
                clock: clock.clone(),
            };
            let tls = tokio::select! {
                tls = enrolment.tls() => tls?,
                () = drain.cancelled() => return Ok(()),
            };
            tokio::spawn(enrolment.keep_fresh(Arc::clone(&tls), metrics.clone(), drain.clone()));
            tls
        }
    };
    let outbox = Outbox::open(store.clone(), name, clock.clone(), metrics.clone()).await?;
    let stopped = CancellationToken::new();
    let shipping = tokio::spawn(
        outbox
            .clone()
            .run(AuditFile::new(profile.audit_file()), stopped.clone()),
    );
    let idempotency = Idempotency::new(store.clone(), clock.clone());
    tokio::spawn(sweep(idempotency.clone(), drain.clone()));
    tokio::spawn(crate::rest::run(store.clone(), drain.clone()));
    let deps = Deps {
        name,
        peers: Peers::new(profile.clone(), Arc::clone(&config), Arc::clone(&tls)),
        profile,
        config,
        clock: clock.clone(),
        store,
        outbox: outbox.clone(),
        idempotency,
        tls: Arc::clone(&tls),
        metrics: metrics.clone(),
        drain: drain.clone(),
    };
    let built = build(deps).await?;
    let clients = if optional {
        ClientAuth::Optional
    } else {
        ClientAuth::Required
    };
    let serving = tokio::spawn(serve_routes(
        built.routes,
        listener,
        clients,
        judge_local,
        Common {
            tls,
            clock,
            metrics,
            outbox,
            drain: drain.clone(),
        },
    ));
    tracing::info!(version = crate::VERSION, "ready");
    // A task, so that where there are threads, a connection is served by the one that accepted it.
    let mut running = tokio::spawn(built.run);
    let outcome = tokio::select! {
        outcome = &mut running => outcome.map_err(anyhow::Error::from).flatten(),
        () = drain_over(&drain) => Ok(()),
    };
    running.abort();
    drain.cancel();
    let _ = serving.await; // a panic inside was logged by its hook
    stopped.cancel();
    let _ = shipping.await;
    tracing::info!("stopped");
    outcome
}

/// A service that does not end by itself is left behind so long after the drain began.
async fn drain_over(drain: &CancellationToken) {
    drain.cancelled().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
}

/// The join secret: a first line `join HEX` on stdin from the supervisor, or the file of
/// `CREEL_JOIN_FILE`. Under a supervisor, the end of stdin is its end.
fn join_secret(drain: &CancellationToken) -> anyhow::Result<Option<Secret<Vec<u8>>>> {
    if let Some(path) = std::env::var_os("CREEL_JOIN_FILE") {
        return match std::fs::read_to_string(&path) {
            Ok(text) => Ok(unhex(text.trim()).map(Secret::new)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
    if std::env::var_os("CREEL_SUPERVISED").is_none() {
        return Ok(None);
    }
    // Unbuffered, byte by byte: nothing after the line may be swallowed.
    let mut line = Vec::new();
    let mut byte = [0_u8; 1];
    while line.len() < 256 && rustix::io::read(rustix::stdio::stdin(), &mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    crate::drain::on_parent_gone(drain.clone());
    let text = String::from_utf8_lossy(&line);
    Ok(text
        .strip_prefix("join ")
        .and_then(|hex| unhex(hex.trim()))
        .map(Secret::new))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// Before the clock has been set nothing signed is valid: wait instead of failing over and over.
async fn wait_for_time(clock: &Clock, drain: &CancellationToken) {
    let mut told = false;
    while !clock.is_plausible() && !drain.is_cancelled() {
        if !told {
            tracing::warn!(now = %clock.now(), built = crate::BUILT_AT_UNIX, "waiting for time sync: the clock is before this build");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn bind(profile: &Profile, config: &Config, name: ServiceName) -> anyhow::Result<Listener> {
    use std::os::unix::fs::PermissionsExt as _;
    match config.network.transport {
        Transport::Unix => {
            let path = profile.socket(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(
                        anyhow::Error::from(error).context(format!("can't replace {}", path.display()))
                    );
                }
                _ => {}
            }
            let listener = UnixListener::bind(&path).map_err(|error| {
                anyhow::Error::from(error).context(format!("can't listen on {}", path.display()))
            })?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(Listener::Unix(listener))
        }
        Transport::Tcp => {
            let listener = std::net::TcpListener::bind(("0.0.0.0", SERVICE_PORT))?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Tcp(TcpListener::from_std(listener)?))
        }
    }
}

async fn sweep(idempotency: Idempotency, drain: CancellationToken) {
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
        }
        if let Err(error) = idempotency.sweep().await {
            tracing::warn!(error = %chain(&error), "old answers not swept");
        }
    }
}
