//! Metrics of a service: one registry, passed down; the RPC figures that every service has
//! (`telemetry.md`). Labels come from closed sets.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// A service's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RpcLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
    refused: Family<ReasonLabels, Counter>,
    memory: Gauge,
    certificate_end: Gauge,
    outbox_lag: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

impl Metrics {
    /// The metrics of a service; every line carries its name.
    #[must_use]
    pub fn new(service: creel_wire::ServiceName) -> Self {
        let labels = [("service".into(), service.as_str().into())];
        let mut registry = Registry::with_prefix_and_labels("creel", labels.into_iter());
        let requests = Family::<RpcLabels, Counter>::default();
        let make: fn() -> Histogram = || {
            Histogram::new([
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ])
        };
        let seconds = Family::new_with_constructor(make);
        let refused = Family::<ReasonLabels, Counter>::default();
        let (memory, certificate_end, outbox_lag) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register(
            "rpc_requests",
            "Finished requests by method and gRPC status",
            requests.clone(),
        );
        registry.register("rpc_seconds", "Duration of requests in seconds", seconds.clone());
        registry.register(
            "auth_failed",
            "Requests refused by the authorization layer",
            refused.clone(),
        );
        registry.register(
            "process_memory_bytes",
            "Resident memory of the process",
            memory.clone(),
        );
        registry.register(
            "cert_expiry_timestamp_seconds",
            "End of the service's certificate",
            certificate_end.clone(),
        );
        registry.register(
            "outbox_lag_records",
            "Audit records not shipped yet",
            outbox_lag.clone(),
        );
        let registry = Arc::new(Mutex::new(registry));
        Self {
            registry,
            requests,
            seconds,
            refused,
            memory,
            certificate_end,
            outbox_lag,
        }
    }

    /// Registers a service's own metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts a finished request. `method` is of the closed set of methods.
    pub fn rpc_finished(&self, method: &'static str, code: tonic::Code, seconds: f64) {
        self.requests
            .get_or_create(&RpcLabels {
                method,
                code: code_name(code),
            })
            .inc();
        self.seconds
            .get_or_create(&MethodLabels { method })
            .observe(seconds);
    }

    /// Counts a refused request. Reasons are ours, so they are few.
    pub fn rpc_refused(&self, reason: &str) {
        self.refused
            .get_or_create(&ReasonLabels {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// Notes when the certificate ends.
    pub fn certificate_ends(&self, unix_ms: i64) {
        self.certificate_end.set(unix_ms / 1_000);
    }

    /// Notes how many audit records wait.
    pub fn outbox_waits(&self, records: usize) {
        self.outbox_lag.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// All of it as OpenMetrics text.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        self.memory
            .set(i64::try_from(resident_bytes(std::process::id())).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(
            &mut text,
            &self.registry.lock().unwrap_or_else(PoisonError::into_inner),
        )?;
        Ok(text)
    }
}

/// Resident memory of a process, in bytes; 0 where the system doesn't tell.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))
        .ok()
        .and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

const fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "ok",
        tonic::Code::Cancelled => "cancelled",
        tonic::Code::Unknown => "unknown",
        tonic::Code::InvalidArgument => "invalid_argument",
        tonic::Code::DeadlineExceeded => "deadline_exceeded",
        tonic::Code::NotFound => "not_found",
        tonic::Code::AlreadyExists => "already_exists",
        tonic::Code::PermissionDenied => "permission_denied",
        tonic::Code::ResourceExhausted => "resource_exhausted",
        tonic::Code::FailedPrecondition => "failed_precondition",
        tonic::Code::Aborted => "aborted",
        tonic::Code::OutOfRange => "out_of_range",
        tonic::Code::Unimplemented => "unimplemented",
        tonic::Code::Internal => "internal",
        tonic::Code::Unavailable => "unavailable",
        tonic::Code::DataLoss => "data_loss",
        tonic::Code::Unauthenticated => "unauthenticated",
    }
}
