//! The stream to the scheduler, against a scheduler that these tests play.

use creel_proto::scheduler::v1::{
    AgentTurnPayload, Payload as PayloadMessage, RunState, SchedulerMessage, Work, WorkAck, WorkBegin,
    WorkCancel, WorkFinished, WorkRef, WorkWelcome, WorkerHello, WorkerMessage,
    payload::Kind as Payload,
    scheduler_message,
    work_service_server::{WorkService, WorkServiceServer},
    worker_message::Message,
};
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server, Uri},
};

use super::{Ground, House, MAIN};

type Down = mpsc::Sender<Result<SchedulerMessage, Status>>;

/// Hands every stream to the test.
struct Played(mpsc::UnboundedSender<(Streaming<WorkerMessage>, Down)>);

#[tonic::async_trait]
impl WorkService for Played {
    type AttachStream = ReceiverStream<Result<SchedulerMessage, Status>>;
    async fn attach(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (down, stream) = mpsc::channel(1_024);
        self.0.send((request.into_inner(), down)).unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Scheduler {
    streams: mpsc::UnboundedReceiver<(Streaming<WorkerMessage>, Down)>,
    channel: Channel,
}

impl Scheduler {
    fn new() -> Self {
        let (send, streams) = mpsc::unbounded_channel();
        let (connections, incoming) = mpsc::channel::<std::io::Result<DuplexStream>>(4);
        let server = Server::builder().add_service(WorkServiceServer::new(Played(send)));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        let connect = tower::service_fn(move |_: Uri| {
            let connections = connections.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                connections
                    .send(Ok(theirs))
                    .await
                    .map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        let channel = Endpoint::from_static("http://scheduler").connect_with_connector_lazy(connect);
        Self { streams, channel }
    }

    /// The next stream, its hello read and welcomed.
    async fn attached(&mut self) -> (Stream, WorkerHello) {
        let (up, down) = self.streams.recv().await.unwrap();
        let mut stream = Stream { up, down };
        let Some(Message::Hello(hello)) = stream.next().await else {
            panic!("no hello")
        };
        let heartbeat = Some(creel_proto::time::duration(20));
        stream
            .say(scheduler_message::Message::Welcome(WorkWelcome {
                heartbeat,
                ..Default::default()
            }))
            .await;
        (stream, hello)
    }
}

struct Stream {
    up: Streaming<WorkerMessage>,
    down: Down,
}

impl Stream {
    async fn next(&mut self) -> Option<Message> {
        self.up.message().await.unwrap()?.message
    }

    async fn say(&self, message: scheduler_message::Message) {
        self.down
            .send(Ok(SchedulerMessage {
                message: Some(message),
            }))
            .await
            .unwrap();
    }

    async fn give(&self, run: &str, message: &str) {
        let payload = Payload::AgentTurn(AgentTurnPayload {
            message: message.into(),
            ..Default::default()
        });
        self.say(scheduler_message::Message::Work(Work {
            r#ref: Some(reference(run)),
            job_id: "j".into(),
            job_name: "job".into(),
            payload: Some(PayloadMessage { kind: Some(payload) }),
            target: MAIN.into(),
            ..Default::default()
        }))
        .await;
    }

    async fn started(&mut self) -> String {
        loop {
            match self.next().await.unwrap() {
                Message::Started(started) => return started.r#ref.unwrap().run_id,
                Message::Ready(ready) => self.begin(ready.r#ref).await,
                Message::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn finished(&mut self) -> WorkFinished {
        loop {
            match self.next().await.unwrap() {
                Message::Finished(finished) => return finished,
                Message::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn begin(&self, r#ref: Option<WorkRef>) {
        self.say(scheduler_message::Message::Begin(WorkBegin { r#ref }))
            .await;
    }

    async fn ack(&self, run: &str) {
        let ack = WorkAck {
            r#ref: Some(reference(run)),
            accepted: true,
        };
        self.say(scheduler_message::Message::Ack(ack)).await;
    }
}

fn reference(run: &str) -> WorkRef {
    WorkRef {
        run_id: run.into(),
        attempt: 1,
    }
}

async fn forgotten(house: &House) {
    while !house.runner.works.all().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn work_is_started_kept_alive_finished_and_forgotten_when_acknowledged() {
    let (house, mut scheduler) = (House::new().await, Scheduler::new());
    let attached = tokio::spawn(crate::worker::attach(
        house.runner.clone(),
        scheduler.channel.clone(),
    ));
    let (mut stream, hello) = scheduler.attached().await;
    assert_eq!((hello.kinds.len(), hello.holding.len()), (2, 0));
    assert!(hello.capacity > 0 && !hello.instance.is_empty());
    assert!(
        hello.backends.contains(&"echo".to_owned()),
        "what it runs turns with"
    );
    stream.give("r1", "hold hello").await;
    assert_eq!(stream.started().await, "r1");
    let Some(Message::Heartbeat(beat)) = stream.next().await else {
        panic!("no heartbeat")
    };
    assert_eq!(beat.refs, [reference("r1")]);
    house.let_go_on();
    let finished = stream.finished().await;
    assert_eq!(
        (
            finished.outcome(),
            finished.summary.as_str(),
            finished.session.as_str()
        ),
        (RunState::Succeeded, "hello", "cron:j:run:r1")
    );
    let delivery = finished.delivery.unwrap();
    assert_eq!(
        (delivery.state.as_str(), delivery.to.as_str()),
        ("delivered", MAIN)
    );
    stream.ack("r1").await;
    forgotten(&house).await;
    stream.give("r2", "silent").await;
    assert_eq!(stream.started().await, "r2");
    let cancel = WorkCancel {
        r#ref: Some(reference("r2")),
        reason: "cancelled".into(),
    };
    stream.say(scheduler_message::Message::Cancel(cancel)).await;
    assert_eq!(stream.finished().await.outcome(), RunState::Cancelled);
    house.drain.cancel();
    attached.await.unwrap();
}

#[tokio::test]
async fn what_is_not_let_begin_is_dropped_with_its_stream_and_what_is_fenced_is_told_to_nobody() {
    let (house, mut scheduler) = (House::new().await, Scheduler::new());
    tokio::spawn(crate::worker::attach(
        house.runner.clone(),
        scheduler.channel.clone(),
    ));
    let (mut stream, _) = scheduler.attached().await;
    stream.give("r1", "hello").await;
    let Some(Message::Ready(ready)) = stream.next().await else {
        panic!("not ready")
    };
    assert_eq!(ready.r#ref, Some(reference("r1")));
    let Some(Message::Heartbeat(beat)) = stream.next().await else {
        panic!("no heartbeat")
    };
    assert_eq!(beat.refs, [reference("r1")], "kept alive");
    assert!(house.runner.works.all().is_empty(), "not begun");
    drop(stream);
    let (mut stream, hello) = scheduler.attached().await;
    assert_eq!(hello.holding, []);
    // The word comes too late.
    stream.begin(Some(reference("r1"))).await;

    stream.give("r2", "silent").await;
    assert_eq!(stream.started().await, "r2");
    let cancel = WorkCancel {
        r#ref: Some(reference("r2")),
        reason: "fenced".into(),
    };
    stream.say(scheduler_message::Message::Cancel(cancel)).await;
    let finished = stream.finished().await;
    assert_eq!(
        (finished.outcome(), finished.delivery.unwrap().state.as_str()),
        (RunState::Cancelled, "none")
    );
    assert_eq!(house.runner.works.all().len(), 1, "the first never began");
    house.drain.cancel();
}

#[tokio::test]
async fn a_thousand_runs_at_once_are_all_asked_for_however_slowly_that_is_heard() {
    let (house, mut scheduler) = (House::new().await, Scheduler::new());
    tokio::spawn(crate::worker::attach(
        house.runner.clone(),
        scheduler.channel.clone(),
    ));
    let (mut stream, _) = scheduler.attached().await;
    // Longer together than what HTTP/2 lets be on its way.
    let name = |n: usize| format!("{n:0>120}");
    for n in 0..1_000 {
        stream.give(&name(n), "hello").await;
    }
    for _ in 0..20_000 {
        tokio::task::yield_now().await;
    }
    let mut asked = std::collections::BTreeSet::new();
    while asked.len() < 1_000 {
        match stream.next().await.unwrap() {
            Message::Ready(ready) => assert!(asked.insert(ready.r#ref.unwrap().run_id)),
            Message::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    house.drain.cancel();
}

#[tokio::test]
async fn a_result_is_sent_again_on_every_stream_until_it_is_acknowledged() {
    let ground = Ground::new("");
    let (house, mut scheduler) = (ground.house().await, Scheduler::new());
    tokio::spawn(crate::worker::attach(
        house.runner.clone(),
        scheduler.channel.clone(),
    ));
    let (mut stream, first) = scheduler.attached().await;
    stream.give("r1", "hold hello").await;
    stream.started().await;
    drop(stream);
    let (mut stream, hello) = scheduler.attached().await;
    assert_eq!(
        (hello.holding, &hello.instance),
        (vec![reference("r1")], &first.instance)
    );
    stream.started().await;
    house.let_go_on();
    assert_eq!(stream.finished().await.summary, "hello");
    drop(stream);
    let (mut stream, _) = scheduler.attached().await;
    stream.started().await;
    assert_eq!(stream.finished().await.summary, "hello");
    drop(stream);
    house.drain.cancel();

    // Another process.
    let house = ground.house().await;
    let mut scheduler = Scheduler::new();
    tokio::spawn(crate::worker::attach(
        house.runner.clone(),
        scheduler.channel.clone(),
    ));
    let (mut stream, hello) = scheduler.attached().await;
    assert_eq!(hello.holding, [reference("r1")]);
    assert_eq!(
        hello.instance, first.instance,
        "the same worker: it has the same memory"
    );
    stream.give("r1", "hold hello").await;
    stream.started().await;
    assert_eq!(stream.finished().await.summary, "hello", "not run again");
    stream.ack("r1").await;
    forgotten(&house).await;
}
