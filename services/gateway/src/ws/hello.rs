//! What a device that is let in is told of this door. No paths, no configuration: whoever may read those asks
//! for them. Typed all the way: every connection is told, so no tree is made of it.

use serde::Serialize;
use serde_json::{Value, json};

use super::{chat, connect, connect::Client, frame, machine::Welcome, methods, session::TICK};

/// `hello-ok` but for `auth`, which is the machine's.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "hello-ok")]
pub(crate) struct Hello {
    protocol: u64,
    server: Server,
    features: Features,
    snapshot: Snapshot,
    policy: Policy,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    version: &'static str,
    conn_id: String,
}

#[derive(Debug, Clone, Serialize)]
struct Features {
    methods: Vec<&'static str>,
    events: &'static [&'static str],
    capabilities: [&'static str; 0],
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot {
    presence: Vec<Value>,
    health: Health,
    state_version: StateVersion,
    uptime_ms: u64,
    session_defaults: SessionDefaults,
}

/// Nothing: `health` is asked for.
#[derive(Debug, Clone, Serialize)]
struct Health {}

#[derive(Debug, Clone, Serialize)]
struct StateVersion {
    presence: u64,
    health: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionDefaults {
    default_agent_id: &'static str,
    main_key: &'static str,
    main_session_key: String,
    scope: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    max_payload: usize,
    max_buffered_bytes: usize,
    tick_interval_ms: u64,
}

impl Hello {
    /// For a connection of this name.
    pub(crate) fn new(connection_id: &str, presence: Vec<Value>, uptime_ms: u64) -> Self {
        Self {
            protocol: connect::PROTOCOL,
            server: Server {
                version: creel_kit::VERSION,
                conn_id: connection_id.to_owned(),
            },
            features: Features {
                methods: methods::METHODS.iter().map(|method| method.name).collect(),
                events: methods::EVENTS,
                capabilities: [],
            },
            snapshot: Snapshot {
                presence,
                health: Health {},
                state_version: StateVersion {
                    presence: 0,
                    health: 0,
                },
                uptime_ms,
                session_defaults: SessionDefaults {
                    default_agent_id: chat::AGENT,
                    main_key: "main",
                    main_session_key: chat::main_key(),
                    scope: "per-sender",
                },
            },
            policy: Policy {
                max_payload: frame::MAX_BYTES,
                max_buffered_bytes: 2 * frame::MAX_BYTES,
                tick_interval_ms: u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX),
            },
        }
    }
}

/// A device as `system-presence` shows it.
pub(super) fn presence(welcome: &Welcome, client: &Client, name: &str, now_unix_ms: i64) -> Value {
    json!({
        "deviceId": welcome.device.as_str(),
        "host": name,
        "roles": [welcome.role.as_str()],
        "mode": client.mode,
        "platform": client.platform,
        "version": client.version,
        "deviceFamily": client.device_family,
        "instanceId": client.instance_id,
        "reason": "connect",
        "ts": now_unix_ms,
    })
}
