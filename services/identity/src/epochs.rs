//! What identity says of a device, and until when (REV-1, REV-3): pure. A device's epoch moves whenever what it
//! holds changes; what was said of an earlier epoch is not said again.

use creel_proto::identity::v1::{DeviceRecord, DeviceState};
use creel_wire::{Code, Error, assertion::MAX_LIFE_MS};

use crate::guard::{Guard, Guards};

/// What matters of a device here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// Moves with each change of what it holds.
    pub epoch: u64,
    /// It is out, for good.
    pub revoked: bool,
}

impl Standing {
    /// Of a device's record. A state that can't be read is no standing.
    #[must_use]
    pub fn of(record: &DeviceRecord) -> Self {
        Self {
            epoch: record.epoch,
            // Anything but a clear yes is a no.
            revoked: record.state != i32::from(DeviceState::Approved),
        }
    }

    /// After a change of what it holds.
    #[must_use]
    pub const fn changed(self) -> Self {
        Self {
            epoch: self.epoch + 1,
            ..self
        }
    }

    /// After it was revoked. Revoking again changes nothing.
    #[must_use]
    pub const fn revoked(self) -> Self {
        if self.revoked {
            return self;
        }
        Self {
            revoked: true,
            ..self.changed()
        }
    }
}

/// Why nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such device.
    Unknown,
    /// It was revoked.
    Revoked,
    /// What it holds changed since.
    Changed,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let (reason, message) = match refused {
            Refused::Unknown => ("device_unknown", "there is no such device"),
            Refused::Revoked => ("device_revoked", "this device was revoked"),
            Refused::Changed => (
                "grant_changed",
                "the device's grant changed: it has to prove itself again",
            ),
        };
        Self::new(Code::Unauthenticated, reason, message)
    }
}

/// Whether anything may be said of a device.
///
/// # Errors
/// [`Refused`], by the guard [`Guard::Standing`].
pub fn vouch(standing: Option<Standing>, guards: Guards) -> Result<(), Refused> {
    if !guards.on(Guard::Standing) {
        return Ok(());
    }
    match standing {
        None => Err(Refused::Unknown),
        Some(Standing { revoked: true, .. }) => Err(Refused::Revoked),
        Some(Standing { revoked: false, .. }) => Ok(()),
    }
}

/// Whether what was said of a device at `epoch` may be said again: on the same connection, for a turn that it
/// caused, for the next hop.
///
/// # Errors
/// [`Refused`], by the guards [`Guard::Standing`] and [`Guard::NoReissue`].
pub fn vouch_again(standing: Option<Standing>, epoch: u64, guards: Guards) -> Result<(), Refused> {
    vouch(standing, guards)?;
    if guards.on(Guard::NoReissue) && standing.is_some_and(|standing| standing.epoch != epoch) {
        return Err(Refused::Changed);
    }
    Ok(())
}

/// When an assertion that is made now ends: at most five minutes on, and not after `until_ms`, the end of what it
/// is made of.
#[must_use]
pub fn end_ms(now_ms: i64, until_ms: Option<i64>, guards: Guards) -> i64 {
    let most = if guards.on(Guard::AssertionTtl) {
        now_ms.saturating_add(MAX_LIFE_MS)
    } else {
        i64::MAX
    };
    until_ms.map_or(most, |until| until.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Standing = Standing {
        epoch: 3,
        revoked: false,
    };

    #[test]
    fn only_a_device_that_stands_as_it_stood_is_spoken_of_again() {
        let all = Guards::all();
        assert_eq!(vouch(Some(GOOD), all), Ok(()));
        assert_eq!(vouch(None, all), Err(Refused::Unknown));
        assert_eq!(vouch(Some(GOOD.revoked()), all), Err(Refused::Revoked));
        assert_eq!(vouch_again(Some(GOOD), 3, all), Ok(()));
        assert_eq!(vouch_again(Some(GOOD.changed()), 3, all), Err(Refused::Changed));
        assert_eq!(
            vouch_again(Some(GOOD.revoked()), 3, all),
            Err(Refused::Revoked),
            "the graver reason is told"
        );
        assert_eq!(GOOD.revoked().revoked(), GOOD.revoked());
        let unreadable = DeviceRecord {
            state: 77,
            ..DeviceRecord::default()
        };
        assert_eq!(vouch(Some(Standing::of(&unreadable)), all), Err(Refused::Revoked));
    }

    #[test]
    fn nothing_lives_longer_than_five_minutes_nor_than_what_it_is_made_of() {
        let all = Guards::all();
        assert_eq!(end_ms(10, None, all), 10 + MAX_LIFE_MS);
        assert_eq!(end_ms(10, Some(11 + MAX_LIFE_MS), all), 10 + MAX_LIFE_MS);
        assert_eq!(end_ms(10, Some(9 + MAX_LIFE_MS), all), 9 + MAX_LIFE_MS);
    }
}
