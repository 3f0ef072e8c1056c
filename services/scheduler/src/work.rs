//! The streams of workers. Reads what they say into the engine; what the engine says goes out on the same stream.
//! The protocol is written down in `proto/creel/scheduler/v1/scheduler.proto`.

use std::{collections::VecDeque, pin::pin, time::Duration};

use creel_proto::{
    scheduler::v1::{
        SchedulerMessage, WorkKind, WorkRef, WorkWelcome, WorkerHello, WorkerMessage, scheduler_message,
        work_service_server::WorkService, worker_message::Message,
    },
    time::duration,
};
use creel_store::Store;
use creel_wire::{Code, Error, Principal, ServiceName, authz};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Config,
    engine::Handle,
    id::RunId,
    ledger::{Hello, MAX_APPROVAL_BYTES, Said, Unknown, ack_message, was_taken},
    spec::MAX_BACKEND_BYTES,
    store,
};

/// The first message comes within this.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Most runs of a worker.
const MAX_CAPACITY: u32 = 1_024;
/// Messages of a worker taken at once.
const MAX_AT_ONCE: usize = 256;
/// Longest name of a worker's process.
const MAX_INSTANCE_BYTES: usize = 64;
/// Most backends of a worker.
const MAX_BACKENDS: usize = 256;

#[derive(Debug, Clone)]
pub(crate) struct WorkApi {
    pub(crate) engine: Handle,
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) drain: CancellationToken,
}

#[tonic::async_trait]
impl WorkService for WorkApi {
    type AttachStream = ReceiverStream<Result<SchedulerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (caller, incoming) = authz::split(request)?;
        let kinds = kinds_of(caller.principal())?;
        Ok(Response::new(ReceiverStream::new(self.open(kinds, incoming))))
    }
}

impl WorkApi {
    /// Serves a stream in a task of its own.
    pub(crate) fn open(
        &self,
        kinds: &'static [WorkKind],
        incoming: impl Stream<Item = Result<WorkerMessage, Status>> + Send + 'static,
    ) -> mpsc::Receiver<Result<SchedulerMessage, Status>> {
        // Each run has at most a work, a begin, a cancel and an ack under way.
        let (sender, receiver) = mpsc::channel(MAX_CAPACITY as usize * 4);
        let api = self.clone();
        tokio::spawn(async move {
            if let Err(error) = api.serve(kinds, incoming, sender.clone()).await {
                tracing::warn!(%error, "a worker's stream is ended");
                // It may be gone already.
                drop(sender.try_send(Err(error.into())));
            }
        });
        receiver
    }

    /// One stream, from its hello to its end.
    async fn serve(
        &self,
        kinds: &[WorkKind],
        incoming: impl Stream<Item = Result<WorkerMessage, Status>> + Send,
        sender: mpsc::Sender<Result<SchedulerMessage, Status>>,
    ) -> Result<(), Error> {
        let mut incoming = pin!(incoming);
        let hello = match timeout(HELLO_TIME, incoming.next()).await {
            Ok(Some(Ok(WorkerMessage {
                message: Some(Message::Hello(hello)),
            }))) => read_hello(&hello, kinds)?,
            Ok(Some(Ok(_))) => return Err(Error::invalid("message", "the first message is hello")),
            Ok(Some(Err(_)) | None) => return Ok(()),
            Err(_) => {
                return Err(Error::new(
                    Code::DeadlineExceeded,
                    "no_hello",
                    "no hello within 10 s",
                ));
            }
        };
        let (stream, closed) = self.engine.open_stream(sender.clone());
        tracing::info!(stream, kinds = ?hello.kinds, holding = hello.holding.len(), "a worker is attached");
        let welcome = self.welcome();
        let attached = self
            .engine
            .ask(move |ledger, now| ledger.attach_worker(stream, hello, welcome, now))
            .await;
        let read = match attached {
            Ok(()) => tokio::select! {
                read = self.read(stream, incoming) => read,
                () = closed.cancelled() => Ok(()),
                () = sender.closed() => Ok(()),
                () = self.drain.cancelled() => Ok(()),
            },
            Err(error) => Err(error),
        };
        self.engine.close_stream(stream);
        // While the engine stops nobody needs to know.
        drop(
            self.engine
                .ask(move |ledger, now| ledger.detach_worker(stream, now))
                .await,
        );
        tracing::info!(stream, "a worker's stream has ended");
        read
    }

    /// Reads whatever has come, gives it to the engine at once, and answers what the engine does not know.
    async fn read(
        &self,
        stream: u64,
        mut incoming: std::pin::Pin<&mut (impl Stream<Item = Result<WorkerMessage, Status>> + Send)>,
    ) -> Result<(), Error> {
        while let Some(first) = incoming.next().await {
            let (mut said, mut next) = (VecDeque::new(), Some(first));
            let mut end = None;
            while let Some(message) = next {
                match message.map(read_message) {
                    Ok(Ok(one)) => said.push_back(one),
                    Ok(Err(error)) => end = Some(Err(error)),
                    Err(_) => end = Some(Ok(())),
                }
                let more = end.is_none() && said.len() < MAX_AT_ONCE;
                next = more.then(|| incoming.next().now_or_never().flatten()).flatten();
            }
            // What was said before a message that ends the stream counts.
            while !said.is_empty() {
                let (unknown, rest) = self
                    .engine
                    .ask(move |ledger, now| ledger.hear(stream, said, now))
                    .await?;
                for one in unknown {
                    self.answer(stream, one).await?;
                }
                said = rest;
            }
            if let Some(end) = end {
                return end;
            }
        }
        Ok(())
    }

