//! Workers inside the bench: they take what is due and end it at once, or never.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use creel_proto::{
    scheduler::v1::{
        RunState, SchedulerMessage, WorkFinished, WorkHeartbeat, WorkKind, WorkReady, WorkRef, WorkStarted,
        WorkerHello, WorkerMessage, scheduler_message::Message as Down,
        work_service_client::WorkServiceClient, worker_message::Message as Up,
    },
    time::unix_ms,
};
use tokio::{sync::mpsc, task::AbortHandle, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    Shared,
    bed::{Bed, now_ms},
};

/// What a worker does with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Ends it at once.
    Finish,
    /// Keeps it alive and never ends it.
    Hang,
}

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    acked: AtomicU64,
    late_ms: Mutex<Vec<f64>>,
}

/// Some workers; gone when dropped.
pub(crate) struct Fleet {
    counts: Shared<Counts>,
    tasks: Vec<AbortHandle>,
}

impl Fleet {
    /// Attaches so many workers, and returns when all are.
    pub(crate) async fn attach(
        bed: &Bed,
        workers: usize,
        capacity: u32,
        manner: Manner,
    ) -> anyhow::Result<Self> {
        let counts = Shared::<Counts>::default();
        let mut tasks = Vec::new();
        for n in 0..workers {
            let (ready, attached) = tokio::sync::oneshot::channel();
            let worker = Worker {
                channel: bed.as_worker()?,
                instance: format!("bench-{}-{n}", std::process::id()),
                capacity,
                manner,
                counts: Shared::clone(&counts),
                holding: BTreeMap::new(),
            };
            tasks.push(tokio::spawn(worker.live(ready)).abort_handle());
            attached.await?;
        }
        Ok(Self { counts, tasks })
    }

    pub(crate) fn taken(&self) -> u64 {
        self.counts.taken.load(Ordering::Relaxed)
    }

    /// Runs whose results are durable.
    pub(crate) fn acked(&self) -> u64 {
        self.counts.acked.load(Ordering::Relaxed)
    }

    /// From nominal instant to arrival, in ms.
    pub(crate) fn lateness(&self) -> Vec<f64> {
        self.counts
            .late_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn forget(&self) {
        self.counts
            .late_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

struct Worker {
    channel: Channel,
    instance: String,
    capacity: u32,
    manner: Manner,
    counts: Shared<Counts>,
    /// What is not acked yet.
    holding: BTreeMap<String, u32>,
}

impl Worker {
    /// Attaches, and again whenever the stream ends.
    async fn live(mut self, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        loop {
            // A scheduler that is gone comes back.
            let _ = self.stream(&mut ready).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stream(&mut self, ready: &mut Option<tokio::sync::oneshot::Sender<()>>) -> anyhow::Result<()> {
        let (up, upward) = mpsc::channel::<WorkerMessage>(4_096);
        let hello = WorkerHello {
            kinds: vec![WorkKind::AgentTurn.into()],
            capacity: self.capacity,
            holding: self.refs(),
            instance: self.instance.clone(),
            backends: Vec::new(),
        };
        say(&up, Up::Hello(hello)).await?;
        let mut client = WorkServiceClient::new(self.channel.clone());
        let mut down = client.attach(ReceiverStream::new(upward)).await?.into_inner();
        if self.manner == Manner::Finish {
            for held in self.refs() {
                say(&up, finished(held)).await?;
            }
        }
        let mut beat = tokio::time::interval(Duration::from_secs(8));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = down.message() => match message? {
                    Some(SchedulerMessage { message: Some(message) }) => self.hear(message, &up, ready).await?,
                    Some(_) => {}
                    None => return Ok(()),
                },
                _ = beat.tick() => {
                    let refs = self.refs();
                    if !refs.is_empty() {
                        say(&up, Up::Heartbeat(WorkHeartbeat { refs })).await?;
                    }
                }
            }
        }
    }

    async fn hear(
        &mut self,
        message: Down,
        up: &mpsc::Sender<WorkerMessage>,
        ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
    ) -> anyhow::Result<()> {
        match message {
            Down::Welcome(_) => {
                if let Some(ready) = ready.take() {
                    // The bench may have given up waiting.
                    let _ = ready.send(());
                }
            }
            Down::Work(work) => {
                let late = now_ms() - work.nominal_at.as_ref().map_or(0, unix_ms);
                let Some(own) = work.r#ref else { return Ok(()) };
                if self.holding.insert(own.run_id.clone(), own.attempt).is_none() {
                    self.counts.taken.fetch_add(1, Ordering::Relaxed);
                    let late = f64::from(i32::try_from(late).unwrap_or(i32::MAX));
                    self.counts
                        .late_ms
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(late);
                }
                say(up, Up::Ready(WorkReady { r#ref: Some(own) })).await?;
            }
            Down::Begin(begin) => {
                let Some(own) = begin.r#ref else { return Ok(()) };
                let started = WorkStarted {
                    r#ref: Some(own.clone()),
                    session: String::new(),
                };
                say(up, Up::Started(started)).await?;
                if self.manner == Manner::Finish {
                    say(up, finished(own)).await?;
                }
            }
            Down::Ack(ack) => {
                if let Some(own) = ack.r#ref
                    && self.holding.remove(&own.run_id).is_some()
                    && ack.accepted
                {
                    self.counts.acked.fetch_add(1, Ordering::Relaxed);
                }
            }
            Down::Cancel(cancel) => {
                if let Some(own) = cancel.r#ref {
                    say(up, finished(own)).await?;
                }
            }
        }
        Ok(())
    }

    fn refs(&self) -> Vec<WorkRef> {
        let held = self.holding.iter().map(|(run_id, attempt)| WorkRef {
            run_id: run_id.clone(),
            attempt: *attempt,
        });
        held.collect()
    }
}

fn finished(own: WorkRef) -> Up {
    Up::Finished(WorkFinished {
        r#ref: Some(own),
        outcome: RunState::Succeeded.into(),
        ..WorkFinished::default()
    })
}

async fn say(up: &mpsc::Sender<WorkerMessage>, message: Up) -> anyhow::Result<()> {
    up.send(WorkerMessage {
        message: Some(message),
    })
    .await
    .map_err(|_| anyhow::anyhow!("the stream has ended"))
}
