//! The course of one turn: launches its worker, carries what is said to the state machine and its
//! effects out in order. All that is specific to the outside world is behind [`crate::launch`].

use std::time::Duration;

use creel_proto::agent::v1::{Trust, TurnRecord, TurnState, turn_event::Event};
use creel_store::{Outcome as Committed, Txn};
use creel_wire::{Error, SessionKey};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    contexts::blocking,
    convert,
    events::EventLog,
    files::remove_tree,
    launch::{Launched, Order, Over},
    lines::{Lines, Next},
    protocol::{self, Malformed, Task, Told},
    queue::Ticket,
    runner::{AbortOrder, Control, Progress, Runner},
    session, store,
    turn::{Effect, Failure, Gone, Input, MAX_CALLS, Outcome, Phase, Turn},
};

/// A worker whose turn has ended gets this long between TERM and KILL.
const END_GRACE: Duration = Duration::from_secs(1);
/// How much of the transcript a worker is told, in entries and bytes.
const HISTORY: (usize, usize) = (32, 128 << 10);

/// What is known of a turn before it is durable.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) key: SessionKey,
    pub(crate) backend: String,
    pub(crate) timeout_ms: i64,
}

/// What the task of a turn waits for.
pub(crate) struct Ready {
    /// Its record, once that is durable; closed when it never will be.
    pub(crate) durable: oneshot::Receiver<TurnRecord>,
    pub(crate) control: mpsc::Receiver<Control>,
}

/// Runs a turn that has a place, to the end of its last process.
pub(crate) async fn run(runner: Runner, ticket: Ticket, plan: Plan, ready: Ready) {
    let Ready { mut durable, control } = ready;
    let timeout = Duration::from_millis(plan.timeout_ms.max(1).unsigned_abs());
    let places = runner.dirs.make(&ticket.turn, &plan.key);
    let own = runner.dirs.own(&ticket.turn);
    let launch = async {
        let places = places.map_err(|error| {
            let hint = "see that workspace/ and run/ can be written: df, creel logs agent-runner";
            Failure::new(
                "storage",
                format!("the turn's directories can't be made: {error}"),
            )
            .hint(hint)
        })?;
        let cwd = places.cwd.clone();
        let launched = runner
            .launcher
            .launch(Order {
                backend: plan.backend.clone(),
                places,
                timeout,
            })
            .await?;
        Ok((launched, cwd))
    };
    let mut launch = Box::pin(launch);
    let mut launched = None;
    let record = loop {
        tokio::select! {
            biased;
            record = &mut durable => break record.ok(),
            result = &mut launch, if launched.is_none() => launched = Some(result),
        }
    };
    if let Some(record) = record {
        match Course::open(&runner, plan.key, record) {
            Ok(mut course) => {
                let launched = async move {
                    match launched {
                        Some(launched) => launched,
                        None => launch.await,
                    }
                };
                if let Err(error) = Box::pin(course.go(Box::pin(launched), control, timeout)).await {
                    runner.break_down("keeping a turn", &error);
                }
            }
            Err(error) => runner.break_down("opening events", &error),
        }
    }
    if let Err(error) = blocking(move || remove_tree(&own)).await {
        tracing::warn!(%error, turn = %ticket.turn, "a turn's directory stays behind");
    }
    runner.release(&ticket);
}

/// Ends a turn that waited and never runs.
pub(crate) async fn end_waiting(runner: Runner, turn: String, plan: Plan, ready: Ready, control: Control) {
    let Ok(record) = ready.durable.await else { return };
    let ended = async {
        let mut course = Course::open(&runner, plan.key, record)?;
        let Control::Abort { why, order } = control;
        course.take(Input::Abort(why), order, None).await.map(drop)
    };
    if let Err(error) = ended.await {
        tracing::error!(turn, "a waiting turn was not ended");
        runner.break_down("ending a turn", &error);
    }
    runner.released.notify_waiters();
}

/// Ends a turn that an earlier process left running: as its log says, or as interrupted.
///
/// # Errors
/// What store and files said.
pub(crate) async fn end_interrupted(
    runner: &Runner,
    key: SessionKey,
    record: TurnRecord,
) -> Result<(), Error> {
    let mut course = Course::open(runner, key, record)?;
    if let Some(outcome) = course.log.last().and_then(Outcome::of_last) {
        return course.finish(None, outcome, None).await;
    }
    course.machine = Turn::found(Phase::Running, course.log.sequence());
    course.take(Input::Stopped, None, None).await.map(drop)
}

