//! The metrics of the door (`telemetry.md`). Every label is a word of ours.

use creel_kit::metrics::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::{
    connect::Role,
    machine::{Ending, Verdict},
};

/// How a handshake ended that identity did not judge: too late, cut off, or no `connect`.
pub(crate) const UNFINISHED: &str = "unfinished";

/// A limit that turned a connection away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections at once.
    Connections,
    /// Connections at once of one device.
    DeviceConnections,
    /// Handshakes of one source in a time.
    Rate,
    /// Unfinished handshakes, of one source or of all.
    Unfinished,
}

impl Limit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::DeviceConnections => "device_connections",
            Self::Rate => "rate",
            Self::Unfinished => "unfinished",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    open: Family<RoleLabel, Gauge>,
    handshakes: Family<OutcomeLabel, Counter>,
    refused: Family<LimitLabel, Counter>,
    closed: Family<ReasonLabel, Counter>,
    frames_in: Counter,
    frames_out: Counter,
}

/// An open connection in the count; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Figures {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let frames = Family::<DirectionLabel, Counter>::default();
        let one_way = |direction| frames.get_or_create(&DirectionLabel { direction }).clone();
        let figures = Self {
            open: Family::default(),
            handshakes: Family::default(),
            refused: Family::default(),
            closed: Family::default(),
            frames_in: one_way("in"),
            frames_out: one_way("out"),
        };
        metrics.register(|registry| {
            let help = "WebSockets of devices by role";
            registry.register("door_connections", help, figures.open.clone());
            let help = "Handshakes at the WebSocket door by how they ended";
            registry.register("door_handshakes", help, figures.handshakes.clone());
            let help = "WebSockets turned away by the limit that did it";
            registry.register("door_refused", help, figures.refused.clone());
            let help = "WebSockets that the door ended, by why";
            registry.register("door_closed", help, figures.closed.clone());
            registry.register("door_frames", "Frames of the WebSocket door", frames.clone());
        });
        figures
    }

    /// A handshake was judged.
    pub(crate) fn judged(&self, verdict: &Verdict) {
        self.handshake(match verdict {
            Verdict::Welcome(_) => "welcome",
            Verdict::Pairing(_) => "pairing",
            Verdict::Refused { .. } => "refused",
            Verdict::Failed(_) => "failed",
        });
    }

    pub(crate) fn handshake(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn refused(&self, limit: Limit) {
        let limit = limit.as_str();
        self.refused.get_or_create(&LimitLabel { limit }).inc();
    }

    pub(crate) fn closed(&self, ending: Ending) {
        let reason = ending.as_str();
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn frame_in(&self) {
        self.frames_in.inc();
    }

    pub(crate) fn frame_out(&self) {
        self.frames_out.inc();
    }

    /// A device's connection is open.
    pub(crate) fn opened(&self, role: Role) -> Counted {
        let role = role.as_str();
        let open = self.open.get_or_create(&RoleLabel { role }).clone();
        open.inc();
        Counted(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_while_they_live_and_every_label_is_ours() {
        let metrics = Metrics::new(creel_wire::ServiceName::Gateway);
        let figures = Figures::new(&metrics);
        let node = figures.opened(Role::Node);
        let gone = figures.opened(Role::Node);
        drop(gone);
        figures.refused(Limit::Rate);
        figures.closed(Ending::Slow);
        figures.handshake(UNFINISHED);
        figures.frame_in();
        let text = metrics.encode().unwrap();
        for line in [
            "creel_door_connections{service=\"gateway\",role=\"node\"} 1",
            "creel_door_refused_total{service=\"gateway\",limit=\"rate\"} 1",
            "creel_door_closed_total{service=\"gateway\",reason=\"slow\"} 1",
            "creel_door_handshakes_total{service=\"gateway\",outcome=\"unfinished\"} 1",
            "creel_door_frames_total{service=\"gateway\",direction=\"in\"} 1",
            "creel_door_frames_total{service=\"gateway\",direction=\"out\"} 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        drop(node);
        assert!(metrics.encode().unwrap().contains("role=\"node\"} 0"));
    }
}
