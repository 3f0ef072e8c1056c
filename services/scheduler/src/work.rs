//! The streams of workers. Reads what they say into the engine; what the engine says goes out on the same stream.
//! The protocol is written down in `proto/creel/scheduler/v1/scheduler.proto`.

use std::{pin::pin, time::Duration};

use creel_proto::{
    scheduler::v1::{
        RunRecord, SchedulerMessage, WorkFinished, WorkKind, WorkParked, WorkRef, WorkUnpark, WorkWelcome,
        WorkerHello, WorkerMessage, scheduler_message, work_service_server::WorkService,
        worker_message::Message,
    },
    time::duration,
};
use creel_store::Store;
use creel_wire::{Code, Error, Principal, ServiceName, authz};
use futures_util::{Stream, StreamExt as _};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Config,
    engine::Handle,
    id::RunId,
    ledger::{Hello, MAX_APPROVAL_BYTES, ack_message, begin_message, fenced_message, was_taken},
    store,
};

/// The first message comes within this.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Most runs of a worker.
const MAX_CAPACITY: u32 = 1_024;
/// Longest name of a worker's process.
const MAX_INSTANCE_BYTES: usize = 64;

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

    async fn read(
        &self,
        stream: u64,
        mut incoming: std::pin::Pin<&mut (impl Stream<Item = Result<WorkerMessage, Status>> + Send)>,
    ) -> Result<(), Error> {
        while let Some(Ok(message)) = incoming.next().await {
            match message.message {
                Some(Message::Ready(ready)) => {
                    let (run, attempt) = read_ref(ready.r#ref.as_ref())?;
                    let ask = move |ledger: &mut crate::ledger::Ledger, now| {
                        ledger.work_ready(stream, run, attempt, now)
                    };
                    let answer = if self.engine.ask(ask).await? {
                        begin_message
                    } else {
                        fenced_message
                    };
                    self.engine.send(stream, answer(run, attempt));
                }
                Some(Message::Started(started)) => {
                    let (run, attempt) = read_ref(started.r#ref.as_ref())?;
                    let take = move |ledger: &mut crate::ledger::Ledger, now| {
                        ledger.work_started(stream, run, attempt, &started.session, now);
                    };
                    self.engine.ask(take).await?;
                }
                Some(Message::Heartbeat(heartbeat)) => {
                    let refs = read_refs(&heartbeat.refs)?;
                    self.engine
                        .ask(move |ledger, now| ledger.heartbeat(stream, &refs, now))
                        .await?;
                }
                Some(Message::Finished(finished)) => self.finished(stream, finished).await?,
                Some(Message::Parked(parked)) => self.parked(stream, parked).await?,
                Some(Message::Unpark(answer)) => self.unpark(stream, answer).await?,
                Some(Message::Hello(_)) => return Err(Error::invalid("message", "hello comes once")),
                None => return Err(Error::invalid("message", "an empty or unknown message")),
            }
        }
        Ok(())
    }

    async fn finished(&self, stream: u64, finished: WorkFinished) -> Result<(), Error> {
        let (run, attempt) = read_ref(finished.r#ref.as_ref())?;
        let known = self
            .engine
            .ask(move |ledger, now| ledger.work_finished(stream, run, &finished, now))
            .await?;
        if !known {
            // It ended before; the stored record has the answer.
            let record = self.ended(run).await?;
            let accepted = record.is_some_and(|record| record.accepted_attempts.contains(&attempt));
            self.engine.send(stream, ack_message(run, attempt, accepted));
        }
        Ok(())
    }

    async fn parked(&self, stream: u64, parked: WorkParked) -> Result<(), Error> {
        let (run, attempt) = read_ref(parked.r#ref.as_ref())?;
        approval(&parked.approval_id)?;
        let known = self
            .engine
            .ask(move |ledger, now| ledger.work_parked(stream, run, &parked, now))
            .await?;
        if !known {
            let record = self.ended(run).await?;
            let accepted = record.is_some_and(|record| record.accepted_attempts.contains(&attempt));
            self.engine.send(stream, ack_message(run, attempt, accepted));
        }
        Ok(())
    }

    async fn unpark(&self, stream: u64, answer: WorkUnpark) -> Result<(), Error> {
        let (run, attempt) = read_ref(answer.r#ref.as_ref())?;
        approval(&answer.approval_id)?;
        let asked = answer.clone();
        let known = self
            .engine
            .ask(move |ledger, now| ledger.work_unparked(stream, run, &asked, now))
            .await?;
        if !known {
            let record = self.ended(run).await?;
            let accepted = record.is_some_and(|record| was_taken(&record, &answer));
            self.engine.send(stream, ack_message(run, attempt, accepted));
        }
        Ok(())
    }

    /// A run that ended before, or never was.
    async fn ended(&self, run: RunId) -> Result<Option<RunRecord>, Error> {
        store::run(&self.store, run)
            .await
            .map_err(creel_kit::idempotency::store_error)
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
    Ok(Hello {
        kinds: hello.kinds.iter().copied().collect(),
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
