//! `device.pair.*`, `device.token.*` and `node.pair.*`: identity's devices and requests.
//!
//! In Creel a device has one role for life, and a token is worthless without the device's signature; so
//! "revoke the token" and "remove the pairing" both mean: end the device.

use std::sync::Arc;

use creel_proto::{
    identity::v1::{
        ApproveRequest, Device, GetDeviceRequest, ListDevicesRequest, ListRequestsRequest, PairingRequest,
        RejectRequest, RevokeDeviceRequest, Role, RotateTokenRequest,
        device_service_client::DeviceServiceClient,
    },
    time,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::request_id;
use crate::{
    backend::AsCaller,
    ws::{failure::Failure, frame::Request, session::Session},
};

/// Devices shown; a page more would be asked for by gRPC.
const MAX_DEVICES: i32 = 500;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ById {
    request_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByDevice {
    device_id: String,
    role: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

async fn devices(session: &Arc<Session>) -> Result<DeviceServiceClient<AsCaller>, Failure> {
    Ok(DeviceServiceClient::new(session.services().await?))
}

pub(super) async fn list(session: &Arc<Session>) -> Result<Value, Failure> {
    let (pending, paired) = fetch(session).await?;
    Ok(json!({
        "pending": pending.iter().map(pending_json).collect::<Vec<_>>(),
        "paired": paired.iter().map(device_json).collect::<Vec<_>>(),
    }))
}

pub(super) async fn list_nodes(session: &Arc<Session>) -> Result<Value, Failure> {
    let (pending, paired) = fetch(session).await?;
    let is_node = |request: &&PairingRequest| {
        request
            .declared
            .as_ref()
            .is_some_and(|declared| declared.role() == Role::Node)
    };
    Ok(json!({
        "pending": pending.iter().filter(is_node).map(node_pending_json).collect::<Vec<_>>(),
        "paired": paired.iter().filter(|device| device.role() == Role::Node).map(device_json).collect::<Vec<_>>(),
    }))
}

async fn fetch(session: &Arc<Session>) -> Result<(Vec<PairingRequest>, Vec<Device>), Failure> {
    let mut devices = devices(session).await?;
    let pending = devices
        .list_requests(ListRequestsRequest {})
        .await?
        .into_inner()
        .requests;
    let list = ListDevicesRequest {
        page_size: MAX_DEVICES,
        ..ListDevicesRequest::default()
    };
    let paired = devices.list_devices(list).await?.into_inner().devices;
    Ok((pending, paired))
}

pub(super) async fn approve(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: ById = request.params()?;
    let approve = ApproveRequest {
        request_id: request_id(None),
        pairing: params.request_id.clone(),
        ..ApproveRequest::default()
    };
    let device = devices(session).await?.approve(approve).await?.into_inner();
    Ok(json!({ "requestId": params.request_id, "device": device_json(&device) }))
}

pub(super) async fn reject(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: ById = request.params()?;
    let reject = RejectRequest {
        request_id: request_id(None),
        pairing: params.request_id.clone(),
        ..RejectRequest::default()
    };
    let rejected = devices(session).await?.reject(reject).await?.into_inner();
    Ok(json!({ "requestId": params.request_id, "deviceId": rejected.device_id }))
}

pub(super) async fn rotate(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: ByDevice = request.params()?;
    let mut devices = devices(session).await?;
    of_role(&mut devices, &params).await?;
    let rotate = RotateTokenRequest {
        request_id: request_id(None),
        device: params.device_id,
        scopes: params.scopes,
        ..RotateTokenRequest::default()
    };
    let rotated = devices.rotate_token(rotate).await?.into_inner();
    let device = rotated.device.unwrap_or_default();
    let mut answer = json!({
        "deviceId": device.device_id,
        "role": role_name(&device),
        "scopes": rotated.scopes,
        "rotatedAtMs": rotated.issued_at.as_ref().map(time::unix_ms),
    });
    // Told to the device alone: an operator has no use for another's token.
    if device.device_id == session.device.as_str() {
        answer["token"] = json!(rotated.token);
    }
    Ok(answer)
}

pub(super) async fn revoke(session: &Arc<Session>, request: &Request) -> Result<Value, Failure> {
    let params: ByDevice = request.params()?;
    let mut devices = devices(session).await?;
    of_role(&mut devices, &params).await?;
    let revoke = RevokeDeviceRequest {
        request_id: request_id(None),
        device: params.device_id,
        ..RevokeDeviceRequest::default()
    };
    let device = devices.revoke(revoke).await?.into_inner();
    Ok(json!({
        "deviceId": device.device_id,
        "role": role_name(&device),
        "revokedAtMs": device.revoked_at.as_ref().map(time::unix_ms),
    }))
}

/// A device of another role than the one that was named isn't meant.
async fn of_role(devices: &mut DeviceServiceClient<AsCaller>, params: &ByDevice) -> Result<(), Failure> {
    let Some(role) = &params.role else { return Ok(()) };
    let get = GetDeviceRequest {
        device: params.device_id.clone(),
    };
    let device = devices.get_device(get).await?.into_inner();
    if role_name(&device) == role {
        Ok(())
    } else {
        Err(Failure::invalid("unknown deviceId/role"))
    }
}

fn role_name(device: &Device) -> &'static str {
    role_text(device.role())
}

pub(crate) const fn role_text(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Operator => "operator",
        _ => "unknown",
    }
}

/// A request as the original shows it.
pub(crate) fn pending_json(request: &PairingRequest) -> Value {
    let declared = request.declared.clone().unwrap_or_default();
    let role = role_text(declared.role());
    json!({
        "requestId": request.pairing_id,
        "deviceId": request.device_id,
        "displayName": declared.display_name,
        "platform": declared.platform,
        "deviceFamily": declared.device_family,
        "clientId": declared.client_id,
        "clientMode": declared.client_mode,
        "role": role,
        "roles": [role],
        "scopes": declared.scopes,
        "remoteIp": request.remote_address,
        "silent": false,
        "isRepair": !request.held_scopes.is_empty() || request.held_surface.is_some(),
        "ts": request.requested_at.as_ref().map_or(0, time::unix_ms),
        "phrase": request.phrase,
    })
}

/// A node's request: what it could be asked for matters most.
pub(crate) fn node_pending_json(request: &PairingRequest) -> Value {
    let declared = request.declared.clone().unwrap_or_default();
    let surface = declared.surface.unwrap_or_default();
    json!({
        "requestId": request.pairing_id,
        "nodeId": request.device_id,
        "displayName": declared.display_name,
        "platform": declared.platform,
        "version": declared.version,
        "caps": surface.caps,
        "commands": surface.commands,
        "permissions": permissions(surface.permissions),
        "remoteIp": request.remote_address,
        "ts": request.requested_at.as_ref().map_or(0, time::unix_ms),
        "phrase": request.phrase,
    })
}

fn device_json(device: &Device) -> Value {
    let role = role_name(device);
    let surface = device.surface.clone().unwrap_or_default();
    let token = device
        .token_issued_at
        .as_ref()
        .map(|at| json!([{ "role": role, "scopes": device.scopes, "createdAtMs": time::unix_ms(at) }]));
    json!({
        "deviceId": device.device_id,
        "displayName": device.name,
        "role": role,
        "roles": [role],
        "scopes": device.scopes,
        "caps": surface.caps,
        "commands": surface.commands,
        "tokens": token.unwrap_or_else(|| json!([])),
        "createdAtMs": device.created_at.as_ref().map_or(0, time::unix_ms),
        "approvedBy": device.approved_by,
    })
}

/// In order, so that the same answer is the same text.
fn permissions(from: std::collections::HashMap<String, bool>) -> std::collections::BTreeMap<String, bool> {
    from.into_iter().collect()
}
