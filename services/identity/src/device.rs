//! Devices as a state machine: issue, rename, revoke. Pure: the record before, the request, and what
//! else there is come in; the record after comes out, or the named guard that refused.

use creel_proto::identity::v1::Surface;
use creel_proto::{
    identity::v1::{Device, DeviceRecord, DeviceState, Role},
    time,
};
use creel_wire::{
    Code, DeviceId, Error, Scope, Scopes,
    names::{Subject, parse_scopes},
};

use crate::{
    epochs::Standing,
    grants::{self, Grant},
};

/// Devices that are not revoked, at most.
pub(crate) const MAX_DEVICES: usize = 1_000;
/// A name, in characters.
pub(crate) const MAX_NAME: usize = 64;
/// Shortest and longest life of a device's certificate, in milliseconds.
pub(crate) const CERT_LIFE_MS: std::ops::RangeInclusive<i64> = 3_600_000..=800 * crate::ca::DAY_MS;
/// Life of a device's certificate if nothing else is asked for, in milliseconds.
pub(crate) const DEFAULT_CERT_LIFE_MS: i64 = 90 * crate::ca::DAY_MS;

/// Why a transition was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The key belonged to a device that was revoked: it never comes back.
    Revoked,
    /// There is such a device already.
    KeyInUse,
    /// Another device has the name.
    NameInUse(String),
    /// Too many devices.
    Full,
    /// The granter does not hold what it would hand on.
    NotHeld(Scopes),
    /// Nobody would be left who can let others in.
    LastAdministrator,
}

impl From<Guard> for Error {
    fn from(guard: Guard) -> Self {
        match guard {
            Guard::Revoked => Self::new(
                Code::PermissionDenied,
                "device_revoked",
                "this device was revoked",
            )
            .hint("make a new key: remove credentials/cli, then creel devices recover"),
            Guard::KeyInUse => Self::new(
                Code::Conflict,
                "key_in_use",
                "a device with this key exists already",
            )
            .hint("creel devices cert renew DIR keeps the key; another device needs its own"),
            Guard::NameInUse(name) => {
                let message = format!("a device named `{name}` exists already");
                Self::new(Code::Conflict, "name_in_use", message)
                    .field("name")
                    .hint("creel devices list; choose another --name")
            }
            Guard::Full => {
                let message = format!("there are {MAX_DEVICES} devices already");
                Self::new(Code::ResourceExhausted, "too_many_devices", message)
                    .hint("creel devices revoke NAME")
            }
            Guard::NotHeld(missing) => {
                let missing: Vec<_> = missing.iter().map(|scope| scope.as_str()).collect();
                let message = format!("you can't hand on what you don't have: {}", missing.join(", "));
                Self::new(Code::PermissionDenied, "scope_not_held", message).field("scopes")
            }
            Guard::LastAdministrator => {
                let message = "this is the last device that can let others in";
                Self::new(Code::FailedPrecondition, "last_administrator", message)
                    .hint("creel devices cert --name NAME --scope operator.admin --scope operator.pairing --out DIR, first")
            }
        }
    }
}

/// A checked name: 1 to 64 printable characters, no blanks at the ends.
pub(crate) fn check_name(name: &str) -> Result<&str, Error> {
    let count = name.chars().count();
    let plain = creel_wire::error::printable(name, usize::MAX) == name && name.trim() == name;
    if (1..=MAX_NAME).contains(&count) && plain {
        Ok(name)
    } else {
        Err(Error::invalid(
            "name",
            format!("a name has 1 to {MAX_NAME} printable characters, and no blanks around it"),
        ))
    }
}

/// What a new device is made of.
#[derive(Debug, Clone)]
pub(crate) struct NewDevice<'a> {
    pub(crate) id: &'a DeviceId,
    pub(crate) public_key: [u8; 32],
    pub(crate) name: &'a str,
    pub(crate) person: &'a str,
    pub(crate) role: Role,
    pub(crate) grant: Grant,
    pub(crate) origin: &'static str,
    pub(crate) approved_by: String,
    /// Life of its first certificate; 0: it has none (yet).
    pub(crate) certificate_life_ms: i64,
    /// It came by the original's payloads.
    pub(crate) legacy: bool,
}

