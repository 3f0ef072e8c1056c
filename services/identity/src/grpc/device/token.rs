//! A new token for a device, in place of the one it has.

use creel_kit::{idempotency::Begin, outbox::Event};
use creel_proto::{
    identity::v1::{RotateTokenRequest, RotateTokenResponse},
    time,
};
use creel_wire::{Caller, Code, Error, Scopes, names::parse_scopes};

use super::{Devices, change::scopes_of, show};
use crate::{
    device::{self, Guard},
    grants, seal, tokens,
};

impl Devices {
    pub(super) async fn do_rotate(
        &self,
        caller: &Caller,
        request: RotateTokenRequest,
    ) -> Result<RotateTokenResponse, Error> {
        let slot = match self
            .idempotency
            .begin::<RotateTokenResponse>(caller, "RotateToken", &request.request_id, &request)
            .await?
        {
            Begin::Done(_) => return Err(shown_once("token", "creel devices rotate NAME")),
            Begin::Go(slot) => slot,
        };
        let writer = self.registry.write().await;
        let entry = self.registry.find(&request.device)?;
        if device::is_revoked(&entry.record) {
            return Err(Guard::Revoked.into());
        }
        if entry.record.token_hash.is_empty() {
            let message = "this device has no token: its key alone is its proof";
            return Err(Error::new(Code::FailedPrecondition, "no_token", message)
                .hint("creel devices revoke NAME ends it"));
        }
        let held = device::scopes(&entry.record);
        let before = parse_scopes(&entry.record.token_scopes).unwrap_or_default();
        let asked = if request.scopes.is_empty() {
            before.clone()
        } else {
            scopes_of(&request.scopes)?
        };
        // Never more than the token before was for, nor than the device holds, nor than the caller has.
        let most = grants::attenuate(&asked, &before, &held);
        let granted = grants::attenuate(&most, &most, caller.scopes());
        let missing: Scopes = most.difference(&granted).copied().collect();
        if request.scopes.is_empty() && !missing.is_empty() {
            return Err(Guard::NotHeld(missing).into());
        }
        let now = self.now();
        let token = tokens::text(&rand::random());
        let mut after = entry.record;
        after.token_hash = tokens::hash(token.expose()).to_vec();
        after.token_scopes = seal::texts(&granted);
        after.token_issued_at_unix_ms = now;
        // Connections by the old token end.
        device::move_epoch(&mut after);
        let mut answer = RotateTokenResponse {
            device: Some(device::to_proto(&after, 0)),
            token: String::new(),
            scopes: seal::texts(&granted),
            issued_at: Some(time::timestamp(now)),
        };
        if request.validate_only {
            return Ok(answer);
        }
        let object = format!("device/{}", after.device_id);
        let event = Event::new("device.token_rotated", caller.principal(), object)
            .with("scopes", answer.scopes.join(" "));
        // What is remembered for a repeat holds no secret.
        let entry = writer.commit(after, event, &slot, &answer, |_| {}).await?;
        answer.device = Some(show(&entry));
        token.expose().clone_into(&mut answer.token);
        Ok(answer)
    }
}

/// A repeated request whose answer held a secret: that is kept nowhere, so it can't be told again.
pub(super) fn shown_once(what: &str, again: &str) -> Error {
    let message = format!("this request was done; its {what} was shown once and is not kept");
    Error::new(Code::Conflict, "shown_once", message)
        .field("request_id")
        .hint(format!("{again}, with a new request id"))
}
