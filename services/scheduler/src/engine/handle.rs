//! How everything else talks to the engine, and the engine to workers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use creel_proto::scheduler::v1::{RunRecord, SchedulerMessage};
use creel_wire::{Code, Error};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::News;
use crate::{id::JobId, ledger::Ledger, name::Name, run::Now};

/// Told to whoever waits, once a change is durable.
pub(super) type Reply = Box<dyn FnOnce() + Send>;
/// Looks at the ledger or changes it. With a reply: when everything up to it is durable.
pub(super) type Command = Box<dyn FnOnce(&mut Ledger, Now) -> Option<Reply> + Send>;

type Sender = mpsc::Sender<Result<SchedulerMessage, Status>>;
/// A way to a worker, and the sign that it is no longer one.
type Way = (Sender, CancellationToken);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    runs: News<Arc<RunRecord>>,
    jobs: News<JobNews>,
    streams: Streams,
    next_stream: Arc<AtomicU64>,
}

/// A job changed, or is gone.
#[derive(Debug, Clone)]
pub(crate) struct JobNews {
    pub(crate) id: JobId,
    pub(crate) owner: Arc<str>,
    pub(crate) name: Name,
    pub(crate) deleted: bool,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        runs: News<Arc<RunRecord>>,
        jobs: News<JobNews>,
        streams: Streams,
    ) -> Self {
        Self {
            commands,
            runs,
            jobs,
            streams,
            next_stream: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Looks at the ledger. What is seen may not be durable yet.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Ledger, Now) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.command(Box::new(move |ledger, now| {
            // Whoever asked may be gone.
            drop(answer.send(look(ledger, now)));
            None
        }))
        .await?;
        answered.await.map_err(|_| cut_off())
    }

    /// Changes the ledger; answers when the change, and all before it, is durable.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Ledger, Now) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.command(Box::new(move |ledger, now| match change(ledger, now) {
            Ok(done) => Some(Box::new(move || drop(answer.send(Ok(done))))),
            Err(error) => {
                drop(answer.send(Err(error)));
                None
            }
        }))
        .await?;
        answered.await.map_err(|_| cut_off())?
    }

    /// Waits until everything changed before is durable.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        self.change(|_, _| Ok(())).await
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        let stopping = |_| Error::new(Code::Unavailable, "stopping", "the scheduler is stopping");
        self.commands.send(command).await.map_err(stopping)
    }

    /// Run changes from now on, once they are durable.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<RunRecord>> {
        self.runs.listen()
    }

    /// Jobs that change from now on, once that is durable.
    pub(crate) fn watch_jobs(&self) -> broadcast::Receiver<JobNews> {
        self.jobs.listen()
    }

    /// A new stream to a worker: its number, and what is cancelled when the engine closes it.
    pub(crate) fn open_stream(&self, sender: Sender) -> (u64, CancellationToken) {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let closed = CancellationToken::new();
        self.streams.lock().insert(stream, (sender, closed.clone()));
        (stream, closed)
    }

    pub(crate) fn close_stream(&self, stream: u64) {
        self.streams.close(stream);
    }

    pub(crate) fn send(&self, stream: u64, message: SchedulerMessage) {
        self.streams.send(stream, message);
    }
}

/// The ways to workers, by number. As many as there are open streams.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<BTreeMap<u64, Way>>>);

impl Streams {
    /// Sends to a worker. One that does not keep up loses its stream, and comes back with what it holds.
    pub(super) fn send(&self, stream: u64, message: SchedulerMessage) {
        let full = self
            .lock()
            .get(&stream)
            .is_some_and(|(sender, _)| sender.try_send(Ok(message)).is_err());
        if full {
            tracing::warn!(stream, "a worker does not read its stream: closed");
            self.close(stream);
        }
    }

    pub(super) fn close(&self, stream: u64) {
        if let Some((_, closed)) = self.lock().remove(&stream) {
            closed.cancel();
        }
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.into_values().for_each(|(_, closed)| closed.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Way>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a change was cut off: nobody knows whether it was made.
fn cut_off() -> Error {
    Error::new(
        Code::Unavailable,
        "store",
        "the store failed before this was known to be durable",
    )
    .hint("read the state again before repeating the request")
}
