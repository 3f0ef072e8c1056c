//! `creeld up`: from the lock on the profile to the last process gone.

use std::{io, process::ExitCode, time::Duration};

use creel_kit::{Clock, Config, Profile, config::Log, logs::RotatingFile, service::EXIT_CONFIG};
use creel_sandbox::{become_subreaper, kill_descendants, reap_strays};
use creel_wire::ServiceName;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    detach,
    events::Events,
    files::clean_run,
    first_start::recovery_code,
    lock::{Lock, LockError},
    reload,
    services::SERVICES,
    stack::Stack,
    systemd,
    table::{REFRESH, View},
};

/// Exit status after a second interrupt, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the stack to its end.
pub(crate) fn up(profile: &Profile, detached: bool) -> ExitCode {
    let started = Instant::now();
    creel_wire::install_crypto();
    // Before anything is made: bad config leaves nothing behind.
    let config = match Config::load(&profile.config_file()) {
        Ok(config) => config,
        Err(error) => return crate::fail(EXIT_CONFIG, &crate::chain(&error)),
    };
    let (lock, code) = match prepare(profile, &config.log, detached) {
        Ok(prepared) => prepared,
        Err(error) => return crate::fail(1, &format!("{error:#}")),
    };
    let mut view = View::new();
    if let Some(code) = code {
        view.note(&format!(
            "recovery code: {code}\n  keep it: with it `creel devices recover` gives a new device all rights; it is shown only now"
        ));
    }
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(profile, config, started, view, detached)));
    // Whatever the services left behind, or what did not end in time.
    let left = kill_descendants(Duration::ZERO);
    if let Err(error) = clean_run(profile) {
        tracing::warn!(%error, "sockets are left behind");
    }
    drop(lock);
    match (outcome, left) {
        (Ok(code), Ok(0)) => code,
        (Ok(_), Ok(left)) => crate::fail(1, &format!("{left} processes could not be ended")),
        (Err(error), _) | (_, Err(error)) => crate::fail(1, &crate::chain(&error)),
    }
}

/// Directories, lock, log, recovery code.
fn prepare(profile: &Profile, log: &Log, detached: bool) -> anyhow::Result<(Lock, Option<String>)> {
    use anyhow::Context as _;
    let services: Vec<_> = SERVICES
        .iter()
        .map(|one| one.name)
        .chain([ServiceName::Supervisor])
        .collect();
    profile.create(&services)?;
    let lock = match Lock::take(&profile.lock_file(), Clock::system().now_ms()) {
        Ok(lock) => lock,
        Err(LockError::Held(holder)) => anyhow::bail!("{}", detach::already_running(profile, &holder)),
        Err(error) => return Err(error).context(profile.lock_file().display().to_string()),
    };
    if detached {
        detach::leave_terminal(profile).context("can't detach")?;
    }
    start_log(profile, log).context("can't log")?;
    clean_run(profile).with_context(|| format!("can't clean {}", profile.run().display()))?;
    let code = recovery_code(profile).context("can't keep the recovery code")?;
    become_subreaper().context("can't adopt orphans")?;
    Ok((lock, code))
}

/// To the file alone: the terminal belongs to the table.
fn start_log(profile: &Profile, log: &Log) -> anyhow::Result<()> {
    let path = profile.log_file(ServiceName::Supervisor);
    let writer = RotatingFile::open(&path, u64::from(log.rotate_mib) << 20, log.keep)?;
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(writer);
    tracing_subscriber::registry()
        .with(log.level.parse::<Targets>()?)
        .with(json)
        .try_init()?;
    Ok(())
}

async fn run(
    profile: &Profile,
    config: Config,
    started: Instant,
    view: View,
    detached: bool,
) -> io::Result<ExitCode> {
    let (events, mut queue) = Events::queue();
    let mut signals = Signals::new()?;
    let mut timers = Timers::new(view.is_live());
    if let Err(error) = reload::follow(profile, events.clone()) {
        tracing::warn!(%error, "creel.toml is not watched: send SIGHUP after a change");
    }
    let mut stack = Stack::new(profile.clone(), config, started, events, view);
    stack.begin();
    let mut attached = detached;
    loop {
        stack.refresh();
        if stack.is_gone() {
            break;
        }
        if attached && stack.report().is_settled() {
            detach::let_go(profile)?;
            attached = false;
        }
        let deadline = stack.deadline();
        tokio::select! {
            event = queue.recv() => {
                if let Some(event) = event {
                    stack.take(event);
                    // What else is there already goes into the same refresh.
                    while let Ok(event) = queue.try_recv() {
                        stack.take(event);
                    }
                }
            }
            signal = signals.next() => match signal {
                Told::Interrupt if stack.is_draining() => {
                    stack.kill();
                    stack.report().view().close();
                    return Ok(ExitCode::from(EXIT_INTERRUPTED));
                }
                Told::Interrupt => stack.drain("interrupted"),
                Told::Terminate => stack.drain("told to end"),
                Told::HangUp if stack.report().view().has_lost_terminal() => stack.drain("the terminal is gone"),
                Told::HangUp => stack.reload(true),
                Told::ChildEnded => {
                    let strays = reap_strays(&stack.pids())?;
                    if strays.killed > 0 {
                        tracing::warn!(killed = strays.killed, "killed what a service left behind");
                    }
                }
            },
            () = sleep_until(deadline.unwrap_or(started)), if deadline.is_some() => stack.tick(),
            timer = timers.next() => match timer {
                Timer::Figures => stack.report().show(),
                Timer::Alive => systemd::alive(),
            },
        }
    }
    let failed: Vec<_> = stack.failed().iter().map(|name| name.as_str()).collect();
    tracing::info!(?failed, "stopped");
    stack.report().view().close();
    if failed.is_empty() {
        stack.report().view().note("stopped");
        return Ok(ExitCode::SUCCESS);
    }
    let logs = profile.logs();
    stack.report().view().note(&format!(
        "stopped; failed before: {} (see {})",
        failed.join(", "),
        logs.display()
    ));
    Ok(ExitCode::FAILURE)
}

/// What somebody tells us by a signal.
enum Told {
    Interrupt,
    Terminate,
    HangUp,
    ChildEnded,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    child: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Interrupt,
            _ = self.terminate.recv() => Told::Terminate,
            _ = self.hang_up.recv() => Told::HangUp,
            _ = self.child.recv() => Told::ChildEnded,
        }
    }
}

/// What is due.
enum Timer {
    Figures,
    Alive,
}

/// Regular work; none without a terminal and a service manager that wants it.
struct Timers {
    figures: Option<Interval>,
    alive: Option<Interval>,
}

impl Timers {
    fn new(live: bool) -> Self {
        Self {
            figures: live.then(|| every(REFRESH)),
            alive: systemd::alive_every().map(every),
        }
    }

    async fn next(&mut self) -> Timer {
        tokio::select! {
            () = due(&mut self.figures) => Timer::Figures,
            () = due(&mut self.alive) => Timer::Alive,
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn due(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
