//! Assertions for runs: on whose behalf a run is, signed by `identity` at each dispatch, so that a revoked owner's
//! jobs stop.

use creel_proto::identity::v1::{
    JobSubject, MintRequest, assertion_service_client::AssertionServiceClient, mint_request::Subject,
};
use creel_wire::{Code, Error};
use tonic::transport::Channel;

use crate::job::OWNER_REVOKED;

/// Why there is no assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MintError {
    /// Not now: the run waits.
    Unavailable(String),
    /// The owner's grant was revoked: the job is paused.
    OwnerRevoked,
    /// Not for this run.
    Refused {
        /// Stable.
        reason: String,
        /// For people.
        message: String,
    },
}

/// Makes assertions.
#[tonic::async_trait]
pub trait Minter: Send + Sync + std::fmt::Debug + 'static {
    /// A SignedAssertion for a run of a job.
    ///
    /// # Errors
    /// [`MintError`].
    async fn mint(&self, subject: JobSubject) -> Result<Vec<u8>, MintError>;
}

/// Asks `identity`.
#[derive(Debug, Clone)]
pub struct IdentityMinter(AssertionServiceClient<Channel>);

impl IdentityMinter {
    /// Asks over a channel to identity.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self(AssertionServiceClient::new(channel))
    }
}

#[tonic::async_trait]
impl Minter for IdentityMinter {
    async fn mint(&self, subject: JobSubject) -> Result<Vec<u8>, MintError> {
        let request = MintRequest {
            subject: Some(Subject::Job(subject)),
        };
        let mut client = self.0.clone();
        match client.mint(request).await {
            Ok(response) => Ok(response.into_inner().assertion),
            Err(status) => Err(refusal(&Error::of_status(&status))),
        }
    }
}

/// Only a decision of identity ends a run; whatever may pass is waited for.
fn refusal(error: &Error) -> MintError {
    match error.code {
        Code::FailedPrecondition | Code::PermissionDenied if error.reason == OWNER_REVOKED => {
            MintError::OwnerRevoked
        }
        Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument | Code::NotFound => {
            MintError::Refused {
                reason: error.reason.to_string(),
                message: error.message.clone(),
            }
        }
        _ => MintError::Unavailable(error.message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decisions_are_final() {
        let of = |code, reason: &'static str| refusal(&Error::new(code, reason, "m"));
        assert_eq!(of(Code::PermissionDenied, OWNER_REVOKED), MintError::OwnerRevoked);
        assert_eq!(
            of(Code::FailedPrecondition, OWNER_REVOKED),
            MintError::OwnerRevoked
        );
        assert!(matches!(
            of(Code::PermissionDenied, "presenter"),
            MintError::Refused { .. }
        ));
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Unauthenticated,
        ] {
            assert_eq!(of(code, OWNER_REVOKED), MintError::Unavailable("m".into()));
        }
    }
}
