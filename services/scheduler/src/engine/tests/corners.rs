//! Where two rules meet: crashes and a job that is to go, failures and what counts from the end of runs.

use creel_proto::scheduler::v1::{DeleteAfter, JobStateRecord, WorkKind, WorkUnpark};
use prost::Message as _;

use super::*;

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn a_job_counted_from_the_end_of_its_runs_outlives_failures_sleep_and_crashes() {
    let world = World::coarse();
    let stack = world.start().await;
    let lasting = Policy {
        quarantine_after: 100,
        ..Policy::default()
    };
    stack.create(with(after_each("job", 10), lasting)).await;
    let mut worker = stack.worker("one", &[]).await;
    // 30 s, 60 s, 120 s, 240 s: longer than its period and than any grace.
    for _ in 0..4 {
        let work = within(&mut worker, 300 * SECOND, "after a failure").await;
        worker.fail_held(&work).await;
    }
    let work = within(&mut worker, 300 * SECOND, "after four failures").await;
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let outcomes = world.outcomes().await;
    assert!(
        outcomes.keys().all(|(state, _)| *state != RunState::Skipped),
        "{outcomes:?}"
    );
    world.suspend(3 * HOUR_MS);
    let work = within(&mut worker, 20 * SECOND, "after a sleep").await;
    let late = world.clock.now_ms() - unix_ms(&work.nominal_at.unwrap());
    assert!(late <= 80_000, "none that was missed: {late} ms");
    // A crash in the middle of a run: it counts from the end that the worker reports to the next life.
    let held = of(&work);
    stack.crash().await;
    sleep(HOUR / 6).await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", std::slice::from_ref(&held)).await;
    worker.no_work_for(20 * SECOND).await;
    worker.finish(&held, RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let ended = world.clock.now_ms();
    let next = within(&mut worker, 20 * SECOND, "after a crash").await;
    let waited = unix_ms(&next.nominal_at.unwrap()) - ended;
    assert!((9_000..=11_000).contains(&waited), "{waited} ms after the end");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_to_go_goes_after_a_crash_too() {
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
    let alert = worker.work().await;
    assert_eq!(alert.kind(), RunKind::Alert);
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[of(&alert)]).await;
    worker.finish(&of(&alert), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    assert!(stack.try_job("goes").await.is_err(), "it told of its failure");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_still_an_event_after_a_crash() {
    let world = World::coarse();
    let stack = world.start().await;
    let told = Policy {
        alert: Some(Alert {
            after: 1,
            ..Alert::default()
        }),
        ..Policy::default()
    };
    stack
        .create(JobSpec {
            policy: Some(told),
            ..every("job", 60)
        })
        .await;
    let mut turns = stack.attach_for(&[WorkKind::AgentTurn], hello("turns")).await;
    turns.fail().await;
    stack.crash().await;
    let stack = world.start().await;
    let mut turns = stack.attach_for(&[WorkKind::AgentTurn], hello("turns")).await;
    turns.no_work_for(SECOND).await;
    let mut events = stack.attach_for(&[WorkKind::SystemEvent], hello("events")).await;
    let alert = within(&mut events, 5 * SECOND, "the alert").await;
    assert_eq!(alert.kind(), RunKind::Alert);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_record_is_garbage_ends_with_a_record_that_says_so() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    let held = of(&worker.work().await);
    stack.crash().await;
    let before = world.records().await;
    let at = crate::store::RunRef {
        admitted_ms: before[0].admitted_at_unix_ms,
        run: before[0].run_id.parse().unwrap(),
    };
    let garbage = Txn::new().put(at.key(), b"\xff\xff\xff".to_vec());
    world.store.commit(garbage).await.unwrap();
    let stack = world.start().await;
    let run = stack.run(&held.run_id).await;
    assert_eq!(
        (run.state(), run.reason.as_str()),
        (RunState::Stuck, "invalid_record")
    );
    let mut worker = stack.worker("two", &[]).await;
    assert_ne!(of(&worker.succeed().await), held, "the job goes on");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_replaces_a_parked_run_ends_it_and_what_may_run_beside_it_does() {
    let world = World::coarse();
    let stack = world.start().await;
    stack
        .create(with(every("replaces", 600), overlap(OverlapMode::Replace, 0)))
        .await;
    let mut worker = stack.worker("one", &[]).await;
    let first = worker.work().await;
    assert!(
        park(&mut worker, &world, &of(&first), 24 * HOUR_MS)
            .await
            .accepted
    );
    let second = worker.succeed().await;
    assert_ne!(of(&second).run_id, of(&first).run_id);
    let ended = stack.run(&of(&first).run_id).await;
    assert_eq!(
        (ended.state(), ended.reason.as_str()),
        (RunState::Cancelled, "overlap")
    );
    let answer = WorkUnpark {
        r#ref: Some(of(&first)),
        approval_id: "approval-1".into(),
        granted: true,
        ..Default::default()
    };
    worker.say(Up::Unpark(answer)).await;
    assert!(!worker.acked().await.accepted, "the answer comes too late");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_after_its_last_attempt_if_that_succeeds_and_stays_if_it_fails() {
    let world = World::coarse();
    let stack = world.start().await;
    let twice = || Policy {
        retry: Some(Retry {
            attempts: 2,
            backoff: Some(duration(5_000)),
            ..Default::default()
        }),
        quarantine_after: 1,
        ..Policy::default()
    };
    for (name, at_ms) in [("goes", 5_000), ("stays", 100_000)] {
        let spec = JobSpec {
            delete_after_run: true,
            ..once(name, at_ms)
        };
        stack.create(with(spec, twice())).await;
    }
    let mut worker = stack.worker("one", &[]).await;
    worker.fail().await;
    assert!(stack.try_job("goes").await.is_ok(), "it is tried again");
    worker.succeed().await;
    assert!(stack.try_job("goes").await.is_err());
    for _ in 0..2 {
        assert_eq!(worker.fail().await.job_name, "stays");
    }
    let job = stack.job("stays").await;
    assert_eq!(
        (job.phase(), job.last_status.as_str()),
        (Phase::Completed, "failed")
    );
    worker.no_work_for(HOUR).await;
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alerts_cool_down_outlives_a_restart() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        alert: Some(Alert {
            after: 1,
            cool_down: Some(duration(2 * HOUR_MS)),
            ..Alert::default()
        }),
        quarantine_after: 100,
        ..Policy::default()
    };
    stack.create(with(every("job", 1_800), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    worker.fail().await;
    assert_eq!(worker.succeed().await.kind(), RunKind::Alert);
    let told_ms = world.clock.now_ms();
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("two", &[]).await;
    loop {
        let work = worker.work().await;
        let alert = work.kind() == RunKind::Alert;
        worker.fail_held(&work).await;
        if alert {
            break;
        }
    }
    assert!(world.clock.now_ms() - told_ms >= 2 * HOUR_MS);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_run_holds_no_slot() {
    let world = World::coarse();
    let stack = world.start().await;
    stack
        .create(with(every("job", 600), overlap(OverlapMode::BufferOne, 0)))
        .await;
    let mut worker = stack.worker("one", &[]).await;
    let first = of(&worker.work().await);
    assert!(park(&mut worker, &world, &first, 24 * HOUR_MS).await.accepted);
    let second = worker.succeed().await;
    assert_ne!(of(&second).run_id, first.run_id);
    assert_eq!(stack.run(&first.run_id).await.state(), RunState::Parked);
    stack.stop().await;
}

/// With one more attempt, and little time for each.
fn hasty(on_stuck: OnStuck, mode: OverlapMode) -> Policy {
    Policy {
        timeout: Some(duration(10_000)),
        retry: Some(Retry {
            attempts: 2,
            backoff: Some(duration(1_000)),
            ..Default::default()
        }),
        on_stuck: on_stuck.into(),
        ..overlap(mode, 0)
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_still_run_somewhere_is_tried_again_only_if_its_job_says_so() {
    for (on_stuck, attempt) in [(OnStuck::Fail, 1), (OnStuck::Retry, 2)] {
        let world = World::coarse();
        let stack = world.start().await;
        let policy = hasty(on_stuck, OverlapMode::Forbid);
        stack.create(with(every("job", 3_600), policy)).await;
        let mut worker = stack.worker("one", &[]).await;
        let held = of(&worker.work().await);
        assert_eq!(worker.cancelled().await.reason, "timeout");
        // It does not answer, and is alive.
        for _ in 0..4 {
            worker.beat(std::slice::from_ref(&held)).await;
            sleep(10 * SECOND).await;
        }
        let run = stack.run(&held.run_id).await;
        assert_eq!(run.attempt, attempt, "{on_stuck:?}");
        if attempt == 1 {
            assert_eq!(
                (run.state(), run.reason.as_str()),
                (RunState::TimedOut, "timeout")
            );
        }
        stack.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_stopped_leaves_nothing_to_the_next() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = hasty(OnStuck::Fail, OverlapMode::Forbid);
    stack.create(with(every("job", 3_600), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let first = of(&worker.work().await);
    assert_eq!(worker.cancelled().await.reason, "timeout");
    worker.finish(&first, RunState::Cancelled).await;
    assert!(worker.acked().await.accepted);
    let second = worker.work().await;
    assert_eq!(of(&second).attempt, 2);
    worker.fail_held(&second).await;
    let run = stack.run(&first.run_id).await;
    assert_eq!((run.state(), run.reason.as_str()), (RunState::Failed, "backend"));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_replaced_is_not_tried_again() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        timeout: None,
        ..hasty(OnStuck::Fail, OverlapMode::Replace)
    };
    stack.create(with(every("job", 60), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let first = of(&worker.work().await);
    let cancel = keep_silent(&mut worker, &first).await;
    assert_eq!(cancel, "overlap");
    worker.finish(&first, RunState::Failed).await;
    assert!(worker.acked().await.accepted);
    let second = worker.work().await;
    assert_ne!(of(&second).run_id, first.run_id);
    assert_eq!(stack.run(&first.run_id).await.state(), RunState::Cancelled);
    stack.stop().await;
}

/// Stays alive until it is asked to stop; answers why.
async fn keep_silent(worker: &mut Worker, held: &WorkRef) -> String {
    loop {
        match tokio::time::timeout(10 * SECOND, worker.cancelled()).await {
            Ok(cancel) => return cancel.reason,
            Err(_) => worker.beat(std::slice::from_ref(held)).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_between_two_rows_of_skipped_ones_parts_them() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 10), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    for _ in 0..2 {
        let work = worker.work().await;
        sleep(25 * SECOND).await;
        worker.finish(&of(&work), RunState::Succeeded).await;
        assert!(worker.acked().await.accepted);
    }
    let records = world.records().await;
    let skipped = records.iter().filter(|one| one.state() == RunState::Skipped);
    assert_eq!(
        skipped.map(|one| one.reason.as_str()).collect::<Vec<_>>(),
        ["overlap"; 2]
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_many_missed_is_made_up_for_slowly() {
    let world = World::coarse();
    let stack = world.start().await;
    for n in 0..40 {
        stack
            .create(with(every(&format!("job-{n}"), 3_600), Policy::default()))
            .await;
    }
    world.suspend(90 * 60_000);
    sleep(20 * SECOND).await;
    let records = world.records().await;
    assert_eq!(records.len(), 40);
    let waits = |one: &creel_proto::scheduler::v1::RunRecord| {
        (one.not_before_unix_ms - one.admitted_at_unix_ms).max(0)
    };
    let distinct: std::collections::BTreeSet<_> = records.iter().map(waits).collect();
    assert!(
        distinct.len() > 20 && distinct.last() <= Some(&200),
        "40 at 200 a second: {distinct:?}"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_whose_end_was_cut_off_is_completed_by_the_next_life() {
    let world = World::coarse();
    let stack = world.start().await;
    let id = stack
        .create(with(once("job", 5_000), Policy::default()))
        .await
        .job_id;
    let mut worker = stack.worker("one", &[]).await;
    worker.succeed().await;
    stack.crash().await;
    let key = crate::store::state_key(id.parse().unwrap());
    let entry = world.store.get(&key).await.unwrap().unwrap();
    let state = JobStateRecord {
        completed: false,
        ..JobStateRecord::decode(entry.value).unwrap()
    };
    let txn = Txn::new().put(key, state.encode_to_vec());
    world.store.commit(txn).await.unwrap();
    let stack = world.start().await;
    sleep(SECOND).await;
    assert_eq!(stack.job("job").await.phase(), Phase::Completed);
    stack.stop().await;
}
