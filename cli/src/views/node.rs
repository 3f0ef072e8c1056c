//! Nodes.

use std::collections::BTreeMap;

use creel_proto::gateway::v1::Node;
use serde::Serialize;

use super::{at, at_ms, text};

/// See [`Node`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeView {
    pub(crate) device_id: String,
    pub(crate) name: String,
    pub(crate) connected: bool,
    pub(crate) platform: Option<String>,
    pub(crate) device_family: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) caps: Vec<String>,
    pub(crate) commands: Vec<String>,
    pub(crate) other_commands: Vec<String>,
    pub(crate) permissions: BTreeMap<String, bool>,
    pub(crate) connected_at: Option<String>,
    pub(crate) connected_at_ms: Option<i64>,
    pub(crate) remote_address: Option<String>,
}

impl From<&Node> for NodeView {
    fn from(node: &Node) -> Self {
        Self {
            device_id: node.device_id.clone(),
            name: node.name.clone(),
            connected: node.connected,
            platform: text(&node.platform),
            device_family: text(&node.device_family),
            model: text(&node.model),
            version: text(&node.version),
            caps: node.caps.clone(),
            commands: node.commands.clone(),
            other_commands: node.other_commands.clone(),
            permissions: node.permissions.clone().into_iter().collect(),
            connected_at: at(node.connected_at.as_ref()),
            connected_at_ms: at_ms(node.connected_at.as_ref()),
            remote_address: text(&node.remote_address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_away_has_no_place_and_no_time() {
        let node = Node {
            device_id: "ab".into(),
            ..Node::default()
        };
        let view = serde_json::to_value(NodeView::from(&node)).unwrap();
        assert_eq!(view["connected"], false);
        for key in ["connectedAt", "remoteAddress", "platform"] {
            assert_eq!(view[key], serde_json::Value::Null, "{key}");
        }
    }
}
