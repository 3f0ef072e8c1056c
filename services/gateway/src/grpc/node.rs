//! `NodeService`: who is connected, and asking them.

use std::time::Duration;

use creel_kit::Deps;
use creel_proto::{
    gateway::v1::{
        DescribeNodeRequest, InvokeNodeRequest, InvokeNodeResponse, ListNodesRequest, ListNodesResponse,
        Node as NodeShown, node_service_server::NodeService,
    },
    identity::v1::{DeviceState, ListDevicesRequest, Role, device_service_client::DeviceServiceClient},
    time,
};
use creel_wire::{Caller, DeviceId, Error, Scope, ServiceName, authz};
use tonic::{Request, Response, Status, transport::Channel};

use super::on_behalf;
use crate::nodes::{
    Nodes, payload_of,
    registry::{Ask, Node},
};

/// How long a node is waited for when the caller doesn't say.
const PATIENCE: Duration = Duration::from_secs(30);
/// And at most.
const MAX_PATIENCE: Duration = Duration::from_secs(600);
/// Parameters, in bytes.
const MAX_PARAMS: usize = 1 << 20;
/// A command's name, in bytes.
const MAX_COMMAND: usize = 64;
/// A request id, in bytes.
const MAX_KEY: usize = 128;
/// The shortest beginning of a device id that names it.
const MIN_PREFIX: usize = 8;

#[derive(Debug)]
pub(crate) struct NodeRpc {
    nodes: Nodes,
    devices: DeviceServiceClient<Channel>,
}

impl NodeRpc {
    pub(crate) fn new(deps: &Deps, nodes: Nodes) -> anyhow::Result<Self> {
        Ok(Self {
            nodes,
            devices: DeviceServiceClient::new(deps.peers.channel(ServiceName::Identity)?),
        })
    }

    /// Connected nodes first, then those that are away, each by name.
    async fn all(&self, caller: &Caller) -> Result<Vec<NodeShown>, Status> {
        let mut shown: Vec<_> = self.nodes.list().into_iter().map(connected).collect();
        if caller.has(Scope::Pairing) {
            let list = ListDevicesRequest {
                page_size: 500,
                ..ListDevicesRequest::default()
            };
            let known = self
                .devices
                .clone()
                .list_devices(on_behalf(caller, list)?)
                .await?
                .into_inner()
                .devices;
            for device in known {
                let is_away = device.role() == Role::Node
                    && device.state() == DeviceState::Approved
                    && shown.iter().all(|node| node.device_id != device.device_id);
                if is_away {
                    let surface = device.surface.unwrap_or_default();
                    shown.push(NodeShown {
                        device_id: device.device_id,
                        name: device.name,
                        platform: device.platform,
                        device_family: device.device_family,
                        caps: surface.caps,
                        other_commands: surface.commands,
                        ..NodeShown::default()
                    });
                }
            }
        }
        shown.sort_by_cached_key(|node| (!node.connected, node.name.to_lowercase(), node.device_id.clone()));
        Ok(shown)
    }
}

fn connected((device, node, commands): (DeviceId, Node, Vec<String>)) -> NodeShown {
    let other_commands = node
        .declared
        .into_iter()
        .filter(|command| !commands.contains(command))
        .collect();
    NodeShown {
        device_id: device.to_string(),
        name: node.name,
        connected: true,
        platform: node.platform,
        device_family: node.device_family,
        model: node.model,
        version: node.version,
        caps: node.caps,
        commands,
        other_commands,
        permissions: node.permissions.into_iter().collect(),
        connected_at: Some(time::timestamp(node.connected_at_unix_ms)),
        remote_address: node.remote_address,
    }
}

/// The node that a text names: an id, the beginning of one alone, or a name.
fn find(nodes: Vec<NodeShown>, wanted: &str) -> Result<NodeShown, Error> {
    let by_prefix = wanted.len() >= MIN_PREFIX;
    let mut fits: Vec<NodeShown> = nodes
        .into_iter()
        .filter(|node| {
            node.device_id == wanted
                || node.name.eq_ignore_ascii_case(wanted)
                || (by_prefix && node.device_id.starts_with(wanted))
        })
        .collect();
    if let Some(exact) = fits.iter().position(|node| node.device_id == wanted) {
        return Ok(fits.swap_remove(exact));
    }
    match (fits.pop(), fits.is_empty()) {
        (Some(node), true) => Ok(node),
        (None, _) => Err(Error::not_found("node", wanted).hint("creel nodes list")),
        (Some(_), false) => {
            let name = creel_wire::error::printable(wanted, 128);
            Err(Error::invalid("node", format!("more than one node fits `{name}`")).hint("creel nodes list"))
        }
    }
}

