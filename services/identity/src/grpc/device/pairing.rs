//! Devices that ask to be let in, and operators who decide.

use creel_kit::{
    idempotency::{Begin, Slot},
    outbox::Event,
};
use creel_proto::identity::v1::{
    ApproveRequest, Device, DeviceEventKind, DeviceRecord, IssueCertificateResponse, ListRequestsResponse,
    PairingRecord, PairingRequest, PairingState, RejectRequest, RequestPairingRequest,
    RequestPairingResponse, Role, Surface, request_pairing_response::Outcome,
};
use creel_store::Txn;
use creel_wire::{Caller, Code, DeviceId, Error, Scope};

use super::{
    Devices, approver,
    bound::{Arrival, Wish},
    person_of, show,
};
use crate::{
    ca::{RequestedKey, read_request},
    declared,
    device::{self, DEFAULT_CERT_LIFE_MS, Guard, NewDevice, check_name},
    device_pairing::Waiting,
    grants::{self, Grant},
    guard::Guards,
    pairings::{Asking, Entry, committed, required},
    registry,
};

impl Devices {
    pub(super) async fn do_request_pairing(
        &self,
        arrival: Arrival,
        request: RequestPairingRequest,
    ) -> Result<RequestPairingResponse, Error> {
        let key = read_request(&request.csr_der)?;
        let (public_key, id) = key.device_key()?;
        let declaration = request.declared.unwrap_or_default();
        let declared = declared::check(&declaration, Some(Role::Operator), false)?;
        let wish = Wish {
            method: "RequestPairing",
            key: &key,
            declaration: &declaration,
            secret: "",
            signature: &request.signature,
        };
        self.check_bound(&arrival, &wish)?;
        let writer = self.registry.write().await;
        let outcome = match self.registry.get(&id) {
            Some(entry) => Outcome::Approved(self.collect(&writer, &id, &key, entry).await?),
            None => {
                let asking = Asking {
                    id: &id,
                    public_key,
                    declaration: &declaration,
                    declared: &declared,
                    legacy: false,
                    source: arrival.source,
                    known: None,
                };
                let entry = self.pairings.ask(&writer, asking, self.now()).await?;
                Outcome::Pending(required(&entry))
            }
        };
        Ok(RequestPairingResponse {
            outcome: Some(outcome),
        })
    }

    /// The first certificate of a device that asked and was approved; again for an answer that was lost.
    async fn collect(
        &self,
        writer: &registry::Writer<'_>,
        id: &DeviceId,
        key: &RequestedKey,
        entry: registry::Entry,
    ) -> Result<IssueCertificateResponse, Error> {
        let record = &entry.record;
        if device::is_revoked(record) {
            return Err(Guard::Revoked.into());
        }
        let now = self.now();
        let collected = record.certificate_expires_at_unix_ms > 0;
        // A certificate is no secret, but whoever recorded the request must not have ever new ones made.
        if collected && record.certificate_expires_at_unix_ms - record.certificate_life_ms + COLLECT_MS <= now
        {
            let message = "this device is let in already and has its certificate";
            return Err(Error::new(Code::Conflict, "already_paired", message)
                .hint("creel devices cert renew DIR, by the device itself"));
        }
        let subject = device::subject(record, id);
        let certificate = self.authority.issue_device(
            subject,
            &record.name,
            key,
            self.clock.now_ms(),
            DEFAULT_CERT_LIFE_MS,
        )?;
        let mut answer = IssueCertificateResponse {
            device: Some(show(&entry)),
            certificate: Some(certificate),
        };
        if collected {
            return Ok(answer);
        }
        let mut after = record.clone();
        device::certified(&mut after, DEFAULT_CERT_LIFE_MS, now);
        after.own_protocol = true;
        let actor = format!("device/{id}");
        let event = Event::new("device.certified", &actor, &actor);
        let entry = writer
            .commit(after, event, &Slot::none(), &answer, |_| {})
            .await?;
        answer.device = Some(show(&entry));
        Ok(answer)
    }

    pub(super) fn do_list_requests(&self) -> ListRequestsResponse {
        let list = self.pairings.list(self.now());
        let shown = list
            .iter()
            .map(|entry| self.pairings.show(entry, PairingState::Pending));
        ListRequestsResponse {
            requests: shown.collect(),
        }
    }

