//! The whole service in one process on virtual time: the store in memory, the wall clock driven by tokio's paused
//! one, workers that are scripted. A stack can crash at any moment and is started again on the same store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use creel_kit::{
    Clock,
    idempotency::{FrameKind, Idempotency},
    metrics::Metrics,
    outbox::Outbox,
};
use creel_proto::{
    audit::v1::AuditRecord,
    identity::v1::JobSubject,
    scheduler::v1::{
        AdmissionRecord, AgentTurnPayload, CreateJobRequest, DeleteJobRequest, Every, GetJobRequest,
        GetRunRequest, Job, JobSpec, JobStateRecord, PauseJobRequest, Payload, ResumeJobRequest, Run,
        RunKind, RunRecord, RunState, Schedule, job_service_server::JobService, payload,
        run_service_server::RunService, schedule,
    },
    time::{duration, timestamp},
};
use creel_schedule::Zones;
use creel_store::{Page, Store};
use creel_wire::{Caller, DeviceId, Principal, Scope, Scopes, ServiceName, authz::test_caller};
use prost::Message as _;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    Config, MintError, Minter,
    engine::{Engine, Parts},
    figures::Figures,
    grpc::{Api, Busy},
    id::{Occurrence, RunId},
    pack,
    prune::Pruner,
    store::{self, Kind},
    work::WorkApi,
    zoning::Zoning,
};

mod worker;

pub(crate) use worker::{Worker, of};

/// A Monday, 00:00 UTC.
pub(crate) const START_MS: i64 = 1_764_547_200_000;

/// Mints, unless it is told to refuse.
#[derive(Debug, Default)]
pub(crate) struct TestMinter {
    /// To all.
    pub(crate) refusal: Mutex<Option<MintError>>,
    /// To a job, by its id.
    pub(crate) refusals: Mutex<BTreeMap<String, MintError>>,
    pub(crate) subjects: Mutex<Vec<JobSubject>>,
    /// How many were asked for at once.
    pub(crate) batches: Mutex<Vec<usize>>,
}

#[tonic::async_trait]
impl Minter for TestMinter {
    async fn mint(&self, subjects: Vec<JobSubject>) -> Result<Vec<Result<Vec<u8>, MintError>>, MintError> {
        self.batches.lock().unwrap().push(subjects.len());
        self.subjects.lock().unwrap().extend(subjects.iter().cloned());
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let refusals = self.refusals.lock().unwrap();
        let answer = |subject: &JobSubject| match refusals.get(&subject.job_id) {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(format!("for {}", subject.run_id).into_bytes()),
        };
        Ok(subjects.iter().map(answer).collect())
    }
}

/// What outlives a crash.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) minter: Arc<TestMinter>,
    pub(crate) config: Config,
    pub(crate) zones: fn() -> Zones,
    /// How long the machine was suspended, milliseconds.
    pub(crate) slept_ms: Arc<AtomicI64>,
    /// Whether the wall clock follows a time server.
    pub(crate) synced: Arc<AtomicBool>,
}

impl World {
    /// A world whose wall clock follows in steps of 50 ms.
    pub(crate) fn new() -> Self {
        Self::on(Store::memory(), 50)
    }

    /// In steps of a second, for tests that last for hours.
    pub(crate) fn coarse() -> Self {
        Self::on(Store::memory(), 1_000)
    }

