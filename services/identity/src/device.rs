//! Devices as a state machine: issue, rename, revoke. Pure: the record before, the request, and what
//! else there is come in; the record after comes out, or the named guard that refused.

use creel_proto::{
    identity::v1::{Device, DeviceRecord, DeviceState, Role},
    time,
};
use creel_wire::{Code, DeviceId, Error, Scope, Scopes, names::parse_scopes};

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
            format!("1 to {MAX_NAME} printable characters"),
        ))
    }
}

/// What a new device is made of.
#[derive(Debug, Clone)]
pub(crate) struct NewDevice<'a> {
    pub(crate) id: &'a DeviceId,
    pub(crate) public_key: [u8; 32],
    pub(crate) name: &'a str,
    pub(crate) scopes: Scopes,
    pub(crate) origin: &'static str,
    pub(crate) approved_by: String,
    pub(crate) certificate_expires_at_unix_ms: i64,
}

/// A new operator device of the owner.
pub(crate) fn create(new: NewDevice<'_>, now_ms: i64) -> DeviceRecord {
    DeviceRecord {
        device_id: new.id.to_string(),
        public_key: new.public_key.to_vec(),
        name: new.name.to_owned(),
        person: "owner".to_owned(),
        role: Role::Operator.into(),
        scopes: new.scopes.iter().map(ToString::to_string).collect(),
        state: DeviceState::Approved.into(),
        epoch: 1,
        created_at_unix_ms: now_ms,
        certificate_expires_at_unix_ms: new.certificate_expires_at_unix_ms,
        revoked_at_unix_ms: 0,
        origin: new.origin.to_owned(),
        approved_by: new.approved_by,
        revoke_reason: String::new(),
    }
}

/// The end of a device. Revoking again changes nothing.
pub(crate) fn revoke(record: &DeviceRecord, reason: &str, now_ms: i64) -> DeviceRecord {
    if is_revoked(record) {
        return record.clone();
    }
    let mut after = record.clone();
    after.state = DeviceState::Revoked.into();
    after.epoch += 1;
    after.revoked_at_unix_ms = now_ms;
    reason.clone_into(&mut after.revoke_reason);
    after
}

/// Whether the device is out.
pub(crate) fn is_revoked(record: &DeviceRecord) -> bool {
    // Anything but a clear yes is a no.
    record.state != i32::from(DeviceState::Approved)
}

/// What the device holds now. A scope that can't be read is not held.
pub(crate) fn scopes(record: &DeviceRecord) -> Scopes {
    if is_revoked(record) {
        Scopes::new()
    } else {
        parse_scopes(&record.scopes).unwrap_or_default()
    }
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
            scopes: crate::grants::all(),
            origin: "local",
            approved_by: String::new(),
            certificate_expires_at_unix_ms: 9,
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
