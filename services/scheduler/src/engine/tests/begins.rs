//! Attempts that were sent and never begun: given away again as the next attempt, whatever `on_stuck` says.

use creel_proto::scheduler::v1::{CancelRunRequest, run_service_server::RunService};

use super::*;
use crate::testing::asked;

#[tokio::test(start_paused = true)]
async fn what_a_living_worker_never_begins_is_given_away_again_and_fenced() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 3_600)).await;
    let mut one = stack.worker("one", &[]).await;
    let first = of(&one.received().await);
    // It shows that it has it, and that keeps it; then it shows nothing.
    sleep(20 * SECOND).await;
    one.beat(std::slice::from_ref(&first)).await;
    sleep(20 * SECOND).await;
    assert_eq!(stack.run(&first.run_id).await.attempt, 1);
    assert_eq!(one.cancelled().await.reason, "fenced");
    let second = of(&one.received().await);
    assert_eq!((&second.run_id, second.attempt), (&first.run_id, 2));
    // Too late for the first attempt.
    one.ready(&first).await;
    let answer = one.cancelled().await;
    assert_eq!(
        (answer.r#ref, answer.reason.as_str()),
        (Some(first.clone()), "fenced")
    );
    one.finish(&first, RunState::Succeeded).await;
    assert!(!one.acked().await.accepted);

    one.ready(&second).await;
    assert!(matches!(one.hear().await, Down::Begin(_)));
    one.finish(&second, RunState::Succeeded).await;
    assert!(one.acked().await.accepted);
    let records = world.records().await;
    assert_eq!((records.len(), records[0].state()), (1, RunState::Succeeded));
    assert_eq!(
        (records[0].attempt, records[0].returned, records[0].interruptions),
        (2, 1, 0)
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_frees_what_was_not_begun_and_keeps_what_was() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("begun", 3_600)).await;
    let mut one = stack.worker("one", &[]).await;
    let begun = of(&one.work().await);
    stack.create(every("sent", 3_700)).await;
    let sent = loop {
        match tokio::time::timeout(10 * SECOND, one.received()).await {
            Ok(work) if work.job_name == "sent" => break of(&work),
            Ok(other) => panic!("overlap is forbidden: {other:?}"),
            Err(_) => one.beat(std::slice::from_ref(&begun)).await,
        }
    };
    let mut two = stack.worker("two", &[]).await;
    drop(one);
    let again = two.succeed().await;
    assert_eq!(
        (&of(&again).run_id, of(&again).attempt),
        (&sent.run_id, 2),
        "at once"
    );
    two.no_work_for(31 * SECOND).await;
    let lost = stack.run(&begun.run_id).await;
    assert_eq!((lost.state(), lost.reason.as_str()), (RunState::Stuck, "lost"));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_that_never_began_use_up_no_retry() {
    let world = World::new();
    let stack = world.start().await;
    let retry = Some(Retry {
        attempts: 2,
        ..Retry::default()
    });
    let policy = Policy {
        retry,
        ..Policy::default()
    };
    stack.create(with(every("job", 7_200), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    for attempt in 1..=3 {
        assert_eq!(of(&worker.received().await).attempt, attempt);
        worker = stack.worker("one", &[]).await;
    }
    assert_eq!(of(&worker.fail().await).attempt, 4);
    assert_eq!(of(&worker.fail().await).attempt, 5, "the one retry");
    let run = world.records().await.remove(0);
    assert_eq!((run.state(), run.returned), (RunState::Failed, 3));
    // A crash of ours changes nothing about that.
    stack.crash().await;
    world.start().await.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_began_is_cancelled_at_once() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    let sent = of(&worker.received().await);
    let request = CancelRunRequest {
        run_id: sent.run_id.clone(),
        ..Default::default()
    };
    stack.api.cancel(asked(request)).await.unwrap();
    assert_eq!(stack.run(&sent.run_id).await.state(), RunState::Cancelled);
    assert_eq!(worker.cancelled().await.r#ref, Some(sent.clone()));
    worker.ready(&sent).await;
    assert_eq!(worker.cancelled().await.reason, "fenced");
    stack.stop().await;
}