/// A new device.
pub(crate) fn create(new: NewDevice<'_>, now_ms: i64) -> DeviceRecord {
    let mut record = DeviceRecord {
        device_id: new.id.to_string(),
        public_key: new.public_key.to_vec(),
        name: new.name.to_owned(),
        person: new.person.to_owned(),
        role: new.role.into(),
        state: DeviceState::Approved.into(),
        epoch: 1,
        created_at_unix_ms: now_ms,
        origin: new.origin.to_owned(),
        approved_by: new.approved_by,
        own_protocol: !new.legacy,
        legacy: new.legacy,
        ..DeviceRecord::default()
    };
    hold(&mut record, &new.grant);
    if new.certificate_life_ms > 0 {
        certified(&mut record, new.certificate_life_ms, now_ms);
    }
    record
}

/// Gives a device its grant, in place of the one before.
pub(crate) fn hold(record: &mut DeviceRecord, grant: &Grant) {
    record.scopes = grant.scopes.iter().map(ToString::to_string).collect();
    record.commands = grant.commands.iter().cloned().collect();
    record.caps = grant.caps.iter().cloned().collect();
}

/// What it holds, surface included.
pub(crate) fn grant(record: &DeviceRecord) -> Grant {
    if is_revoked(record) {
        return Grant::default();
    }
    Grant {
        scopes: scopes(record),
        commands: record.commands.iter().cloned().collect(),
        caps: record.caps.iter().cloned().collect(),
    }
}

/// Notes a certificate that lives so long from now on.
pub(crate) fn certified(record: &mut DeviceRecord, life_ms: i64, now_ms: i64) {
    record.certificate_life_ms = life_ms;
    record.certificate_expires_at_unix_ms = now_ms + life_ms;
}

/// How long a new certificate lives: as long as the one before, so that a script's stays short-lived.
pub(crate) fn renewed_life_ms(record: &DeviceRecord) -> i64 {
    let before = if record.certificate_life_ms > 0 {
        record.certificate_life_ms
    } else {
        // A record of before that was kept.
        record.certificate_expires_at_unix_ms - record.created_at_unix_ms
    };
    before.clamp(*CERT_LIFE_MS.start(), *CERT_LIFE_MS.end())
}

/// Whom its certificate names.
pub(crate) fn subject(record: &DeviceRecord, id: &DeviceId) -> Subject {
    if record.role == i32::from(Role::Node) {
        Subject::Node(id.clone())
    } else {
        Subject::Operator(id.clone())
    }
}

/// The end of a device. Revoking again changes nothing.
pub(crate) fn revoke(record: &DeviceRecord, reason: &str, now_ms: i64) -> DeviceRecord {
    if is_revoked(record) {
        return record.clone();
    }
    let mut after = record.clone();
    after.epoch = Standing::of(record).revoked().epoch;
    after.state = DeviceState::Revoked.into();
    after.revoked_at_unix_ms = now_ms;
    reason.clone_into(&mut after.revoke_reason);
    after
}

/// What it holds changed: its connections close, and what was said of it is not said again.
pub(crate) fn move_epoch(record: &mut DeviceRecord) {
    record.epoch = Standing::of(record).changed().epoch;
}

/// Whether the device is out.
pub(crate) fn is_revoked(record: &DeviceRecord) -> bool {
    Standing::of(record).revoked
}

/// What the device holds now. A scope that can't be read is not held.
pub(crate) fn scopes(record: &DeviceRecord) -> Scopes {
    if is_revoked(record) {
        Scopes::new()
    } else {
        parse_scopes(&record.scopes).unwrap_or_default()
    }
}

