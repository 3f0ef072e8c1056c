//! The metrics of jobs (`telemetry.md`). Labels are bounded: the first 500 job names, then `_other`.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use creel_kit::metrics::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

/// Job names that get a label of their own.
const MAX_NAMES: usize = 500;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Figures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Asked, and never gone through.
    names: Mutex<HashSet<String>>,
    runs: Family<OutcomeLabels, Counter>,
    skipped: Family<ReasonLabels, Counter>,
    alerts: Family<ReasonLabels, Counter>,
    last_success: Family<JobLabels, Gauge>,
    next_run: Family<JobLabels, Gauge>,
    lateness: Family<JobLabels, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    job: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    job: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    job: String,
    reason: &'static str,
}

impl Figures {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let make: fn() -> Histogram = || {
            Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
            ])
        };
        let inner = Inner {
            names: Mutex::default(),
            runs: Family::default(),
            skipped: Family::default(),
            alerts: Family::default(),
            last_success: Family::default(),
            next_run: Family::default(),
            lateness: Family::new_with_constructor(make),
        };
        metrics.register(|registry| {
            registry.register("job_runs", "Ended runs by job and outcome", inner.runs.clone());
            registry.register(
                "job_skipped",
                "Skipped occurrences by job and reason",
                inner.skipped.clone(),
            );
            let help = "Alerts by job and reason";
            registry.register("job_alerts", help, inner.alerts.clone());
            let help = "End of the last run that succeeded";
            registry.register(
                "job_last_success_timestamp_seconds",
                help,
                inner.last_success.clone(),
            );
            registry.register(
                "job_next_run_timestamp_seconds",
                "When the job is due next",
                inner.next_run.clone(),
            );
            let help = "From the instant a run is for to when it was given to a worker";
            registry.register("job_lateness_seconds", help, inner.lateness.clone());
        });
        Self(Arc::new(inner))
    }

    pub(crate) fn run_ended(&self, job: &str, outcome: &'static str, now_ms: i64, success: bool) {
        let job = self.label(job);
        if success {
            self.0
                .last_success
                .get_or_create(&JobLabels { job: job.clone() })
                .set(now_ms / 1_000);
        }
        self.0.runs.get_or_create(&OutcomeLabels { job, outcome }).inc();
    }

    pub(crate) fn skipped(&self, job: &str, reason: &'static str, count: u64) {
        self.0
            .skipped
            .get_or_create(&ReasonLabels {
                job: self.label(job),
                reason,
            })
            .inc_by(count);
    }

    pub(crate) fn alerted(&self, job: &str, reason: &'static str) {
        let job = self.label(job);
        self.0.alerts.get_or_create(&ReasonLabels { job, reason }).inc();
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds of lateness fit")]
    pub(crate) fn lateness(&self, job: &str, ms: i64) {
        self.0
            .lateness
            .get_or_create(&JobLabels { job: self.label(job) })
            .observe(ms.max(0) as f64 / 1_000.0);
    }

    /// Asks for the instant only if the job has a label of its own. False: it has none, and gets none.
    pub(crate) fn next_run(&self, job: &str, next_ms: impl FnOnce() -> Option<i64>) -> bool {
        let known = self.is_known(job);
        if known {
            let labels = JobLabels { job: job.to_owned() };
            match next_ms() {
                Some(at) => drop(self.0.next_run.get_or_create(&labels).set(at / 1_000)),
                None => drop(self.0.next_run.remove(&labels)),
            }
        }
        known
    }

    /// Its gauges would stand still; its counters stay.
    pub(crate) fn job_gone(&self, job: &str) {
        let labels = JobLabels { job: job.to_owned() };
        self.0.next_run.remove(&labels);
        self.0.last_success.remove(&labels);
    }

    fn label(&self, job: &str) -> String {
        let label = if self.is_known(job) { job } else { "_other" };
        label.to_owned()
    }

    /// Whether a job has a label of its own.
    fn is_known(&self, job: &str) -> bool {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(job) || (names.len() < MAX_NAMES && names.insert(job.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_names_are_those_of_the_page() {
        let metrics = Metrics::new(creel_wire::ServiceName::Scheduler);
        let figures = Figures::new(&metrics);
        for n in 0..=MAX_NAMES {
            figures.run_ended(&format!("job-{n}"), "succeeded", 5_000, true);
        }
        figures.skipped("job-1", "overlap", 3);
        figures.lateness("job-1", 20);
        assert!(figures.next_run("job-1", || Some(9_000)));
        assert!(!figures.next_run("beyond", || panic!("it has no label")));
        let text = metrics.encode().unwrap();
        for line in [
            r#"creel_job_runs_total{service="scheduler",job="job-499",outcome="succeeded"} 1"#,
            r#"creel_job_runs_total{service="scheduler",job="_other",outcome="succeeded"} 1"#,
            r#"creel_job_skipped_total{service="scheduler",job="job-1",reason="overlap"} 3"#,
            r#"creel_job_last_success_timestamp_seconds{service="scheduler",job="job-1"} 5"#,
            r#"creel_job_next_run_timestamp_seconds{service="scheduler",job="job-1"} 9"#,
            r#"creel_job_lateness_seconds_count{service="scheduler",job="job-1"} 1"#,
        ] {
            assert!(text.contains(line), "{line}");
        }
        figures.job_gone("job-1");
        assert!(!metrics.encode().unwrap().contains("next_run_timestamp_seconds{"));
    }
}