/// Whether a turn goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    On,
    Ended,
}

/// An open turn in the hands of its task.
pub(crate) struct Course {
    pub(crate) runner: Runner,
    pub(crate) key: SessionKey,
    pub(crate) record: TurnRecord,
    pub(crate) log: EventLog,
    machine: Turn,
}

type Launching<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<(Launched, std::path::PathBuf), Failure>> + Send + 'a>>;

impl Course {
    fn open(runner: &Runner, key: SessionKey, record: TurnRecord) -> Result<Self, Error> {
        let log = runner.open_log(&record)?;
        let (machine, _) = Turn::accepted(record.queued_behind);
        Ok(Self {
            runner: runner.clone(),
            key,
            record,
            machine: machine.within(runner.kept.of_a_turn()),
            log,
        })
    }

    async fn go(
        &mut self,
        launching: Launching<'_>,
        mut control: mpsc::Receiver<Control>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let stop = self.runner.stop.clone();
        let (launched, cwd) = tokio::select! {
            launched = launching => match launched {
                Ok(launched) => launched,
                Err(failure) => return self.take(Input::NotLaunched(failure), None, None).await.map(drop),
            },
            Control::Abort { why, order } = next(&mut control) => {
                return self.take(Input::Abort(why), order, None).await.map(drop);
            }
            // Not started yet: the next process runs it.
            () = stop.cancelled() => return Ok(()),
        };
        let Launched {
            to,
            from,
            sandbox,
            process,
        } = launched;
        let task = self.begin(sandbox, &cwd).await?;
        // One line for the task and one for each tool call: never more.
        let (say, lines) = mpsc::channel(MAX_CALLS + 1);
        let writer = tokio::spawn(write(to, lines));
        let _ = say.try_send(task.line());
        let talked = self.talk(Lines::new(from), &mut control, &say, timeout).await;
        drop(say);
        let over = match talked {
            Ok(()) => {
                process.end(END_GRACE);
                process.gone().await
            }
            Err(Stop::Output) => {
                let asked = Instant::now();
                process.end(END_GRACE);
                let over: Over = process.gone().await;
                // A signal that comes later than TERM had time to work is our KILL.
                let silent = matches!(over.gone, Gone::Signalled(_)) && asked.elapsed() >= END_GRACE;
                let gone = if silent { Gone::Silent } else { over.gone.clone() };
                self.take(Input::Gone(gone), None, None).await?;
                over
            }
            Err(Stop::Failed(error)) => return Err(error),
        };
        writer.abort();
        self.runner.figures.worker_gone(over.memory_bytes);
        Ok(())
    }

    /// Hears the worker until the turn's end.
    async fn talk(
        &mut self,
        mut lines: Lines<Box<dyn tokio::io::AsyncRead + Send + Unpin>>,
        control: &mut mpsc::Receiver<Control>,
        say: &mpsc::Sender<Vec<u8>>,
        timeout: Duration,
    ) -> Result<(), Stop> {
        let deadline = Instant::now() + timeout;
        let stop = self.runner.stop.clone();
        loop {
            let (input, order) = tokio::select! {
                biased;
                Control::Abort { why, order } = next(control) => (Input::Abort(why), order),
                () = stop.cancelled() => (Input::Stopped, None),
                () = tokio::time::sleep_until(deadline) => (Input::Timeout, None),
                (next, bytes) = lines.next() => {
                    let said = match next {
                        Next::Line(line) => protocol::parse(&line),
                        Next::TooLong => Err(Malformed::TooLong),
                        Next::End => return Err(Stop::Output),
                    };
                    (Input::Line { said, bytes }, None)
                }
            };
            if self.take(input, order, Some(say)).await.map_err(Stop::Failed)? == Flow::Ended {
                return Ok(());
            }
        }
    }

