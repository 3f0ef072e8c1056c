//! `creeld sandbox-probe`: tries every act the walls forbid, from inside.
//!
//! For tests, for `creel doctor`, and for whoever wants to see what a profile is worth on their machine. One JSON
//! line per act on stdout: `{"act", "wall", "outcome": "refused" | "done", "detail"}`; the exit code is 1 if any was
//! done. It is harmless outside a sandbox: what it can't do harmlessly it tries with arguments that the kernel
//! rejects after the permission checks, and "rejected for another reason" counts as done.

mod files;
mod kernel;
mod network;
mod processes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::report::Wall;
use crate::sys::{self, Side, SingleThread};

/// What the probe is pointed at, as `key=value` arguments; acts whose target is missing are left out.
///
/// `secret` a file outside every grant · `workspace` a writable directory · `readable` a directory granted for
/// reading · `socket`, `dgram` paths of listening unix sockets · `abstract` name of one · `tcp`, `udp` addresses whose
/// owner answers any byte with `target` · `pid` a process outside · `memory` the limit ·
/// `walls` which walls to probe (`fs,net,ipc,kill`; default all).
struct Targets {
    values: BTreeMap<String, String>,
    proof: SingleThread,
}

/// `Ok` when the act was done (with what it achieved), `Err` when it was refused.
type Outcome = Result<String, io::Error>;

struct Act {
    name: &'static str,
    wall: Wall,
    /// Arguments it needs.
    needs: &'static [&'static str],
    attempt: fn(&Targets) -> Outcome,
}

/// Runs the probe with the arguments after its name. Like every helper it must be called at the start of `main`.
pub fn probe_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let values = args.into_iter().filter_map(|arg| {
        let (key, value) = arg.to_str()?.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    });
    let targets = Targets {
        values: values.collect(),
        proof: SingleThread::at_start_of_main(),
    };
    let walls = targets.text("walls").unwrap_or("fs,net,ipc,kill");
    let mut done = false;
    let mut out = io::stdout().lock();
    for list in [files::ACTS, network::ACTS, processes::ACTS, kernel::ACTS] {
        for act in list {
            let wanted = walls.split(',').any(|w| w == act.wall.to_string());
            if !wanted || !act.needs.iter().all(|need| targets.values.contains_key(*need)) {
                continue;
            }
            let outcome = (act.attempt)(&targets);
            done |= outcome.is_ok();
            let (word, detail) = match outcome {
                Ok(detail) => ("done", detail),
                Err(e) => ("refused", e.to_string()),
            };
            let line = serde_json::json!({
                "act": act.name, "wall": act.wall, "outcome": word, "detail": detail,
            });
            if writeln!(out, "{line}").is_err() {
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::from(u8::from(done))
}

impl Targets {
    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// A target that `needs` has promised.
    fn get<T: std::str::FromStr>(&self, key: &str) -> io::Result<T> {
        self.text(key)
            .and_then(|v| v.parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn path(&self, key: &str) -> io::Result<PathBuf> {
        self.get(key)
    }

    /// A fresh name in the workspace.
    fn scratch(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path("workspace")?.join(format!("probe-{name}"));
        let _ = std::fs::remove_file(&path);
        Ok(path)
    }

    /// Does something in a child, whose exit code is the answer: 0 done, an errno refused; a deadly signal is
    /// a refusal, too.
    fn in_child(&self, attempt: impl FnOnce() -> io::Result<()>) -> Outcome {
        match sys::fork(self.proof)? {
            Side::Child => {
                let code = match attempt() {
                    Ok(()) => 0,
                    Err(e) => e.raw_os_error().filter(|e| (1..=254).contains(e)).unwrap_or(255),
                };
                sys::exit(code)
            }
            Side::Parent(pid) => {
                let waited = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
                let status = waited.map(|(_, status)| status);
                match status.and_then(|s| s.exit_status()) {
                    Some(0) => Ok("a child succeeded".to_owned()),
                    Some(code) => Err(io::Error::from_raw_os_error(code)),
                    None => Err(io::Error::other(format!(
                        "signal {}",
                        status.and_then(|s| s.terminating_signal()).unwrap_or(0)
                    ))),
                }
            }
        }
    }
}

/// For calls whose success would do harm: any refusal but these three means that the kernel got to see it.
fn reached(error: io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Err(error),
        _ => Ok(format!("reached the kernel: {error}")),
    }
}

/// Calls `nr` with nothing but invalid arguments: every pointer, descriptor, length and flag word is -1.
fn reach(nr: libc::c_long) -> Outcome {
    // SAFETY: -1 is no valid address, so the kernel can neither read nor write memory of this process.
    let rc = unsafe { libc::syscall(nr, -1i64, -1i64, -1i64, -1i64, -1i64, -1i64) };
    if rc < 0 {
        reached(io::Error::last_os_error())
    } else {
        Ok(format!("returned {rc}"))
    }
}

/// Turns a return value of libc into a result.
fn check(rc: impl Into<i64>) -> io::Result<i64> {
    let rc = rc.into();
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

/// An act that is one call.
fn done(what: &str) -> impl FnOnce(()) -> String + '_ {
    move |()| what.to_owned()
}
