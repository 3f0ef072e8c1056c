//! How a turn gets its worker: a trait, so that turns can be tried without processes, and what a turn
//! asks of it. The real one is in `sandbox.rs`.

use std::time::Duration;

use creel_sandbox::Enforced;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    files::Places,
    turn::{Failure, Gone},
};

/// Starts workers.
#[tonic::async_trait]
pub(crate) trait Launch: Send + Sync + 'static {
    /// Starts the worker of a turn. It waits for its first line.
    ///
    /// # Errors
    /// Why there is none; nothing runs then. Dropping the future ends what it started.
    async fn launch(&self, order: Order) -> Result<Launched, Failure>;

    /// What would stand around a worker that is started now.
    ///
    /// # Errors
    /// Why none can be started.
    async fn sandbox(&self) -> Result<Enforced, Failure>;

    /// Returns when no worker can be started ever again.
    async fn lost(&self);
}

/// What is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) backend: String,
    pub(crate) places: Places,
    pub(crate) timeout: Duration,
}

/// A worker that runs.
pub(crate) struct Launched {
    /// Its standard input.
    pub(crate) to: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its standard output.
    pub(crate) from: Box<dyn AsyncRead + Send + Unpin>,
    /// What its sandbox enforces: `full`, `partial`, `none`.
    pub(crate) sandbox: String,
    pub(crate) process: Box<dyn Process>,
}

/// The processes of a worker. Dropping it ends them.
#[tonic::async_trait]
pub(crate) trait Process: Send + Sync {
    /// Asks for the end: TERM, after `grace` KILL. Returns at once.
    fn end(&self, grace: Duration);

    /// Waits until nothing of it lives.
    async fn gone(self: Box<Self>) -> Over;
}

/// How a worker's processes went.
#[derive(Debug, Clone)]
pub(crate) struct Over {
    pub(crate) gone: Gone,
    /// The largest resident size of one of its processes, in bytes; 0 when unknown.
    pub(crate) memory_bytes: u64,
}
