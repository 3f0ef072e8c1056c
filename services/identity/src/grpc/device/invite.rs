//! Invites: one secret lets one device in, within minutes, with what was chosen when it was made and its
//! maker still has.

use std::ops::RangeInclusive;

use creel_kit::{
    failure::store_error,
    idempotency::{Begin, Slot},
    outbox::Event,
};
use creel_proto::{
    identity::v1::{
        CreateInviteRequest, CreateInviteResponse, DeviceEventKind, InviteRecord, IssueCertificateResponse,
        PairingState, RedeemInviteRequest, Role,
    },
    time,
};
use creel_store::{Cmp, Key, Txn};
use creel_wire::{Caller, Code, DeviceId, Error, Scope, Scopes, phrase};
use prost::Message as _;

use super::{
    Devices, approver,
    bound::{Arrival, Wish},
    change::scopes_of,
    prove::Proven,
    show,
    token::shown_once,
};
use crate::{
    ca::read_request,
    declared::{self, role_word},
    device::{self, DEFAULT_CERT_LIFE_MS, Guard, NewDevice, check_name},
    grants::{self, Grant},
    guard::Guards,
    pairings::committed,
    registry::Entry,
    seal,
    store::Kind,
    tokens,
};

/// Life of an invite, in milliseconds.
const LIFE_MS: RangeInclusive<i64> = 60_000..=3_600_000;
const DEFAULT_LIFE_MS: i64 = 600_000;

