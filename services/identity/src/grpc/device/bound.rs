//! Wishes that come by gRPC without a client certificate: each is signed for the very connection it comes on, so that
//! a server in between can't pass it on. No nonce: the exporter is another one with each connection.

use std::sync::Arc;

use creel_proto::identity::v1::{Declaration, Refused, RefusedReason as Why};
use creel_wire::{
    Caller, Code, Error, Principal, ServiceName, Source,
    accept::Connection,
    proof::{self as own, Signed, own_payload},
    source,
};
use tonic::Request;

use super::{
    Devices,
    prove::{Stop, word},
};
use crate::{ca::RequestedKey, declared::role_word, proof};

/// How a call without a caller came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) source: Source,
    /// Of the outside connection; `None` when nobody told it.
    exporter: Option<[u8; 32]>,
}

impl Arrival {
    /// The gateway tells where its callers are and by which connection; any other connection ends here.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let gateway = |caller: &Caller| {
            *caller.principal() == Principal::Service(ServiceName::Gateway)
                || caller.via() == Some(ServiceName::Gateway)
        };
        if !request.extensions().get::<Caller>().is_some_and(gateway) {
            let connection = request.extensions().get::<Arc<Connection>>();
            return Self {
                source: Source::LOCAL,
                exporter: connection.map(|connection| connection.exporter),
            };
        }
        let address = request.metadata().get(source::METADATA);
        let exporter = request.metadata().get_bin(own::METADATA);
        Self {
            source: address
                .and_then(|value| value.to_str().ok())
                .map_or(Source::LOCAL, Source::parse),
            exporter: exporter
                .and_then(|value| value.to_bytes().ok())
                .and_then(|bytes| bytes.as_ref().try_into().ok()),
        }
    }
}

/// A wish and what it was signed with.
pub(super) struct Wish<'a> {
    /// For the record.
    pub(super) method: &'static str,
    pub(super) key: &'a RequestedKey,
    pub(super) declaration: &'a Declaration,
    /// The invite's; empty without one.
    pub(super) secret: &'a str,
    pub(super) signature: &'a [u8],
}

impl Devices {
    /// Judges whether the key's holder is at the other end of the connection.
    ///
    /// # Errors
    /// `channel_binding_missing`, `signature_invalid`, `too_many_failures`; counted.
    pub(super) fn check_bound(&self, arrival: &Arrival, wish: &Wish<'_>) -> Result<(), Error> {
        self.judge_bound(arrival, wish).map_err(|stop| match stop {
            Stop::Refused(refused) => {
                let reason = word(refused.reason());
                self.outbox.refused("anonymous", wish.method, &reason);
                told(refused, reason)
            }
            Stop::Failed(error) => error,
        })
    }

    fn judge_bound(&self, arrival: &Arrival, wish: &Wish<'_>) -> Result<(), Stop> {
        let (raw, id) = wish.key.device_key()?;
        let key = proof::device_key(&raw).ok_or_else(|| Error::internal("reading the key"))?;
        let exporter = arrival.exporter.ok_or_else(|| {
            let message = "the gateway did not say by which connection this came";
            super::prove::refused(Why::ChannelBindingMissing, message)
        })?;
        let signed = Signed {
            device: &id,
            role: role_word(wish.declaration.role()),
            scopes: &wish.declaration.scopes,
            nonce: "",
            secret: wish.secret,
        };
        if proof::holds(&key, &own_payload(signed, &exporter), wish.signature) {
            return Ok(());
        }
        Err(self.count_failure(&id, self.clock.now_ms()))
    }
}

/// A refusal as gRPC tells it.
fn told(refused: Refused, reason: String) -> Error {
    let (code, hint) = if refused.reason() == Why::ChannelBindingMissing {
        (Code::FailedPrecondition, "creel status: which version runs where")
    } else {
        (
            Code::Unauthenticated,
            "check the address, somebody may stand in between; a creel older than the stack does not sign: update it",
        )
    };
    Error::new(code, reason, refused.message)
        .field("signature")
        .hint(hint)
}
