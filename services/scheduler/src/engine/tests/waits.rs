//! What waits for an instant, while the clock is wrong.

use creel_proto::scheduler::v1::{AcceptClockRequest, admin_service_server::AdminService as _};
use creel_store::Page;

use super::*;
use crate::store::{Kind, note_start};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

#[tokio::test(start_paused = true)]
async fn nothing_done_while_the_clock_is_a_year_ahead_waits_for_that_year() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("fails", 600), Policy::default())).await;
    stack
        .create(with(after_each("delays", 600), Policy::default()))
        .await;
    stack.create(with(every("edited", 600), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(keep(&mut worker, &[]).await);
    }
    world.clock.advance(YEAR_MS);
    for work in &held {
        let failed = work.job_name == "fails";
        let outcome = if failed {
            RunState::Failed
        } else {
            RunState::Succeeded
        };
        worker.finish(&of(work), outcome).await;
        assert!(worker.acked().await.accepted);
    }
    edit(&stack, "edited", every("edited", 1_200), "schedule").await;
    stack.create(with(every("made", 60), Policy::default())).await;
    let anchored = JobSpec {
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::Every(Every {
                period: Some(duration(600_000)),
                ..Default::default()
            })),
        }),
        ..every("anchored", 60)
    };
    stack.create(with(anchored, Policy::default())).await;
    worker.no_work_for(30 * SECOND).await;
    assert_eq!(world.records().await.len(), 3, "nothing is decided");
    world.clock.advance(-YEAR_MS);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 5 {
        let heard = tokio::time::timeout(HOUR, worker.hear()).await;
        match heard.unwrap_or_else(|_| panic!("a job waits for a year: {seen:?}")) {
            Down::Work(work) => {
                worker.finish(&of(&work), RunState::Succeeded).await;
                seen.insert(work.job_name);
            }
            Down::Ack(ack) => assert!(ack.accepted),
            other => panic!("{other:?}"),
        }
    }
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_and_a_catch_up_do_not_wait_for_a_clock_that_was_set_back() {
    let world = World::coarse();
    world.clock.advance(YEAR_MS);
    let stack = world.start().await;
    let retry = Some(Retry {
        attempts: 3,
        backoff: Some(duration(60_000)),
        max_backoff: Some(duration(60_000)),
        ..Default::default()
    });
    stack
        .create(with(
            every("retries", 86_400),
            Policy {
                retry,
                ..Policy::default()
            },
        ))
        .await;
    let mut worker = stack.worker("one", &[]).await;
    trigger(&stack, "retries").await;
    let first = worker.fail().await;
    world.clock.advance(-YEAR_MS);
    let again = within(&mut worker, 120 * SECOND, "the next attempt").await;
    assert_eq!(of(&again).run_id, of(&first).run_id);
    worker.fail_held(&again).await;
    // Likewise after a restart.
    stack.crash().await;
    world.clock.advance(-YEAR_MS);
    let stack = world.start().await;
    let mut worker = stack.worker("two", &[]).await;
    let last = within(&mut worker, 120 * SECOND, "the attempt after a restart").await;
    assert_eq!((of(&last).run_id, of(&last).attempt), (of(&first).run_id, 3));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn catching_up_is_held_for_a_minute_whatever_the_clock_does() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 600), Policy::default())).await;
    stack.crash().await;
    sleep(HOUR).await;
    // The third start in five minutes, by a clock that is a year ahead.
    world.clock.advance(YEAR_MS);
    for _ in 0..2 {
        note_start(&world.store, world.clock.now_ms()).await.unwrap();
    }
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    worker.no_work_for(5 * SECOND).await;
    world.clock.advance(-YEAR_MS);
    let work = within(&mut worker, 120 * SECOND, "what was missed").await;
    let late = world.clock.now_ms() - unix_ms(&work.nominal_at.unwrap());
    assert!(late <= 700_000, "{late} ms");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_run_expires_whatever_the_clock_does() {
    const DAY: Duration = Duration::from_secs(86_400);
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 3_600), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    let held = of(&worker.work().await);
    assert!(park(&mut worker, &world, &held, HOUR_MS).await.accepted);
    world.clock.advance(-YEAR_MS);
    sleep(7 * DAY + 60 * SECOND).await;
    let run = stack.run(&held.run_id).await;
    assert_eq!(
        (run.state(), run.reason.as_str()),
        (RunState::Failed, "approval_expired")
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_a_year_ahead_makes_no_record_old() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    for _ in 0..3 {
        worker.succeed().await;
    }
    stack
        .create(with(once("gone", 86_400_000), Policy::default()))
        .await;
    stack.delete("gone").await;
    world.clock.advance(YEAR_MS);
    sleep(300 * SECOND).await;
    assert_eq!(world.outcomes().await[&(RunState::Succeeded, String::new())], 3);
    let tombstones = Kind::Tombstone.range();
    let page = world.store.scan(tombstones, Page::default()).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_jump_is_forgotten_with_it() {
    let world = World::coarse();
    let stack = world.start().await;
    let written = || async { crate::store::clock(&world.store).await.unwrap() };
    sleep(SECOND).await;
    world.clock.advance(YEAR_MS);
    sleep(20 * SECOND).await;
    assert!(written().await.is_some());
    world.clock.advance(-YEAR_MS);
    sleep(20 * SECOND).await;
    assert_eq!(written().await, None, "or it would be suspect again in a year");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_begins_anew_waits_for_nothing_of_its_other_time_in_any_life() {
    let world = World::coarse();
    world.clock.advance(10 * HOUR_MS);
    let stack = world.start().await;
    let slow = Policy {
        retry: Some(Retry {
            backoff: Some(duration(HOUR_MS / 2)),
            ..Default::default()
        }),
        quarantine_after: 100,
        ..Policy::default()
    };
    stack.create(with(every("job", 60), slow)).await;
    let mut worker = stack.worker("one", &[]).await;
    let first = worker.fail().await;
    world.clock.advance(-5 * HOUR_MS);
    sleep(20 * SECOND).await;
    let accept = AcceptClockRequest::default();
    let accepted = stack.api.accept_clock(asked(accept)).await.unwrap().into_inner();
    assert_eq!(accepted.jobs_moved, 1);
    let work = within(&mut worker, 120 * SECOND, "it waits for what is over").await;
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    // Another life knows that it is another incarnation.
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("two", &[]).await;
    world.suspend(5 * HOUR_MS - 120_000);
    let again = loop {
        let work = within(&mut worker, 600 * SECOND, "the instant comes again").await;
        worker.finish(&of(&work), RunState::Succeeded).await;
        assert!(worker.acked().await.accepted);
        let seconds = |work: &Work| work.nominal_at.unwrap().seconds;
        if seconds(&work) >= seconds(&first) {
            break work;
        }
    };
    assert_eq!(again.nominal_at, first.nominal_at);
    assert_ne!(of(&again).run_id, of(&first).run_id);
    stack.stop().await;
}
