//! The metrics of turns (`telemetry.md`).

use creel_kit::metrics::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use crate::turn::End;

/// Backends come from the config, outcomes from an enum: both are closed sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    backend: String,
    outcome: &'static str,
}

/// Figures of turns. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    turns: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
    memory: Gauge,
}

impl Figures {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let make: fn() -> Histogram = || {
            Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
                3_600.0,
            ])
        };
        let this = Self {
            turns: Family::default(),
            seconds: Family::new_with_constructor(make),
            memory: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register("turns", "Ended turns by backend and outcome", this.turns.clone());
            let help = "Seconds from the acceptance of a turn to its end";
            registry.register("turn_seconds", help, this.seconds.clone());
            let help = "Largest resident memory of a process of the worker that ended last";
            registry.register("worker_memory_bytes", help, this.memory.clone());
        });
        this
    }

    /// A turn has ended, so many milliseconds after it was accepted.
    pub(crate) fn ended(&self, backend: &str, end: End, took_ms: i64) {
        let labels = Labels {
            backend: backend.to_owned(),
            outcome: end.as_str(),
        };
        self.turns.get_or_create(&labels).inc();
        let seconds = std::time::Duration::from_millis(took_ms.max(0).unsigned_abs()).as_secs_f64();
        self.seconds.get_or_create(&labels).observe(seconds);
    }

    /// A worker is gone.
    pub(crate) fn worker_gone(&self, memory_bytes: u64) {
        if memory_bytes > 0 {
            self.memory.set(i64::try_from(memory_bytes).unwrap_or(i64::MAX));
        }
    }
}
