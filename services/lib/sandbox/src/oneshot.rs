//! `creeld sandbox-init`: one run without a spawner, for trying a profile by hand and for container entry points.
//!
//! Reads one JSON object ([`Spec`]) from the file named by the first argument; standard streams are inherited. The
//! exit code is the program's (128 + signal), or 125 with a line on stderr when the run was refused. TERM and INT,
//! and the death of the parent, end the run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;

use crate::child;
use crate::command::{Command, Io, Parcel};
use crate::init::Job;
use crate::profile::Profile;
use crate::seccomp::Filters;
use crate::support::Support;
use crate::sys::{self, SingleThread};
use crate::wire::{self, MAX_PACKET, Request};

/// What to run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    profile: Profile,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// Exit code of a refused run, as `env`, `timeout` and `creel exec run` use it.
const REFUSED: u8 = 125;

pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(path) = args.next() else {
        return complain("usage: creeld sandbox-init SPEC.json");
    };
    match run(PathBuf::from(path)) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(why) => complain(&why),
    }
}

fn run(path: PathBuf) -> Result<i32, String> {
    let text = |e: io::Error| e.to_string();
    let proof = SingleThread::check().ok_or("other threads are running")?;
    let mut json = String::new();
    let limit = u64::try_from(MAX_PACKET).unwrap_or(u64::MAX);
    std::fs::File::open(&path)
        .and_then(|file| file.take(limit).read_to_string(&mut json))
        .map_err(|e| format!("could not read `{}`: {e}", path.display()))?;
    let spec: Spec = serde_json::from_str(&json).map_err(|e| format!("`{}`: {e}", path.display()))?;

    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(|e| e.to_string())?;
    sys::block_signals(true).map_err(text)?;
    let support = Support::probe(proof);
    child::hide().map_err(text)?;
    let mut command = Command::new(spec.argv, spec.cwd, spec.profile);
    command.env = spec.env.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    command.timeout = spec.timeout_ms.map(Duration::from_millis);
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(Io::Fd).map_err(text);
    command.stdin = copy(io::stdin().as_fd())?;
    command.stdout = copy(io::stdout().as_fd())?;
    command.stderr = copy(io::stderr().as_fd())?;

    let grants = command.profile.resolve().map_err(|e| child::describe(&e))?;
    let parcel = Parcel::pack(1, command, grants).map_err(text)?;
    let (Request::Run(order), tail) = wire::decode(&parcel.packet).map_err(text)? else {
        return Err("not a run".to_owned());
    };
    let strings = wire::strings(tail).map_err(text)?;
    let filters = Filters::for_run(order.walls, order.net).map_err(|e| e.to_string())?;
    let job = Job {
        order: &order,
        strings: &strings,
        fds: parcel.fds,
        filters: support.seccomp.then_some(&filters),
        support,
        control: None,
    };
    match job.run(proof, |_, _| Ok(())) {
        Ok(exit) => Ok(exit.shell_code()),
        Err(refusal) => Err(match refusal.hint() {
            Some(hint) => format!("{refusal}\n  {hint}"),
            None => refusal.to_string(),
        }),
    }
}

fn complain(why: &str) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "a command's refusal goes to its stderr")]
    {
        eprintln!("creeld sandbox-init: {why}");
    }
    ExitCode::from(REFUSED)
}
