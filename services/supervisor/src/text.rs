//! What is said to people, and how errors are.

use std::process::ExitCode;

use jiff::Timestamp;

pub(crate) use creel_kit::failure::chain;

/// Says a line on stdout.
#[expect(clippy::print_stdout, reason = "what was asked for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Says on stderr what failed, and gives the exit status.
pub(crate) fn fail(status: u8, why: &str) -> ExitCode {
    fail_as("creeld", status, why)
}

/// As [`fail`], for a service.
#[expect(clippy::print_stderr, reason = "read by people and service managers")]
pub(crate) fn fail_as(who: &str, status: u8, why: &str) -> ExitCode {
    eprintln!("{who}: {why}");
    ExitCode::from(status)
}

/// `creeld version`.
pub(crate) fn version() -> ExitCode {
    let built = Timestamp::from_second(creel_kit::BUILT_AT_UNIX).unwrap_or_default();
    say(&format!(
        "creeld {} (built {})",
        creel_kit::VERSION,
        built.strftime("%F")
    ));
    ExitCode::SUCCESS
}
