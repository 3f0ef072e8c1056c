//! `creel.toml`: what is deployed here. Plain structs, so that checking needs no service. Unknown keys
//! are errors, with the nearest valid name; then an explicit list of `CREEL_…` variables.

use std::{collections::BTreeMap, env, fs, io, net::SocketAddr, path::Path, path::PathBuf};

use creel_wire::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod errors;

pub use errors::{ConfigError, Place};

/// All of `creel.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The edge.
    pub gateway: Gateway,
    /// Who is let in.
    pub identity: Identity,
    /// Turns of the agent.
    pub agent: Agent,
    /// Backends by name, besides the built-in `echo`.
    pub backends: BTreeMap<String, Backend>,
    /// The sandbox of everything that is run.
    pub exec: Exec,
    /// How services reach each other.
    pub network: Network,
    /// Where single services are reached (`host:port` or `unix:/path`), instead of their usual place.
    pub endpoints: BTreeMap<String, String>,
    /// Logs.
    pub log: Log,
}

/// The edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// The edge listener. A loopback port that is taken gives way to the next free one.
    pub listen: SocketAddr,
    /// The listener of `/metrics`, without TLS: loopback only.
    pub admin_listen: SocketAddr,
    /// DNS names and addresses that the edge's certificate carries, besides loopback and the host name.
    pub names: Vec<String>,
    /// Connections at once.
    pub max_connections: u32,
    /// Connections at once of one device.
    pub max_connections_per_device: u32,
    /// What nodes may be asked for.
    pub nodes: Nodes,
}

/// What nodes may be asked for, besides what their platform allows by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Nodes {
    /// More commands, for example `camera.snap`: whatever records people or reads what is theirs is here or
    /// nowhere. Never those that start programs.
    pub allow: Vec<String>,
    /// Commands that no node may be asked for, whatever else allows them.
    pub deny: Vec<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 18_789)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 18_790)),
            names: Vec::new(),
            max_connections: 4_096,
            max_connections_per_device: 256,
            nodes: Nodes::default(),
        }
    }
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// A device that asks to be let in waits so long for an operator, in minutes: 1 to 1440.
    pub pairing_minutes: u32,
    /// Devices that speak the original's protocol may hold `operator.admin`, `.approvals` and `.pairing`.
    /// Its proofs can be relayed by another server, so this is off.
    pub legacy_devices_may_administer: bool,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            pairing_minutes: 60,
            legacy_devices_may_administer: false,
        }
    }
}

/// Turns of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// The backend of turns that name none: `echo`, or a name of `[backends]`.
    pub backend: String,
    /// A turn ends after so many seconds.
    pub turn_timeout_seconds: u32,
    /// Turns that run at once; more wait.
    pub max_running_turns: u32,
    /// Turns that wait, of all contexts; more are refused.
    pub max_waiting_turns: u32,
    /// Memory of one turn's processes, in MiB each.
    pub turn_memory_mib: u32,
    /// What is kept of all that turns said, in MiB: their events, and the transcripts of jobs' runs. What jobs said
    /// goes first, and a turn may say its part of half of it.
    pub kept_mib: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            backend: "echo".to_owned(),
            turn_timeout_seconds: 600,
            max_running_turns: 64,
            max_waiting_turns: 1_024,
            turn_memory_mib: 1_024,
            kept_mib: 2_048,
        }
    }
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub enum Backend {
    /// Any program: one JSON event per line on stdin and stdout.
    Command {
        /// The program and its arguments; the program by absolute path or a name in /usr/bin, /bin.
        argv: Vec<String>,
        /// More paths that the program may read and run, for example its own directory.
        #[serde(default)]
        read: Vec<PathBuf>,
        /// More environment variables. No secrets: the program is not trusted with any.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
}

/// The sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exec {
    /// Walls that must stand, or nothing runs: `fs`, `net`, `ipc`, `kill`.
    pub floor: Vec<Wall>,
}

impl Default for Exec {
    fn default() -> Self {
        Self {
            floor: vec![Wall::Fs, Wall::Net, Wall::Ipc, Wall::Kill],
        }
    }
}

