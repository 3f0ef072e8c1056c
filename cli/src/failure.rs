//! What a command that did not succeed says, and its exit status.

use std::{io, path::Path};

use creel_kit::{config::ConfigError, profile::ProfileError, service::EXIT_CONFIG};
use creel_wire::{Code, Error};

/// Exit status of something that waits for a person's decision.
pub(crate) const EXIT_WAITING: u8 = 7;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told.
    Told(Box<Told>),
    /// It was told already; only the status is left.
    Exit(u8),
    /// Whoever read the output has seen enough: no failure at all.
    Closed,
}

/// A failure in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) error: Error,
    /// For programs: what kind it is.
    pub(crate) code: &'static str,
    pub(crate) exit: u8,
}

impl Failure {
    /// Arguments that can't be right.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, "usage", message).into()
    }

    /// The same, with the way out.
    pub(crate) fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::new(Code::InvalidArgument, "usage", message)
            .hint(hint)
            .into()
    }

    /// A file that could not be read or written. `what` is the verb: "read", "write".
    pub(crate) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("can't {what} `{}`: {error}", path.display());
        Error::new(Code::Internal, "file", message).into()
    }

    /// A defect of ours, or of what we were given.
    pub(crate) fn internal(what: &str, error: &dyn std::error::Error) -> Self {
        Error::new(
            Code::Internal,
            "internal",
            format!("{what}: {}", creel_kit::failure::chain(error)),
        )
        .into()
    }

    /// Something waits for a person.
    pub(crate) fn waiting(error: Error) -> Self {
        Self::Told(Box::new(Told {
            error,
            code: "waiting",
            exit: EXIT_WAITING,
        }))
    }

    /// What was asked for was tried and did not succeed; nothing is wrong with the asking or the stack.
    pub(crate) fn failed(error: Error) -> Self {
        Self::Told(Box::new(Told {
            error,
            code: "failed",
            exit: 1,
        }))
    }

    /// The same with another next step.
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        if let Self::Told(told) = &mut self {
            told.error.hint = Some(hint.to_owned());
        }
        self
    }

    /// The error, unless all is told.
    pub(crate) fn error(&self) -> Option<&Error> {
        match self {
            Self::Told(told) => Some(&told.error),
            Self::Exit(_) | Self::Closed => None,
        }
    }

    /// Its code, unless all is told.
    pub(crate) fn code(&self) -> Option<Code> {
        self.error().map(|error| error.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = error.code;
        Self::Told(Box::new(Told {
            error,
            code: code_name(code),
            exit: code.exit(),
        }))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let (reason, hint) = match &error {
            ConfigError::Read { .. } => (
                "config_unreadable",
                "make the file readable for you alone: chmod 600",
            ),
            ConfigError::Syntax { .. } => ("config_invalid", "mend the line, then: creel config check"),
            ConfigError::Environment { .. } => ("config_environment", "mend or unset the variable"),
        };
        let message = creel_kit::failure::chain(&error);
        let error = Error::new(Code::FailedPrecondition, reason, message).hint(hint);
        Self::Told(Box::new(Told {
            error,
            code: "bad_config",
            exit: EXIT_CONFIG,
        }))
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let (code, reason) = match &error {
            ProfileError::BadName(_) => (Code::InvalidArgument, "profile_name"),
            ProfileError::NoHome => (Code::FailedPrecondition, "no_home"),
            ProfileError::PathTooLong { .. } => (Code::FailedPrecondition, "path_too_long"),
            ProfileError::Io { .. } => (Code::FailedPrecondition, "profile_unusable"),
        };
        Error::new(code, reason, creel_kit::failure::chain(&error)).into()
    }
}

/// The name of a code in JSON, that of gRPC in lower case.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid_argument",
        Code::NotFound => "not_found",
        Code::Conflict => "conflict",
        Code::PermissionDenied => "permission_denied",
        Code::Unauthenticated => "unauthenticated",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::Cancelled => "cancelled",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(failure: &Failure) -> u8 {
        match failure {
            Failure::Told(told) => told.exit,
            Failure::Exit(status) => *status,
            Failure::Closed => 0,
        }
    }

    #[test]
    fn statuses_are_those_of_the_product_page() {
        for (code, status) in [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::PermissionDenied, 4),
            (Code::Unauthenticated, 4),
            (Code::Unavailable, 5),
            (Code::DeadlineExceeded, 5),
            (Code::Conflict, 6),
            (Code::Internal, 1),
            (Code::FailedPrecondition, 1),
        ] {
            assert_eq!(exit(&Error::new(code, "x", "y").into()), status, "{code:?}");
        }
        assert_eq!(
            exit(&Failure::waiting(Error::new(
                Code::FailedPrecondition,
                "parked",
                "x"
            ))),
            7
        );
        let bad = creel_kit::Config::parse("[gatway]\n", Path::new("creel.toml")).unwrap_err();
        let Failure::Told(told) = Failure::from(bad) else {
            panic!("not told")
        };
        assert_eq!((told.exit, told.code), (78, "bad_config"));
        assert!(
            told.error.message.contains("did you mean `gateway`"),
            "{}",
            told.error.message
        );
    }
}
