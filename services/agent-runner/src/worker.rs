//! The stream to the scheduler: takes runs, says that they live, and says how they ended until the
//! scheduler has it. What has to be said follows from the runs that are held, so a new stream says all
//! of it again; nothing is lost with the old one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use creel_proto::{
    agent::v1::WorkRecord,
    scheduler::v1::{
        DeliveryStatus, RunState, SchedulerMessage, Work, WorkFinished, WorkHeartbeat, WorkKind, WorkReady,
        WorkRef, WorkStarted, WorkerHello, WorkerMessage, scheduler_message,
        work_service_client::WorkServiceClient, worker_message,
    },
    time::duration_ms,
};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{runner::Runner, works::MAX_HELD};

/// Between attempts to attach: from, to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Until the scheduler has said how often it wants to hear from us.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The longest time between heartbeats that is believed.
const MAX_HEARTBEAT: Duration = Duration::from_secs(3_600);
/// Messages that were received and wait to be heard: a work, a cancel and an ack of every run that we may hold, so
/// that no heartbeat waits for room.
const INCOMING: usize = 4 * MAX_HELD;
/// Messages that wait to be sent.
const OUTGOING: usize = 64;
/// Most backends the scheduler hears of, and the longest name of one, in bytes.
const MAX_BACKENDS: usize = 256;
const MAX_BACKEND_BYTES: usize = 128;

