//! `creeld`: the supervisor of a stack and every service of it, in one binary.
//!
//! The supervisor starts services, watches their health, starts them again and drains them in order. It
//! is deliberately nothing else: it serves no port and holds no state that outlives the stack.
//!
//! Invariants: one supervisor per profile; when it ends, however it ends, nothing of the stack lives on;
//! what is up is never shown as ready before its own health says so; no service is restarted for ever.

mod args;
mod check;
mod child;
mod credentials;
mod detach;
mod events;
mod files;
mod first_start;
mod fleet;
mod health;
mod lock;
mod reload;
mod report;
mod restart;
mod services;
mod stack;
mod systemd;
mod table;
mod text;
mod up;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser as _;
use creel_kit::Profile;
use creel_wire::ServiceName;
use text::{chain, fail, say};

fn main() -> ExitCode {
    // Helpers first: they must find neither threads nor a runtime.
    if let Some(code) = creel_sandbox::dispatch_early(std::env::args_os()).or_else(services::dispatch_early) {
        return code;
    }
    let Args { profile, command } = Args::parse();
    let profile = match Profile::resolve(profile.as_deref()) {
        Ok(profile) => profile,
        Err(error) => return fail(1, &chain(&error)),
    };
    match command {
        Command::Up { detach: true, .. } => detach::up(&profile),
        Command::Up { detached, .. } => up::up(&profile, detached),
        Command::Down => detach::down(&profile),
        Command::Gateway => services::run(profile, ServiceName::Gateway),
        Command::Identity => services::run(profile, ServiceName::Identity),
        Command::Scheduler => services::run(profile, ServiceName::Scheduler),
        Command::AgentRunner => services::run(profile, ServiceName::AgentRunner),
        Command::Health { service } => health::check(&profile, service),
        Command::Check { what } => check::run(&profile, what),
        Command::Version => text::version(),
    }
}
