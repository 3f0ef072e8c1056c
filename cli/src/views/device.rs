//! Devices.

use creel_proto::identity::v1::Device;
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
    pub(crate) etag: String,
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
