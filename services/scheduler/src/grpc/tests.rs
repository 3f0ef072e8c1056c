use creel_proto::{
    scheduler::v1::{
        At, CreateJobRequest, CreateJobResponse, Cron, DeleteJobRequest, GetJobRequest, JobRecord, JobSpec,
        ListJobsRequest, ListRunsRequest, PauseJobRequest, Phase, PreviewRequest, Run, RunState, Schedule,
        UpdateJobRequest, WatchRunsRequest, at, job_service_server::JobService, preview_request::Of,
        run_service_server::RunService, schedule,
    },
    time::{timestamp, unix_ms},
};
use creel_wire::{Code, Error, Scope};
use futures_util::StreamExt as _;
use prost_types::FieldMask;
use tonic::Status;

use crate::{
    id::JobId,
    ledger::Creation,
    spec::{Origin, Spec},
    testing::{START_MS, Stack, World, asked, asked_by, every, operator, turn},
};

mod agents;
mod backends;
mod explains;
mod reasons;
mod updates;

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Error {
    Error::of_status(&answer.unwrap_err())
}

async fn create(stack: &Stack, request: CreateJobRequest) -> Result<CreateJobResponse, Status> {
    stack
        .api
        .create(asked(request))
        .await
        .map(tonic::Response::into_inner)
}

fn new(spec: JobSpec) -> CreateJobRequest {
    CreateJobRequest {
        spec: Some(spec),
        ..Default::default()
    }
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
    })
}