    /// Commits that the turn runs, and says what the worker is told first.
    async fn begin(&mut self, sandbox: String, cwd: &std::path::Path) -> Result<Told, Error> {
        let runner = self.runner.clone();
        let mut locked = runner.contexts.find(&self.key).await?;
        let context = locked.as_mut().ok_or_else(gone)?;
        let now_ms = runner.clock.now_ms();
        let view = context.transcript.view();
        let past = match view.len() {
            0 => Vec::new(),
            _ => blocking(move || view.tail(HISTORY.0, HISTORY.1)).await?,
        };
        let text = self.text().await?;
        let events = context.inbox.events().to_vec();
        self.record.state = TurnState::Running.into();
        self.record.started_at_unix_ms = now_ms;
        self.record.sandbox.clone_from(&sandbox);
        self.record.events.clone_from(&events);
        self.record.input_index = context.transcript.len();

        context.record.last_active_at_unix_ms = now_ms;
        context.record.backend.clone_from(&self.record.backend);
        let mut txn = Txn::new();
        // The input's entry is not committed yet: until then the record of the turn stands for it.
        store::put_context(&mut txn, &context.record);
        store::put_turn(&mut txn, &self.record, true);
        for event in &events {
            txn.push_delete(store::queued(&self.record.folder, &event.event_id));
        }
        committed(runner.commit(&txn).await?)?;
        context.inbox.take();
        if !text.is_empty() {
            context.append(vec![convert::user(&self.record, text.clone(), now_ms)])?;
        }
        drop(locked);

        let started = Input::Started {
            backend: self.record.backend.clone(),
            sandbox,
        };
        self.take(started, None, None).await?;
        Ok(Told::Turn(Box::new(Task {
            text,
            protocol: protocol::VERSION,
            turn: self.record.turn_id.clone(),
            session: self.record.session.clone(),
            trust: match session::trust(&self.key) {
                Trust::Main => "main",
                Trust::Trusted => "trusted",
                Trust::Untrusted | Trust::Unspecified => "untrusted",
            },
            origin: convert::origin(
                self.record
                    .provenance
                    .as_ref()
                    .map(|p| p.origin())
                    .unwrap_or_default(),
            ),
            workspace: cwd.to_string_lossy().into_owned(),
            history: convert::history(past, &events),
            events: events.iter().map(convert::task_event).collect(),
        })))
    }

    /// The input's text, wherever it lies.
    pub(crate) async fn text(&self) -> Result<String, Error> {
        if !self.record.text_in_file {
            return Ok(self.record.text.clone());
        }
        let path = self.runner.dirs.input(&self.record.turn_id);
        blocking(move || std::fs::read_to_string(path)).await
    }

    /// Gives an input to the machine and does what follows. An input that does not fit changes nothing.
    async fn take(
        &mut self,
        input: Input,
        order: Option<AbortOrder>,
        say: Option<&mpsc::Sender<Vec<u8>>>,
    ) -> Result<Flow, Error> {
        let effects = match self.machine.apply(input) {
            Ok(effects) => effects,
            Err(guard) => {
                tracing::debug!(turn = %self.record.turn_id, %guard, "input not taken");
                return Ok(Flow::On);
            }
        };
        let mut last = None;
        let mut order = order;
        for effect in effects {
            match effect {
                // The last event is written with the outcome, so that it is never seen before.
                Effect::Emit(_, event @ (Event::Final(_) | Event::Error(_))) => last = Some(event),
                Effect::Emit(sequence, event) => {
                    self.log
                        .append(event, self.runner.clock.now_ms())
                        .map_err(|error| crate::contexts::storage(&error))?;
                    self.runner.show(
                        &self.record.turn_id,
                        Progress {
                            visible: sequence,
                            ended: false,
                        },
                    );
                }
                Effect::Tell(told) => {
                    if let Some(say) = say {
                        // Full or closed: the worker reads nothing any more, and misses what it asked for.
                        let _ = say.try_send(told.line());
                    }
                }
                Effect::End(outcome) => {
                    self.finish(last.take(), outcome, order.take()).await?;
                    return Ok(Flow::Ended);
                }
            }
        }
        Ok(Flow::On)
    }
}

/// Why there is nothing more to hear.
enum Stop {
    /// The output has ended without a final event.
    Output,
    Failed(Error),
}

async fn next(control: &mut mpsc::Receiver<Control>) -> Control {
    match control.recv().await {
        Some(control) => control,
        // Nobody can say anything any more.
        None => std::future::pending().await,
    }
}

/// Writes lines until there are no more, then closes the worker's input.
async fn write(mut to: Box<dyn AsyncWrite + Send + Unpin>, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if to.write_all(&line).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

pub(crate) fn gone() -> Error {
    Error::internal("finding the context of a turn")
}

fn committed(outcome: Committed) -> Result<(), Error> {
    if outcome.is_committed() {
        Ok(())
    } else {
        Err(gone())
    }
}