/// Stays attached until the drain.
pub(crate) async fn attach(runner: Runner, channel: Channel) {
    // Named after the store, which one process at a time has open: what it does not name as held was not begun, by
    // us or a process before us.
    let instance = format!("{:032x}", u128::from_be_bytes(runner.store.incarnation()));
    let mut wait = BACKOFF.0;
    while !runner.drain.is_cancelled() {
        match stream(&runner, &instance, channel.clone()).await {
            // It stood for a while: begin with short waits again.
            Ok(()) => wait = BACKOFF.0,
            Err(status) => tracing::debug!(%status, "not attached to the scheduler"),
        }
        tokio::select! {
            () = runner.drain.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(BACKOFF.1);
    }
}

/// One stream, to its end. `Ok` when the scheduler had welcomed us.
async fn stream(runner: &Runner, instance: &str, channel: Channel) -> Result<(), tonic::Status> {
    let (queue, todo) = mpsc::channel(INCOMING);
    let received = Arc::new(Received::default());
    // On a task of its own: to take a run takes its time, and those that wait behind it are ours as well.
    let hearing = tokio::spawn(hear_all(runner.clone(), todo, Arc::clone(&received)));
    let outcome = talk(runner, instance, channel, queue, &received).await;
    // What was received is taken before the next stream says what is held.
    let _ = hearing.await;
    outcome
}

/// Speaks and listens until either side is gone. `Ok` when the scheduler had welcomed us.
async fn talk(
    runner: &Runner,
    instance: &str,
    channel: Channel,
    queue: mpsc::Sender<scheduler_message::Message>,
    received: &Received,
) -> Result<(), tonic::Status> {
    let (send, outgoing) = mpsc::channel(OUTGOING);
    let mut said = Said::default();
    let mut changes = runner.works.changes();
    let _ = send.try_send(hello(runner, instance));
    let mut client = WorkServiceClient::new(channel);
    let mut incoming = tokio::select! {
        attached = client.attach(ReceiverStream::new(outgoing)) => attached?.into_inner(),
        () = runner.drain.cancelled() => return Ok(()),
    };
    let mut welcomed = false;
    let mut heartbeat = interval(HEARTBEAT);
    loop {
        for message in said.due(&runner.works.all()) {
            if send.send(message).await.is_err() {
                return ended(welcomed);
            }
        }
        tokio::select! {
            message = next(&mut incoming) => match message? {
                Some(message) => {
                    if let scheduler_message::Message::Welcome(welcome) = &message {
                        welcomed = true;
                        let ms = welcome.heartbeat.as_ref().map_or(0, duration_ms);
                        if let Ok(ms @ 1..) = u64::try_from(ms) {
                            heartbeat = interval(Duration::from_millis(ms).min(MAX_HEARTBEAT));
                        }
                    }
                    let (answer, heard) = received.hear(message, runner.works.count());
                    // Never left out: what is received and waits for its word is kept alive.
                    if let Some(answer) = answer
                        && send.send(answer).await.is_err()
                    {
                        return ended(welcomed);
                    }
                    if let Some(heard) = heard
                        && queue.send(heard).await.is_err()
                    {
                        return Err(tonic::Status::internal("nobody hears what is received"));
                    }
                }
                None => return ended(welcomed),
            },
            _ = changes.changed() => {}
            _ = heartbeat.tick() => {
                // One that is being taken is both.
                let mut names: BTreeSet<_> = runner.works.all().iter().map(name).collect();
                names.extend(received.names());
                let refs: Vec<_> = names.into_iter().map(|(run_id, attempt)| WorkRef { run_id, attempt }).collect();
                if !refs.is_empty() {
                    let beat = worker_message::Message::Heartbeat(WorkHeartbeat { refs });
                    let _ = send.try_send(message(beat));
                }
            }
            () = runner.drain.cancelled() => return Ok(()),
        }
    }
}

/// The end of a stream, which is a failure unless we were welcome.
fn ended(welcomed: bool) -> Result<(), tonic::Status> {
    if welcomed {
        Ok(())
    } else {
        Err(tonic::Status::unavailable("the stream has ended"))
    }
}

async fn next(
    incoming: &mut Streaming<SchedulerMessage>,
) -> Result<Option<scheduler_message::Message>, tonic::Status> {
    loop {
        match incoming.message().await? {
            // A message of a newer scheduler.
            Some(SchedulerMessage { message: None }) => {}
            Some(SchedulerMessage { message }) => return Ok(message),
            None => return Ok(None),
        }
    }
}

/// Hears what was received, in its order.
async fn hear_all(
    runner: Runner,
    mut todo: mpsc::Receiver<scheduler_message::Message>,
    received: Arc<Received>,
) {
    while let Some(message) = todo.recv().await {
        let reference = work_ref(&message);
        hear(&runner, message).await;
        if let Some(reference) = reference {
            received.taken(&reference);
        }
    }
}

/// The run that a message brings.
fn work_ref(message: &scheduler_message::Message) -> Option<WorkRef> {
    match message {
        scheduler_message::Message::Work(work) => work.r#ref.clone(),
        _ => None,
    }
}

/// What the scheduler sends of a run before it is taken: the work, then the word to begin. Gone with the stream, as
/// the scheduler knows; bounded by what [`MAX_HELD`] leaves room for.
#[derive(Debug, Default)]
struct Received(Mutex<Attempts>);

/// Attempts by name; without their work once they were let begin.
type Attempts = BTreeMap<(String, u32), Option<Box<Work>>>;

impl Received {
    /// Hears a message: what to answer, and what is to be done about it, in order.
    fn hear(
        &self,
        heard: scheduler_message::Message,
        held: usize,
    ) -> (Option<WorkerMessage>, Option<scheduler_message::Message>) {
        let mut received = self.lock();
        match heard {
            scheduler_message::Message::Work(work) => {
                let reference = work.r#ref.clone().unwrap_or_default();
                if held + received.len() >= MAX_HELD {
                    tracing::warn!(run = %reference.run_id, "too many runs are held: it is not begun");
                    return (None, None);
                }
                received.insert(named(&reference), Some(Box::new(work)));
                let ready = WorkReady {
                    r#ref: Some(reference),
                };
                (Some(message(worker_message::Message::Ready(ready))), None)
            }
            scheduler_message::Message::Begin(begin) => {
                let begun = begin
                    .r#ref
                    .as_ref()
                    .and_then(|r#ref| received.get_mut(&named(r#ref)));
                let work = begun.and_then(Option::take);
                (None, work.map(|work| scheduler_message::Message::Work(*work)))
            }
            scheduler_message::Message::Cancel(cancel) => {
                let name = cancel.r#ref.as_ref().map(named).unwrap_or_default();
                if received.get(&name).is_some_and(Option::is_some) {
                    received.remove(&name);
                    return (None, None);
                }
                (None, Some(scheduler_message::Message::Cancel(cancel)))
            }
            other => (None, Some(other)),
        }
    }

    fn taken(&self, reference: &WorkRef) {
        self.lock().remove(&named(reference));
    }

    /// Runs that were received and not yet taken.
    fn names(&self) -> Vec<(String, u32)> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(reference: &WorkRef) -> (String, u32) {
    (reference.run_id.clone(), reference.attempt)
}

async fn hear(runner: &Runner, message: scheduler_message::Message) {
    match message {
        scheduler_message::Message::Work(work) => runner.take_work(&work).await,
        scheduler_message::Message::Cancel(cancel) => {
            if let Some(reference) = cancel.r#ref {
                runner.cancel_work(&reference, &cancel.reason).await;
            }
        }
        scheduler_message::Message::Ack(ack) => {
            if let Some(reference) = ack.r#ref {
                if !ack.accepted {
                    tracing::info!(run = %reference.run_id, attempt = reference.attempt, "the attempt was fenced off");
                }
                runner.forget_work(&reference).await;
            }
        }
        scheduler_message::Message::Welcome(_) | scheduler_message::Message::Begin(_) => {}
    }
}

/// What this stream has said so far.
#[derive(Debug, Default)]
struct Said {
    started: BTreeSet<(String, u32)>,
    finished: BTreeSet<(String, u32)>,
}

impl Said {
    /// What has to be said of the runs that are held and was not. A result waits for its delivery.
    fn due(&mut self, held: &[WorkRecord]) -> Vec<WorkerMessage> {
        let mut due = Vec::new();
        let names: BTreeSet<_> = held.iter().map(name).collect();
        self.started.retain(|name| names.contains(name));
        self.finished.retain(|name| names.contains(name));
        for record in held {
            if !record.turn_id.is_empty() && self.started.insert(name(record)) {
                let started = WorkStarted {
                    r#ref: Some(reference(record)),
                    session: record.session.clone(),
                };
                due.push(message(worker_message::Message::Started(started)));
            }
            if is_over(record) && self.finished.insert(name(record)) {
                due.push(message(worker_message::Message::Finished(finished(record))));
            }
        }
        due
    }
}

fn is_over(record: &WorkRecord) -> bool {
    record.outcome != 0 && record.delivery_state != "pending"
}

fn name(record: &WorkRecord) -> (String, u32) {
    (record.run_id.clone(), record.attempt)
}

fn reference(record: &WorkRecord) -> WorkRef {
    WorkRef {
        run_id: record.run_id.clone(),
        attempt: record.attempt,
    }
}

const fn message(message: worker_message::Message) -> WorkerMessage {
    WorkerMessage {
        message: Some(message),
    }
}

fn hello(runner: &Runner, instance: &str) -> WorkerMessage {
    let backends = &runner.settings.backends;
    // What would not pass is not said: nobody can refuse a job by it then, and all else goes on.
    let sayable =
        backends.len() <= MAX_BACKENDS && backends.iter().all(|name| name.len() <= MAX_BACKEND_BYTES);
    message(worker_message::Message::Hello(WorkerHello {
        kinds: vec![WorkKind::SystemEvent.into(), WorkKind::AgentTurn.into()],
        capacity: u32::try_from(runner.works.capacity).unwrap_or(u32::MAX),
        holding: runner.works.all().iter().map(reference).collect(),
        instance: instance.to_owned(),
        backends: backends.iter().filter(|_| sayable).cloned().collect(),
    }))
}

fn finished(record: &WorkRecord) -> WorkFinished {
    WorkFinished {
        r#ref: Some(reference(record)),
        outcome: RunState::try_from(record.outcome)
            .unwrap_or(RunState::Failed)
            .into(),
        reason: record.reason.clone(),
        error: record.error.clone(),
        summary: record.summary.clone(),
        session: record.session.clone(),
        delivery: Some(DeliveryStatus {
            state: if record.delivery_state.is_empty() {
                "none".to_owned()
            } else {
                record.delivery_state.clone()
            },
            to: record.deliver_to.clone(),
            error: record.delivery_error.clone(),
        }),
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests {
    use creel_proto::scheduler::v1::{WorkBegin, WorkCancel};

    use super::*;
    use crate::jobs::FENCED;

    fn record(run: &str, outcome: RunState, delivery: &str) -> WorkRecord {
        WorkRecord {
            run_id: run.into(),
            attempt: 1,
            turn_id: "t".into(),
            outcome: outcome.into(),
            delivery_state: delivery.into(),
            ..WorkRecord::default()
        }
    }

    fn kinds(messages: &[WorkerMessage]) -> Vec<&'static str> {
        let kind = |message: &WorkerMessage| match message.message {
            Some(worker_message::Message::Started(_)) => "started",
            Some(worker_message::Message::Finished(_)) => "finished",
            _ => "other",
        };
        messages.iter().map(kind).collect()
    }

    #[test]
    fn each_stream_says_everything_once_and_results_wait_for_their_delivery() {
        let mut said = Said::default();
        let running = record("a", RunState::Unspecified, "pending");
        assert_eq!(kinds(&said.due(std::slice::from_ref(&running))), ["started"]);
        assert!(said.due(&[running]).is_empty());
        let undelivered = record("a", RunState::Succeeded, "pending");
        assert!(said.due(&[undelivered]).is_empty());
        let over = record("a", RunState::Succeeded, "delivered");
        assert_eq!(kinds(&said.due(std::slice::from_ref(&over))), ["finished"]);
        assert!(said.due(std::slice::from_ref(&over)).is_empty());
        assert_eq!(
            kinds(&Said::default().due(std::slice::from_ref(&over))),
            ["started", "finished"],
            "another stream"
        );
        let again = WorkRecord { attempt: 2, ..over };
        assert_eq!(
            kinds(&said.due(&[again])),
            ["started", "finished"],
            "another attempt"
        );
    }

    fn work(run: &str) -> scheduler_message::Message {
        scheduler_message::Message::Work(Work {
            r#ref: Some(ref_of(run)),
            ..Default::default()
        })
    }

    fn ref_of(run: &str) -> WorkRef {
        WorkRef {
            run_id: run.into(),
            attempt: 2,
        }
    }

    fn begin(run: &str) -> scheduler_message::Message {
        let r#ref = Some(ref_of(run));
        scheduler_message::Message::Begin(WorkBegin { r#ref })
    }

    #[test]
    fn nothing_is_taken_before_the_word_to_begin() {
        let received = Received::default();
        let (answer, heard) = received.hear(work("a"), 0);
        let Some(worker_message::Message::Ready(ready)) = answer.and_then(|answer| answer.message) else {
            panic!("it says that it is ready")
        };
        assert_eq!((ready.r#ref, heard), (Some(ref_of("a")), None));
        assert_eq!(received.names(), [named(&ref_of("a"))], "kept alive");
        assert_eq!(received.hear(begin("a"), 0), (None, Some(work("a"))));
        assert_eq!(received.hear(begin("a"), 0), (None, None), "once");
        assert_eq!(received.names(), [named(&ref_of("a"))], "until it is taken");
        received.taken(&ref_of("a"));
        assert_eq!(received.names(), []);
    }

    #[test]
    fn what_is_cancelled_before_it_began_is_dropped_and_what_is_too_much_is_not_begun() {
        let received = Received::default();
        let cancel = || {
            scheduler_message::Message::Cancel(WorkCancel {
                r#ref: Some(ref_of("a")),
                reason: FENCED.into(),
            })
        };
        assert!(received.hear(work("a"), 0).0.is_some());
        assert_eq!(received.hear(cancel(), 0), (None, None));
        assert_eq!(received.hear(begin("a"), 0), (None, None));
        assert!(received.hear(work("a"), 0).0.is_some());
        received.hear(begin("a"), 0);
        assert_eq!(received.hear(cancel(), 0), (None, Some(cancel())), "it has begun");
        assert_eq!(received.hear(work("b"), MAX_HELD - 1), (None, None));
        assert_eq!(received.names(), [named(&ref_of("a"))]);
    }

    #[test]
    fn a_run_that_was_refused_is_only_finished() {
        let refused = WorkRecord {
            turn_id: String::new(),
            ..record("a", RunState::Failed, "")
        };
        let due = Said::default().due(&[refused]);
        assert_eq!(kinds(&due), ["finished"]);
    }
}
