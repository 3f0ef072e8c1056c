//! A service with real workers, without certificates: handlers are called as the layer would.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]
#![allow(dead_code, reason = "not every test uses every helper")]

use std::{path::Path, sync::Arc};

use creel_agent_runner::{Contexts, Parts, Runner, Turns, start_spawner};
use creel_kit::{Clock, Config, Profile, idempotency::Idempotency, metrics::Metrics, outbox::Outbox};
use creel_proto::agent::v1::{
    GetTranscriptRequest, StartTurnRequest, SubscribeTurnRequest, TranscriptEntry, Turn, TurnEvent,
    WaitTurnRequest, context_service_server::ContextService as _, turn_event::Event,
    turn_service_server::TurnService as _,
};
use creel_store::Store;
use creel_wire::{Caller, DeviceId, Principal, Scopes, ServiceName, authz::test_caller};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

pub(crate) const MAIN: &str = "agent:default:main";

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

pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) profile: Profile,
    pub(crate) store: Store,
    pub(crate) drain: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) runner: Runner,
    pub(crate) turns: Turns,
    pub(crate) contexts: Contexts,
}

impl House {
    /// A service with this config, in a new profile.
    pub(crate) async fn with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("p");
        let profile = Profile::at("default", &root).unwrap();
        profile
            .create(&[ServiceName::AgentRunner, ServiceName::Identity])
            .unwrap();
        let config = Arc::new(Config::parse(config, Path::new("creel.toml")).unwrap());
        let (store, clock, metrics) = (
            Store::memory(),
            Clock::system(),
            Metrics::new(ServiceName::AgentRunner),
        );
        let outbox = Outbox::open(
            store.clone(),
            ServiceName::AgentRunner,
            clock.clone(),
            metrics.clone(),
        )
        .await
        .unwrap();
        let drain = CancellationToken::new();
        let parts = Parts {
            profile: profile.clone(),
            config,
            idempotency: Idempotency::new(store.clone(), clock.clone()),
            clock,
            store: store.clone(),
            outbox,
            metrics: metrics.clone(),
            drain: drain.clone(),
        };
        let starter = start_spawner(Path::new(env!("CARGO_BIN_EXE_creel-agent-runner-bed"))).unwrap();
        let runner = Runner::new(parts, starter).unwrap();
        runner.recover().await.unwrap();
        let (turns, contexts) = (Turns(runner.clone()), Contexts(runner.clone()));
        Self {
            dir,
            profile,
            store,
            drain,
            metrics,
            runner,
            turns,
            contexts,
        }
    }

    /// A service whose backends are programs: name and argv, each a file below `dir`.
    pub(crate) async fn with_program(interpreter: &str, program: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        std::fs::write(&file, program).unwrap();
        let read = dir.path().display().to_string();
        let config = format!(
            "{more}\n[backends.x]\nkind = \"command\"\nargv = [\"{interpreter}\", \"{}\"]\nread = [\"{read}\"]\n",
            file.display()
        );
        let house = Self::with(&config).await;
        // The program lives as long as the test process.
        std::mem::forget(dir);
        house
    }

    pub(crate) async fn start(&self, session: &str, text: &str, backend: &str) -> Turn {
        self.start_within(session, text, backend, None).await.unwrap()
    }

    pub(crate) async fn start_within(
        &self,
        session: &str,
        text: &str,
        backend: &str,
        timeout_ms: Option<i64>,
    ) -> Result<Turn, Status> {
        let request = StartTurnRequest {
            session: session.into(),
            text: text.into(),
            backend: backend.into(),
            timeout: timeout_ms.map(creel_proto::time::duration),
            ..Default::default()
        };
        Ok(self.turns.start(ask(request)).await?.into_inner())
    }

    pub(crate) async fn wait(&self, turn: &str) -> Turn {
        let request = WaitTurnRequest {
            turn_id: turn.into(),
            timeout: None,
        };
        self.turns.wait(ask(request)).await.unwrap().into_inner()
    }

    pub(crate) async fn run(&self, session: &str, text: &str, backend: &str) -> Turn {
        let turn = self.start(session, text, backend).await;
        self.wait(&turn.turn_id).await
    }

    pub(crate) async fn events(&self, turn: &str, from: u64) -> Vec<TurnEvent> {
        let request = SubscribeTurnRequest {
            turn_id: turn.into(),
            from_sequence: from,
        };
        let stream = self.turns.subscribe(ask(request)).await.unwrap().into_inner();
        stream.map(Result::unwrap).collect().await
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

    /// Waits until no worker lives.
    pub(crate) async fn quiet(&self) {
        while self.runner.running() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn kinds(events: &[TurnEvent]) -> Vec<&'static str> {
    let kind = |event: &TurnEvent| match event.event.as_ref().unwrap() {
        Event::Accepted(_) => "accepted",
        Event::Started(_) => "started",
        Event::Delta(_) => "delta",
        Event::ToolCall(_) => "tool_call",
        Event::ToolResult(_) => "tool_result",
        Event::Usage(_) => "usage",
        Event::Final(_) => "final",
        Event::Error(_) => "error",
    };
    events.iter().map(kind).collect()
}

/// One of the examples, as text.
pub(crate) fn example(name: &str) -> String {
    std::fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}
