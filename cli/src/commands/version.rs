//! `creel version`: what this program knows by itself.

use serde::Serialize;

use crate::{context::Context, failure::Failure, times};

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