fn ask_of(caller: &Caller, request: InvokeNodeRequest, node: DeviceId) -> Result<Ask, Error> {
    let command = request.command;
    if command.is_empty() || command.len() > MAX_COMMAND {
        return Err(Error::invalid("command", format!("1 to {MAX_COMMAND} bytes")));
    }
    if request.request_id.len() > MAX_KEY {
        return Err(Error::invalid("request_id", format!("at most {MAX_KEY} bytes")));
    }
    let params = request.params_json;
    if params.len() > MAX_PARAMS {
        return Err(Error::invalid(
            "params_json",
            format!("at most {MAX_PARAMS} bytes"),
        ));
    }
    if !params.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(&params).is_err() {
        return Err(Error::invalid("params_json", "not JSON"));
    }
    let key = if request.request_id.is_empty() {
        uuid::Uuid::now_v7().to_string()
    } else {
        request.request_id
    };
    Ok(Ask {
        node,
        command,
        params_json: (!params.is_empty()).then_some(params),
        principal: caller.principal().to_string(),
        key,
    })
}

fn patience(given: Option<&prost_types::Duration>) -> Result<Duration, Error> {
    let Some(given) = given else { return Ok(PATIENCE) };
    let ms = u64::try_from(time::duration_ms(given)).unwrap_or(0);
    let patience = Duration::from_millis(ms);
    if patience.is_zero() || patience > MAX_PATIENCE {
        return Err(Error::invalid("timeout", "more than 0, at most 10 min"));
    }
    Ok(patience)
}

#[tonic::async_trait]
impl NodeService for NodeRpc {
    async fn list(&self, request: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        let (caller, _) = authz::split(request)?;
        let nodes = self.all(&caller).await?;
        Ok(Response::new(ListNodesResponse { nodes }))
    }

    async fn describe(&self, request: Request<DescribeNodeRequest>) -> Result<Response<NodeShown>, Status> {
        let (caller, message) = authz::split(request)?;
        Ok(Response::new(find(self.all(&caller).await?, &message.node)?))
    }

    async fn invoke(
        &self,
        request: Request<InvokeNodeRequest>,
    ) -> Result<Response<InvokeNodeResponse>, Status> {
        let (caller, message) = authz::split(request)?;
        let patience = patience(message.timeout.as_ref())?;
        let node = find(self.all(&caller).await?, &message.node)?;
        let device = node
            .device_id
            .parse()
            .map_err(|_| Error::internal("finding the node"))?;
        let ask = ask_of(&caller, message, device)?;
        let command = ask.command.clone();
        let outcome = self.nodes.invoke(ask, patience).await?;
        let payload = payload_of(outcome, &command)?;
        Ok(Response::new(InvokeNodeResponse {
            device_id: node.device_id,
            command,
            payload_json: payload.unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: &str) -> NodeShown {
        NodeShown {
            device_id: id.to_owned(),
            name: name.to_owned(),
            ..NodeShown::default()
        }
    }

    #[test]
    fn a_node_is_found_by_id_beginning_or_name_and_never_by_guess() {
        let nodes = || {
            vec![
                node("aaaaaaaa11", "Kitchen"),
                node("aaaaaaaa22", "attic"),
                node("bbbbbbbb", "attic"),
            ]
        };
        let id = |wanted: &str| {
            find(nodes(), wanted)
                .map(|node| node.device_id)
                .map_err(|error| error.reason)
        };
        assert_eq!(id("aaaaaaaa22"), Ok("aaaaaaaa22".to_owned()));
        assert_eq!(id("kitchen"), Ok("aaaaaaaa11".to_owned()));
        assert_eq!(id("aaaaaaaa1"), Ok("aaaaaaaa11".to_owned()));
        assert_eq!(id("aaaaaaaa").unwrap_err(), "invalid_argument", "two fit");
        assert_eq!(id("attic").unwrap_err(), "invalid_argument", "two fit");
        assert_eq!(id("bbb").unwrap_err(), "not_found", "too short");
        assert_eq!(id("").unwrap_err(), "not_found");
    }

    #[test]
    fn patience_has_limits() {
        let of = |ms: i64| patience(Some(&time::duration(ms))).map_err(|error| error.reason);
        assert_eq!(patience(None).unwrap(), PATIENCE);
        assert_eq!(of(600_000), Ok(MAX_PATIENCE));
        for ms in [0, -1, 600_001] {
            assert_eq!(of(ms).unwrap_err(), "invalid_argument");
        }
    }
}
