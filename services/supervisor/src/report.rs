//! How the stack stands, told to whoever wants to know: the screen, `status.json`, the log, the service
//! manager. Only what has changed is told.

use std::{collections::BTreeMap, time::Duration};

use creel_kit::{
    Clock, Config, Profile,
    profile::{ChildStatus, EdgeFile, StatusFile},
};
use creel_wire::ServiceName;
use tokio::time::Instant;

use crate::{
    files::replace,
    fleet::{Fleet, Outlook},
    restart::Phase,
    systemd,
    table::{View, memory_of},
};

/// What was told last.
#[derive(Debug)]
pub(crate) struct Report {
    profile: Profile,
    clock: Clock,
    started: Instant,
    started_at_unix_ms: i64,
    view: View,
    shown: BTreeMap<ServiceName, Shown>,
    rows: Vec<ChildStatus>,
    outlook: Outlook,
    /// The services whose failure was announced.
    given_up: Vec<ServiceName>,
    settled: bool,
    draining: bool,
}

/// A service as it was shown last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    phase: Phase,
    restarts: u32,
    pid: u32,
    since_unix_ms: i64,
}

impl Report {
    /// Nothing told yet; `started` is when the command was given.
    pub(crate) fn new(profile: Profile, clock: Clock, started: Instant, view: View) -> Self {
        Self {
            profile,
            started,
            started_at_unix_ms: clock.now_ms(),
            clock,
            view,
            shown: BTreeMap::new(),
            rows: Vec::new(),
            outlook: Outlook::Starting,
            given_up: Vec::new(),
            settled: false,
            draining: false,
        }
    }

    /// Whether all that can work did once.
    pub(crate) const fn is_settled(&self) -> bool {
        self.settled
    }

    /// The screen.
    pub(crate) const fn view(&mut self) -> &mut View {
        &mut self.view
    }

    /// Tells what has changed. `pid` is a service's process, 0 for none.
    pub(crate) fn refresh(&mut self, fleet: &Fleet, config: &Config, pid: impl Fn(ServiceName) -> u32) {
        let now_unix_ms = self.clock.now_ms();
        self.draining = fleet.is_draining();
        let mut changed = false;
        for name in fleet.names() {
            let Some(machine) = fleet.machine(name) else {
                continue;
            };
            let before = self.shown.get(&name);
            let same_label = before.filter(|old| old.phase.label() == machine.phase().label());
            let now = Shown {
                phase: machine.phase(),
                restarts: machine.restarts(),
                pid: pid(name),
                since_unix_ms: same_label.map_or(now_unix_ms, |old| old.since_unix_ms),
            };
            changed |= before != Some(&now);
            self.shown.insert(name, now);
        }
        if changed {
            let rows: Vec<_> = fleet.names().filter_map(|name| self.row(fleet, name)).collect();
            for row in rows.iter().filter(|row| !self.rows.contains(row)) {
                tracing::info!(
                    service = row.name,
                    state = row.state,
                    detail = row.detail,
                    pid = row.pid,
                    "state"
                );
            }
            self.rows = rows;
            self.write_status();
            self.show();
            if !self.draining {
                self.announce(fleet, config);
            }
        }
    }

    /// Draws the table with fresh figures.
    pub(crate) fn show(&mut self) {
        if !self.view.is_live() {
            return self
                .view
                .show(self.rows.iter().map(|row| (row.clone(), None)).collect());
        }
        let own = ChildStatus {
            name: ServiceName::Supervisor.to_string(),
            state: if self.draining { "draining" } else { "ready" }.to_owned(),
            detail: String::new(),
            since_unix_ms: self.started_at_unix_ms,
            pid: std::process::id(),
            restarts: 0,
        };
        let rows = self.rows.iter().cloned().chain([own]);
        // Nobody looks at figures of a stack that comes or goes, and they take time.
        let memory = |row: &ChildStatus| {
            if self.settled && !self.draining {
                memory_of(row.pid)
            } else {
                None
            }
        };
        let rows = rows.map(|row| (row.clone(), memory(&row))).collect();
        self.view.show(rows);
    }

    fn row(&self, fleet: &Fleet, name: ServiceName) -> Option<ChildStatus> {
        let shown = self.shown.get(&name)?;
        Some(ChildStatus {
            name: name.to_string(),
            state: shown.phase.label().to_owned(),
            detail: fleet.detail(name, self.started.elapsed()),
            since_unix_ms: shown.since_unix_ms,
            pid: shown.pid,
            restarts: shown.restarts,
        })
    }

