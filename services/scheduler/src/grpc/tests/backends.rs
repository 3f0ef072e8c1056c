//! Jobs name backends that workers have, or their authors hear of it.

use creel_proto::scheduler::v1::{ExplainJobRequest, Job, WorkerHello, payload};

use super::*;
use crate::testing::Worker;

fn with(backend: &str, spec: JobSpec) -> JobSpec {
    let mut spec = spec;
    if let Some(payload::Kind::AgentTurn(turn)) =
        spec.payload.as_mut().and_then(|payload| payload.kind.as_mut())
    {
        turn.backend = backend.into();
    }
    spec
}

async fn runner(stack: &Stack, backends: &[&str]) -> Worker {
    stack
        .attach(WorkerHello {
            capacity: 16,
            instance: "runner".into(),
            backends: backends.iter().map(|&name| name.into()).collect(),
            ..WorkerHello::default()
        })
        .await
}

async fn update(stack: &Stack, spec: JobSpec, paths: &[&str]) -> Result<Job, Status> {
    let request = UpdateJobRequest {
        job: spec.name.clone(),
        update_mask: mask(paths),
        spec: Some(spec),
        ..Default::default()
    };
    stack
        .api
        .update(asked(request))
        .await
        .map(tonic::Response::into_inner)
}

/// Reasons, and the first hint.
async fn findings(stack: &Stack, job: &str) -> Vec<(String, String)> {
    let request = ExplainJobRequest {
        job: job.into(),
        at: None,
    };
    let explained = stack.api.explain(asked(request)).await.unwrap().into_inner();
    let found = explained.findings.into_iter();
    found.map(|one| (one.reason, one.text)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_no_worker_has_is_refused() {
    let world = World::new();
    let stack = world.start().await;
    let _worker = runner(&stack, &["echo", "py"]).await;
    let there = create(&stack, new(with("py", every("there", 60)))).await.unwrap();
    assert_eq!(there.warnings, Vec::<String>::new());
    create(&stack, new(with("", every("default", 60)))).await.unwrap();
    for validate_only in [true, false] {
        let request = CreateJobRequest {
            validate_only,
            ..new(with("nosuch", every("job", 60)))
        };
        let error = refusal(create(&stack, request).await);
        assert_eq!(
            (error.code, error.reason.as_ref(), error.field.as_deref()),
            (
                Code::InvalidArgument,
                "unknown_backend",
                Some("spec.payload.agent_turn.backend")
            )
        );
        assert!(error.message.contains("nosuch"), "{error:?}");
        assert!(error.hint.unwrap().contains("echo, py"));
    }
    let wanted = with("nosuch", every("there", 60));
    let error = refusal(update(&stack, wanted, &["payload"]).await);
    assert_eq!(error.reason, "unknown_backend");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_say_a_job_is_taken_with_a_warning() {
    let world = World::new();
    let stack = world.start().await;
    let spec = with("py", every("job", 3_600));
    let taken = create(&stack, new(spec.clone())).await.unwrap();
    assert!(taken.warnings[0].contains("`py`") && taken.warnings[0].contains("creel cron explain job"));
    let reasons = |found: &[(String, String)]| -> Vec<String> {
        found.iter().map(|(reason, _)| reason.clone()).collect()
    };
    let found = findings(&stack, "job").await;
    assert_eq!(reasons(&found), ["no_worker", "backend_not_known"]);

    // One that does not say what it has is asked for nothing.
    let silent = stack.worker("old", &[]).await;
    assert_eq!(reasons(&findings(&stack, "job").await), ["backend_not_known"]);
    create(&stack, new(with("any", every("other", 60))))
        .await
        .unwrap();
    drop(silent);

    let worker = runner(&stack, &["echo"]).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let found = findings(&stack, "job").await;
    assert_eq!(reasons(&found), ["unknown_backend"]);
    assert!(found[0].1.contains("There are: echo"), "{found:?}");
    // What it has already keeps nobody from changing the rest, and is said.
    let described = JobSpec {
        description: "every hour".into(),
        ..spec.clone()
    };
    let job = update(&stack, described, &["description"]).await.unwrap();
    assert_eq!(job.spec.unwrap().description, "every hour");
    assert!(job.warnings[0].contains("no worker has the backend `py`"));

    drop(worker);
    let _worker = runner(&stack, &["echo", "py"]).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(reasons(&findings(&stack, "job").await), Vec::<String>::new());
    let job = update(&stack, spec, &["description"]).await.unwrap();
    assert_eq!(job.warnings, Vec::<String>::new());
    stack.stop().await;
}
