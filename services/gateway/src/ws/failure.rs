//! Failures as clients of the original know them: a code, a message, details, and whether to try again.

use creel_wire::{Code, Error, Scope};
use serde::Serialize;
use serde_json::{Value, json};

/// The code of a request that can't be right.
pub(crate) const INVALID_REQUEST: &str = "INVALID_REQUEST";
/// The code of what is not here now.
pub(crate) const UNAVAILABLE: &str = "UNAVAILABLE";
/// The code of a device that an operator has to let in first.
pub(crate) const NOT_PAIRED: &str = "NOT_PAIRED";
/// The code of what the caller may not do.
pub(crate) const FORBIDDEN: &str = "FORBIDDEN";

/// The `error` of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
}

impl Failure {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
            retryable: false,
            retry_after_ms: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    /// No such method. The original's words: its node host tells by them what a server lacks.
    pub(crate) fn unknown_method(name: &str) -> Self {
        let name = creel_wire::error::printable(name, 64);
        Self::invalid(format!("unknown method: {name}"))
    }

    /// Not for this role.
    pub(crate) fn role(role: &str) -> Self {
        Self::invalid(format!("unauthorized role: {role}"))
    }

    pub(crate) fn missing_scope(scope: Scope) -> Self {
        let details = json!({
            "code": "MISSING_SCOPE",
            "missingScope": scope.as_str(),
            "requiredScopes": [scope.as_str()],
        });
        Self::new(FORBIDDEN, format!("missing scope: {scope}")).details(details)
    }

    /// Too much at once.
    pub(crate) fn busy() -> Self {
        let message = "the server is busy with this connection's other requests; try again in a moment";
        Self::new(UNAVAILABLE, message).retry(250)
    }

    #[must_use]
    pub(crate) fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Trying again helps, after so many milliseconds.
    #[must_use]
    pub(crate) fn retry(mut self, after_ms: u64) -> Self {
        self.retryable = true;
        self.retry_after_ms = Some(after_ms);
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut details = json!({ "reason": error.reason });
        if let Some(hint) = &error.hint {
            details["hint"] = json!(hint);
        }
        if let Some(field) = &error.field {
            details["field"] = json!(field);
        }
        let retryable = matches!(error.code, Code::Unavailable | Code::ResourceExhausted);
        let failure = Self::new(error.code.websocket(), error.message).details(details);
        if retryable { failure.retry(1_000) } else { failure }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Error::of_status(&status).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_keeps_its_reason_and_hint() {
        let error = Error::new(Code::PermissionDenied, "not_yours", "no").hint("creel devices list");
        let failure = Failure::from(tonic::Status::from(error));
        assert_eq!(failure.code, FORBIDDEN);
        assert_eq!(
            failure.details,
            Some(json!({"reason":"not_yours","hint":"creel devices list"}))
        );
        assert!(!failure.retryable);
        let failure = Failure::from(Error::new(Code::Unavailable, "gone", "not here"));
        assert_eq!((failure.code, failure.retry_after_ms), (UNAVAILABLE, Some(1_000)));
    }
}
