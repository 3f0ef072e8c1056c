//! Assertions: what is said of a caller, signed for one presenter.

use creel_proto::{
    identity::v1::{AssertionClaims, DeviceRecord, MintResponse, Role, SubjectKind},
    time,
};
use creel_wire::{
    Code, Error, Scopes, ServiceName, assertion,
    names::{SpiffeId, Subject},
};

use crate::{ca::Authority, epochs, guard::Guards};

impl Authority {
    /// Signs claims for `presenter`, if it may present such a caller at all. They end when what they are made of
    /// does, at `until_ms`, and after five minutes anyway.
    pub(crate) fn seal(
        &self,
        presenter: ServiceName,
        mut claims: AssertionClaims,
        now_ms: i64,
        until_ms: Option<i64>,
    ) -> Result<MintResponse, Error> {
        if !assertion::may_present(presenter, claims.kind()) {
            return Err(refusal(assertion::Refused::PresenterNotAllowed));
        }
        claims.presenter = self.uri_of(presenter);
        claims.issued_at_unix_ms = now_ms;
        claims.expires_at_unix_ms = epochs::end_ms(now_ms, until_ms, Guards::all());
        let assertion = assertion::sign(&self.assertion_key, &self.assertion_key_id(), &claims);
        Ok(MintResponse {
            assertion,
            expires_at: Some(time::timestamp(claims.expires_at_unix_ms)),
        })
    }

    /// The SPIFFE id of a service.
    pub(crate) fn uri_of(&self, service: ServiceName) -> String {
        SpiffeId {
            domain: self.domain.clone(),
            subject: Subject::Service(service),
        }
        .to_string()
    }
}

/// What is said of a device on one connection.
pub(crate) fn of_device(record: &DeviceRecord, scopes: &Scopes, connection: String) -> AssertionClaims {
    AssertionClaims {
        kind: kind_of(record).into(),
        subject: record.device_id.clone(),
        person: record.person.clone(),
        scopes: texts(scopes),
        label: record.name.clone(),
        epoch: record.epoch,
        binding: connection,
        ..AssertionClaims::default()
    }
}

/// What a device is.
pub(crate) fn kind_of(record: &DeviceRecord) -> SubjectKind {
    if record.role == i32::from(Role::Node) {
        SubjectKind::Node
    } else {
        SubjectKind::Operator
    }
}

/// Scopes as they are written.
pub(crate) fn texts(scopes: &Scopes) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

/// Why an assertion was not taken, as it is told.
pub(crate) fn refusal(refused: assertion::Refused) -> Error {
    Error::new(Code::PermissionDenied, refused.reason(), refused.to_string())
}