    pub(crate) fn on(store: Store, step_ms: i64) -> Self {
        let clock = Clock::manual(START_MS);
        let driven = clock.clone();
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(step_ms.unsigned_abs())).await;
                driven.advance(step_ms);
            }
        });
        Self {
            store,
            clock,
            minter: Arc::default(),
            config: Config::default(),
            zones: Zones::bundled,
            slept_ms: Arc::default(),
            synced: Arc::default(),
        }
    }

    /// The machine sleeps: the wall clock and the time since boot go on, everything else stands still.
    pub(crate) fn suspend(&self, ms: i64) {
        self.slept_ms.fetch_add(ms, Ordering::Relaxed);
        self.clock.advance(ms);
    }

    pub(crate) async fn start(&self) -> Stack {
        let metrics = Metrics::new(ServiceName::Scheduler);
        let (name, clock) = (ServiceName::Scheduler, self.clock.clone());
        let outbox = Outbox::open(self.store.clone(), name, clock, metrics.clone())
            .await
            .unwrap();
        let zones = Zoning::new(self.zones);
        let (boot, slept) = (Instant::now(), Arc::clone(&self.slept_ms));
        let synced = Arc::clone(&self.synced);
        let (engine, handle, jobs) = Engine::new(Parts {
            config: self.config.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            boot_ms: Arc::new(move || {
                i64::try_from(boot.elapsed().as_millis()).unwrap() + slept.load(Ordering::Relaxed)
            }),
            synced: Arc::new(move || synced.load(Ordering::Relaxed)),
            zones: zones.clone(),
            minter: self.minter.clone(),
            outbox,
            figures: Figures::new(&metrics),
            random: || Box::new(|| u64::MAX / 2),
        });
        let drain = CancellationToken::new();
        let api = Api {
            engine: handle.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            idempotency: Idempotency::new(self.store.clone(), self.clock.clone()),
            zones,
            config: self.config.clone(),
            random: rand::random,
            busy: Busy::default(),
            drain: drain.clone(),
        };
        let work = WorkApi {
            engine: handle.clone(),
            store: self.store.clone(),
            config: self.config.clone(),
            drain: drain.clone(),
        };
        let pruner = Pruner {
            store: self.store.clone(),
            engine: handle,
            config: self.config.clone(),
            jobs,
            rest: None,
        };
        let tasks = [
            tokio::spawn(engine.run(drain.clone())),
            tokio::spawn(pruner.run(drain.clone())),
        ];
        Stack {
            api,
            work,
            drain,
            tasks,
        }
    }

    /// Every run record, by admission.
    pub(crate) async fn records(&self) -> Vec<RunRecord> {
        let mut records = Vec::new();
        let mut range = Some(Kind::Run.range());
        while let Some(rest) = range {
            let page = self.store.scan(rest, Page::default()).await.unwrap();
            records.extend(
                page.entries
                    .into_iter()
                    .map(|entry| RunRecord::decode(entry.value).unwrap()),
            );
            range = page.next;
        }
        records.extend(self.packed().await);
        records.sort_by(|a, b| (a.admitted_at_unix_ms, &a.run_id).cmp(&(b.admitted_at_unix_ms, &b.run_id)));
        records
    }

    /// The runs that only packed admissions name, as the store says it.
    async fn packed(&self) -> Vec<RunRecord> {
        let mut runs = Vec::new();
        let page = self
            .store
            .scan(Kind::Admission.range(), Page::default())
            .await
            .unwrap();
        assert_eq!(page.next, None);
        for entry in page.entries {
            let admission = AdmissionRecord::decode(entry.value).unwrap();
            for one in pack::entries(&admission) {
                let (Some(record), Some(state)) = (
                    store::job(&self.store, one.job).await.unwrap(),
                    self.store.get(&store::state_key(one.job)).await.unwrap(),
                ) else {
                    continue;
                };
                let state = JobStateRecord::decode(state.value).unwrap();
                if state.cursor_unix_ms >= admission.nominal_unix_ms
                    || one.incarnation != record.incarnation + state.incarnation_bumps
                {
                    continue;
                }
                let run = RunId::of(Occurrence {
                    job: one.job,
                    incarnation: one.incarnation,
                    kind: RunKind::Scheduled,
                    request: None,
                    nominal_ms: admission.nominal_unix_ms,
                });
                runs.push(RunRecord {
                    run_id: run.to_string(),
                    job_id: one.job.to_string(),
                    job_name: record.spec.unwrap().name,
                    incarnation: one.incarnation,
                    owner: record.owner,
                    kind: RunKind::Scheduled.into(),
                    state: RunState::Pending.into(),
                    nominal_unix_ms: admission.nominal_unix_ms,
                    admitted_at_unix_ms: admission.admitted_at_unix_ms,
                    attempt: 1,
                    ..RunRecord::default()
                });
            }
        }
        runs
    }

    /// Who released a suspect clock, by the audit records.
    pub(crate) async fn released_by(&self) -> Vec<String> {
        let range = FrameKind::Outbox.range();
        let page = self.store.scan(range, Page::default()).await.unwrap();
        let records = page
            .entries
            .into_iter()
            .map(|entry| AuditRecord::decode(entry.value).unwrap());
        records
            .filter(|record| record.action == "clock.accepted")
            .map(|record| record.fields["by"].clone())
            .collect()
    }

    /// How many occurrences there are of each state and reason.
    pub(crate) async fn outcomes(&self) -> BTreeMap<(RunState, String), u64> {
        let mut outcomes = BTreeMap::new();
        for record in self.records().await {
            *outcomes.entry((record.state(), record.reason)).or_insert(0) += record.skipped_count.max(1);
        }
        outcomes
    }
}

