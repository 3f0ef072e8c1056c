//! Runs that wait for a person.

use creel_proto::scheduler::v1::{WorkKind, WorkUnpark};

use super::*;

async fn answer(worker: &mut Worker, held: &WorkRef, granted: bool) -> bool {
    worker
        .say(Up::Unpark(WorkUnpark {
            r#ref: Some(held.clone()),
            approval_id: "approval-1".into(),
            granted,
            text: String::new(),
        }))
        .await;
    // What goes on may come before the ack.
    loop {
        match worker.hear().await {
            Down::Ack(ack) => return ack.accepted,
            Down::Work(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_run_outlives_its_worker_and_goes_on_when_it_is_granted() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 3_600), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    let held = of(&work);
    assert!(park(&mut worker, &world, &held, 7_200_000).await.accepted);
    assert!(
        park(&mut worker, &world, &held, 7_200_000).await.accepted,
        "said twice"
    );
    let run = stack.run(&held.run_id).await;
    assert_eq!(run.state(), RunState::Parked);
    assert_eq!(run.parking.unwrap().approval_id, "approval-1");
    assert_eq!(stack.job("job").await.phase(), Phase::Parked);
    // No lease runs out, and the next occurrence does not come beside it.
    drop(worker);
    sleep(HOUR + 60 * SECOND).await;
    stack.crash().await;
    let stack = world.start().await;
    assert_eq!(stack.run(&held.run_id).await.state(), RunState::Parked);
    assert_eq!(
        world.outcomes().await[&(RunState::Skipped, "overlap".to_owned())],
        1
    );

    let mut worker = stack.worker("two", &[]).await;
    let wrong = WorkUnpark {
        r#ref: Some(held.clone()),
        approval_id: "another".into(),
        granted: true,
        text: String::new(),
    };
    worker.say(Up::Unpark(wrong)).await;
    assert!(!worker.acked().await.accepted);
    worker
        .say(Up::Unpark(WorkUnpark {
            r#ref: Some(held.clone()),
            approval_id: "approval-1".into(),
            granted: true,
            text: String::new(),
        }))
        .await;
    let (mut again, mut acked) = (None, false);
    while again.is_none() || !acked {
        match worker.hear().await {
            Down::Work(work) => again = Some(work),
            Down::Ack(ack) => acked = ack.accepted,
            other => panic!("{other:?}"),
        }
    }
    let again = again.unwrap();
    assert_eq!((of(&again).run_id, of(&again).attempt), (held.run_id.clone(), 2));
    let resumed = again.resumed.clone().unwrap();
    assert_eq!((resumed.approval_id.as_str(), resumed.attempt), ("approval-1", 1));
    assert!(answer(&mut worker, &held, true).await, "said twice");
    worker.finish(&of(&again), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    assert_eq!(stack.run(&held.run_id).await.state(), RunState::Succeeded);
    assert!(answer(&mut worker, &held, true).await, "and from the store");
    assert!(!answer(&mut worker, &held, false).await);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_silence_end_a_parked_run_and_a_parked_attempt_is_no_failed_one() {
    let world = World::coarse();
    let stack = world.start().await;
    let retry = Some(Retry {
        attempts: 2,
        backoff: Some(duration(1_000)),
        ..Default::default()
    });
    let policy = Policy {
        retry,
        ..Policy::default()
    };
    stack.create(with(every("job", 3_600), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let first = of(&worker.work().await);
    assert!(park(&mut worker, &world, &first, 60_000).await.accepted);
    assert!(answer(&mut worker, &first, false).await);
    let run = stack.run(&first.run_id).await;
    assert_eq!((run.state(), run.reason.as_str()), (RunState::Failed, "denied"));

    let second = of(&keep(&mut worker, &[]).await);
    assert!(park(&mut worker, &world, &second, 60_000).await.accepted);
    sleep(62 * SECOND).await;
    let run = stack.run(&second.run_id).await;
    assert_eq!(
        (run.state(), run.reason.as_str()),
        (RunState::Failed, "approval_expired")
    );
    assert!(!answer(&mut worker, &second, true).await, "too late");

    let third = of(&keep(&mut worker, &[]).await);
    assert!(park(&mut worker, &world, &third, 60_000).await.accepted);
    worker
        .say(Up::Unpark(WorkUnpark {
            r#ref: Some(third.clone()),
            approval_id: "approval-1".into(),
            granted: true,
            text: String::new(),
        }))
        .await;
    assert!(worker.acked().await.accepted);
    // Attempts 2 and 3 are the first and the second that may fail.
    for attempt in [2, 3] {
        let work = worker.fail().await;
        assert_eq!(of(&work).attempt, attempt);
        assert_eq!(work.kind(), RunKind::Scheduled);
    }
    assert_eq!(stack.run(&third.run_id).await.state(), RunState::Failed);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_for_the_attempt_that_asked() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 3_600), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    let first = of(&worker.work().await);
    // Asked for no time, and for more than there is.
    assert!(park(&mut worker, &world, &first, -10_000).await.accepted);
    let parking = stack.run(&first.run_id).await.parking.unwrap();
    let waits = |parking: &creel_proto::scheduler::v1::Parking| {
        unix_ms(&parking.expires_at.unwrap()) - unix_ms(&parking.parked_at.unwrap())
    };
    assert_eq!(waits(&parking), 1_000);
    let mut other = stack.attach_for(&[WorkKind::SystemEvent], hello("other")).await;
    assert!(!answer(&mut other, &first, true).await, "none of its runs");
    assert!(answer(&mut worker, &first, true).await);
    let second = WorkRef {
        attempt: 2,
        ..first.clone()
    };
    worker.ready(&second).await;
    while !matches!(worker.hear().await, Down::Begin(_)) {}
    assert!(park(&mut worker, &world, &second, 30 * 86_400_000).await.accepted);
    let parking = stack.run(&first.run_id).await.parking.unwrap();
    assert_eq!(waits(&parking), 7 * 86_400_000);
    assert!(!answer(&mut worker, &first, true).await, "said again, too late");
    assert_eq!(stack.run(&first.run_id).await.state(), RunState::Parked);
    assert!(answer(&mut worker, &second, true).await);
    assert_eq!(stack.run(&first.run_id).await.attempt, 3);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_to_stop_is_not_parked() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        timeout: Some(duration(10_000)),
        ..Policy::default()
    };
    stack.create(with(every("job", 3_600), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let held = of(&worker.work().await);
    assert_eq!(worker.cancelled().await.reason, "timeout");
    assert!(park(&mut worker, &world, &held, 86_400_000).await.accepted);
    let run = stack.run(&held.run_id).await;
    assert_eq!(
        (run.state(), run.reason.as_str()),
        (RunState::TimedOut, "timeout")
    );
    stack.stop().await;
}
