//! Somebody is told: after failures, of quarantines, of slow runs; and what becomes of the telling.

use creel_proto::scheduler::v1::{DeleteAfter, RunKind, WorkKind, payload};

use super::*;

fn alert(after: u32, cool_down_ms: i64) -> Policy {
    Policy {
        alert: Some(Alert {
            after,
            cool_down: Some(duration(cool_down_ms)),
            ..Alert::default()
        }),
        retry: Some(Retry {
            backoff: Some(duration(0)),
            ..Default::default()
        }),
        quarantine_after: 100,
        ..Policy::default()
    }
}

fn text(work: &Work) -> String {
    match work.payload.clone().unwrap().kind.unwrap() {
        payload::Kind::SystemEvent(event) => event.text,
        other => panic!("no event: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_told_once_per_cool_down() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("flaky", 600), alert(2, 3_500_000))).await;
    let mut worker = stack.worker("one", &[]).await;
    worker.fail().await;
    assert_eq!(stack.job("flaky").await.alert, None);
    worker.fail().await;
    let told = worker.work().await;
    assert_eq!(
        (told.kind(), told.target.as_str()),
        (RunKind::Alert, "agent:default:main")
    );
    let text = text(&told);
    assert!(text.contains("`flaky` failed 2 times"), "{text}");
    assert!(!text.contains("backend"), "no text of a run: {text}");
    let shown = stack.job("flaky").await;
    assert_eq!(
        (shown.phase(), shown.alert.unwrap().state.as_str()),
        (Phase::Failed, "pending")
    );
    // Where it goes can't be reached: it is tried again, on record.
    worker.finish(&of(&told), RunState::Failed).await;
    assert!(worker.acked().await.accepted);
    let again = worker.work().await;
    assert_eq!((of(&again).run_id, of(&again).attempt), (of(&told).run_id, 2));
    worker.finish(&of(&again), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let shown = stack.job("flaky").await;
    let alert = shown.alert.unwrap();
    assert_eq!(
        (alert.state.as_str(), alert.reason.as_str()),
        ("delivered", "failures")
    );
    assert_eq!(
        shown.consecutive_failures, 2,
        "an alert says nothing about the job"
    );
    // Five more failures lie within the cool-down, the sixth does not.
    for _ in 0..6 {
        assert_eq!(worker.fail().await.kind(), RunKind::Scheduled);
    }
    assert_eq!(worker.succeed().await.kind(), RunKind::Alert);
    let alerts = world.records().await;
    let alerts = alerts.iter().filter(|run| run.kind == i32::from(RunKind::Alert));
    assert_eq!(alerts.count(), 2);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_never_arrives_is_on_record_as_failed() {
    let world = World::coarse();
    let stack = world.start().await;
    stack
        .create(with(
            once("job", 5_000),
            Policy {
                alert: Some(Alert::default()),
                ..Policy::default()
            },
        ))
        .await;
    let mut worker = stack.worker("one", &[]).await;
    worker.fail().await;
    // The only run of a one-shot is told of at once.
    for attempt in 1..=6 {
        let work = worker.fail().await;
        assert_eq!((work.kind(), of(&work).attempt), (RunKind::Alert, attempt));
    }
    let alert = stack.job("job").await.alert.unwrap();
    assert_eq!(
        (alert.state.as_str(), alert.error.as_str()),
        ("failed", "backend")
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_run_is_told_of_while_it_runs() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("slow", 600), alert(3, 3_600_000))).await;
    let mut worker = stack.worker("one", &[]).await;
    // What is usual is learned from five runs.
    for _ in 0..5 {
        let work = keep(&mut worker, &[]).await;
        worker.started(&of(&work), "cron:j:run:r").await;
        sleep(20 * SECOND).await;
        worker.finish(&of(&work), RunState::Succeeded).await;
        assert!(worker.acked().await.accepted);
    }
    let expected = stack.job("slow").await.expected.unwrap();
    assert!(
        (58..=66).contains(&expected.seconds),
        "three times 20 s: {expected:?}"
    );
    let work = keep(&mut worker, &[]).await;
    worker.started(&of(&work), "cron:j:run:r").await;
    let told = keep(&mut worker, &[of(&work)]).await;
    assert_eq!(told.kind(), RunKind::Alert);
    assert!(text(&told).contains("longer than usual"));
    let run = stack.run(&of(&work).run_id).await;
    assert_eq!((run.state(), run.slow), (RunState::Running, true));
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let run = stack.run(&of(&work).run_id).await;
    assert_eq!((run.state(), run.slow), (RunState::Succeeded, true));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_deleted_after_its_run_tells_of_its_failure_first() {
    let world = World::coarse();
    let stack = world.start().await;
    stack
        .create(JobSpec {
            delete_after: DeleteAfter::Always.into(),
            ..once("goes", 5_000)
        })
        .await;
    let mut worker = stack.worker("one", &[]).await;
    worker.fail().await;
    assert_eq!(stack.job("goes").await.last_status, "failed");
    assert_eq!(worker.succeed().await.kind(), RunKind::Alert);
    assert_eq!(
        stack.try_job("goes").await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn between_runs_a_failing_job_waits_longer_and_longer() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        retry: Some(Retry {
            backoff: Some(duration(60_000)),
            max_backoff: Some(duration(200_000)),
            ..Default::default()
        }),
        quarantine_after: 100,
        ..Policy::default()
    };
    stack.create(with(every("job", 30), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        worker.fail().await;
        times.push(world.clock.now_ms());
    }
    let waits: Vec<_> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / 10_000)
        .collect();
    assert!(
        waits
            .iter()
            .zip([6, 12, 20, 20])
            .all(|(wait, least)| (least..=least + 1).contains(wait)),
        "60 s, 120 s, then 200 s: {waits:?}"
    );
    let until = stack.job("job").await.backoff_until.unwrap();
    assert!(unix_ms(&until) > world.clock.now_ms() + 190_000);
    assert_eq!(stack.job("job").await.next_run_at, Some(until));
    worker.succeed().await;
    assert_eq!(stack.job("job").await.backoff_until, None);
    // Each that was passed over is on record.
    assert!(world.outcomes().await[&(RunState::Skipped, "backoff".to_owned())] >= 15);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_waits_is_not_told_twice() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        quarantine_after: 100,
        ..alert(1, 60_000)
    };
    stack.create(with(every("job", 300), policy)).await;
    // Nobody takes events.
    let mut worker = stack.attach_for(&[WorkKind::AgentTurn], hello("turns")).await;
    for _ in 0..3 {
        worker.fail().await;
    }
    let records = world.records().await;
    let alerts = records.iter().filter(|run| run.kind == i32::from(RunKind::Alert));
    assert_eq!(alerts.count(), 1);
    stack.stop().await;
}
