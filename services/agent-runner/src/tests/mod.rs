//! The service without processes: workers are scripts of these tests.

mod contexts;
mod jobs;
mod recovery;
mod stream;
mod turns;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use creel_kit::{Clock, Config, Profile, idempotency::Idempotency, metrics::Metrics, outbox::Outbox};
use creel_proto::agent::v1::{
    GetTranscriptRequest, StartTurnRequest, SubscribeTurnRequest, TranscriptEntry, Turn, TurnEvent,
    WaitTurnRequest, context_service_server::ContextService as _, transcript_entry::Entry,
    turn_service_server::TurnService as _,
};
use creel_store::Store;
use creel_wire::{Caller, DeviceId, Error, Principal, Scopes, ServiceName, authz::test_caller};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    sync::{Semaphore, mpsc},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    Contexts, Parts, Runner, Turns,
    launch::{Launch, Launched, Order, Over, Process},
    turn::{Failure, Gone},
};

pub(crate) const MAIN: &str = "agent:default:main";

/// What a scripted worker does, by the first word of its text:
/// `say TEXT` answers at once, `flood N` after N lines of half a MiB, `hold TEXT` when let go on, `silent` waits for
/// ever, `die` exits.
pub(crate) struct Script {
    /// One permit lets one held worker go on.
    pub(crate) go_on: Arc<Semaphore>,
    /// The first lines that workers read, by turn.
    pub(crate) inputs: Arc<Mutex<BTreeMap<String, serde_json::Value>>>,
    /// Told of each worker that has read its first line.
    pub(crate) reached: Mutex<Option<mpsc::UnboundedSender<String>>>,
    /// Refuses to launch.
    pub(crate) refuse: Mutex<Option<Failure>>,
}

impl Default for Script {
    fn default() -> Self {
        let go_on = Arc::new(Semaphore::new(0));
        Self {
            go_on,
            inputs: Arc::default(),
            reached: Mutex::default(),
            refuse: Mutex::default(),
        }
    }
}

struct Nothing(CancellationToken);

#[tonic::async_trait]
impl Process for Nothing {
    fn end(&self, _: Duration) {
        self.0.cancel();
    }
    async fn gone(self: Box<Self>) -> Over {
        self.0.cancelled().await;
        Over {
            gone: Gone::Exited(7),
            memory_bytes: 1 << 20,
        }
    }
}

#[tonic::async_trait]
impl Launch for Script {
    async fn launch(&self, _: Order) -> Result<Launched, Failure> {
        if let Some(failure) = self.refuse.lock().unwrap().clone() {
            return Err(failure);
        }
        let (to, input) = tokio::io::duplex(64 << 10);
        let (mut output, from) = tokio::io::duplex(64 << 10);
        let (go_on, inputs, end) = (
            Arc::clone(&self.go_on),
            Arc::clone(&self.inputs),
            CancellationToken::new(),
        );
        let reached = self.reached.lock().unwrap().clone();
        let over = end.clone();
        tokio::spawn(async move {
            let mut line = String::new();
            BufReader::new(input).read_line(&mut line).await.unwrap();
            let Ok(task) = serde_json::from_str::<serde_json::Value>(&line) else {
                return;
            };
            let text = task["text"].as_str().unwrap().to_owned();
            inputs
                .lock()
                .unwrap()
                .insert(task["turn"].as_str().unwrap().to_owned(), task);
            if let Some(reached) = reached {
                let _ = reached.send(text.clone());
            }
            let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
            match word {
                "hold" => go_on.acquire().await.unwrap().forget(),
                "silent" => {
                    over.cancelled().await;
                    return;
                }
                "die" => return,
                "flood" => {
                    let text = "x".repeat(512 << 10);
                    for _ in 0..rest.parse().unwrap() {
                        let event = serde_json::json!({ "type": "delta", "text": text });
                        if output.write_all(format!("{event}\n").as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
                _ => {}
            }
            for event in [
                serde_json::json!({ "type": "delta", "text": rest }),
                serde_json::json!({ "type": "final", "text": rest }),
            ] {
                let _ = output.write_all(format!("{event}\n").as_bytes()).await;
            }
        });
        let process = Box::new(Nothing(end));
        Ok(Launched {
            to: Box::new(to),
            from: Box::new(from),
            sandbox: "full".to_owned(),
            process,
        })
    }

    async fn sandbox(&self) -> Result<creel_sandbox::Enforced, Failure> {
        match self.refuse.lock().unwrap().clone() {
            Some(failure) => Err(failure),
            None => Ok(serde_json::from_value(serde_json::json!({
                "fs": { "level": "full", "detail": "" },
                "net": { "level": "full", "detail": "" },
                "ipc": { "level": "partial", "detail": "a gap" },
                "kill": { "level": "full", "detail": "" },
            }))
            .unwrap()),
        }
    }

    async fn lost(&self) {
        std::future::pending().await
    }
}

pub(crate) fn operator() -> Caller {
    test_caller(
        Principal::Operator(DeviceId::of_public_key(&[7; 32])),
        Scopes::new(),
        Some(ServiceName::Gateway),
    )
}

pub(crate) fn by<T>(caller: Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller);
    request
}

pub(crate) fn ask<T>(message: T) -> Request<T> {
    by(operator(), message)
}

/// What outlives a process: the store and the files.
#[derive(Clone)]
pub(crate) struct Ground {
    /// Removed with the last of its houses.
    _dir: Arc<tempfile::TempDir>,
    pub(crate) profile: Profile,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) config: Arc<Config>,
}

impl Ground {
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path().join("p")).unwrap();
        profile.create(&[ServiceName::AgentRunner]).unwrap();
        let config = Arc::new(Config::parse(config, Path::new("creel.toml")).unwrap());
        Self {
            _dir: Arc::new(dir),
            profile,
            store: Store::memory(),
            clock: Clock::manual(1_764_000_000_000),
            config,
        }
    }

    /// A process on this ground.
    pub(crate) async fn house(&self) -> House {
        let metrics = Metrics::new(ServiceName::AgentRunner);
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let outbox = Outbox::open(
            store.clone(),
            ServiceName::AgentRunner,
            clock.clone(),
            metrics.clone(),
        );
        let drain = CancellationToken::new();
        let parts = Parts {
            profile: self.profile.clone(),
            config: Arc::clone(&self.config),
            idempotency: Idempotency::new(store.clone(), clock.clone()),
            outbox: outbox.await.unwrap(),
            clock,
            store,
            metrics,
            drain: drain.clone(),
        };
        let script = Arc::new(Script::default());
        let (reached, reaches) = mpsc::unbounded_channel();
        *script.reached.lock().unwrap() = Some(reached);
        let runner = Runner::with_launcher(parts, Arc::clone(&script) as _).unwrap();
        runner.recover().await.unwrap();
        let (turns, contexts) = (Turns(runner.clone()), Contexts(runner.clone()));
        House {
            ground: self.clone(),
            runner,
            turns,
            contexts,
            script,
            reaches,
            drain,
        }
    }
}