impl Devices {
    pub(super) async fn do_create_invite(
        &self,
        caller: &Caller,
        request: CreateInviteRequest,
    ) -> Result<CreateInviteResponse, Error> {
        let name = check_name(&request.name)?;
        let role = match request.role() {
            Role::Unspecified if request.role == 0 => Role::Operator,
            Role::Unspecified => return Err(Error::invalid("role", "`operator` or `node`")),
            role => role,
        };
        let life = request
            .lifetime
            .as_ref()
            .map_or(DEFAULT_LIFE_MS, time::duration_ms);
        if !LIFE_MS.contains(&life) {
            return Err(Error::invalid("lifetime", "from 1 minute to 1 hour"));
        }
        let wants = wanted(&request, role)?;
        let holder = self.pairings.holder(role, false);
        let granted = grants::hand_on(holder, &wants, &wants, caller.scopes(), Guards::all())?;
        let missing: Scopes = wants.scopes.difference(&granted.scopes).copied().collect();
        if !missing.is_empty() {
            return Err(Guard::NotHeld(missing).into());
        }
        let person = self.person_for(caller, &request.person).await?;
        let slot = match self
            .idempotency
            .begin::<CreateInviteResponse>(caller, "CreateInvite", &request.request_id, &request)
            .await?
        {
            Begin::Done(_) => return Err(shown_once("code", "creel devices invite")),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        if writer.free_name(name) != name {
            return Err(Guard::NameInUse(name.to_owned()).into());
        }
        let now = self.now();
        self.room_for_one(now).await?;
        let secret = tokens::text(&rand::random());
        let hash = tokens::hash(secret.expose());
        let record = InviteRecord {
            invite_id: uuid::Uuid::now_v7().to_string(),
            name: name.to_owned(),
            role: role.into(),
            scopes: seal::texts(&granted.scopes),
            commands: granted.commands.iter().cloned().collect(),
            caps: granted.caps.iter().cloned().collect(),
            person,
            inviter: approver(caller),
            created_at_unix_ms: now,
            expires_at_unix_ms: now + life,
            ..InviteRecord::default()
        };
        let mut answer = CreateInviteResponse {
            invite_id: record.invite_id.clone(),
            secret: String::new(),
            ca_fingerprint: self.pairings.root_fingerprint().to_vec(),
            expires_at: Some(time::timestamp(record.expires_at_unix_ms)),
            scopes: record.scopes.clone(),
        };
        if request.validate_only {
            answer.invite_id.clear();
            return Ok(answer);
        }
        let key = invite_key(&hash);
        let mut txn = Txn::new()
            .expect_absent(key.clone())
            .put(key, record.encode_to_vec());
        slot.record(&mut txn, &answer);
        let object = format!("invite/{}", record.invite_id);
        let event = Event::new("invite.created", caller.principal(), object)
            .with("name", name)
            .with("role", role_word(role))
            .with("scopes", record.scopes.join(" "));
        self.outbox.push(&mut txn, event)?;
        committed(self.store.commit(txn).await)?;
        self.outbox.committed();
        secret.expose().clone_into(&mut answer.secret);
        Ok(answer)
    }

    pub(super) async fn do_redeem_invite(
        &self,
        arrival: Arrival,
        request: RedeemInviteRequest,
    ) -> Result<IssueCertificateResponse, Error> {
        let key = read_request(&request.csr_der)?;
        let (public_key, id) = key.device_key()?;
        let declaration = request.declared.unwrap_or_default();
        let wish = Wish {
            method: "RedeemInvite",
            key: &key,
            declaration: &declaration,
            secret: &request.secret,
            signature: &request.signature,
        };
        self.check_bound(&arrival, &wish)?;
        let role = self.role_of(&request.secret).await?;
        let declared = declared::check(&declaration, Some(role), false)?;
        let proven = Proven {
            id,
            public_key,
            declaration: &declaration,
            declared,
            legacy: false,
            source: arrival.source,
        };
        let entry = self
            .redeem(&request.secret, &proven, DEFAULT_CERT_LIFE_MS)
            .await?;
        let subject = device::subject(&entry.record, &proven.id);
        let certificate = self.authority.issue_device(
            subject,
            &entry.record.name,
            &key,
            self.clock.now_ms(),
            DEFAULT_CERT_LIFE_MS,
        )?;
        Ok(IssueCertificateResponse {
            device: Some(show(&entry)),
            certificate: Some(certificate),
        })
    }

    async fn role_of(&self, secret: &str) -> Result<Role, Error> {
        let (record, _) = self.invite(&invite_key(&tokens::hash(secret))).await?;
        Ok(role_of(&record))
    }

    async fn invite(&self, key: &Key) -> Result<(InviteRecord, u64), Error> {
        let entry = self
            .store
            .get(key)
            .await
            .map_err(store_error)?
            .ok_or_else(invalid)?;
        let record = InviteRecord::decode(entry.value).map_err(|_| Error::internal("reading the invite"))?;
        Ok((record, entry.mod_rev))
    }

    /// Uses an invite: one transaction makes the device and ends the invite. The device that used it may
    /// come again while it would have been good, for an answer that was lost.
    pub(super) async fn redeem(
        &self,
        secret: &str,
        proven: &Proven<'_>,
        certificate_life_ms: i64,
    ) -> Result<Entry, Error> {
        let writer = self.registry.write().await;
        let now = self.now();
        let key = invite_key(&tokens::hash(secret));
        let (mut invite, rev) = self.invite(&key).await?;
        if now >= invite.expires_at_unix_ms {
            return Err(invalid());
        }
        if !invite.used_by.is_empty() {
            let same = invite.used_by == proven.id.as_str();
            let entry = self
                .registry
                .get(&proven.id)
                .filter(|_| same)
                .ok_or_else(invalid)?;
            return if device::is_revoked(&entry.record) {
                Err(Guard::Revoked.into())
            } else {
                Ok(entry)
            };
        }
        if role_of(&invite) != proven.declared.role {
            let message = format!("this invite is for another role: {}", role_word(role_of(&invite)));
            return Err(Error::new(Code::FailedPrecondition, "invite_role", message).field("role"));
        }
        let granted = self.granted(&invite, proven)?;
        // Nobody's device may come of an invite that outlived its person.
        crate::people::require(&self.store, &invite.person).await?;
        let name = writer.free_name(&invite.name);
        writer.admit(&proven.id, &name)?;
        let nonce: [u8; 16] = rand::random();
        let new = NewDevice {
            id: &proven.id,
            public_key: proven.public_key,
            name: &name,
            person: &invite.person,
            role: role_of(&invite),
            grant: granted,
            origin: "invite",
            approved_by: invite.inviter.clone(),
            certificate_life_ms,
            legacy: proven.legacy,
        };
        let mut record = device::create(new, now);
        record.phrase = phrase::phrase(&proven.public_key, self.pairings.root_fingerprint(), &nonce);
        record.phrase_nonce = nonce.to_vec();
        record.platform.clone_from(&proven.declaration.platform);
        record.device_family.clone_from(&proven.declaration.device_family);
        let surface = proven.declaration.surface.clone().unwrap_or_default();
        record.permissions = surface.permissions;
        invite.used_by = proven.id.to_string();
        invite.used_at_unix_ms = now;
        let event = Event::new(
            "device.approved",
            format!("invite/{}", invite.invite_id),
            format!("device/{}", proven.id),
        )
        .with("name", &name)
        .with("scopes", record.scopes.join(" "))
        .with("commands", record.commands.join(" "))
        .with("inviter", &invite.inviter)
        .with("from", proven.source);
        // A device that waited for an operator waits no more.
        let asked = self.pairings.of_device(&proven.id);
        let nothing = IssueCertificateResponse::default();
        let entry = writer
            .commit(record, event, &Slot::none(), &nothing, |txn| {
                txn.push_cmp(Cmp::ModRev(key.clone(), rev));
                txn.push_put(key, invite.encode_to_vec());
                if let Some(asked) = &asked {
                    self.pairings.close(txn, asked);
                }
            })
            .await?;
        if let Some(asked) = &asked {
            self.pairings
                .closed(asked, DeviceEventKind::Approved, PairingState::Approved);
        }
        Ok(entry)
    }

    /// What the invite gives now: its maker may have lost something since, or everything.
    fn granted(&self, invite: &InviteRecord, proven: &Proven<'_>) -> Result<Grant, Error> {
        let inviter: Option<DeviceId> = invite.inviter.parse().ok();
        let own = inviter
            .and_then(|id| self.registry.get(&id))
            .map(|entry| device::scopes(&entry.record))
            .filter(|own| own.contains(&Scope::Pairing))
            .ok_or_else(invalid)?;
        let offered = Grant {
            scopes: creel_wire::names::parse_scopes(&invite.scopes).unwrap_or_default(),
            commands: invite.commands.iter().cloned().collect(),
            caps: invite.caps.iter().cloned().collect(),
        };
        let mut wants = proven.declared.wants.clone();
        if wants.scopes.is_empty() {
            // It takes what it was invited to.
            wants.scopes.clone_from(&offered.scopes);
        }
        let holder = self.pairings.holder(role_of(invite), proven.legacy);
        let granted = grants::hand_on(holder, &wants, &offered, &own, Guards::all())?;
        if role_of(invite) == Role::Operator && granted.scopes.is_empty() {
            return Err(invalid());
        }
        Ok(granted)
    }
}

pub(super) fn role_of(invite: &InviteRecord) -> Role {
    // A role that can't be read is none: nothing declares it, so nothing redeems it.
    Role::try_from(invite.role).unwrap_or(Role::Unspecified)
}

fn invite_key(hash: &[u8; 32]) -> Key {
    Kind::Invite.key([hash])
}

/// One answer for used, ended, withdrawn and never made: who guesses learns nothing.
fn invalid() -> Error {
    Error::new(
        Code::PermissionDenied,
        "invite_invalid",
        "this invite is not valid (any more): it is used, over, or was never made",
    )
    .hint("ask for another: creel devices invite --name NAME")
}

fn wanted(request: &CreateInviteRequest, role: Role) -> Result<Grant, Error> {
    let scopes = match (role, request.scopes.is_empty()) {
        (Role::Operator, true) => grants::local(),
        (Role::Operator, false) => scopes_of(&request.scopes)?,
        (_, true) => Scopes::new(),
        (_, false) => return Err(Error::invalid("scopes", "nodes hold no scopes")),
    };
    if role == Role::Operator && !request.commands.is_empty() {
        return Err(Error::invalid("commands", "only nodes offer commands"));
    }
    let surface = creel_proto::identity::v1::Surface {
        caps: request.caps.clone(),
        commands: request.commands.clone(),
        ..Default::default()
    };
    let declaration = creel_proto::identity::v1::Declaration {
        surface: Some(surface),
        ..Default::default()
    };
    let checked = declared::check(&declaration, Some(role), false)?;
    Ok(Grant {
        scopes,
        ..checked.wants
    })
}