/// What it may use of that: a token is for its scopes, whichever way a device comes that has one.
pub(crate) fn usable(record: &DeviceRecord) -> Scopes {
    let held = scopes(record);
    if record.token_hash.is_empty() {
        return held;
    }
    let of_token = parse_scopes(&record.token_scopes).unwrap_or_default();
    grants::attenuate(&held, &held, &of_token)
}

/// Whether this device can let others in.
pub(crate) fn is_administrator(record: &DeviceRecord) -> bool {
    let held = scopes(record);
    record.role == i32::from(Role::Operator) && held.contains(&Scope::Admin) && held.contains(&Scope::Pairing)
}

/// As it is shown. `rev` is the store's revision of the record.
pub(crate) fn to_proto(record: &DeviceRecord, rev: u64) -> Device {
    Device {
        device_id: record.device_id.clone(),
        name: record.name.clone(),
        person: record.person.clone(),
        role: record.role,
        scopes: record.scopes.clone(),
        state: record.state,
        epoch: record.epoch,
        created_at: time::timestamp_opt(record.created_at_unix_ms),
        certificate_expires_at: time::timestamp_opt(record.certificate_expires_at_unix_ms),
        revoked_at: time::timestamp_opt(record.revoked_at_unix_ms),
        origin: record.origin.clone(),
        approved_by: record.approved_by.clone(),
        etag: rev.to_string(),
        surface: Some(Surface {
            caps: record.caps.clone(),
            commands: record.commands.clone(),
            permissions: record.permissions.clone(),
        }),
        phrase: record.phrase.clone(),
        own_protocol: record.own_protocol,
        legacy: record.legacy,
        token_issued_at: time::timestamp_opt(record.token_issued_at_unix_ms),
        phrase_nonce: record.phrase_nonce.clone(),
        platform: record.platform.clone(),
        device_family: record.device_family.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceRecord {
        let id = DeviceId::of_public_key(&[1; 32]);
        let new = NewDevice {
            id: &id,
            public_key: [1; 32],
            name: "laptop",
            person: "owner",
            role: Role::Operator,
            grant: Grant {
                scopes: crate::grants::all(),
                ..Grant::default()
            },
            origin: "local",
            approved_by: String::new(),
            certificate_life_ms: 9,
            legacy: false,
        };
        create(new, 5)
    }

    #[test]
    fn revoked_holds_nothing_and_stays_revoked() {
        let record = device();
        assert!(is_administrator(&record));
        let revoked = revoke(&record, "lost", 7);
        assert_eq!((revoked.epoch, revoked.revoked_at_unix_ms), (record.epoch + 1, 7));
        assert!(is_revoked(&revoked) && scopes(&revoked).is_empty() && !is_administrator(&revoked));
        assert_eq!(revoke(&revoked, "again", 9), revoked);
        let unknown = DeviceRecord { state: 77, ..record };
        assert!(is_revoked(&unknown), "an unknown state denies");
    }

    #[test]
    fn a_certificate_is_renewed_for_as_long_as_it_lived() {
        let mut record = device();
        for life in [*CERT_LIFE_MS.start(), 7 * crate::ca::DAY_MS, *CERT_LIFE_MS.end()] {
            certified(&mut record, life, 5);
            for now in [100, 200, 300_000] {
                let again = renewed_life_ms(&record);
                assert_eq!(again, life);
                certified(&mut record, again, now);
            }
        }
        let old = DeviceRecord {
            certificate_life_ms: 0,
            created_at_unix_ms: 1_000,
            certificate_expires_at_unix_ms: 1_000 + 7 * crate::ca::DAY_MS,
            ..record
        };
        assert_eq!(renewed_life_ms(&old), 7 * crate::ca::DAY_MS);
    }

    #[test]
    fn names_are_checked_at_the_limit() {
        assert!(check_name(&"ä".repeat(MAX_NAME)).is_ok());
        for bad in [
            String::new(),
            "a".repeat(MAX_NAME + 1),
            " a".into(),
            "a\u{1b}[2J".into(),
            "a\u{202e}b".into(),
        ] {
            assert!(check_name(&bad).is_err(), "{bad:?}");
        }
    }
}
