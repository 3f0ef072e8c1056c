//! `device.pair.*`, `device.token.*` and `node.pair.*`: identity's devices and requests.
//!
//! In Creel a device has one role for life, and a token is worthless without the device's signature; so
//! "revoke the token" and "remove the pairing" both mean: end the device.

use std::sync::Arc;

use creel_proto::{
    identity::v1::{
        ApproveRequest, Device, GetDeviceRequest, ListDevicesRequest, ListRequestsRequest, PairingRequest,
        RejectRequest, RenameDeviceRequest, RevokeDeviceRequest, Role, RotateTokenRequest,
        device_service_client::DeviceServiceClient,
    },
    time,
};
use creel_wire::DeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{request_id, without_nulls};
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

/// A device, by `nodeId` where it is a node.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByDevice {
    #[serde(alias = "nodeId")]
    device_id: String,
    role: Option<String>,
    scopes: Option<Vec<String>>,
    #[serde(alias = "displayName")]
    label: Option<String>,
}

/// What can be asked about devices and requests.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    List,
    ListNodes,
    Approve(String),
    Reject(String),
    Revoke(Target),
    Rotate(Target, Vec<String>),
    Rename(Target, String),
}

/// A device, and the role it must have to be meant.
#[derive(Debug, PartialEq)]
pub(crate) struct Target {
    device: DeviceId,
    role: Option<String>,
}

pub(super) fn read(request: &Request) -> Result<Asked, Failure> {
    let pairing = || Ok::<_, Failure>(request.params::<ById>()?.request_id);
    match request.method.as_str() {
        "device.pair.list" => return Ok(Asked::List),
        "node.pair.list" => return Ok(Asked::ListNodes),
        "device.pair.approve" | "node.pair.approve" => return pairing().map(Asked::Approve),
        "device.pair.reject" | "node.pair.reject" => return pairing().map(Asked::Reject),
        _ => {}
    }
    let params: ByDevice = request.params()?;
    let is_node = request.method.starts_with("node.");
    let key = if is_node { "nodeId" } else { "deviceId" };
    let device = params.device_id.parse();
    let target = Target {
        // By its id alone: a name may be another's tomorrow.
        device: device.map_err(|_| Failure::invalid(format!("unknown {key}")))?,
        role: if is_node {
            Some("node".to_owned())
        } else {
            params.role
        },
    };
    match request.method.as_str() {
        "device.pair.remove" | "node.pair.remove" | "device.token.revoke" => Ok(Asked::Revoke(target)),
        "device.token.rotate" => Ok(Asked::Rotate(target, params.scopes.unwrap_or_default())),
        "device.pair.rename" | "node.rename" => Ok(Asked::Rename(target, params.label.unwrap_or_default())),
        other => Err(Failure::unknown_method(other)),
    }
}

pub(super) async fn run(session: &Arc<Session>, asked: Asked) -> Result<Value, Failure> {
    let mut devices = DeviceServiceClient::new(session.services().await?);
    match asked {
        Asked::List => list(&mut devices).await,
        Asked::ListNodes => list_nodes(&mut devices).await,
        Asked::Approve(pairing) => approve(&mut devices, pairing).await,
        Asked::Reject(pairing) => reject(&mut devices, pairing).await,
        Asked::Revoke(target) => revoke(&mut devices, target).await,
        Asked::Rotate(target, scopes) => rotate(&mut devices, target, scopes, &session.device).await,
        Asked::Rename(target, name) => rename(&mut devices, target, name).await,
    }
}

type Devices = DeviceServiceClient<AsCaller>;

async fn list(devices: &mut Devices) -> Result<Value, Failure> {
    let (pending, paired) = fetch(devices).await?;
    Ok(json!({
        "pending": pending.iter().map(pending_json).collect::<Vec<_>>(),
        "paired": paired.iter().map(device_json).collect::<Vec<_>>(),
    }))
}

async fn list_nodes(devices: &mut Devices) -> Result<Value, Failure> {
    let (pending, paired) = fetch(devices).await?;
    let is_node = |request: &&PairingRequest| {
        request
            .declared
            .as_ref()
            .is_some_and(|declared| declared.role() == Role::Node)
    };
    Ok(json!({
        "pending": pending.iter().filter(is_node).map(node_pending_json).collect::<Vec<_>>(),
        "paired": paired.iter().filter(|device| device.role() == Role::Node).map(node_json).collect::<Vec<_>>(),
    }))
}

