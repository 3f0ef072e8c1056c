//! Connections without a client certificate: a nonce, a proof of possession, and who that is.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use creel_kit::{idempotency::Slot, outbox::Event};
use creel_proto::{
    identity::v1::{
        ChallengeRequest, ChallengeResponse, Connected, Declaration, DeviceRecord, ProveRequest,
        ProveResponse, Refused, RefusedReason as Why, Surface, prove_request::Protocol,
        prove_response::Outcome,
    },
    time,
};
use creel_wire::{
    Caller, Code, DeviceId, Error, Principal, Scope, Scopes, Secret, ServiceName, Source,
    proof::{Signed, own_payload},
};
use ed25519_dalek::VerifyingKey;

use super::{Devices, show};
use crate::{
    declared::{self, Declared, role_word},
    device,
    failures::Verdict,
    grants::{self, Grant},
    guard::Guards,
    nonces,
    pairings::{Asking, required},
    proof::{self, Legacy},
    registry::Entry,
    seal, tokens,
};

/// Connections besides the first that one call gets nonces for.
const MAX_FURTHER: usize = 15;
/// A connection id, in bytes.
const MAX_CONNECTION: usize = 128;
/// A nonce, a device id, a token as they are said: nothing longer is looked at, in bytes.
const MAX_SAID: usize = 256;

/// Why a proof ended early.
pub(super) enum Stop {
    /// It is refused.
    Refused(Refused),
    /// Nothing was decided.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) fn refused(reason: Why, message: impl Into<String>) -> Stop {
    Stop::Refused(Refused {
        reason: reason.into(),
        message: message.into(),
        retry_at: None,
    })
}

/// A reason as records and metrics name it.
pub(super) fn word(reason: Why) -> String {
    let name = reason.as_str_name().trim_start_matches("REFUSED_REASON_");
    name.to_ascii_lowercase()
}

/// A device that proved its key.
pub(super) struct Proven<'a> {
    pub(super) id: DeviceId,
    pub(super) public_key: [u8; 32],
    pub(super) declaration: &'a Declaration,
    pub(super) declared: Declared,
    pub(super) legacy: bool,
    pub(super) source: Source,
}

impl Devices {
    pub(super) fn do_challenge(&self, request: &ChallengeRequest) -> Result<ChallengeResponse, Error> {
        let further = &request.further_connection_ids;
        if further.len() > MAX_FURTHER {
            let why = format!("at most {MAX_FURTHER}");
            return Err(Error::invalid("further_connection_ids", why));
        }
        check_connection(&request.connection_id)?;
        further.iter().try_for_each(|id| check_connection(id))?;
        let now = self.now();
        // Who is told compares with the clock.
        let ahead = now - self.clock.now_ms();
        let open = |connection: &str| {
            let random: [u8; 32] = rand::random();
            let nonce = URL_SAFE_NO_PAD.encode(random);
            let until = self.pairings.open_nonce(connection, nonce.clone(), now)?;
            Ok::<_, Error>((nonce, until))
        };
        let (nonce, until) = open(&request.connection_id)?;
        let further_nonces = further.iter().map_while(|id| open(id).ok());
        Ok(ChallengeResponse {
            nonce,
            expires_at: Some(time::timestamp(until - ahead)),
            further_nonces: further_nonces.map(|(nonce, _)| nonce).collect(),
        })
    }

    pub(super) async fn do_prove(
        &self,
        caller: &Caller,
        request: ProveRequest,
    ) -> Result<ProveResponse, Error> {
        check_connection(&request.connection_id)?;
        let outcome = match self.judge(caller, &request).await {
            Ok(outcome) => outcome,
            Err(Stop::Refused(refused)) => {
                self.outbox.refused("anonymous", "Prove", &word(refused.reason()));
                Outcome::Refused(refused)
            }
            Err(Stop::Failed(error)) => return Err(error),
        };
        Ok(ProveResponse {
            outcome: Some(outcome),
        })
    }

