//! Assertions for runs: on whose behalf a run is, signed by `identity` at each dispatch, so that a revoked owner's
//! jobs stop.

use creel_proto::identity::v1::{
    JobSubject, MintJobsRequest, MintRefusal, MintedJob, assertion_service_client::AssertionServiceClient,
    minted_job::Result as Minted,
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

/// Most assertions asked for at once; identity takes 1,024.
pub(crate) const MAX_SUBJECTS: usize = 256;

/// Makes assertions.
#[tonic::async_trait]
pub trait Minter: Send + Sync + std::fmt::Debug + 'static {
    /// A SignedAssertion for each of some runs of jobs, in their order.
    ///
    /// # Errors
    /// [`MintError`]: of all of them, or of one.
    async fn mint(&self, subjects: Vec<JobSubject>) -> Result<Vec<Result<Vec<u8>, MintError>>, MintError>;
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
    async fn mint(&self, subjects: Vec<JobSubject>) -> Result<Vec<Result<Vec<u8>, MintError>>, MintError> {
        let (mut client, count) = (self.0.clone(), subjects.len());
        let answer = client.mint_jobs(MintJobsRequest { subjects }).await;
        let results = answer
            .map_err(|status| refusal(&Error::of_status(&status)))?
            .into_inner()
            .results;
        if results.len() != count {
            let error = format!("identity gave {} answers to {count} questions", results.len());
            return Err(MintError::Unavailable(error));
        }
        Ok(results.into_iter().map(read).collect())
    }
}

fn read(minted: MintedJob) -> Result<Vec<u8>, MintError> {
    match minted.result {
        Some(Minted::Assertion(assertion)) => Ok(assertion),
        Some(Minted::Refusal(MintRefusal {
            code,
            reason,
            message,
        })) => Err(refusal(&Error::new(Code::of_grpc(code.into()), reason, message))),
        None => Err(MintError::Unavailable("identity gave no answer".to_owned())),
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
    #[test]
    fn one_of_many_answers_is_read_as_a_status_would_be() {
        let refused = |code: tonic::Code, reason: &str| {
            let refusal = MintRefusal {
                code: code.into(),
                reason: reason.into(),
                message: "m".into(),
            };
            read(MintedJob {
                result: Some(Minted::Refusal(refusal)),
            })
        };
        assert_eq!(
            refused(tonic::Code::FailedPrecondition, OWNER_REVOKED),
            Err(MintError::OwnerRevoked)
        );
        let error = MintError::Refused {
            reason: "scopes".into(),
            message: "m".into(),
        };
        assert_eq!(refused(tonic::Code::InvalidArgument, "scopes"), Err(error));
        let wait = MintError::Unavailable("m".into());
        assert_eq!(refused(tonic::Code::Internal, OWNER_REVOKED), Err(wait));
        assert!(matches!(
            read(MintedJob::default()),
            Err(MintError::Unavailable(_))
        ));
    }
}
