//! Failures of what a service stands on, as they are logged and told.

use creel_wire::{Code, Error};

/// A store's failure as it is told to a caller; the source goes to the log.
#[must_use]
pub fn store_error(error: creel_store::Error) -> Error {
    tracing::error!(error = %chain(&error), "store failed");
    let hint = error.hint();
    let code = match error {
        creel_store::Error::Limit { .. } => Code::ResourceExhausted,
        creel_store::Error::Corrupt { .. } | creel_store::Error::NewerSchema { .. } => Code::Internal,
        _ => Code::Unavailable,
    };
    let mut told = Error::new(code, "store", error.to_string());
    told.hint = hint;
    told
}

/// An error and its sources, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