    /// A run that ended before, or never was: the stored record has the answer.
    async fn answer(&self, stream: u64, unknown: Unknown) -> Result<(), Error> {
        let (run, attempt) = unknown.named;
        let record = store::run(&self.store, run)
            .await
            .map_err(creel_kit::failure::store_error)?;
        let accepted = record.is_some_and(|record| match &unknown.unpark {
            Some(answer) => was_taken(&record, answer),
            None => record.accepted_attempts.contains(&attempt),
        });
        self.engine.send(stream, ack_message(run, attempt, accepted));
        Ok(())
    }

    fn welcome(&self) -> SchedulerMessage {
        let welcome = WorkWelcome {
            heartbeat: Some(duration(self.config.heartbeat_ms)),
            lease: Some(duration(self.config.lease_ms)),
        };
        SchedulerMessage {
            message: Some(scheduler_message::Message::Welcome(welcome)),
        }
    }
}

fn read_message(message: WorkerMessage) -> Result<Said, Error> {
    Ok(match message.message {
        Some(Message::Heartbeat(heartbeat)) => Said::Alive(read_refs(&heartbeat.refs)?),
        Some(Message::Ready(ready)) => Said::Ready(read_ref(ready.r#ref.as_ref())?),
        Some(Message::Started(started)) => Said::Started(read_ref(started.r#ref.as_ref())?, started.session),
        Some(Message::Finished(finished)) => Said::Finished(read_ref(finished.r#ref.as_ref())?, finished),
        Some(Message::Parked(parked)) => {
            approval(&parked.approval_id)?;
            Said::Parked(read_ref(parked.r#ref.as_ref())?, parked)
        }
        Some(Message::Unpark(answer)) => {
            approval(&answer.approval_id)?;
            Said::Unpark(read_ref(answer.r#ref.as_ref())?, answer)
        }
        Some(Message::Hello(_)) => return Err(Error::invalid("message", "hello comes once")),
        None => return Err(Error::invalid("message", "an empty or unknown message")),
    })
}

/// What a service may take.
fn kinds_of(principal: &Principal) -> Result<&'static [WorkKind], Error> {
    match principal {
        Principal::Service(ServiceName::AgentRunner) => Ok(&[WorkKind::SystemEvent, WorkKind::AgentTurn]),
        Principal::Service(ServiceName::ExecApprover) => Ok(&[WorkKind::Command]),
        Principal::Service(ServiceName::Auditor) => Ok(&[WorkKind::Audit]),
        _ => Err(Error::new(
            Code::PermissionDenied,
            "not_a_worker",
            "only workers attach",
        )),
    }
}

fn read_hello(hello: &WorkerHello, allowed: &[WorkKind]) -> Result<Hello, Error> {
    let foreign = hello
        .kinds
        .iter()
        .find(|kind| !allowed.iter().any(|one| *one as i32 == **kind));
    if let Some(kind) = foreign {
        let message = format!("kind {kind} is not for this service");
        return Err(Error::new(Code::PermissionDenied, "kind_not_allowed", message).field("hello.kinds"));
    }
    if hello.kinds.is_empty() {
        return Err(Error::invalid("hello.kinds", "a worker takes at least one kind"));
    }
    if !(1..=MAX_CAPACITY).contains(&hello.capacity) {
        return Err(Error::invalid("hello.capacity", format!("1 to {MAX_CAPACITY}")));
    }
    if hello.instance.is_empty() || hello.instance.len() > MAX_INSTANCE_BYTES {
        return Err(Error::invalid(
            "hello.instance",
            format!("1 to {MAX_INSTANCE_BYTES} bytes, random per process"),
        ));
    }
    let unusable = |name: &String| name.is_empty() || name.len() > MAX_BACKEND_BYTES;
    if hello.backends.len() > MAX_BACKENDS || hello.backends.iter().any(unusable) {
        let message = format!("at most {MAX_BACKENDS}, of 1 to {MAX_BACKEND_BYTES} bytes");
        return Err(Error::invalid("hello.backends", message));
    }
    Ok(Hello {
        kinds: hello.kinds.iter().copied().collect(),
        backends: hello.backends.iter().map(|name| name.as_str().into()).collect(),
        capacity: hello.capacity as usize,
        instance: hello.instance.as_str().into(),
        holding: read_refs(&hello.holding)?,
    })
}

fn approval(id: &str) -> Result<(), Error> {
    if id.is_empty() || id.len() > MAX_APPROVAL_BYTES {
        return Err(Error::invalid(
            "approval_id",
            format!("1 to {MAX_APPROVAL_BYTES} bytes"),
        ));
    }
    Ok(())
}

fn read_refs(refs: &[WorkRef]) -> Result<Vec<(RunId, u32)>, Error> {
    if refs.len() > MAX_CAPACITY as usize {
        return Err(Error::invalid("refs", format!("at most {MAX_CAPACITY}")));
    }
    refs.iter().map(|one| read_ref(Some(one))).collect()
}

fn read_ref(r#ref: Option<&WorkRef>) -> Result<(RunId, u32), Error> {
    let r#ref = r#ref.ok_or_else(|| Error::invalid("ref", "missing"))?;
    let run = r#ref
        .run_id
        .parse()
        .map_err(|_| Error::invalid("ref.run_id", "32 hex digits"))?;
    Ok((run, r#ref.attempt))
}
