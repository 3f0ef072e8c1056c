//! A program that is dispatched the way `creeld` is, for the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = creel_sandbox::dispatch_early(std::env::args_os()) {
        return code;
    }
    match std::env::args().nth(1).as_deref() {
        Some("turn-worker") => creel_agent_runner::turn_worker_main(),
        _ => ExitCode::from(64),
    }
}
