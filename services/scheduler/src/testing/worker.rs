//! Scripted workers.

use std::{collections::VecDeque, time::Duration};

use creel_proto::scheduler::v1::{
    DeliveryStatus, RunState, SchedulerMessage, Work, WorkAck, WorkCancel, WorkFinished, WorkHeartbeat,
    WorkKind, WorkReady, WorkRef, WorkStarted, WorkerHello, WorkerMessage,
    scheduler_message::Message as Down, worker_message::Message as Up,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Stack;

impl Stack {
    /// A worker of agent-runner with room for 16 runs that holds `holding`.
    pub(crate) async fn worker(&self, instance: &str, holding: &[WorkRef]) -> Worker {
        self.attach(WorkerHello {
            capacity: 16,
            holding: holding.to_vec(),
            instance: instance.into(),
            ..WorkerHello::default()
        })
        .await
    }

    /// A worker of agent-runner that says this.
    pub(crate) async fn attach(&self, hello: WorkerHello) -> Worker {
        self.attach_for(&[WorkKind::SystemEvent, WorkKind::AgentTurn], hello)
            .await
    }

    /// A worker of runs of some kinds that says this.
    pub(crate) async fn attach_for(&self, kinds: &'static [WorkKind], hello: WorkerHello) -> Worker {
        let (up, incoming) = mpsc::channel::<Result<WorkerMessage, Status>>(64);
        let down = self.work.open(kinds, ReceiverStream::new(incoming));
        let mut worker = Worker {
            up,
            down,
            heard: VecDeque::new(),
        };
        let hello = WorkerHello {
            kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
            ..hello
        };
        worker.say(Up::Hello(hello)).await;
        assert!(matches!(worker.hear().await, Down::Welcome(_)));
        worker
    }
}

/// A scripted worker.
pub(crate) struct Worker {
    pub(crate) up: mpsc::Sender<Result<WorkerMessage, Status>>,
    pub(crate) down: mpsc::Receiver<Result<SchedulerMessage, Status>>,
    /// What came while something else was waited for.
    heard: VecDeque<Down>,
}

impl Worker {
    pub(crate) async fn say(&self, message: Up) {
        self.up
            .send(Ok(WorkerMessage {
                message: Some(message),
            }))
            .await
            .unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Down {
        match self.heard.pop_front() {
            Some(heard) => heard,
            None => self.listen().await,
        }
    }

    async fn listen(&mut self) -> Down {
        self.down.recv().await.unwrap().unwrap().message.unwrap()
    }

    /// What it is sent, and does not begin.
    pub(crate) async fn received(&mut self) -> Work {
        match self.hear().await {
            Down::Work(work) => work,
            other => panic!("no work: {other:?}"),
        }
    }

    /// What it is sent and let begin.
    pub(crate) async fn work(&mut self) -> Work {
        let work = self.received().await;
        let r#ref = of(&work);
        self.ready(&r#ref).await;
        loop {
            match self.listen().await {
                Down::Begin(begin) if begin.r#ref.as_ref() == Some(&r#ref) => return work,
                other => self.heard.push_back(other),
            }
        }
    }

    pub(crate) async fn ready(&self, r#ref: &WorkRef) {
        let r#ref = Some(r#ref.clone());
        self.say(Up::Ready(WorkReady { r#ref })).await;
    }

    pub(crate) async fn no_work_for(&mut self, wait: Duration) {
        assert_eq!(self.heard, []);
        if let Ok(message) = tokio::time::timeout(wait, self.down.recv()).await {
            panic!("not silent: {message:?}");
        }
    }

    pub(crate) async fn cancelled(&mut self) -> WorkCancel {
        match self.hear().await {
            Down::Cancel(cancel) => cancel,
            other => panic!("no cancel: {other:?}"),
        }
    }

    pub(crate) async fn acked(&mut self) -> WorkAck {
        match self.hear().await {
            Down::Ack(ack) => ack,
            other => panic!("no ack: {other:?}"),
        }
    }

    pub(crate) async fn started(&self, r#ref: &WorkRef, session: &str) {
        self.say(Up::Started(WorkStarted {
            r#ref: Some(r#ref.clone()),
            session: session.into(),
        }))
        .await;
    }

    pub(crate) async fn beat(&self, refs: &[WorkRef]) {
        self.say(Up::Heartbeat(WorkHeartbeat { refs: refs.to_vec() }))
            .await;
    }

    pub(crate) async fn finish(&self, r#ref: &WorkRef, outcome: RunState) {
        self.say(Up::Finished(WorkFinished {
            r#ref: Some(r#ref.clone()),
            outcome: outcome.into(),
            reason: if outcome == RunState::Succeeded {
                String::new()
            } else {
                "backend".into()
            },
            summary: "said so".into(),
            session: "cron:j:run:r".into(),
            delivery: Some(DeliveryStatus {
                state: "delivered".into(),
                ..Default::default()
            }),
            ..Default::default()
        }))
        .await;
    }

    /// Takes a run, succeeds, and sees that it counted.
    pub(crate) async fn succeed(&mut self) -> Work {
        let work = self.work().await;
        let r#ref = of(&work);
        self.finish(&r#ref, RunState::Succeeded).await;
        assert_eq!(
            self.acked().await,
            WorkAck {
                r#ref: Some(r#ref),
                accepted: true
            }
        );
        work
    }

    /// Takes a run and fails.
    pub(crate) async fn fail(&mut self) -> Work {
        let work = self.work().await;
        self.fail_held(&work).await;
        work
    }

    /// Fails with a run it has.
    pub(crate) async fn fail_held(&mut self, work: &Work) {
        self.finish(&of(work), RunState::Failed).await;
        assert!(self.acked().await.accepted);
    }
}

pub(crate) fn of(work: &Work) -> WorkRef {
    work.r#ref.clone().unwrap()
}
