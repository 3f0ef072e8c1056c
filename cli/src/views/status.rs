//! The stack as a whole, and what should be done about it.

use creel_proto::gateway::v1::{ServiceStatus, Status};
use serde::Serialize;

use super::{at, at_ms, text};

/// An edge certificate renews itself 30 days before its end; past this, something keeps it from doing so.
const EDGE_LATE_MS: i64 = 25 * 86_400_000;

/// This machine's certificate renews itself on use at half its life; past this, something keeps it.
const CLI_LATE_MS: i64 = 14 * 86_400_000;

/// See [`Status`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusView {
    pub(crate) version: String,
    pub(crate) profile: String,
    pub(crate) ready: bool,
    pub(crate) now: Option<String>,
    pub(crate) now_ms: Option<i64>,
    pub(crate) services: Vec<ServiceView>,
    pub(crate) edge: EdgeView,
    pub(crate) metrics_address: Option<String>,
    /// What the walls between services hold: `users` or `locked`.
    pub(crate) walls: String,
    /// What the sandbox of turns enforces: `full`, `partial`, `none`; absent while nobody has said.
    pub(crate) sandbox: Option<String>,
    pub(crate) connections: u32,
    pub(crate) cli: CliView,
    pub(crate) actions: Vec<Action>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceView {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) detail: Option<String>,
    pub(crate) since: Option<String>,
    pub(crate) since_ms: Option<i64>,
    pub(crate) restarts: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) pid: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EdgeView {
    pub(crate) address: String,
    pub(crate) certificate_sha256: String,
    pub(crate) names: Vec<String>,
    pub(crate) certificate_expires_at: Option<String>,
    pub(crate) certificate_expires_at_ms: Option<i64>,
}

/// This machine's own device.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CliView {
    pub(crate) device_id: Option<String>,
    pub(crate) certificate_expires_at: Option<String>,
    pub(crate) certificate_expires_at_ms: i64,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Action {
    pub(crate) what: String,
    /// The next command.
    pub(crate) next: String,
}

impl From<&ServiceStatus> for ServiceView {
    fn from(service: &ServiceStatus) -> Self {
        Self {
            name: service.name.clone(),
            state: service.state.clone(),
            detail: text(&service.detail),
            since: at(service.since.as_ref()),
            since_ms: at_ms(service.since.as_ref()),
            restarts: service.restarts,
            memory_bytes: service.memory_bytes,
            pid: service.pid,
        }
    }
}

impl StatusView {
    pub(crate) fn of(status: &Status, cli: CliView, now_ms: i64) -> Self {
        let mut view = Self {
            version: status.version.clone(),
            profile: status.profile.clone(),
            ready: status.ready,
            now: at(status.now.as_ref()),
            now_ms: at_ms(status.now.as_ref()),
            services: status.services.iter().map(ServiceView::from).collect(),
            edge: EdgeView {
                address: status.edge_address.clone(),
                certificate_sha256: status.edge_certificate_sha256.clone(),
                names: status.edge_names.clone(),
                certificate_expires_at: at(status.edge_certificate_expires_at.as_ref()),
                certificate_expires_at_ms: at_ms(status.edge_certificate_expires_at.as_ref()),
            },
            metrics_address: text(&status.metrics_address),
            walls: status.walls.clone(),
            sandbox: text(&status.sandbox),
            connections: status.connections,
            cli,
            actions: Vec::new(),
        };
        view.actions = view.actions(now_ms);
        view
    }

    fn actions(&self, now_ms: i64) -> Vec<Action> {
        let mut actions: Vec<Action> = self.services.iter().filter_map(ServiceView::action).collect();
        let mut add = |what: String, next: &str| {
            actions.push(Action {
                what,
                next: next.to_owned(),
            })
        };
        if self
            .edge
            .certificate_expires_at_ms
            .is_some_and(|until| until - now_ms < EDGE_LATE_MS)
        {
            add(
                "the edge's certificate ends soon and was not renewed".to_owned(),
                "creel logs gateway",
            );
        }
        if self.cli.certificate_expires_at_ms - now_ms < CLI_LATE_MS {
            add(
                "this machine's certificate ends soon and was not renewed".to_owned(),
                "creel doctor",
            );
        }
        match self.sandbox.as_deref() {
            None | Some("full") => {}
            Some("none") => add(
                "the sandbox can't hold a turn, so none runs".to_owned(),
                "creel doctor",
            ),
            Some(other) => add(format!("the sandbox of turns is {other}"), "creel doctor"),
        }
        actions
    }
}

impl ServiceView {
    /// Whether it does its work.
    pub(crate) fn is_ready(&self) -> bool {
        self.state == "ready"
    }

    /// What to do about it, if anything.
    fn action(&self) -> Option<Action> {
        let detail = self
            .detail
            .as_ref()
            .map_or_else(String::new, |detail| format!(": {detail}"));
        (!self.is_ready()).then(|| Action {
            what: format!("{} is {}{detail}", self.name, self.state),
            next: format!("creel logs {}", self.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::time::timestamp;

    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn view(state: &str, edge_days: i64, cli_days: i64, sandbox: &str) -> StatusView {
        let service = ServiceStatus {
            name: "scheduler".into(),
            state: state.into(),
            detail: "no store".into(),
            ..Default::default()
        };
        let status = Status {
            services: vec![service],
            edge_certificate_expires_at: Some(timestamp(edge_days * DAY_MS)),
            sandbox: sandbox.into(),
            ready: true,
            ..Status::default()
        };
        let cli = CliView {
            device_id: None,
            certificate_expires_at: None,
            certificate_expires_at_ms: cli_days * DAY_MS,
        };
        StatusView::of(&status, cli, 0)
    }

    #[test]
    fn only_what_needs_a_hand_is_an_action_and_each_names_a_command() {
        assert_eq!(view("ready", 500, 80, "full").actions, Vec::new());
        let actions = view("failed", 500, 80, "full").actions;
        assert_eq!(
            actions,
            [Action {
                what: "scheduler is failed: no store".into(),
                next: "creel logs scheduler".into()
            }]
        );
        assert_eq!(view("ready", 20, 80, "full").actions.len(), 1);
        assert_eq!(view("ready", 500, 10, "full").actions.len(), 1);
        assert_eq!(view("ready", 500, 80, "partial").actions.len(), 1);
        let value = serde_json::to_value(view("waiting", 500, 80, "none")).unwrap();
        assert_eq!(value["services"][0]["state"], "waiting");
        assert_eq!(value["actions"].as_array().unwrap().len(), 2);
        assert!(value["edge"]["certificateExpiresAtMs"].is_i64());
    }
}