async fn fetch(devices: &mut Devices) -> Result<(Vec<PairingRequest>, Vec<Device>), Failure> {
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

async fn approve(devices: &mut Devices, pairing: String) -> Result<Value, Failure> {
    let approve = ApproveRequest {
        request_id: request_id(),
        pairing: pairing.clone(),
        ..ApproveRequest::default()
    };
    let device = devices
        .approve(approve)
        .await
        .map_err(|status| no_request(&status))?
        .into_inner();
    Ok(json!({ "requestId": pairing, "device": device_json(&device) }))
}

async fn reject(devices: &mut Devices, pairing: String) -> Result<Value, Failure> {
    let reject = RejectRequest {
        request_id: request_id(),
        pairing: pairing.clone(),
        ..RejectRequest::default()
    };
    let rejected = devices
        .reject(reject)
        .await
        .map_err(|status| no_request(&status))?
        .into_inner();
    Ok(json!({ "requestId": pairing, "deviceId": rejected.device_id }))
}

/// The command line finds out by these words that a request is over.
fn no_request(status: &tonic::Status) -> Failure {
    super::unknown(status, "requestId")
}

async fn rotate(
    devices: &mut Devices,
    target: Target,
    scopes: Vec<String>,
    caller: &DeviceId,
) -> Result<Value, Failure> {
    of_role(devices, &target).await?;
    let rotate = RotateTokenRequest {
        request_id: request_id(),
        device: target.device.to_string(),
        scopes,
        ..RotateTokenRequest::default()
    };
    let rotated = devices.rotate_token(rotate).await?.into_inner();
    let device = rotated.device.unwrap_or_default();
    // Told to the device alone: an operator has no use for another's token.
    let is_own = target.device == *caller;
    Ok(without_nulls(json!({
        "deviceId": device.device_id,
        "role": role_name(&device),
        "scopes": rotated.scopes,
        "rotatedAtMs": rotated.issued_at.as_ref().map(time::unix_ms),
        "token": is_own.then_some(rotated.token),
        "tokenDelivery": if is_own { "in-band" } else { "withheld-cross-device" },
    })))
}

async fn revoke(devices: &mut Devices, target: Target) -> Result<Value, Failure> {
    of_role(devices, &target).await?;
    let revoke = RevokeDeviceRequest {
        request_id: request_id(),
        device: target.device.to_string(),
        ..RevokeDeviceRequest::default()
    };
    let device = devices
        .revoke(revoke)
        .await
        .map_err(|status| no_device(&status))?
        .into_inner();
    let mut answer = json!({
        "deviceId": device.device_id,
        "role": role_name(&device),
        "revokedAtMs": device.revoked_at.as_ref().map(time::unix_ms),
    });
    tell_node(&mut answer, &device);
    Ok(answer)
}

async fn rename(devices: &mut Devices, target: Target, name: String) -> Result<Value, Failure> {
    of_role(devices, &target).await?;
    let rename = RenameDeviceRequest {
        request_id: request_id(),
        device: target.device.to_string(),
        name,
        ..RenameDeviceRequest::default()
    };
    let device = devices
        .rename(rename)
        .await
        .map_err(|status| no_device(&status))?
        .into_inner();
    let mut answer = json!({
        "deviceId": device.device_id,
        "label": device.name,
        "displayName": device.name,
    });
    tell_node(&mut answer, &device);
    Ok(answer)
}

/// A node goes by `nodeId` besides.
fn tell_node(answer: &mut Value, device: &Device) {
    if device.role() == Role::Node {
        answer["nodeId"] = json!(device.device_id);
    }
}

/// A device of another role than the one that was named isn't meant.
async fn of_role(devices: &mut Devices, target: &Target) -> Result<(), Failure> {
    let Some(role) = &target.role else { return Ok(()) };
    let get = GetDeviceRequest {
        device: target.device.to_string(),
    };
    let device = devices
        .get_device(get)
        .await
        .map_err(|status| no_device(&status))?
        .into_inner();
    if role_name(&device) == role {
        Ok(())
    } else {
        Err(Failure::invalid("unknown deviceId/role"))
    }
}

fn no_device(status: &tonic::Status) -> Failure {
    super::unknown(status, "deviceId/role")
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

/// A paired node, as the list of nodes shows it.
fn node_json(device: &Device) -> Value {
    let mut node = device_json(device);
    tell_node(&mut node, device);
    node["platform"] = json!(device.platform);
    node["deviceFamily"] = json!(device.device_family);
    node["approvedAtMs"] = node["createdAtMs"].clone();
    node
}

/// In order, so that the same answer is the same text.
fn permissions(from: std::collections::HashMap<String, bool>) -> std::collections::BTreeMap<String, bool> {
    from.into_iter().collect()
}
