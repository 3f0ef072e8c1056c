//! Whether a job names a backend that is there. The workers know, so the answer is theirs at the time of asking.

use creel_proto::scheduler::v1::{JobSpec, payload};
use creel_wire::{Code, Error, error::printable};

use super::Api;
use crate::{
    ledger::{Backend, listed},
    spec::{BACKEND_FIELD, MAX_BACKEND_BYTES, MAX_NAME_CHARS},
};

impl Api {
    /// What is to be told of a job's backend. A new one that no worker has is refused; one that the job had before
    /// must not keep its other fields from being changed.
    pub(super) async fn check_backend(
        &self,
        spec: &JobSpec,
        before: Option<&JobSpec>,
    ) -> Result<Option<String>, Error> {
        let Some(name) = backend_of(spec) else {
            return Ok(None);
        };
        let asked = name.to_owned();
        let state = self.engine.ask(move |ledger, _| ledger.backend(&asked)).await?;
        let shown = printable(name, MAX_BACKEND_BYTES);
        match state {
            Backend::There => Ok(None),
            Backend::Unknown => Ok(Some(format!(
                "no attached worker says whether there is a backend `{shown}`; without it the job's runs fail: \
                 creel cron explain {}",
                printable(&spec.name, MAX_NAME_CHARS)
            ))),
            Backend::Missing(_) if before.and_then(backend_of) == Some(name) => {
                Ok(Some(format!("no worker has the backend `{shown}`: the job's runs fail")))
            }
            Backend::Missing(there) => Err(Error::new(
                Code::InvalidArgument,
                "unknown_backend",
                format!("there is no backend `{shown}`"),
            )
            .field(BACKEND_FIELD)
            .hint(format!(
                "--backend with one of: {}; others are set up under [backends] in creel.toml: creel config get backends",
                listed(&there)
            ))),
        }
    }
}

/// The backend that a job names.
pub(super) fn backend_of(spec: &JobSpec) -> Option<&str> {
    match spec.payload.as_ref()?.kind.as_ref()? {
        payload::Kind::AgentTurn(turn) => Some(turn.backend.as_str()).filter(|name| !name.is_empty()),
        _ => None,
    }
}