    async fn judge(&self, caller: &Caller, request: &ProveRequest) -> Result<Outcome, Stop> {
        let proven = self.proven(request)?;
        let known = self.registry.get(&proven.id);
        let is_known = known.is_some();
        let entry = match known {
            Some(entry) => entry,
            None if !request.invite.is_empty() => self.redeem_by_proof(&proven, &request.invite).await?,
            None => return self.ask(&proven).await,
        };
        let record = &entry.record;
        if device::is_revoked(record) {
            return Err(refused(Why::DeviceRevoked, "this device was revoked"));
        }
        if proven.legacy && record.own_protocol {
            let message =
                "this key has used Creel's own protocol; it is not let in by the original's any more";
            return Err(refused(Why::LegacyRefused, message));
        }
        if record.role != i32::from(proven.declared.role) {
            let message = "this key belongs to a device of another role; another role needs another key";
            return Err(refused(Why::RoleMismatch, message));
        }
        let has_token = !record.token_hash.is_empty();
        if has_token && !request.token.is_empty() && !tokens::fits(&record.token_hash, &request.token) {
            // A client of the original drops the token it kept when it reads the first three words.
            let message = "device token mismatch: it has another one (by now); connect without one to get it";
            return Err(refused(Why::TokenMismatch, message));
        }
        // A command line of the original asks for what one command needs, and shows its user which request waits.
        // Connected without that, it would only hear that something is missing.
        let held = device::grant(record);
        if proven.legacy
            && is_known
            && !self
                .could_hold(&proven, &proven.declared.needs)
                .is_subset(&held.scopes)
            && let Some(required) = self.upgrade(&proven, record, &held).await?
        {
            return Ok(Outcome::PairingRequired(required));
        }
        Ok(Outcome::Connected(
            self.connect(caller, &proven, request, entry).await?,
        ))
    }

