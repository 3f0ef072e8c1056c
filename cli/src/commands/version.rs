//! `creel version`, `creel completions`: what this program knows by itself.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Serialize;

use crate::{args::Cli, context::Context, failure::Failure, times};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionView {
    version: &'static str,
    built_at: Option<String>,
    built_at_ms: i64,
}

pub(super) fn version(context: &mut Context) -> Result<(), Failure> {
    let built_at_ms = creel_kit::BUILT_AT_UNIX * 1_000;
    let view = VersionView {
        version: creel_kit::VERSION,
        built_at: times::rfc3339(built_at_ms),
        built_at_ms,
    };
    if context.out.is_json() {
        return context.out.json(&view);
    }
    context.out.line(&format!("creel {}", view.version))
}

pub(super) fn completions(context: &mut Context, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "creel", &mut script);
    let script = String::from_utf8_lossy(&script);
    if context.out.is_json() {
        return context
            .out
            .json(&serde_json::json!({ "shell": shell.to_string(), "script": script }));
    }
    context.out.piece(&script)
}
