//! Devices.

use std::collections::BTreeMap;

use creel_proto::identity::v1::{Device, PairingRequest, Surface};
use serde::Serialize;

use super::{at, at_ms, text, word};

/// See [`Device`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceView {
    pub(crate) device_id: String,
    pub(crate) name: String,
    pub(crate) person: String,
    pub(crate) role: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) state: String,
    /// Whether it is this machine.
    pub(crate) current: bool,
    pub(crate) epoch: u64,
    pub(crate) created_at: Option<String>,
    pub(crate) created_at_ms: Option<i64>,
    pub(crate) certificate_expires_at: Option<String>,
    pub(crate) certificate_expires_at_ms: Option<i64>,
    pub(crate) revoked_at: Option<String>,
    pub(crate) revoked_at_ms: Option<i64>,
    pub(crate) origin: String,
    pub(crate) approved_by: Option<String>,
    /// Six words that the device can show too.
    pub(crate) phrase: Option<String>,
    pub(crate) surface: SurfaceView,
    pub(crate) platform: Option<String>,
    pub(crate) legacy: bool,
    pub(crate) token_issued_at: Option<String>,
    pub(crate) token_issued_at_ms: Option<i64>,
    pub(crate) etag: String,
}

/// See [`Surface`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SurfaceView {
    pub(crate) caps: Vec<String>,
    pub(crate) commands: Vec<String>,
    pub(crate) permissions: BTreeMap<String, bool>,
}

impl From<Option<&Surface>> for SurfaceView {
    fn from(surface: Option<&Surface>) -> Self {
        let surface = surface.cloned().unwrap_or_default();
        Self {
            caps: surface.caps,
            commands: surface.commands,
            permissions: surface.permissions.into_iter().collect(),
        }
    }
}

/// See [`PairingRequest`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestView {
    pub(crate) pairing_id: String,
    pub(crate) device_id: String,
    pub(crate) name: Option<String>,
    pub(crate) role: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) surface: SurfaceView,
    pub(crate) platform: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) phrase: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) legacy: bool,
    pub(crate) remote_address: String,
    pub(crate) requested_at: Option<String>,
    pub(crate) requested_at_ms: Option<i64>,
    pub(crate) expires_at: Option<String>,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) held_scopes: Vec<String>,
    pub(crate) held_surface: SurfaceView,
    pub(crate) etag: String,
}

impl From<&PairingRequest> for RequestView {
    fn from(request: &PairingRequest) -> Self {
        let declared = request.declared.clone().unwrap_or_default();
        Self {
            pairing_id: request.pairing_id.clone(),
            device_id: request.device_id.clone(),
            name: text(&declared.display_name),
            role: word(declared.role().as_str_name(), "ROLE_"),
            surface: declared.surface.as_ref().into(),
            platform: text(&declared.platform),
            version: text(&declared.version),
            client_id: text(&declared.client_id),
            scopes: declared.scopes,
            phrase: request.phrase.clone(),
            state: word(request.state().as_str_name(), "PAIRING_STATE_"),
            reason: word(request.reason().as_str_name(), "PAIRING_REASON_"),
            legacy: request.legacy,
            remote_address: request.remote_address.clone(),
            requested_at: at(request.requested_at.as_ref()),
            requested_at_ms: at_ms(request.requested_at.as_ref()),
            expires_at: at(request.expires_at.as_ref()),
            expires_at_ms: at_ms(request.expires_at.as_ref()),
            held_scopes: request.held_scopes.clone(),
            held_surface: request.held_surface.as_ref().into(),
            etag: request.etag.clone(),
        }
    }
}

impl DeviceView {
    /// `own`: this machine's device id.
    pub(crate) fn of(device: &Device, own: Option<&str>) -> Self {
        Self {
            device_id: device.device_id.clone(),
            name: device.name.clone(),
            person: device.person.clone(),
            role: word(device.role().as_str_name(), "ROLE_"),
            scopes: device.scopes.clone(),
            state: word(device.state().as_str_name(), "DEVICE_STATE_"),
            current: own == Some(device.device_id.as_str()),
            epoch: device.epoch,
            created_at: at(device.created_at.as_ref()),
            created_at_ms: at_ms(device.created_at.as_ref()),
            certificate_expires_at: at(device.certificate_expires_at.as_ref()),
            certificate_expires_at_ms: at_ms(device.certificate_expires_at.as_ref()),
            revoked_at: at(device.revoked_at.as_ref()),
            revoked_at_ms: at_ms(device.revoked_at.as_ref()),
            origin: device.origin.clone(),
            approved_by: text(&device.approved_by),
            phrase: text(&device.phrase),
            surface: device.surface.as_ref().into(),
            platform: text(&device.platform),
            legacy: device.legacy,
            token_issued_at: at(device.token_issued_at.as_ref()),
            token_issued_at_ms: at_ms(device.token_issued_at.as_ref()),
            etag: device.etag.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::identity::v1::{DeviceState, Role};

    use super::*;

    #[test]
    fn a_device_is_shown_with_words_and_marked_when_it_is_ours() {
        let device = Device {
            device_id: "ab".into(),
            role: Role::Operator.into(),
            state: DeviceState::Revoked.into(),
            ..Device::default()
        };
        let view = serde_json::to_value(DeviceView::of(&device, Some("ab"))).unwrap();
        assert_eq!(
            (&view["role"], &view["state"]),
            (&"operator".into(), &"revoked".into())
        );
        assert_eq!(view["current"], true);
        assert_eq!(
            serde_json::to_value(DeviceView::of(&device, None)).unwrap()["current"],
            false
        );
    }
}