    /// Whose key it is: everything that can be judged before anybody is looked up.
    fn proven<'a>(&self, request: &'a ProveRequest) -> Result<Proven<'a>, Stop> {
        let now = self.clock.now_ms();
        let too_long = [
            &request.nonce,
            &request.device_id,
            &request.token,
            &request.invite,
        ]
        .iter()
        .any(|text| text.len() > MAX_SAID);
        let nonce = self
            .pairings
            .redeem_nonce(&request.connection_id, &request.nonce, self.now());
        nonce.map_err(|why| match why {
            nonces::Refused::Missing => refused(Why::NonceMissing, "the nonce is missing"),
            nonces::Refused::Mismatch => refused(
                Why::NonceMismatch,
                "this is not the nonce of this connection (any more)",
            ),
        })?;
        let key = proof::device_key(&request.public_key)
            .ok_or_else(|| refused(Why::PublicKeyInvalid, "not a canonical Ed25519 key of 32 bytes"))?;
        let id = DeviceId::of_public_key(key.as_bytes());
        let unnamed = request.device_id.is_empty() && matches!(request.protocol, Some(Protocol::Own(_)));
        if request.device_id != id.as_str() && !unnamed {
            return Err(refused(
                Why::DeviceIdMismatch,
                "the device id is not that of the key",
            ));
        }
        let legacy = matches!(request.protocol, Some(Protocol::Legacy(_)));
        let nothing = || refused(Why::DeclarationInvalid, "nothing was declared");
        let declaration = request.declared.as_ref().ok_or_else(nothing)?;
        let declared = declared::check(declaration, None, legacy)
            .map_err(|error| refused(Why::DeclarationInvalid, field_and_message(&error)))?;
        if too_long {
            return Err(refused(Why::DeclarationInvalid, "a token or an id is too long"));
        }
        let held = self.holds(request, declaration, &declared, &key, &id, now)?;
        if !held {
            return Err(self.count_failure(&id, now));
        }
        Ok(Proven {
            public_key: *key.as_bytes(),
            id,
            declaration,
            declared,
            legacy,
            source: Source::parse(&request.remote_address),
        })
    }

    fn holds(
        &self,
        request: &ProveRequest,
        declaration: &Declaration,
        declared: &Declared,
        key: &VerifyingKey,
        id: &DeviceId,
        now: i64,
    ) -> Result<bool, Stop> {
        let secret = if request.token.is_empty() {
            &request.invite
        } else {
            &request.token
        };
        let signed = Signed {
            device: id,
            role: role_word(declared.role),
            scopes: &declaration.scopes,
            nonce: &request.nonce,
            secret,
        };
        match &request.protocol {
            Some(Protocol::Own(own)) => {
                let exporter: &[u8; 32] = own
                    .tls_exporter
                    .as_slice()
                    .try_into()
                    .map_err(|_| refused(Why::ChannelBindingMissing, "the TLS exporter is 32 bytes"))?;
                let payload = own_payload(signed, exporter);
                Ok(proof::holds(key, &payload, &request.signature))
            }
            Some(Protocol::Legacy(legacy)) => {
                if !proof::is_timely(legacy.signed_at_unix_ms, now) {
                    let message = "signed too long ago, or ahead of time; set the clock of the device";
                    return Err(refused(Why::SignatureExpired, message));
                }
                let more = Legacy {
                    client_id: &declaration.client_id,
                    client_mode: &declaration.client_mode,
                    platform: &declaration.platform,
                    device_family: &declaration.device_family,
                    signed_at_ms: legacy.signed_at_unix_ms,
                };
                let payloads = proof::legacy_payloads(signed, more).ok_or_else(|| {
                    refused(Why::DeclarationInvalid, "a part holds a separator of the payload")
                })?;
                Ok(payloads
                    .iter()
                    .any(|payload| proof::holds(key, payload.as_bytes(), &request.signature)))
            }
            None => Err(refused(Why::SignatureInvalid, "no protocol was named")),
        }
    }

    pub(super) fn count_failure(&self, id: &DeviceId, now: i64) -> Stop {
        let verdict = self.pairings.failed(id, now);
        let until = match verdict {
            Verdict::Refuse => {
                return refused(Why::SignatureInvalid, "the signature does not hold");
            }
            Verdict::Alert(until) => {
                tracing::warn!(device = %id, "ten bad proofs within a minute");
                let object = format!("device/{id}");
                self.outbox
                    .decided(Event::new("device.proof_failures", "anonymous", object));
                until
            }
            Verdict::TooMany(until) => until,
        };
        let seconds = (until - now) / 1_000 + 1;
        Stop::Refused(Refused {
            reason: Why::TooManyFailures.into(),
            message: format!(
                "the signature does not hold; too many bad proofs, counted for {seconds} s more"
            ),
            retry_at: Some(time::timestamp(until)),
        })
    }

    /// An unknown device waits for an operator.
    async fn ask(&self, proven: &Proven<'_>) -> Result<Outcome, Stop> {
        let writer = self.registry.write().await;
        let asking = asking(proven, None);
        match self.pairings.ask(&writer, asking, self.now()).await {
            Ok(entry) => Ok(Outcome::PairingRequired(required(&entry))),
            Err(error) if error.code == Code::ResourceExhausted => {
                Err(refused(Why::PairingFull, error.message))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn redeem_by_proof(&self, proven: &Proven<'_>, secret: &str) -> Result<Entry, Stop> {
        match self.redeem(secret, proven, 0).await {
            Ok(entry) => Ok(entry),
            Err(error) if error.code == Code::Unavailable || error.code == Code::Internal => {
                Err(error.into())
            }
            Err(error) => Err(refused(Why::InviteInvalid, error.message)),
        }
    }

    /// What a device that is let in gets on this connection.
    async fn connect(
        &self,
        caller: &Caller,
        proven: &Proven<'_>,
        request: &ProveRequest,
        entry: Entry,
    ) -> Result<Connected, Stop> {
        let (entry, token) = self.noted(proven, request, entry).await?;
        let record = &entry.record;
        let held = device::grant(record);
        let wants = &proven.declared.wants.scopes;
        // To a client of the original admin is all that it holds.
        let is_all = proven.legacy && wants.contains(&Scope::Admin);
        let wants = if is_all { &held.scopes } else { wants };
        let scopes = grants::attenuate(wants, &device::usable(record), &held.scopes);
        let usable = proven.declared.wants.meet(&held);
        let upgrade = self.upgrade(proven, record, &held).await?;
        let presenter = match caller.principal() {
            Principal::Service(name) => *name,
            _ => ServiceName::Gateway,
        };
        let now = self.clock.now_ms();
        let claims = seal::of_device(record, &scopes, request.connection_id.clone());
        let assertion = self.authority.seal(presenter, claims, now, None)?;
        let permissions = record.permissions.clone();
        Ok(Connected {
            device: Some(show(&entry)),
            scopes: seal::texts(&scopes),
            surface: Some(Surface {
                caps: usable.caps.into_iter().collect(),
                commands: usable.commands.into_iter().collect(),
                permissions,
            }),
            new_token: token.map(|token| token.expose().clone()).unwrap_or_default(),
            token_issued_at: time::timestamp_opt(record.token_issued_at_unix_ms),
            assertion: Some(assertion),
            upgrade,
        })
    }

    /// Writes down what this connection is the first to show: a token for a client of the original, or
    /// that the key speaks Creel's own protocol.
    async fn noted(
        &self,
        proven: &Proven<'_>,
        request: &ProveRequest,
        entry: Entry,
    ) -> Result<(Entry, Option<Secret<String>>), Stop> {
        // A token of some other stack, where this one gave none yet, is none.
        let has_none = request.token.is_empty() || entry.record.token_hash.is_empty();
        let wants_token = proven.legacy && has_none;
        let is_new = !proven.legacy && !entry.record.own_protocol;
        if !wants_token && !is_new {
            return Ok((entry, None));
        }
        let writer = self.registry.write().await;
        // Read again: it may have been revoked while this one waited for its turn.
        let entry = self.registry.get(&proven.id).unwrap_or(entry);
        if device::is_revoked(&entry.record) {
            return Err(refused(Why::DeviceRevoked, "this device was revoked"));
        }
        let mut after = entry.record;
        let actor = format!("device/{}", proven.id);
        let (event, token) = if wants_token {
            let token = tokens::text(&rand::random());
            after.token_hash = tokens::hash(token.expose()).to_vec();
            // The first token is for all it holds; a later one for what the last was for.
            if after.token_issued_at_unix_ms == 0 {
                after.token_scopes.clone_from(&after.scopes);
            }
            after.token_issued_at_unix_ms = self.now();
            (Event::new("device.token_issued", &actor, &actor), Some(token))
        } else {
            after.own_protocol = true;
            after.legacy = false;
            (Event::new("device.own_protocol", &actor, &actor), None)
        };
        let nothing = creel_proto::identity::v1::Device::default();
        let entry = writer
            .commit(after, event, &Slot::none(), &nothing, |_| {})
            .await?;
        Ok((entry, token))
    }

    /// Those of some scopes that such a device may ever hold.
    fn could_hold(&self, proven: &Proven<'_>, scopes: &Scopes) -> Scopes {
        let wants = Grant {
            scopes: scopes.clone(),
            ..Grant::default()
        };
        let holder = self.pairings.holder(proven.declared.role, proven.legacy);
        holder.most(&wants, Guards::all()).scopes
    }

    /// A device that declares more than it was approved for: the old grant stays, the rest waits.
    async fn upgrade(
        &self,
        proven: &Proven<'_>,
        record: &DeviceRecord,
        held: &Grant,
    ) -> Result<Option<creel_proto::identity::v1::PairingRequired>, Stop> {
        let wants = self
            .pairings
            .holder(proven.declared.role, proven.legacy)
            .most(&proven.declared.wants, Guards::all());
        if wants.is_within(held) {
            return Ok(None);
        }
        let writer = self.registry.write().await;
        match self
            .pairings
            .ask(&writer, asking(proven, Some(record)), self.now())
            .await
        {
            Ok(entry) => Ok(Some(required(&entry))),
            // It is let in as it was; what it wants besides can be asked for another time.
            Err(error) if error.code == Code::ResourceExhausted => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn asking<'a>(proven: &'a Proven<'_>, known: Option<&'a DeviceRecord>) -> Asking<'a> {
    Asking {
        id: &proven.id,
        public_key: proven.public_key,
        declaration: proven.declaration,
        declared: &proven.declared,
        legacy: proven.legacy,
        source: proven.source,
        known,
    }
}

fn field_and_message(error: &Error) -> String {
    match &error.field {
        Some(field) => format!("{field}: {}", error.message),
        None => error.message.clone(),
    }
}

fn check_connection(id: &str) -> Result<(), Error> {
    if id.is_empty() || id.len() > MAX_CONNECTION {
        return Err(Error::invalid(
            "connection_id",
            format!("1 to {MAX_CONNECTION} bytes"),
        ));
    }
    Ok(())
}
