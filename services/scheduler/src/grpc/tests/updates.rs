//! Changed jobs.

use creel_proto::scheduler::v1::{Delivery, NoDelivery, delivery};

use super::*;

#[tokio::test(start_paused = true)]
async fn updates_take_over_fields_and_freeze_the_grant_anew() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    let update = |caller, request: UpdateJobRequest| stack.api.update(asked_by(caller, request));
    let all = || operator(&[Scope::Read, Scope::Write, Scope::Admin]);
    let base = UpdateJobRequest {
        job: "job".into(),
        spec: Some(JobSpec::default()),
        ..Default::default()
    };

    let described = JobSpec {
        description: "words".into(),
        ..JobSpec::default()
    };
    let request = UpdateJobRequest {
        spec: Some(described),
        update_mask: mask(&["description"]),
        ..base.clone()
    };
    let job = update(all(), request).await.unwrap().into_inner();
    assert_eq!(job.spec.as_ref().unwrap().description, "words");
    assert_eq!(job.spec.as_ref().unwrap().schedule, every("job", 60).schedule);
    assert_eq!((job.scopes.len(), job.etag.as_str()), (2, "2"));

    let said = JobSpec {
        payload: Some(turn("other words")),
        ..JobSpec::default()
    };
    let request = UpdateJobRequest {
        spec: Some(said),
        update_mask: mask(&["payload"]),
        ..base.clone()
    };
    let stale = UpdateJobRequest {
        if_match: "1".into(),
        ..request.clone()
    };
    assert_eq!(refusal(update(all(), stale).await).reason, "changed");
    let dry = UpdateJobRequest {
        validate_only: true,
        ..request.clone()
    };
    assert_eq!(update(all(), dry).await.unwrap().into_inner().etag, "2");
    let job = update(operator(&[Scope::Write, Scope::Admin]), request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        job.scopes,
        ["operator.write"],
        "no more than it had, no more than its editor has"
    );
    assert_eq!(stack.job("job").await.scopes, ["operator.write"]);

    let request = UpdateJobRequest {
        update_mask: mask(&["owner"]),
        ..base.clone()
    };
    assert_eq!(
        refusal(update(all(), request).await).field.as_deref(),
        Some("update_mask")
    );
    create(&stack, new(every("taken", 60))).await.unwrap();
    let renamed = JobSpec {
        name: "taken".into(),
        ..JobSpec::default()
    };
    let request = UpdateJobRequest {
        spec: Some(renamed),
        update_mask: mask(&["name"]),
        ..base.clone()
    };
    assert_eq!(refusal(update(all(), request).await).reason, "name_taken");
    let renamed = JobSpec {
        name: "new".into(),
        ..JobSpec::default()
    };
    let request = UpdateJobRequest {
        spec: Some(renamed),
        update_mask: mask(&["name"]),
        ..base
    };
    let id = update(all(), request).await.unwrap().into_inner().job_id;
    assert_eq!(stack.job("new").await.job_id, id);
    assert_eq!(stack.job(&id).await.spec.unwrap().name, "new", "the id stays");
    create(&stack, new(every("job", 60))).await.unwrap();
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_changes_what_a_job_does_freezes_its_grant_anew() {
    let world = World::new();
    let stack = world.start().await;
    let wanted = JobSpec {
        description: "words".into(),
        schedule: every("job", 120).schedule,
        target: "agent:default:person:somebody".into(),
        payload: Some(turn("other words")),
        delivery: Some(Delivery {
            to: Some(delivery::To::None(NoDelivery {})),
        }),
        ..JobSpec::default()
    };
    for (path, scopes) in [
        ("description", 2),
        ("schedule", 1),
        ("target", 1),
        ("payload", 1),
        ("delivery", 1),
    ] {
        create(&stack, new(every(path, 60))).await.unwrap();
        let request = UpdateJobRequest {
            job: path.into(),
            spec: Some(wanted.clone()),
            update_mask: mask(&[path]),
            ..Default::default()
        };
        let lesser = asked_by(operator(&[Scope::Write]), request);
        let job = stack.api.update(lesser).await.unwrap().into_inner();
        assert_eq!(job.scopes.len(), scopes, "{path}");
    }
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_edited_at_the_last_moment_fires_once() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(59_900)).await;
    let request = UpdateJobRequest {
        job: "job".into(),
        spec: Some(JobSpec {
            schedule: every("job", 30).schedule,
            ..JobSpec::default()
        }),
        update_mask: mask(&["schedule"]),
        ..Default::default()
    };
    stack.api.update(asked(request)).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    for nominal in [60_000, 90_000] {
        assert_eq!(
            unix_ms(&worker.succeed().await.nominal_at.unwrap()),
            START_MS + nominal
        );
    }
    assert_eq!(world.records().await.len(), 2);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn disabled_jobs_wait_until_they_are_resumed() {
    let world = World::new();
    let stack = world.start().await;
    create(
        &stack,
        new(JobSpec {
            disabled: true,
            ..every("job", 60)
        }),
    )
    .await
    .unwrap();
    let job = stack.job("job").await;
    assert_eq!(
        (job.phase(), job.phase_reason.as_str()),
        (Phase::Paused, "disabled")
    );
    let job = stack.resume("job").await;
    assert_eq!(
        (job.phase(), job.spec.unwrap().disabled),
        (Phase::Scheduled, false)
    );
    assert!(!stack.job("job").await.spec.unwrap().disabled);
    let request = PauseJobRequest {
        job: "job".into(),
        reason: "x".repeat(257),
        ..Default::default()
    };
    assert_eq!(
        refusal(stack.api.pause(asked(request)).await).field.as_deref(),
        Some("reason")
    );
    stack.stop().await;
}