#[tokio::test(start_paused = true)]
async fn the_same_job_twice_is_unchanged_and_another_is_a_conflict() {
    let world = World::new();
    let stack = world.start().await;
    let first = create(&stack, new(every("briefing", 60))).await.unwrap();
    let job = first.job.unwrap();
    assert!(!first.unchanged);
    assert_eq!(
        (job.schedule_text.as_str(), job.etag.as_str()),
        ("every 1 min", "1")
    );
    assert_eq!(job.scopes, ["operator.read", "operator.write"]);
    let again = create(&stack, new(every("briefing", 60))).await.unwrap();
    assert!(again.unchanged);
    assert_eq!(again.job.unwrap().job_id, job.job_id);
    let error = refusal(create(&stack, new(every("briefing", 61))).await);
    assert_eq!(
        (error.code, error.reason.as_ref()),
        (Code::Conflict, "name_taken")
    );
    assert!(error.hint.is_some() && error.field.as_deref() == Some("spec.name"));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_id_means_its_job_whatever_another_is_called() {
    let world = World::new();
    let stack = world.start().await;
    let job = create(&stack, new(every("briefing", 60)))
        .await
        .unwrap()
        .job
        .unwrap();
    let error = refusal(create(&stack, new(every(&job.job_id, 60))).await);
    assert_eq!(error.field.as_deref(), Some("spec.name"));

    // One that has such a name from before it was refused.
    let spec = Spec::check(
        &every(&job.job_id, 60),
        Origin {
            zones: &stack.api.zones.get(),
            anchor_ms: START_MS,
        },
    );
    let id: JobId = "01a221fd-5911-77d7-84f5-3c7eba5a5e31".parse().unwrap();
    let creation = Creation {
        id,
        record: JobRecord {
            job_id: id.to_string(),
            spec: Some(every(&job.job_id, 60)),
            owner: job.owner.clone(),
            ..Default::default()
        },
        spec: spec.unwrap(),
        cursor_ms: START_MS,
        principal: String::new(),
    };
    let engine = &stack.api.engine;
    engine
        .change(move |ledger, now| ledger.create(creation, now))
        .await
        .unwrap();
    let paused = stack.pause(&job.job_id).await;
    assert_eq!((paused.phase(), paused.job_id), (Phase::Paused, job.job_id));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_mistyped_name_gets_the_one_that_was_meant() {
    let world = World::new();
    let stack = world.start().await;
    for name in ["briefing", "Report of the week", "zz"] {
        create(&stack, new(every(name, 60))).await.unwrap();
    }
    for (wanted, meant) in [
        ("briefng", Some("briefing")),
        ("brief", Some("briefing")),
        ("report of the weak", Some("Report of the week")),
        ("nothing like it", None),
    ] {
        let get = GetJobRequest { job: wanted.into() };
        let hint = refusal(JobService::get(&stack.api, asked(get)).await)
            .hint
            .unwrap();
        let told = meant.map(|name| format!("did you mean `{name}`? creel cron list names all"));
        assert_eq!(hint, told.unwrap_or_else(|| "creel cron list".into()), "{wanted}");
    }
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_has_one_effect_and_a_dry_run_none() {
    let world = World::new();
    let stack = world.start().await;
    let dry = CreateJobRequest {
        validate_only: true,
        ..new(every("dry", 60))
    };
    let job = create(&stack, dry).await.unwrap().job.unwrap();
    assert_eq!(unix_ms(&job.next_run_at.unwrap()), START_MS + 60_000);
    let get = GetJobRequest { job: "dry".into() };
    assert_eq!(
        refusal(JobService::get(&stack.api, asked(get.clone())).await).code,
        Code::NotFound
    );

    let request = CreateJobRequest {
        request_id: "r".into(),
        ..new(every("dry", 60))
    };
    let job = create(&stack, request.clone()).await.unwrap().job.unwrap();
    let delete = DeleteJobRequest {
        job: "dry".into(),
        ..Default::default()
    };
    stack.api.delete(asked(delete)).await.unwrap();
    let repeated = create(&stack, request).await.unwrap();
    assert_eq!(repeated.job.unwrap().job_id, job.job_id, "the answer of then");
    assert_eq!(
        refusal(JobService::get(&stack.api, asked(get)).await).code,
        Code::NotFound
    );
    let other = CreateJobRequest {
        request_id: "r".into(),
        ..new(every("other", 60))
    };
    assert_eq!(refusal(create(&stack, other).await).reason, "request_id_reused");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_past_is_refused_unless_late_is_fine() {
    let world = World::new();
    let stack = world.start().await;
    let at = At {
        when: Some(at::When::Time(timestamp(START_MS - 3_600_000))),
    };
    let past = JobSpec {
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::At(at)),
        }),
        ..every("past", 60)
    };
    let error = refusal(create(&stack, new(past.clone())).await);
    assert_eq!(
        (error.reason.as_ref(), error.field.as_deref()),
        ("in_the_past", Some("spec.schedule.at"))
    );
    assert!(error.hint.unwrap().contains("late"));
    let mut worker = stack.worker("one", &[]).await;
    create(
        &stack,
        CreateJobRequest {
            late_ok: true,
            ..new(past)
        },
    )
    .await
    .unwrap();
    assert_eq!(
        unix_ms(&worker.succeed().await.nominal_at.unwrap()),
        START_MS - 3_600_000
    );
    assert_eq!(stack.job("past").await.phase(), Phase::Completed);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn limits_hold_at_their_edge() {
    let mut world = World::new();
    world.config.max_jobs_per_owner = 2;
    let stack = world.start().await;
    for name in ["a", "b"] {
        create(&stack, new(every(name, 60))).await.unwrap();
    }
    let error = refusal(create(&stack, new(every("c", 60))).await);
    assert_eq!(
        (error.code, error.reason.as_ref()),
        (Code::ResourceExhausted, "too_many_jobs")
    );
    let dry = CreateJobRequest {
        validate_only: true,
        ..new(every("c", 60))
    };
    assert_eq!(refusal(create(&stack, dry).await).reason, "too_many_jobs");
    stack
        .api
        .delete(asked(DeleteJobRequest {
            job: "a".into(),
            ..Default::default()
        }))
        .await
        .unwrap();
    create(&stack, new(every("c", 60))).await.unwrap();
    stack.stop().await;
    world.config.max_jobs_per_owner = 10;
    world.config.max_jobs = 2;
    let stack = world.start().await;
    assert_eq!(
        refusal(create(&stack, new(every("d", 60))).await).reason,
        "too_many_jobs"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lists_are_by_name_in_pages() {
    let world = World::new();
    let stack = world.start().await;
    for name in ["b2", "a1", "b1", "c", "b3"] {
        create(&stack, new(every(name, 60))).await.unwrap();
    }
    let list = async |prefix: &str, size, token: String| {
        let request = ListJobsRequest {
            page_size: size,
            page_token: token,
            name_prefix: prefix.into(),
            ..Default::default()
        };
        let page = JobService::list(&stack.api, asked(request))
            .await
            .unwrap()
            .into_inner();
        let names: Vec<_> = page.jobs.into_iter().map(|job| job.spec.unwrap().name).collect();
        (names, page.next_page_token)
    };
    assert_eq!(
        list("", 0, String::new()).await,
        (
            ["a1", "b1", "b2", "b3", "c"].map(String::from).to_vec(),
            String::new()
        )
    );
    let (names, token) = list("b", 2, String::new()).await;
    assert_eq!(names, ["b1", "b2"]);
    assert_eq!(list("b", 2, token).await, (vec!["b3".to_owned()], String::new()));
    let request = ListJobsRequest {
        page_size: 501,
        ..Default::default()
    };
    assert_eq!(
        refusal(JobService::list(&stack.api, asked(request)).await)
            .field
            .as_deref(),
        Some("page_size")
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn previews_change_nothing() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    let preview = async |request| {
        stack
            .api
            .preview(asked(request))
            .await
            .map(tonic::Response::into_inner)
    };
    let of_job = PreviewRequest {
        of: Some(Of::Job("job".into())),
        count: 2,
        ..Default::default()
    };
    let answer = preview(of_job.clone()).await.unwrap();
    assert_eq!(
        answer.times,
        [timestamp(START_MS + 60_000), timestamp(START_MS + 120_000)]
    );
    assert!(answer.zone_data_version.contains("bundled"));
    let cron = Cron {
        expression: "0 7 * * *".into(),
        zone: "Europe/Berlin".into(),
        ..Default::default()
    };
    let of = Some(Of::Schedule(Schedule {
        kind: Some(schedule::Kind::Cron(cron)),
    }));
    let answer = preview(PreviewRequest {
        of,
        ..Default::default()
    })
    .await
    .unwrap();
    assert_eq!(
        (answer.times.len(), answer.schedule_text.as_str()),
        (5, "daily 07:00 Europe/Berlin")
    );
    assert_eq!(
        refusal(
            preview(PreviewRequest {
                count: 1_001,
                ..of_job
            })
            .await
        )
        .field
        .as_deref(),
        Some("count")
    );
    assert_eq!(
        refusal(preview(PreviewRequest::default()).await).field.as_deref(),
        Some("of")
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn runs_are_listed_by_state_and_watched_as_they_change() {
    let world = World::new();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    create(&stack, new(every("quiet", 3_600))).await.unwrap();
    create(&stack, new(every("job", 60))).await.unwrap();
    let request = WatchRunsRequest { job: "job".into() };
    let mut changes = RunService::watch(&stack.api, asked(request))
        .await
        .unwrap()
        .into_inner();
    worker.fail().await;
    worker.succeed().await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let run: Run = changes.next().await.unwrap().unwrap();
        assert_eq!(run.job_name, "job");
        seen.push(run.state());
    }
    assert_eq!(
        seen,
        [
            RunState::Dispatched,
            RunState::Failed,
            RunState::Dispatched,
            RunState::Succeeded
        ]
    );
    let list = async |job: &str, state: RunState| {
        let request = ListRunsRequest {
            job: job.into(),
            state: state.into(),
            ..Default::default()
        };
        RunService::list(&stack.api, asked(request))
            .await
            .unwrap()
            .into_inner()
            .runs
    };
    for job in ["job", ""] {
        assert_eq!(list(job, RunState::Unspecified).await.len(), 2);
        let failed = list(job, RunState::Failed).await;
        assert_eq!((failed.len(), failed[0].reason.as_str()), (1, "backend"));
    }
    assert_eq!(list("quiet", RunState::Unspecified).await, []);
    let request = ListRunsRequest {
        page_token: "x".into(),
        ..Default::default()
    };
    assert_eq!(
        refusal(RunService::list(&stack.api, asked(request)).await)
            .field
            .as_deref(),
        Some("page_token")
    );
    stack.stop().await;
    assert!(changes.next().await.is_none(), "the drain ends it");
}

#[tokio::test(start_paused = true)]
async fn changes_are_in_the_audit_with_their_transaction() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    stack
        .api
        .delete(asked(DeleteJobRequest {
            job: "job".into(),
            ..Default::default()
        }))
        .await
        .unwrap();
    stack
        .create(JobSpec {
            delete_after_run: true,
            ..every("goes", 60)
        })
        .await;
    let mut worker = stack.worker("one", &[]).await;
    worker.succeed().await;
    *world.minter.refusal.lock().unwrap() = Some(crate::MintError::OwnerRevoked);
    stack.create(every("revoked", 60)).await;
    worker.no_work_for(std::time::Duration::from_secs(61)).await;
    stack.stop().await;
    let page = world
        .store
        .scan(
            creel_kit::idempotency::FrameKind::Outbox.range(),
            creel_store::Page::default(),
        )
        .await;
    let actions: Vec<_> = page
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| {
            let record: creel_proto::audit::v1::AuditRecord = prost::Message::decode(entry.value).unwrap();
            let who = record.principal.split('/').next().unwrap().to_owned();
            format!("{} by {who}", record.action)
        })
        .collect();
    assert_eq!(
        actions,
        [
            "job.created by operator",
            "job.deleted by operator",
            "job.created by operator",
            "job.deleted by job",
            "job.created by operator",
            "job.paused by service",
        ]
    );
}
