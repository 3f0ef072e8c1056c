//! Devices that are there: made by certificate, renewed, renamed, revoked.

use creel_kit::{idempotency::Begin, outbox::Event};
use creel_proto::{
    identity::v1::{
        Device, DeviceEventKind, IssueCertificateRequest, IssueCertificateResponse, PairingState,
        RenameDeviceRequest, RenewCertificateRequest, RevokeDeviceRequest, Role,
    },
    time,
};
use creel_wire::{
    Caller, Code, Error, Scopes,
    names::{Subject, parse_scopes},
};

use super::{Devices, show};
use crate::{
    ca::read_request,
    device::{self, CERT_LIFE_MS, DEFAULT_CERT_LIFE_MS, Guard, NewDevice, check_name},
    grants::{self, Grant},
    registry::Entry,
};

impl Devices {
    pub(super) async fn issue(
        &self,
        caller: &Caller,
        request: IssueCertificateRequest,
    ) -> Result<IssueCertificateResponse, Error> {
        let name = check_name(&request.name)?;
        let requested = scopes_of(&request.scopes)?;
        let life = request
            .lifetime
            .as_ref()
            .map_or(DEFAULT_CERT_LIFE_MS, time::duration_ms);
        if !CERT_LIFE_MS.contains(&life) {
            return Err(Error::invalid("lifetime", "from 1 hour to 800 days"));
        }
        let key = read_request(&request.csr_der)?;
        let (public_key, id) = key.device_key()?;
        let granted = grants::attenuate(&requested, &requested, caller.scopes());
        let missing: Scopes = requested.difference(&granted).copied().collect();
        if !missing.is_empty() {
            return Err(Guard::NotHeld(missing).into());
        }
        let slot = match self
            .idempotency
            .begin(caller, "IssueCertificate", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        writer.admit(&id, name)?;
        let now = self.now();
        let certificate = self.authority.issue_device(
            Subject::Operator(id.clone()),
            name,
            &key,
            self.clock.now_ms(),
            life,
        )?;
        let new = NewDevice {
            id: &id,
            public_key,
            name,
            person: super::person_of(caller),
            role: Role::Operator,
            grant: Grant {
                scopes: granted,
                ..Grant::default()
            },
            origin: "certificate",
            approved_by: super::approver(caller),
            certificate_life_ms: life,
            legacy: false,
        };
        let record = device::create(new, now);
        let mut answer = IssueCertificateResponse {
            device: Some(device::to_proto(&record, 0)),
            certificate: Some(certificate),
        };
        if request.validate_only {
            answer.certificate = None;
            return Ok(answer);
        }
        let event = Event::new("device.approved", caller.principal(), format!("device/{id}"))
            .with("name", name)
            .with("scopes", request.scopes.join(" "));
        let entry = writer.commit(record, event, &slot, &answer, |_| {}).await?;
        answer.device = Some(show(&entry));
        Ok(answer)
    }

    pub(super) async fn renew(
        &self,
        caller: &Caller,
        request: RenewCertificateRequest,
    ) -> Result<IssueCertificateResponse, Error> {
        let key = read_request(&request.csr_der)?;
        let (_, id) = key.device_key()?;
        if caller.device() != Some(&id) {
            let message = "a device renews its own certificate, by the key it is known by";
            return Err(Error::new(Code::PermissionDenied, "foreign_key", message).field("csr_der"));
        }
        let slot = match self
            .idempotency
            .begin(caller, "RenewCertificate", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let entry = self
            .registry
            .get(&id)
            .ok_or_else(|| Error::not_found("device", id.as_str()))?;
        if device::is_revoked(&entry.record) {
            return Err(Guard::Revoked.into());
        }
        let now = self.now();
        let life = device::renewed_life_ms(&entry.record);
        let subject = device::subject(&entry.record, &id);
        let certificate =
            self.authority
                .issue_device(subject, &entry.record.name, &key, self.clock.now_ms(), life)?;
        let mut after = entry.record.clone();
        device::certified(&mut after, life, now);
        let mut answer = IssueCertificateResponse {
            device: Some(device::to_proto(&after, 0)),
            certificate: Some(certificate),
        };
        if request.validate_only {
            answer.certificate = None;
            return Ok(answer);
        }
        let event = Event::new("device.renewed", caller.principal(), format!("device/{id}"));
        let entry = writer.commit(after, event, &slot, &answer, |_| {}).await?;
        answer.device = Some(show(&entry));
        Ok(answer)
    }

    pub(super) async fn do_rename(
        &self,
        caller: &Caller,
        request: RenameDeviceRequest,
    ) -> Result<Device, Error> {
        let name = check_name(&request.name)?;
        let slot = match self
            .idempotency
            .begin(caller, "Rename", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let entry = matching(self.registry.find(&request.device)?, &request.if_match)?;
        if entry.record.name == name {
            return Ok(show(&entry));
        }
        if writer.free_name(name) != name {
            return Err(Guard::NameInUse(name.to_owned()).into());
        }
        let mut after = entry.record.clone();
        name.clone_into(&mut after.name);
        let answer = device::to_proto(&after, 0);
        if request.validate_only {
            return Ok(answer);
        }
        let event = Event::new(
            "device.renamed",
            caller.principal(),
            format!("device/{}", after.device_id),
        )
        .with("from", &entry.record.name)
        .with("to", name);
        Ok(show(&writer.commit(after, event, &slot, &answer, |_| {}).await?))
    }

    pub(super) async fn do_revoke(
        &self,
        caller: &Caller,
        request: RevokeDeviceRequest,
    ) -> Result<Device, Error> {
        if request.reason.chars().count() > 256 {
            return Err(Error::invalid("reason", "at most 256 characters"));
        }
        let slot = match self
            .idempotency
            .begin(caller, "Revoke", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let entry = matching(self.registry.find(&request.device)?, &request.if_match)?;
        if device::is_revoked(&entry.record) {
            return Ok(show(&entry));
        }
        writer.may_revoke(&entry.record.device_id)?;
        let after = device::revoke(&entry.record, &request.reason, self.now());
        let answer = device::to_proto(&after, 0);
        if request.validate_only {
            return Ok(answer);
        }
        let event = Event::new(
            "device.revoked",
            caller.principal(),
            format!("device/{}", after.device_id),
        )
        .with("name", &after.name)
        .with("reason", &request.reason);
        // Whatever it still asked for ends with it.
        let asked = after
            .device_id
            .parse()
            .ok()
            .and_then(|id| self.pairings.of_device(&id));
        let close = |txn: &mut creel_store::Txn| {
            if let Some(asked) = &asked {
                self.pairings.close(txn, asked);
            }
        };
        let entry = writer.commit(after, event, &slot, &answer, close).await?;
        if let Some(asked) = &asked {
            self.pairings
                .closed(asked, DeviceEventKind::Rejected, PairingState::Rejected);
        }
        Ok(show(&entry))
    }
}

pub(super) fn scopes_of(texts: &[String]) -> Result<Scopes, Error> {
    let scopes = parse_scopes(texts).map_err(|error| {
        let known: Vec<_> = creel_wire::Scope::ALL
            .iter()
            .map(|scope| scope.as_str())
            .collect();
        Error::invalid("scopes", format!("{error}; there are {}", known.join(", ")))
    })?;
    if scopes.is_empty() {
        Err(Error::invalid("scopes", "at least one scope"))
    } else {
        Ok(scopes)
    }
}

fn matching(entry: Entry, if_match: &str) -> Result<Entry, Error> {
    if if_match.is_empty() || if_match == entry.rev.to_string() {
        return Ok(entry);
    }
    Err(Error::new(
        Code::Conflict,
        "etag_mismatch",
        "the device changed since it was read",
    )
    .field("if_match"))
}