    pub(super) async fn do_approve(&self, caller: &Caller, request: ApproveRequest) -> Result<Device, Error> {
        let slot = match self
            .idempotency
            .begin(caller, "Approve", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let now = self.now();
        let (asked, waiting) = self.pairings.find(&request.pairing, now)?;
        if !request.if_match.is_empty() && request.if_match != asked.rev.to_string() {
            let message = "the device asks for something else since this was read";
            return Err(Error::new(Code::Conflict, "etag_mismatch", message)
                .field("if_match")
                .hint("creel devices requests"));
        }
        let granted = self.grant(caller, &request, &asked, &waiting)?;
        let id: DeviceId = asked
            .record
            .device_id
            .parse()
            .map_err(|_| Error::internal("reading the request"))?;
        let (after, action) = match self.registry.get(&id) {
            Some(entry) if device::is_revoked(&entry.record) => return Err(Guard::Revoked.into()),
            Some(entry) => (
                upgraded(&entry.record, &asked.record, &granted),
                "device.upgraded",
            ),
            None => {
                let named = self.name_for(&writer, &request, &asked.record, &id)?;
                let person = self.person_for(caller, &request.person).await?;
                writer.admit(&id, &named)?;
                let record =
                    self.admitted(&asked.record, &id, &named, &person, granted.clone(), caller, now)?;
                (record, "device.approved")
            }
        };
        let answer = device::to_proto(&after, 0);
        if request.validate_only {
            return Ok(answer);
        }
        let event = Event::new(action, caller.principal(), format!("device/{id}"))
            .with("pairing", &asked.record.pairing_id)
            .with("name", &after.name)
            .with("scopes", after.scopes.join(" "))
            .with("commands", after.commands.join(" "));
        let close = |txn: &mut Txn| self.pairings.close(txn, &asked);
        let entry = writer.commit(after, event, &slot, &answer, close).await?;
        self.pairings
            .closed(&asked, DeviceEventKind::Approved, PairingState::Approved);
        Ok(show(&entry))
    }

    /// Requested ∩ chosen ∩ the approver's own; an error says what is missing where nothing would be left.
    fn grant(
        &self,
        caller: &Caller,
        request: &ApproveRequest,
        asked: &Entry,
        waiting: &Waiting,
    ) -> Result<Grant, Error> {
        let role = asked.record.declared.clone().unwrap_or_default().role();
        let holder = self.pairings.holder(role, asked.record.legacy);
        let wants = &waiting.wants;
        let chosen_scopes = creel_wire::names::parse_scopes(&request.scopes)
            .map_err(|error| Error::invalid("scopes", error.to_string()))?;
        let all = |list: &[String]| list.is_empty() && !request.chosen;
        let set = |list: &[String]| list.iter().cloned().collect();
        let chosen = Grant {
            scopes: if all(&request.scopes) {
                wants.scopes.clone()
            } else {
                chosen_scopes
            },
            commands: if all(&request.commands) {
                wants.commands.clone()
            } else {
                set(&request.commands)
            },
            caps: if all(&request.caps) {
                wants.caps.clone()
            } else {
                set(&request.caps)
            },
        };
        let granted = grants::hand_on(holder, wants, &chosen, caller.scopes(), Guards::all())?;
        if role == Role::Operator && granted.scopes.is_empty() && !asked.record.known {
            let message =
                "nothing would be granted: the device asks for no scope that was chosen and that you have";
            return Err(Error::new(Code::FailedPrecondition, "nothing_to_grant", message)
                .field("scopes")
                .hint("creel devices requests shows what it asks for; creel whoami what you have"));
        }
        Ok(granted)
    }

    fn name_for(
        &self,
        writer: &registry::Writer<'_>,
        request: &ApproveRequest,
        asked: &PairingRecord,
        id: &DeviceId,
    ) -> Result<String, Error> {
        if !request.name.is_empty() {
            return Ok(check_name(&request.name)?.to_owned());
        }
        let said = asked
            .declared
            .as_ref()
            .map_or("", |declared| declared.display_name.trim());
        let short: String = id.as_str().chars().take(8).collect();
        let name = if said.is_empty() {
            format!("device-{short}")
        } else {
            said.to_owned()
        };
        // A device's own word for itself must not look like another device.
        Ok(writer.free_name(&name))
    }

    /// Whose device it becomes: the approver's own person's, or, for administrators, another's.
    pub(super) async fn person_for(&self, caller: &Caller, asked: &str) -> Result<String, Error> {
        let own = person_of(caller);
        if asked.is_empty() || asked == own {
            return Ok(own.to_owned());
        }
        if !caller.has(Scope::Admin) {
            let message = "a device of another person needs operator.admin";
            return Err(Error::new(Code::PermissionDenied, "scope_not_held", message).field("person"));
        }
        crate::people::require(&self.store, asked).await?;
        Ok(asked.to_owned())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one device, all of different types"
    )]
    fn admitted(
        &self,
        asked: &PairingRecord,
        id: &DeviceId,
        name: &str,
        person: &str,
        grant: Grant,
        caller: &Caller,
        now: i64,
    ) -> Result<DeviceRecord, Error> {
        let declared = asked.declared.clone().unwrap_or_default();
        let new = NewDevice {
            id,
            public_key: asked
                .public_key
                .as_slice()
                .try_into()
                .map_err(|_| Error::internal("reading the request"))?,
            name,
            person,
            role: declared.role(),
            grant,
            origin: "request",
            approved_by: approver(caller),
            certificate_life_ms: 0,
            legacy: asked.legacy,
        };
        let mut record = device::create(new, now);
        record.phrase.clone_from(&asked.phrase);
        record.phrase_nonce.clone_from(&asked.phrase_nonce);
        record.platform = declared.platform;
        record.device_family = declared.device_family;
        record.permissions = declared.surface.unwrap_or_default().permissions;
        Ok(record)
    }

