//! `creeld up --detach` and `creeld down`: the supervisor without a terminal, and its end from outside.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use creel_kit::{Profile, profile::StatusFile};
use creel_sandbox::{Child, ChildSpec, Status, Target};
use jiff::{Timestamp, tz::TimeZone};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, chdir, pidfd_open, pidfd_send_signal, setsid},
    stdio::{dup2_stderr, dup2_stdout},
};
use tokio::time::Instant;

use crate::{
    child::own_binary,
    lock::{self, Holder},
    restart::{KILL_LIMIT, STOP_LIMIT},
    services::SERVICES,
};

/// How often `creeld down` looks at the drain, on a terminal.
const LOOK: Duration = Duration::from_millis(200);

/// Starts a supervisor of its own session and returns when it is ready, or can't be.
pub(crate) fn up(profile: &Profile) -> ExitCode {
    match start(profile) {
        Ok(code) => code,
        Err(error) => crate::fail(1, &format!("{error:#}")),
    }
}

fn start(profile: &Profile) -> anyhow::Result<ExitCode> {
    if let Some(holder) = lock::holder(&profile.lock_file()).context("the lock can't be used")? {
        anyhow::bail!("{}", already_running(profile, &holder));
    }
    let (mut read, write) = pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (File::from(read), write))?;
    let child = Child::spawn(ChildSpec {
        exe: own_binary()?,
        args: ["--profile", profile.name(), "up", "--detached"]
            .map(Into::into)
            .to_vec(),
        env: std::env::vars_os().collect(),
        stdout: Target::Fd(write.try_clone()?),
        stderr: Target::Fd(write),
        ..ChildSpec::default()
    })?;
    // It writes here as it would to a terminal, and lets go when it is ready, can't be, or ends.
    io::copy(&mut read, &mut io::stdout().lock())?;
    let status = read_status(profile).filter(|status| i32::try_from(status.pid) == Ok(child.pid()));
    if let Some(status) = status {
        let ready = status.services.iter().all(|one| one.state == "ready");
        return Ok(if ready {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(match runtime.block_on(child.wait())? {
        // It said why.
        Status::Code(code) if code != 0 => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Status::Code(_) => crate::fail(1, "it was told to end before it was ready"),
        Status::Signal(signal) => crate::fail(
            1,
            &format!("it was killed by signal {signal} before it was ready"),
        ),
        Status::Lost => crate::fail(1, "it ended before it was ready"),
    })
}

/// Makes this process independent of whoever started it. It still writes to them.
///
/// # Errors
/// What the system said.
pub(crate) fn leave_terminal(profile: &Profile) -> io::Result<()> {
    setsid()?;
    // Or the directory it was started in could not be unmounted.
    Ok(chdir(profile.root())?)
}

/// Stops writing to whoever started this process. What may still be printed is a panic.
///
/// # Errors
/// What the system said.
pub(crate) fn let_go(profile: &Profile) -> io::Result<()> {
    let path = profile.logs().join("supervisor.out");
    let out = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?.as_fd())?;
    Ok(dup2_stderr(out.as_fd())?)
}

/// For whoever wants to start a second one.
pub(crate) fn already_running(profile: &Profile, holder: &Holder) -> String {
    let since = Timestamp::from_millisecond(holder.since_unix_ms).unwrap_or_default();
    let since = since
        .to_zoned_datetime(TimeZone::system())
        .strftime("%F %H:%M:%S");
    format!(
        "profile `{}` is up already: process {} since {since}\n  `creeld down` ends it",
        profile.name(),
        holder.pid
    )
}

/// Ends the supervisor of a profile and returns when nothing is left of it.
pub(crate) fn down(profile: &Profile) -> ExitCode {
    match stop(profile) {
        Ok(said) => {
            crate::say(&said);
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(1, &format!("{error:#}")),
    }
}

fn stop(profile: &Profile) -> anyhow::Result<String> {
    let started = Instant::now();
    let look = || lock::holder(&profile.lock_file()).context("the lock can't be used");
    let stopped = || Ok(format!("stopped in {:.1} s", started.elapsed().as_secs_f64()));
    let Some(holder) = look()? else {
        return Ok(format!("profile `{}` is not up: nothing to stop", profile.name()));
    };
    let pid = Pid::from_raw(holder.pid).context("the lock names no process")?;
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return stopped(),
        other => other.with_context(|| format!("process {pid} can't be watched"))?,
    };
    // The id may have passed to another process before the handle was made. Not if the lock is still held.
    if look()? != Some(holder) {
        return stopped();
    }
    match pidfd_send_signal(&handle, Signal::TERM) {
        Err(Errno::SRCH) => return stopped(),
        other => other.with_context(|| format!("process {pid} can't be told to end"))?,
    }
    let progress = io::stderr().is_terminal();
    // One service after the other, each with its own limit.
    let services = u32::try_from(SERVICES.len())?;
    let limit = (STOP_LIMIT + KILL_LIMIT) * services + KILL_LIMIT;
    while !ended(&handle, LOOK)? {
        if progress {
            show_progress(profile);
        }
        if started.elapsed() > limit {
            anyhow::bail!(
                "process {pid} has not ended after {} s\n  `kill -9 {pid}` ends it and its services",
                limit.as_secs()
            );
        }
    }
    if progress {
        erase_progress();
    }
    stopped()
}

fn ended(handle: &impl std::os::fd::AsFd, within: Duration) -> anyhow::Result<bool> {
    let within = Timespec::try_from(within)?;
    match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&within)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("the supervisor can't be waited for"),
    }
}

fn read_status(profile: &Profile) -> Option<StatusFile> {
    serde_json::from_slice(&fs::read(profile.status_file()).ok()?).ok()
}

fn show_progress(profile: &Profile) {
    let left = read_status(profile).map_or_else(Vec::new, |status| status.services);
    let left: Vec<_> = left
        .iter()
        .filter(|one| one.pid != 0)
        .map(|one| one.name.as_str())
        .collect();
    let text = format!(
        "\r\x1b[Kwaiting for {}",
        if left.is_empty() {
            "the supervisor".to_owned()
        } else {
            left.join(", ")
        }
    );
    // Only a nicety.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn erase_progress() {
    let _ = io::stderr().write_all(b"\r\x1b[K");
}