pub(crate) struct House {
    pub(crate) ground: Ground,
    pub(crate) runner: Runner,
    pub(crate) turns: Turns,
    pub(crate) contexts: Contexts,
    pub(crate) script: Arc<Script>,
    pub(crate) reaches: mpsc::UnboundedReceiver<String>,
    pub(crate) drain: CancellationToken,
}

impl House {
    pub(crate) async fn new() -> Self {
        Ground::new("").house().await
    }

    pub(crate) async fn try_start(&self, session: &str, text: &str) -> Result<Turn, Error> {
        let request = StartTurnRequest {
            session: session.into(),
            text: text.into(),
            ..Default::default()
        };
        self.send(request).await
    }

    pub(crate) async fn send(&self, request: StartTurnRequest) -> Result<Turn, Error> {
        self.turns
            .start(ask(request))
            .await
            .map(tonic::Response::into_inner)
            .map_err(of)
    }

    pub(crate) async fn start(&self, session: &str, text: &str) -> String {
        self.try_start(session, text).await.unwrap().turn_id
    }

    pub(crate) async fn wait(&self, turn: &str) -> Turn {
        let request = WaitTurnRequest {
            turn_id: turn.into(),
            timeout: None,
        };
        self.turns.wait(ask(request)).await.unwrap().into_inner()
    }

    pub(crate) async fn run(&self, session: &str, text: &str) -> Turn {
        let turn = self.start(session, text).await;
        self.wait(&turn).await
    }

    /// Waits until a worker has read this text.
    pub(crate) async fn reach(&mut self, text: &str) {
        assert_eq!(self.reaches.recv().await.as_deref(), Some(text));
    }

    pub(crate) async fn subscribe(&self, turn: &str, from: u64) -> Result<Vec<TurnEvent>, Error> {
        let request = SubscribeTurnRequest {
            turn_id: turn.into(),
            from_sequence: from,
        };
        let stream = self.turns.subscribe(ask(request)).await.map_err(of)?.into_inner();
        stream.collect::<Result<_, _>>().await.map_err(of)
    }

    pub(crate) async fn transcript(&self, session: &str) -> Vec<TranscriptEntry> {
        let request = GetTranscriptRequest {
            session: session.into(),
            page_size: 500,
            ..Default::default()
        };
        self.contexts
            .get_transcript(ask(request))
            .await
            .unwrap()
            .into_inner()
            .entries
    }

    pub(crate) fn input(&self, turn: &str) -> serde_json::Value {
        self.script.inputs.lock().unwrap()[turn].clone()
    }

    pub(crate) fn let_go_on(&self) {
        self.script.go_on.add_permits(1);
    }
}

pub(crate) fn of(status: Status) -> Error {
    Error::of_status(&status)
}

/// A transcript in words.
pub(crate) fn words(entries: &[TranscriptEntry]) -> Vec<String> {
    let word = |entry: &TranscriptEntry| match entry.entry.as_ref().unwrap() {
        Entry::User(user) => format!("user {}", user.text),
        Entry::Assistant(assistant) => format!("assistant {}", assistant.text),
        Entry::System(system) => format!("{}: {}", system.topic, system.text),
        Entry::Ended(ended) => format!("{:?} {}", ended.state(), ended.reason)
            .trim_end()
            .to_owned(),
    };
    entries.iter().map(word).collect()
}

pub(crate) fn sequences(events: &[TurnEvent]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}