pub(crate) struct Stack {
    pub(crate) api: Api,
    pub(crate) work: WorkApi,
    drain: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl Stack {
    /// `kill -9`: what was not in the store is gone.
    pub(crate) async fn crash(self) {
        for task in self.tasks {
            task.abort();
            assert!(
                task.await.is_err_and(|error| error.is_cancelled()),
                "it had ended by itself"
            );
        }
        self.drain.cancel();
    }

    pub(crate) async fn stop(self) {
        self.drain.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    pub(crate) async fn create(&self, spec: JobSpec) -> Job {
        let request = CreateJobRequest {
            spec: Some(spec),
            ..Default::default()
        };
        self.api
            .create(asked(request))
            .await
            .unwrap()
            .into_inner()
            .job
            .unwrap()
    }

    pub(crate) async fn delete(&self, job: &str) {
        let request = DeleteJobRequest {
            job: job.into(),
            ..Default::default()
        };
        self.api.delete(asked(request)).await.unwrap();
    }

    pub(crate) async fn pause(&self, job: &str) -> Job {
        let request = PauseJobRequest {
            job: job.into(),
            ..Default::default()
        };
        self.api.pause(asked(request)).await.unwrap().into_inner()
    }

    pub(crate) async fn resume(&self, job: &str) -> Job {
        let request = ResumeJobRequest {
            job: job.into(),
            ..Default::default()
        };
        self.api.resume(asked(request)).await.unwrap().into_inner()
    }

    pub(crate) async fn job(&self, job: &str) -> Job {
        self.try_job(job).await.unwrap()
    }

    pub(crate) async fn try_job(&self, job: &str) -> Result<Job, Status> {
        let request = asked(GetJobRequest { job: job.into() });
        JobService::get(&self.api, request)
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn run(&self, run_id: &str) -> Run {
        let request = asked(GetRunRequest {
            run_id: run_id.into(),
        });
        RunService::get(&self.api, request).await.unwrap().into_inner()
    }
}

/// The typed reading of a record's number.
pub(crate) trait Recorded {
    fn state(&self) -> RunState;
}

impl Recorded for RunRecord {
    fn state(&self) -> RunState {
        RunState::try_from(self.state).unwrap()
    }
}

pub(crate) fn operator(scopes: &[Scope]) -> Caller {
    let device = DeviceId::of_public_key(&[3; 32]);
    let scopes = scopes.iter().copied().collect::<Scopes>();
    test_caller(Principal::Operator(device), scopes, Some(ServiceName::Gateway))
}

/// A request of an operator who may write.
pub(crate) fn asked<T>(message: T) -> Request<T> {
    asked_by(operator(&[Scope::Read, Scope::Write]), message)
}

pub(crate) fn asked_by<T>(caller: Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller);
    request
}

/// A job with a turn every `seconds`, on the grid of whole ones.
pub(crate) fn every(name: &str, seconds: i64) -> JobSpec {
    let every = Every {
        period: Some(duration(seconds * 1_000)),
        anchor: Some(timestamp(START_MS)),
        ..Default::default()
    };
    JobSpec {
        name: name.into(),
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::Every(every)),
        }),
        payload: Some(turn("Summarise my inbox")),
        ..Default::default()
    }
}

pub(crate) fn turn(message: &str) -> Payload {
    let turn = AgentTurnPayload {
        message: message.into(),
        ..Default::default()
    };
    Payload {
        kind: Some(payload::Kind::AgentTurn(turn)),
    }
}

/// The instant a record is for, since the start.
pub(crate) fn since_start(record: &RunRecord) -> i64 {
    record.nominal_unix_ms - START_MS
}
