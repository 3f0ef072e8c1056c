//! Who is on a connection: identity's word for it, kept while it is good.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use creel_kit::{Clock, Deps};
use creel_proto::{
    identity::v1::{
        AssertionClaims, ConnectionSubject, DeviceSubject, MintRequest, MintResponse, SignedAssertion,
        assertion_service_client::AssertionServiceClient, mint_request::Subject,
    },
    time,
};
use creel_wire::{Caller, Code, Error, ServiceName, accept::Connection, assertion, authz};
use prost::Message as _;
use tokio::sync::Mutex;
use tonic::transport::Channel;

/// An assertion is renewed when it has less than this left, in milliseconds.
const REFRESH_MS: i64 = 60_000;

/// Asks identity. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    client: AssertionServiceClient<Channel>,
    clock: Clock,
}

/// The proven caller of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Proven {
    pub(crate) caller: Caller,
    /// For the header of forwarded requests.
    pub(crate) header: http::HeaderValue,
    issued_at_unix_ms: i64,
    expires_at_unix_ms: i64,
}

/// What a connection remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    proven: ArcSwapOption<Proven>,
    asking: Mutex<()>,
}

impl Callers {
    pub(crate) fn new(deps: &Deps) -> anyhow::Result<Self> {
        let client = AssertionServiceClient::new(deps.peers.channel(ServiceName::Identity)?);
        Ok(Self {
            client,
            clock: deps.clock.clone(),
        })
    }

    /// The caller on a connection that showed a device certificate.
    pub(crate) async fn of(&self, connection: &Connection, memory: &Memory) -> Result<Arc<Proven>, Error> {
        if let Some(proven) = self.remembered(memory) {
            return Ok(proven);
        }
        // One question at a time; the others get its answer.
        let _asking = memory.asking.lock().await;
        if let Some(proven) = self.remembered(memory) {
            return Ok(proven);
        }
        let proven = Arc::new(self.ask(connection).await?);
        memory.proven.store(Some(Arc::clone(&proven)));
        Ok(proven)
    }

    fn remembered(&self, memory: &Memory) -> Option<Arc<Proven>> {
        let proven = memory.proven.load_full()?;
        proven.is_fresh(self.clock.now_ms()).then_some(proven)
    }

    /// Asks identity for a fresh assertion of a connection that proved its device, whatever is remembered.
    /// What is remembered must still hold; and it is good only as long as the device's grant stays what it was.
    pub(crate) async fn renew(&self, connection_id: &str, memory: &Memory) -> Result<Arc<Proven>, Error> {
        let held = memory
            .proven
            .load_full()
            .ok_or_else(|| Error::internal("authorization"))?;
        let subject = Subject::Connection(ConnectionSubject {
            assertion: held
                .caller
                .assertion()
                .map(|bytes| bytes.to_vec())
                .unwrap_or_default(),
            connection_id: connection_id.to_owned(),
        });
        let proven = Arc::new(self.mint(subject).await?);
        memory.proven.store(Some(Arc::clone(&proven)));
        Ok(proven)
    }

    /// Whether what is remembered ends soon, or ended.
    pub(crate) fn is_due(&self, memory: &Memory) -> bool {
        self.remembered(memory).is_none()
    }

    async fn ask(&self, connection: &Connection) -> Result<Proven, Error> {
        self.mint(Subject::Device(DeviceSubject {
            certificate_der: connection.certificate.clone().unwrap_or_default(),
            connection_id: connection_id(connection.id),
        }))
        .await
    }

    async fn mint(&self, subject: Subject) -> Result<Proven, Error> {
        let mut client = self.client.clone();
        let minted = client
            .mint(MintRequest {
                subject: Some(subject),
            })
            .await
            .map_err(|status| unanswered(&status))?
            .into_inner();
        Proven::of(minted)
    }
}

/// What a connection is called toward identity.
pub(crate) fn connection_id(id: u64) -> String {
    format!("edge-{id}")
}

/// Identity's refusal, or that it was not there to answer.
pub(crate) fn unanswered(status: &tonic::Status) -> Error {
    match Code::of_grpc(status.code()) {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Internal => {
            tracing::warn!(%status, "identity did not answer");
            let message = "identity is not reachable, so nobody can be let in";
            Error::new(Code::Unavailable, "identity_unavailable", message).hint("creel status")
        }
        _ => Error::of_status(status),
    }
}

impl Proven {
    /// The caller that identity minted an assertion for.
    ///
    /// # Errors
    /// `Internal` when it can't be read.
    pub(crate) fn of(minted: MintResponse) -> Result<Self, Error> {
        let bytes = Bytes::from(minted.assertion);
        let claims = SignedAssertion::decode(bytes.clone())
            .and_then(|signed| AssertionClaims::decode(signed.payload.as_slice()))
            .map_err(|_| Error::internal("reading the assertion"))?;
        let header = authz::bin_header(&bytes);
        let issued_at_unix_ms = claims.issued_at_unix_ms;
        let caller =
            authz::own_caller(claims, bytes).map_err(|_| Error::internal("reading the assertion"))?;
        let expires_at_unix_ms = minted.expires_at.as_ref().map_or(0, time::unix_ms);
        Ok(Self {
            caller,
            header,
            issued_at_unix_ms,
            expires_at_unix_ms,
        })
    }

    /// Whether it holds, and does for a while. One of the future was minted before the clock was set back: no
    /// service would take it.
    fn is_fresh(&self, now_unix_ms: i64) -> bool {
        let from = self.issued_at_unix_ms - assertion::SKEW_MS;
        (from..self.expires_at_unix_ms - REFRESH_MS).contains(&now_unix_ms)
    }
}

impl Memory {
    /// Of a connection that was just proven.
    pub(crate) fn holding(proven: Proven) -> Self {
        let memory = Self::default();
        memory.proven.store(Some(Arc::new(proven)));
        memory
    }

    /// What is remembered, however old; the services judge its end themselves.
    pub(crate) fn current(&self) -> Option<Arc<Proven>> {
        self.proven.load_full()
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::identity::v1::SubjectKind;

    use super::*;

    #[test]
    fn what_was_minted_before_the_clock_was_set_back_is_asked_for_again() {
        let claims = AssertionClaims {
            kind: SubjectKind::Operator.into(),
            subject: "ab".repeat(32),
            issued_at_unix_ms: 1_000_000,
            ..AssertionClaims::default()
        };
        let signed = SignedAssertion {
            payload: claims.encode_to_vec(),
            ..SignedAssertion::default()
        };
        let proven = Proven::of(MintResponse {
            assertion: signed.encode_to_vec(),
            expires_at: Some(time::timestamp(1_300_000)),
        })
        .unwrap();
        for (now_ms, fresh) in [
            (994_999, false),
            (995_000, true),
            (1_239_999, true),
            (1_240_000, false),
        ] {
            assert_eq!(proven.is_fresh(now_ms), fresh, "{now_ms}");
        }
    }
}