/// A wall of the sandbox (`exec.md`, "Walls").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wall {
    /// Files.
    Fs,
    /// Network.
    Net,
    /// Other processes.
    Ipc,
    /// Nothing lives on.
    Kill,
}

/// How services reach each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// `unix` on one machine, `tcp` between containers.
    pub transport: Transport,
}

/// How services reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS over `run/<service>.sock`.
    #[default]
    Unix,
    /// TLS over TCP, port 7443, host = service name.
    Tcp,
}

/// The port of services on TCP.
pub const SERVICE_PORT: u16 = 7_443;

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is written: a filter as `info` or `info,creel_scheduler=debug`. Nothing is finer than `debug`.
    pub level: String,
    /// A log file is rotated at this size, in MiB.
    pub rotate_mib: u32,
    /// Rotated files kept.
    pub keep: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            rotate_mib: 10,
            keep: 3,
        }
    }
}

impl Config {
    /// Reads a file and the environment. A file that isn't there is an empty one.
    ///
    /// # Errors
    /// [`ConfigError`] with the place and the nearest valid name.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let mut config = Self::parse(&text, path)?;
        config.apply_env(|name| env::var(name).ok())?;
        config.validate(&text, path)?;
        Ok(config)
    }

    /// Reads text as it would stand in `path`.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| errors::syntax(text, path, &error))?;
        config.validate(text, path)?;
        Ok(config)
    }

    /// The variables that may override the file, each with what it sets.
    pub const ENV: &'static [(&'static str, &'static str)] = &[
        ("CREEL_LISTEN", "gateway.listen"),
        ("CREEL_ADMIN_LISTEN", "gateway.admin_listen"),
        ("CREEL_BACKEND", "agent.backend"),
        ("CREEL_TRANSPORT", "network.transport"),
        ("CREEL_LOG", "log.level"),
    ];

    fn apply_env(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        for (variable, _) in Self::ENV {
            let Some(value) = get(variable).filter(|value| !value.is_empty()) else {
                continue;
            };
            let wrong = || ConfigError::Environment {
                variable,
                value: value.clone(),
            };
            match *variable {
                "CREEL_LISTEN" => self.gateway.listen = value.parse().map_err(|_| wrong())?,
                "CREEL_ADMIN_LISTEN" => self.gateway.admin_listen = value.parse().map_err(|_| wrong())?,
                "CREEL_BACKEND" => self.agent.backend = value,
                "CREEL_TRANSPORT" => {
                    self.network.transport = match value.as_str() {
                        "unix" => Transport::Unix,
                        "tcp" => Transport::Tcp,
                        _ => return Err(wrong()),
                    };
                }
                _ => self.log.level = value,
            }
        }
        Ok(())
    }

    /// What the types can't say.
    fn validate(&self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let invalid = |key: &str, why: String| Err(errors::invalid(text, path, key, why));
        if !self.gateway.admin_listen.ip().is_loopback() {
            return invalid(
                "gateway.admin_listen",
                "metrics are served without TLS, so on loopback only".to_owned(),
            );
        }
        if self.gateway.names.len() > 32 {
            return invalid("gateway.names", "at most 32 names".to_owned());
        }
        for (key, list) in [
            ("gateway.nodes.allow", &self.gateway.nodes.allow),
            ("gateway.nodes.deny", &self.gateway.nodes.deny),
        ] {
            if list.len() > 256
                || list
                    .iter()
                    .any(|command| command.is_empty() || command.len() > 64)
            {
                return invalid(key, "at most 256 commands of 1 to 64 bytes".to_owned());
            }
        }
        for (key, value, most) in [
            (
                "agent.turn_timeout_seconds",
                self.agent.turn_timeout_seconds,
                86_400,
            ),
            ("agent.max_running_turns", self.agent.max_running_turns, 1_024),
            ("agent.max_waiting_turns", self.agent.max_waiting_turns, 100_000),
            ("agent.turn_memory_mib", self.agent.turn_memory_mib, 1 << 20),
            ("agent.kept_mib", self.agent.kept_mib, 1 << 24),
            ("gateway.max_connections", self.gateway.max_connections, 1 << 20),
            (
                "gateway.max_connections_per_device",
                self.gateway.max_connections_per_device,
                1 << 20,
            ),
            ("log.rotate_mib", self.log.rotate_mib, 1_024),
            ("identity.pairing_minutes", self.identity.pairing_minutes, 24 * 60),
        ] {
            if value == 0 || value > most {
                return invalid(key, format!("must be from 1 to {most}"));
            }
        }
        for (name, backend) in &self.backends {
            let Backend::Command { argv, .. } = backend;
            if name == "echo" || argv.is_empty() || argv[0].is_empty() {
                return invalid(
                    &format!("backends.{name}"),
                    "needs a name other than `echo`, and `argv` with a program".to_owned(),
                );
            }
        }
        let backend = &self.agent.backend;
        if backend != "echo" && !self.backends.contains_key(backend) {
            let known: Vec<_> = std::iter::once("echo")
                .chain(self.backends.keys().map(String::as_str))
                .collect();
            let nearest = errors::nearest(backend, &known)
                .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
            return invalid("agent.backend", format!("no backend `{backend}`{nearest}"));
        }
        for (name, target) in &self.endpoints {
            if name.parse::<ServiceName>().is_err() {
                let known: Vec<_> = ServiceName::ALL.iter().map(|name| name.as_str()).collect();
                let nearest = errors::nearest(name, &known)
                    .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
                return invalid(&format!("endpoints.{name}"), format!("no such service{nearest}"));
            }
            let has_port = target
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if !has_port && !target.starts_with("unix:/") {
                return invalid(
                    &format!("endpoints.{name}"),
                    "must be `host:port` or `unix:/path`".to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// The JSON Schema of `creel.toml`.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("creel.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Config::parse("", Path::new("x")).unwrap(), Config::default());
    }

    #[test]
    fn errors_name_the_place_and_the_nearest_name() {
        let text = "[gateway]\nlisten = \"127.0.0.1:1\"\nmax_conections = 3\n";
        let message = error(text);
        assert!(message.contains("creel.toml:3:1"), "{message}");
        assert!(message.contains("did you mean `max_connections`"), "{message}");
        assert!(error("[gatway]\n").contains("did you mean `gateway`"));
        let message = error("[gateway]\nlisten = 5\n");
        assert!(message.contains("creel.toml:2:10"), "{message}");
        let message = error("[agent]\nbackend = \"ecko\"\n");
        assert!(
            message.contains("creel.toml:2:1") && message.contains("did you mean `echo`"),
            "{message}"
        );
        assert!(error("[gateway]\nadmin_listen = \"0.0.0.0:1\"\n").contains("loopback"));
    }

    #[test]
    fn a_devices_request_waits_a_minute_to_a_day_an_hour_by_default() {
        let minutes =
            |text: &str| Config::parse(text, Path::new("x")).map(|config| config.identity.pairing_minutes);
        assert_eq!(minutes("").unwrap(), 60);
        for (said, good) in [(0, false), (1, true), (1_440, true), (1_441, false)] {
            let parsed = minutes(&format!("[identity]\npairing_minutes = {said}"));
            assert_eq!(parsed.is_ok(), good, "{said}");
        }
    }

    #[test]
    fn the_environment_overrides_only_what_is_listed() {
        let mut config = Config::default();
        config
            .apply_env(|name| (name == "CREEL_LISTEN").then(|| "127.0.0.1:7".to_owned()))
            .unwrap();
        assert_eq!(config.gateway.listen.port(), 7);
        let error = config
            .apply_env(|name| (name == "CREEL_TRANSPORT").then(|| "pigeon".to_owned()))
            .unwrap_err();
        assert!(error.to_string().contains("CREEL_TRANSPORT"));
    }

    #[test]
    fn every_backend_can_be_read() {
        let text =
            "[agent]\nbackend = \"py\"\n[backends.py]\nkind = \"command\"\nargv = [\"python3\", \"/x.py\"]\n";
        let config = Config::parse(text, Path::new("x")).unwrap();
        assert_eq!(config.backends.len(), 1);
    }
}
