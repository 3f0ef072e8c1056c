//! `creel nodes …`: companion devices, and asking them. `creel connect …`: how other programs get here.

use std::time::Duration;

use creel_proto::{
    gateway::v1::{DescribeNodeRequest, InvokeNodeRequest, ListNodesRequest, Status},
    time,
};
use serde_json::{Value, json};

use super::status;
use crate::{
    args::nodes::{Connect, Nodes},
    context::{Context, request_id},
    failure::Failure,
    stubs,
    views::node::NodeView,
};

/// How long a node may take unless `--timeout` says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// The stack gets so much longer than the node.
const MARGIN: Duration = Duration::from_secs(5);

pub(super) async fn run(context: &mut Context, command: Nodes) -> Result<(), Failure> {
    match command {
        Nodes::List => list(context).await,
        Nodes::Describe { node } => describe(context, node).await,
        Nodes::Invoke {
            node,
            command,
            params,
            repeatable,
        } => {
            let patience = context.global.timeout.unwrap_or(PATIENCE);
            let request = InvokeNodeRequest {
                request_id: request_id(&repeatable),
                node,
                command,
                params_json: params_of(params)?,
                timeout: Some(time::duration(
                    i64::try_from(patience.as_millis()).unwrap_or(i64::MAX),
                )),
            };
            invoke(context, request, patience + MARGIN).await
        }
    }
}

fn params_of(given: String) -> Result<String, Failure> {
    let text = if given == "-" {
        std::io::read_to_string(std::io::stdin())
            .map_err(|error| Failure::internal("reading stdin", &error))?
    } else {
        given
    };
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => Ok(value.to_string()),
        Err(error) => Err(Failure::usage(format!("--params is not JSON: {error}"))),
    }
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&ListNodesRequest {}, |channel, request| async move {
            stubs::nodes(channel).list(request).await
        })
        .await?;
    let nodes: Vec<_> = answer.nodes.iter().map(NodeView::from).collect();
    if context.out.is_json() {
        return context.out.json(&nodes);
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            vec![
                node.name.clone(),
                node.device_id.chars().take(12).collect(),
                if node.connected { "connected" } else { "away" }.to_owned(),
                node.platform.clone().unwrap_or_default(),
                local.show_opt(node.connected_at_ms),
                node.commands.join(" "),
            ]
        })
        .collect();
    context
        .out
        .table(&["NAME", "ID", "STATE", "PLATFORM", "SINCE", "COMMANDS"], &rows)
}

async fn describe(context: &mut Context, node: String) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&DescribeNodeRequest { node }, |channel, request| async move {
            stubs::nodes(channel).describe(request).await
        })
        .await?;
    let node = NodeView::from(&answer);
    if context.out.is_json() {
        return context.out.json(&node);
    }
    let none = || "-".to_owned();
    let permissions: Vec<String> = node
        .permissions
        .iter()
        .map(|(name, granted)| format!("{name}: {}", if *granted { "yes" } else { "no" }))
        .collect();
    let since = context.local().show_opt(node.connected_at_ms);
    let rows = [
        ("name", node.name),
        ("id", node.device_id),
        (
            "state",
            if node.connected { "connected" } else { "away" }.to_owned(),
        ),
        ("since", since),
        ("platform", node.platform.unwrap_or_else(none)),
        ("version", node.version.unwrap_or_else(none)),
        ("commands", node.commands.join(" ")),
        ("not open", node.other_commands.join(" ")),
        ("permissions", permissions.join(", ")),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(key, value)| vec![key.to_owned(), value])
        .collect();
    context.out.table(&["", ""], &rows)
}

async fn invoke(context: &mut Context, request: InvokeNodeRequest, limit: Duration) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call_within(limit, |channel| {
            let request = request.clone();
            async move { stubs::nodes(channel).invoke(request).await }
        })
        .await?;
    let payload: Value = serde_json::from_str(&answer.payload_json).unwrap_or(Value::Null);
    if context.out.is_json() {
        let view = json!({ "deviceId": answer.device_id, "command": answer.command, "payload": payload });
        return context.out.json(&view);
    }
    context.out.json(&payload)
}

/// `creel connect openclaw`.
pub(super) async fn connect(context: &mut Context, to: Connect) -> Result<(), Failure> {
    let Connect::Openclaw = to;
    let (client, status) = status::ask(context).await?;
    let (host, port) = (client.endpoint.host.clone(), client.endpoint.port);
    let lines = openclaw(&host, port, &status);
    if context.out.is_json() {
        return context.out.json(&lines);
    }
    let text = [
        "# in ~/.openclaw/openclaw.json",
        &serde_json::to_string_pretty(&lines["config"]).unwrap_or_default(),
        "",
        "# a companion device: its own state, since a key has one role here",
        lines["node"].as_str().unwrap_or_default(),
        "",
        "# then, here",
        "creel devices approve ID",
    ]
    .join("\n");
    context.out.line(&text)
}

/// What the original's config and command line need. `auth.mode` is `none` because its command line would ask
/// for a shared token before it knocks; here the device's own signature is the proof.
fn openclaw(host: &str, port: u16, status: &Status) -> Value {
    let url_host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let fingerprint = &status.edge_certificate_sha256;
    json!({
        "config": {
            "gateway": {
                "mode": "remote",
                "auth": { "mode": "none" },
                "remote": {
                    "url": format!("wss://{url_host}:{port}"),
                    "tlsFingerprint": fingerprint,
                },
            },
        },
        "node": format!("OPENCLAW_STATE_DIR=~/.openclaw-node openclaw node run --host {host} --port {port} --tls --tls-fingerprint {fingerprint}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openclaw_is_told_where_and_by_which_certificate() {
        let status = Status {
            edge_certificate_sha256: "ab".into(),
            ..Status::default()
        };
        let lines = openclaw("::1", 18_789, &status);
        assert_eq!(lines["config"]["gateway"]["remote"]["url"], "wss://[::1]:18789");
        assert_eq!(lines["config"]["gateway"]["remote"]["tlsFingerprint"], "ab");
        assert!(
            lines["node"]
                .as_str()
                .unwrap()
                .contains("--host ::1 --port 18789 --tls --tls-fingerprint ab")
        );
    }

    #[test]
    fn parameters_are_json_or_nothing() {
        assert_eq!(params_of(String::new()).unwrap(), "");
        assert_eq!(params_of(" {\"a\": 1}".to_owned()).unwrap(), "{\"a\":1}");
        assert_eq!(
            params_of("{".to_owned()).unwrap_err().error().unwrap().reason,
            "usage"
        );
    }
}
