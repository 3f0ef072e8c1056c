//! One error for everything that crosses a process: a code with fixed maps to gRPC, HTTP, WebSocket
//! and exit status, a stable reason, a message, and the next step.

use std::{borrow::Cow, collections::HashMap, fmt};

use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of `google.rpc.ErrorInfo` in every status of ours.
pub const DOMAIN: &str = "creel";

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request can't be right at any time.
    InvalidArgument,
    /// No such thing.
    NotFound,
    /// There is one already, or it changed since it was read.
    Conflict,
    /// The caller is known and may not.
    PermissionDenied,
    /// The caller has not proven who it is.
    Unauthenticated,
    /// A limit is reached.
    ResourceExhausted,
    /// Not in this state.
    FailedPrecondition,
    /// Not now; trying again may help.
    Unavailable,
    /// Not in time.
    DeadlineExceeded,
    /// The caller gave up.
    Cancelled,
    /// Nothing serves this.
    Unimplemented,
    /// A defect of ours.
    Internal,
}

impl Code {
    /// As a gRPC status code.
    #[must_use]
    pub const fn grpc(self) -> tonic::Code {
        match self {
            Self::InvalidArgument => tonic::Code::InvalidArgument,
            Self::NotFound => tonic::Code::NotFound,
            Self::Conflict => tonic::Code::AlreadyExists,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::ResourceExhausted => tonic::Code::ResourceExhausted,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::Cancelled => tonic::Code::Cancelled,
            Self::Unimplemented => tonic::Code::Unimplemented,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The code of a gRPC status; codes that we never send count as the nearest one.
    #[must_use]
    pub const fn of_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Self::InvalidArgument,
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::AlreadyExists | tonic::Code::Aborted => Self::Conflict,
            tonic::Code::PermissionDenied => Self::PermissionDenied,
            tonic::Code::Unauthenticated => Self::Unauthenticated,
            tonic::Code::ResourceExhausted => Self::ResourceExhausted,
            tonic::Code::FailedPrecondition => Self::FailedPrecondition,
            tonic::Code::Unavailable => Self::Unavailable,
            tonic::Code::DeadlineExceeded => Self::DeadlineExceeded,
            tonic::Code::Cancelled => Self::Cancelled,
            tonic::Code::Unimplemented => Self::Unimplemented,
            tonic::Code::Ok | tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DataLoss => {
                Self::Internal
            }
        }
    }

    /// As an HTTP status (499 is the field's custom for a client that left).
    #[must_use]
    pub const fn http(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::PermissionDenied => 403,
            Self::Unauthenticated => 401,
            Self::ResourceExhausted => 429,
            Self::FailedPrecondition => 412,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::Cancelled => 499,
            Self::Unimplemented => 501,
            Self::Internal => 500,
        }
    }

    /// As the error code of the original's WebSocket protocol, version 4.
    #[must_use]
    pub const fn websocket(self) -> &'static str {
        match self {
            Self::InvalidArgument
            | Self::NotFound
            | Self::Conflict
            | Self::FailedPrecondition
            | Self::Unimplemented => "INVALID_REQUEST",
            Self::PermissionDenied => "FORBIDDEN",
            Self::Unauthenticated => "NOT_PAIRED",
            Self::ResourceExhausted
            | Self::Unavailable
            | Self::Internal
            | Self::Cancelled
            | Self::DeadlineExceeded => "UNAVAILABLE",
        }
    }

    /// As the exit status of `creel` (`design: product.md`, the CLI surface).
    #[must_use]
    pub const fn exit(self) -> u8 {
        match self {
            Self::InvalidArgument => 2,
            Self::NotFound => 3,
            Self::PermissionDenied | Self::Unauthenticated => 4,
            Self::Unavailable | Self::DeadlineExceeded => 5,
            Self::Conflict => 6,
            Self::ResourceExhausted
            | Self::FailedPrecondition
            | Self::Cancelled
            | Self::Unimplemented
            | Self::Internal => 1,
        }
    }
}

/// A failure as it is told to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind.
    pub code: Code,
    /// Stable, `snake_case`, for programs.
    pub reason: Cow<'static, str>,
    /// What failed, for people.
    pub message: String,
    /// The exact next step.
    pub hint: Option<String>,
    /// The request's field that is wrong.
    pub field: Option<String>,
}

impl Error {
    /// A failure with a stable reason.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            hint: None,
            field: None,
        }
    }

    /// With the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the field that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// A request's field that can't be right.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "invalid_argument", message).field(field)
    }

    /// A thing that isn't there.
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(
            Code::NotFound,
            "not_found",
            format!("no {what} `{}`", printable(name, 128)),
        )
    }

    /// A defect of ours; the detail goes to the log, not to the caller.
    pub fn internal(what: &str) -> Self {
        Self::new(
            Code::Internal,
            "internal",
            format!("{what} failed; the log of the service says why"),
        )
    }

    /// Reads a status as an error: from ours everything, from others code and message.
    #[must_use]
    pub fn of_status(status: &tonic::Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let get = |key: &str| info.and_then(|info| info.metadata.get(key).cloned());
        Self {
            code: Code::of_grpc(status.code()),
            reason: info.map_or(Cow::Borrowed("unknown"), |info| Cow::Owned(info.reason.clone())),
            message: status.message().to_owned(),
            hint: get("hint"),
            field: get("field"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let mut metadata = HashMap::new();
        if let Some(hint) = error.hint {
            metadata.insert("hint".to_owned(), hint);
        }
        if let Some(field) = error.field {
            metadata.insert("field".to_owned(), field);
        }
        let details = ErrorDetails::with_error_info(error.reason, DOMAIN, metadata);
        Self::with_error_details(error.code.grpc(), error.message, details)
    }
}

/// Text from outside, made safe for terminals and logs: control and bidirectional characters as
/// `\u{…}`, cut after `max` characters.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || bidi {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_a_status() {
        let error = Error::new(Code::PermissionDenied, "scope_missing", "needs operator.write")
            .hint("creel devices cert --scope operator.write")
            .field("name");
        let status = tonic::Status::from(error.clone());
        assert_eq!(Error::of_status(&status), error);
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}", 64), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(printable("aaaa", 2), "aa…");
    }
}
