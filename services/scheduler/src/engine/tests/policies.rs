//! Overlap, retries, quarantine, catching up.

use super::*;

#[tokio::test(start_paused = true)]
async fn overlap_modes_buffer_allow_and_replace() {
    let world = World::new();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    stack
        .create(with(every("buffers", 100), overlap(OverlapMode::BufferOne, 0)))
        .await;
    let first = worker.work().await;
    for _ in 0..25 {
        sleep(10 * SECOND).await;
        worker.beat(&[of(&first)]).await;
    }
    worker.no_work_for(SECOND).await;
    worker.finish(&of(&first), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let second = worker.succeed().await;
    assert_eq!(
        unix_ms(&second.nominal_at.unwrap()),
        START_MS + 200_000,
        "the buffered one; 300 s was skipped"
    );
    stack.delete("buffers").await;

    stack
        .create(with(every("two", 1_000), overlap(OverlapMode::Allow, 2)))
        .await;
    let a = keep(&mut worker, &[]).await;
    let b = keep(&mut worker, &[of(&a)]).await;
    assert_ne!(of(&a), of(&b));
    stack.delete("two").await;
    assert_eq!(worker.cancelled().await.reason, "job_deleted");
    assert_eq!(worker.cancelled().await.reason, "job_deleted");

    stack
        .create(with(every("replaces", 20), overlap(OverlapMode::Replace, 0)))
        .await;
    let old = worker.work().await;
    let cancel = worker.cancelled().await;
    assert_eq!(
        (cancel.r#ref, cancel.reason.as_str()),
        (Some(of(&old)), "overlap")
    );
    worker.no_work_for(SECOND).await;
    worker.finish(&of(&old), RunState::Cancelled).await;
    assert!(worker.acked().await.accepted);
    let new = worker.work().await;
    assert_eq!(
        unix_ms(&new.nominal_at.unwrap()) - unix_ms(&old.nominal_at.unwrap()),
        20_000
    );
    let old = stack.run(&of(&old).run_id).await;
    assert_eq!(
        (old.state(), old.reason.as_str()),
        (RunState::Cancelled, "overlap")
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_then_quarantined_and_a_probe_releases() {
    let world = World::coarse();
    let stack = world.start().await;
    let retry = Some(Retry {
        attempts: 2,
        backoff: Some(duration(10_000)),
        ..Default::default()
    });
    stack
        .create(with(
            every("flaky", 600),
            Policy {
                retry,
                quarantine_after: 2,
                ..Policy::default()
            },
        ))
        .await;
    let mut worker = stack.worker("one", &[]).await;
    for _ in 0..2 {
        let first = worker.fail().await;
        let failed_at = world.clock.now_ms();
        let second = worker.fail().await;
        assert_eq!((of(&first).run_id, of(&second).attempt), (of(&second).run_id, 2));
        let waited = world.clock.now_ms() - failed_at;
        assert!((0..=11_000).contains(&waited), "full jitter: {waited} ms");
    }
    let job = stack.job("flaky").await;
    assert_eq!((job.phase(), job.consecutive_failures), (Phase::Quarantined, 2));
    assert_eq!(job.next_run_at, None);
    let quarantined_at = world.clock.now_ms();
    let probe = worker.fail().await;
    assert_eq!(stack.run(&of(&probe).run_id).await.kind(), RunKind::Probe);
    let hours = |ms: i64| (ms + 60_000) / 3_600_000;
    assert_eq!(hours(world.clock.now_ms() - quarantined_at), 1);
    let probe = worker.succeed().await;
    assert_eq!(hours(world.clock.now_ms() - quarantined_at), 3, "two more hours");
    assert_eq!(stack.run(&of(&probe).run_id).await.kind(), RunKind::Probe);
    assert_eq!(stack.job("flaky").await.phase(), Phase::Succeeded);
    let work = worker.work().await;
    assert_eq!(stack.run(&of(&work).run_id).await.kind(), RunKind::Scheduled);
    // What came up meanwhile is on record.
    let skipped = world.outcomes().await[&(RunState::Skipped, "quarantined".to_owned())];
    assert!(
        (16..=18).contains(&skipped),
        "three hours of one every ten minutes: {skipped}"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_never_outlives_the_next_occurrence() {
    let world = World::new();
    let stack = world.start().await;
    let retry = Some(Retry {
        attempts: 5,
        backoff: Some(duration(600_000)),
        ..Default::default()
    });
    stack
        .create(with(
            every("short", 10),
            Policy {
                retry,
                ..Policy::default()
            },
        ))
        .await;
    let mut worker = stack.worker("one", &[]).await;
    let first = worker.fail().await;
    let second = worker.work().await;
    assert_ne!(of(&first).run_id, of(&second).run_id);
    assert_eq!(stack.run(&of(&first).run_id).await.state(), RunState::Failed);
    stack.delete("short").await;
    assert_eq!(worker.cancelled().await.reason, "job_deleted");
    let retry = Some(Retry {
        attempts: 2,
        backoff: Some(duration(40_000)),
        past_next: true,
        ..Default::default()
    });
    let policy = Policy {
        retry,
        ..Policy::default()
    };
    stack.create(with(every("long", 10), policy)).await;
    let first = worker.fail().await;
    let second = worker.work().await;
    assert_eq!(of(&first).run_id, of(&second).run_id, "unless its job says so");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_sleep_missed_is_caught_up() {
    let world = World::coarse();
    let stack = world.start().await;
    let catch_up = |mode: CatchUpMode, max| {
        let window = Some(duration(86_400_000));
        Policy {
            catch_up: Some(CatchUp {
                mode: mode.into(),
                max,
                window,
            }),
            ..Policy::default()
        }
    };
    stack
        .create(with(every("last", 3_600), catch_up(CatchUpMode::Last, 0)))
        .await;
    stack
        .create(with(every("all", 3_600), catch_up(CatchUpMode::All, 3)))
        .await;
    stack
        .create(with(every("skip", 3_600), catch_up(CatchUpMode::Skip, 0)))
        .await;
    stack.stop().await;
    // Five hours and a half without the service.
    sleep(5 * HOUR + HOUR / 2).await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    let mut ran = Vec::new();
    for _ in 0..8 {
        match worker.hear().await {
            Down::Work(work) => {
                worker.finish(&of(&work), RunState::Succeeded).await;
                ran.push((
                    work.job_name,
                    (unix_ms(&work.nominal_at.unwrap()) - START_MS) / 3_600_000,
                ));
            }
            Down::Ack(ack) => assert!(ack.accepted),
            other => panic!("{other:?}"),
        }
    }
    ran.sort();
    let all = |hour| ("all".to_owned(), hour);
    assert_eq!(ran, [all(3), all(4), all(5), ("last".to_owned(), 5)]);
    worker.no_work_for(60 * SECOND).await;
    let outcomes = world.outcomes().await;
    assert_eq!(outcomes[&(RunState::Skipped, "coalesced".to_owned())], 4 + 2);
    assert_eq!(outcomes[&(RunState::Skipped, "window".to_owned())], 5);
    stack.stop().await;
}