    pub(super) async fn do_reject(
        &self,
        caller: &Caller,
        request: RejectRequest,
    ) -> Result<PairingRequest, Error> {
        if request.reason.chars().count() > 256 {
            return Err(Error::invalid("reason", "at most 256 characters"));
        }
        let slot = match self
            .idempotency
            .begin(caller, "Reject", &request.request_id, &request)
            .await?
        {
            Begin::Done(answer) => return Ok(answer),
            Begin::Go(slot) => slot,
        };
        let _writer = self.registry.write().await;
        let (asked, _) = self.pairings.find(&request.pairing, self.now())?;
        let answer = self.pairings.show(&asked, PairingState::Rejected);
        if request.validate_only {
            return Ok(answer);
        }
        let mut txn = Txn::new();
        self.pairings.close(&mut txn, &asked);
        slot.record(&mut txn, &answer);
        let object = format!("pairing/{}", asked.record.pairing_id);
        let event = Event::new("pairing.rejected", caller.principal(), object)
            .with("device", &asked.record.device_id)
            .with("reason", &request.reason);
        self.outbox.push(&mut txn, event)?;
        committed(self.store.commit(txn).await)?;
        self.outbox.committed();
        self.pairings
            .closed(&asked, DeviceEventKind::Rejected, PairingState::Rejected);
        Ok(answer)
    }
}

/// A device that asked is given the same certificate's like again for so long, in milliseconds.
const COLLECT_MS: i64 = 3_600_000;

/// A device that is let in gets more. Its connections close, so that the next one shows it.
fn upgraded(before: &DeviceRecord, asked: &PairingRecord, granted: &Grant) -> DeviceRecord {
    let mut after = before.clone();
    let held = device::grant(before);
    device::hold(&mut after, &held.with(granted));
    for scope in &granted.scopes {
        let scope = scope.to_string();
        // The token was for less, too.
        if !after.token_hash.is_empty() && !after.token_scopes.contains(&scope) {
            after.token_scopes.push(scope);
        }
    }
    let declared = asked.declared.clone().unwrap_or_default();
    let Surface { permissions, .. } = declared.surface.unwrap_or_default();
    after.permissions = permissions;
    device::move_epoch(&mut after);
    after
}

#[cfg(test)]
mod tests {
    use creel_wire::Scopes;

    use super::*;

    #[test]
    fn an_upgrade_adds_to_the_device_and_its_token_and_moves_the_epoch() {
        let before = DeviceRecord {
            state: creel_proto::identity::v1::DeviceState::Approved.into(),
            epoch: 3,
            scopes: vec!["operator.read".into()],
            token_hash: vec![0; 32],
            token_scopes: vec!["operator.read".into()],
            ..DeviceRecord::default()
        };
        let granted = Grant {
            scopes: Scopes::from([Scope::Write]),
            ..Grant::default()
        };
        let after = upgraded(&before, &PairingRecord::default(), &granted);
        assert_eq!(after.epoch, 4);
        assert_eq!(device::scopes(&after), Scopes::from([Scope::Read, Scope::Write]));
        assert_eq!(after.token_scopes, ["operator.read", "operator.write"]);
    }
}
