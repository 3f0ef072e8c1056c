//! The program the sandbox's own tests run: dispatched as `creeld` is, and a few roles on top.
//!
//! `service` and `supervisor` play the upper links of the chain; `docker` puts the conditions of a container around
//! the rest of its command line; `lock` is a service that locks itself; `hog` uses memory; `bench` measures.

#![allow(unsafe_code, reason = "the outer conditions need calls that no library wraps")]
#![allow(clippy::print_stdout, reason = "what the tests read")]

mod bench;
mod docker;
mod lock;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow_lite::{Result, err};
use creel_sandbox::{Child, ChildSpec, Command, Io, Profile, RunError, Spawner, Target};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    if let Some(code) = creel_sandbox::dispatch_early(std::env::args_os()) {
        return code;
    }
    let mut args = std::env::args_os().skip(1);
    let role = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    let result = match role.to_str() {
        Some("service") => service(&rest),
        Some("enforce") => return report(&rest),
        Some("supervisor") => supervisor(rest),
        Some("docker") => docker::run(&rest),
        Some("lock") => lock::run(&rest),
        Some("hog") => hog(&rest),
        Some("bench") => bench::run(&rest),
        _ => err("usage: creel-sandbox-bed ROLE …"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "creel-sandbox-bed: {e}");
            ExitCode::FAILURE
        }
    }
}

/// `service PROFILE.json PROGRAM ARGS…`: starts one run, prints the chain's pids, waits for its end.
fn service(args: &[OsString]) -> Result<()> {
    let [profile, argv @ ..] = args else {
        return err("service PROFILE.json PROGRAM ARGS…");
    };
    let profile: Profile = serde_json::from_str(&std::fs::read_to_string(profile)?)?;
    let spawner = Spawner::start(&me())?;
    runtime()?.block_on(async {
        let mut command = Command::new(argv.iter().cloned(), "/", profile);
        command.stdout = Io::Fd(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?);
        command.stderr = Io::Fd(std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned()?);
        let run = spawner.run(command).await?;
        let line = serde_json::json!({
            "service": std::process::id(), "spawner": spawner.pid(), "init": run.init_pid(), "main": run.pid(),
        });
        println!("{line}");
        let finished = run.wait().await?;
        let code = finished.exit.shell_code();
        spawner.shutdown().await;
        if code == 0 { Ok(()) } else { err(&format!("the run ended with {code}")) }
    })
}

/// `enforce PROFILE.json PROGRAM ARGS…`: runs it and prints what stood around it and how it ended, or
/// why it did not run.
fn report(args: &[OsString]) -> ExitCode {
    let run = || -> Result<ExitCode> {
        let [profile, argv @ ..] = args else {
            return err("enforce PROFILE.json PROGRAM ARGS…");
        };
        let profile: Profile = serde_json::from_str(&std::fs::read_to_string(profile)?)?;
        let spawner = Spawner::start(&me())?;
        runtime()?.block_on(async {
            match spawner
                .run(Command::new(argv.iter().cloned(), "/", profile))
                .await
            {
                Ok(run) => {
                    println!("{}", serde_json::to_string(run.enforced())?);
                    let exit = run.wait().await?.exit;
                    println!("{}", serde_json::to_string(&exit)?);
                    Ok(ExitCode::from(u8::try_from(exit.shell_code())?))
                }
                Err(RunError::Refused(refusal)) => {
                    println!("{refusal}; {}", refusal.hint().unwrap_or_default());
                    Ok(ExitCode::from(125))
                }
                Err(e) => Err(e.into()),
            }
        })
    };
    run().unwrap_or(ExitCode::FAILURE)
}

/// `supervisor ARGS…`: a supervisor with one service; when the service ends it ends what is left, then itself.
fn supervisor(args: Vec<OsString>) -> Result<()> {
    creel_sandbox::become_subreaper()?;
    let spec = ChildSpec {
        exe: me(),
        args: std::iter::once("service".into()).chain(args).collect(),
        stdout: Target::Inherit,
        stderr: Target::Inherit,
        own_group: true,
        death_signal: Some(libc::SIGKILL),
        ..ChildSpec::default()
    };
    runtime()?.block_on(async {
        let mut children = signal(SignalKind::child())?;
        let child = Child::spawn(spec)?;
        loop {
            tokio::select! {
                ended = child.wait() => { ended?; break; }
                _ = children.recv() => { creel_sandbox::reap_strays(&[child.pid()])?; }
            }
        }
        // As the supervisor would go on: whatever comes up from the dead service is not known.
        let left = creel_sandbox::kill_descendants(Duration::ZERO)?;
        println!("{}", serde_json::json!({ "left": left }));
        Ok(())
    })
}

/// `hog BYTES`: touches that much *shared* memory, which no rlimit counts, and waits to be ended.
fn hog(args: &[OsString]) -> Result<()> {
    let bytes: usize = args
        .first()
        .and_then(|a| a.to_str()?.parse().ok())
        .ok_or("hog BYTES")?;
    // SAFETY: a fresh anonymous mapping; every byte written lies in it.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let memory = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return err("mmap failed");
        }
        for offset in (0..bytes).step_by(4096) {
            memory.cast::<u8>().add(offset).write_volatile(1);
        }
    }
    println!("touched");
    loop {
        std::thread::park();
    }
}

fn me() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| Path::new("/proc/self/exe").to_owned())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Just enough of an error type for a test program.
mod anyhow_lite {
    pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

    pub(crate) fn err<T>(why: &str) -> Result<T> {
        Err(why.into())
    }
}