    fn write_status(&self) {
        let status = StatusFile {
            pid: std::process::id(),
            started_at_unix_ms: self.started_at_unix_ms,
            services: self.rows.clone(),
        };
        let text = serde_json::to_vec_pretty(&status).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| replace(&self.profile.status_file(), &text)) {
            tracing::warn!(%error, "status.json not written");
        }
        systemd::status(&in_a_line(&self.rows));
    }

    /// Says so when everything is ready, or can't be.
    fn announce(&mut self, fleet: &Fleet, config: &Config) {
        let outlook = fleet.outlook();
        let given_up = fleet.failed();
        if outlook == Outlook::Starting {
            if self.outlook == Outlook::Ready {
                self.outlook = outlook;
            }
            return;
        }
        // A service that comes and goes beside one that is given up is no news of that one.
        if (outlook, &given_up) == (self.outlook, &self.given_up) {
            return;
        }
        let text = match outlook {
            Outlook::Ready if self.settled => "all services are ready again".to_owned(),
            Outlook::Ready | Outlook::Starting => {
                let took = self.started.elapsed();
                tracing::info!(ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "ready");
                ready_lines(took, self.edge().as_ref(), config)
            }
            Outlook::Crippled => failed_lines(&given_up, &self.profile),
        };
        self.view.note(&text);
        (self.outlook, self.given_up) = (outlook, given_up);
        if !self.settled {
            self.settled = true;
            systemd::ready();
            // Now the figures are worth a look.
            self.show();
        }
    }

    /// Where the edge listens, if this gateway has said so.
    fn edge(&self) -> Option<EdgeFile> {
        let text = std::fs::read(self.profile.edge_file()).ok()?;
        let file: EdgeFile = serde_json::from_slice(&text).ok()?;
        (file.pid == self.shown.get(&ServiceName::Gateway)?.pid).then_some(file)
    }
}

fn ready_lines(took: Duration, edge: Option<&EdgeFile>, config: &Config) -> String {
    let mut lines = vec![format!(
        "ready in {} ms; next: creel send hello",
        took.as_millis()
    )];
    if let Some(edge) = edge {
        lines.push(format!(
            "  edge {}, certificate sha256 {}",
            edge.address, edge.certificate_sha256
        ));
        let wanted = config.gateway.listen;
        if wanted.port() != 0 && edge.address != wanted.to_string() {
            lines.push(format!("  {wanted} is taken, so the edge has the next free port"));
        }
    }
    lines.join("\n")
}

fn failed_lines(given_up: &[ServiceName], profile: &Profile) -> String {
    let mut lines: Vec<_> = given_up
        .iter()
        .map(|name| {
            format!(
                "{name} is given up; its log: {}",
                profile.log_file(*name).display()
            )
        })
        .collect();
    lines.push("  the rest keeps running; a mended creel.toml, or SIGHUP, starts it again".to_owned());
    lines.join("\n")
}

fn in_a_line(rows: &[ChildStatus]) -> String {
    let rest: Vec<_> = rows.iter().filter(|row| row.state != "ready").collect();
    let mut line = format!("{} of {} ready", rows.len() - rest.len(), rows.len());
    for row in rest {
        line.push_str(&format!(", {} {}", row.name, row.state));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_says_what_to_do_next_and_where_the_edge_is() {
        let edge = EdgeFile {
            address: "127.0.0.1:18791".to_owned(),
            admin: "127.0.0.1:18790".to_owned(),
            certificate_sha256: "ab12".to_owned(),
            pid: 1,
        };
        let text = ready_lines(Duration::from_micros(143_900), Some(&edge), &Config::default());
        assert!(
            text.starts_with("ready in 143 ms; next: creel send hello\n"),
            "{text}"
        );
        assert!(
            text.contains("edge 127.0.0.1:18791, certificate sha256 ab12"),
            "{text}"
        );
        assert!(text.contains("127.0.0.1:18789 is taken"), "{text}");
        let text = ready_lines(Duration::ZERO, None, &Config::default());
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_service_manager_gets_one_line() {
        let row = |name: &str, state: &str| ChildStatus {
            name: name.to_owned(),
            state: state.to_owned(),
            detail: String::new(),
            since_unix_ms: 0,
            pid: 0,
            restarts: 0,
        };
        let rows = [row("identity", "ready"), row("gateway", "failed")];
        assert_eq!(in_a_line(&rows), "1 of 2 ready, gateway failed");
        assert_eq!(in_a_line(&rows[..1]), "1 of 1 ready");
    }
}
