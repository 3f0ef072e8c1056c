//! Where what people do meets what waits: an edit, a pause, a try by hand.

use creel_proto::scheduler::v1::{
    PauseJobRequest, Payload, ResumeJobRequest, SystemEventPayload, WorkKind, payload,
};

use super::*;
use crate::testing::asked;

#[tokio::test(start_paused = true)]
async fn what_waits_follows_an_edit_of_the_payload_to_its_new_worker() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    sleep(70 * SECOND).await;
    assert_eq!(world.records().await.len(), 1, "it waits for a worker");
    let event = payload::Kind::SystemEvent(SystemEventPayload { text: "words".into() });
    let spec = JobSpec {
        payload: Some(Payload { kind: Some(event) }),
        ..JobSpec::default()
    };
    edit(&stack, "job", spec, "payload").await;
    let mut turns = stack.attach_for(&[WorkKind::AgentTurn], hello("turns")).await;
    turns.no_work_for(SECOND).await;
    let mut events = stack.attach_for(&[WorkKind::SystemEvent], hello("events")).await;
    let work = within(&mut events, 5 * SECOND, "the run that waited").await;
    assert!(matches!(
        work.payload.unwrap().kind,
        Some(payload::Kind::SystemEvent(_))
    ));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_lowered_holds_for_what_waits() {
    let world = World::coarse();
    let stack = world.start().await;
    stack
        .create(with(every("job", 60), overlap(OverlapMode::Allow, 3)))
        .await;
    sleep(200 * SECOND).await;
    assert_eq!(world.records().await.len(), 3);
    edit(&stack, "job", with(every("job", 60), Policy::default()), "policy").await;
    let mut worker = stack.worker("one", &[]).await;
    let first = worker.work().await;
    worker.no_work_for(20 * SECOND).await;
    worker.finish(&of(&first), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let second = within(&mut worker, 5 * SECOND, "the next that waited").await;
    assert_eq!(
        unix_ms(&second.nominal_at.unwrap()) - unix_ms(&first.nominal_at.unwrap()),
        60_000
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_job_starts_nothing_that_waited() {
    let world = World::coarse();
    let stack = world.start().await;
    stack
        .create(with(every("job", 60), overlap(OverlapMode::BufferOne, 0)))
        .await;
    let mut worker = stack.worker("one", &[]).await;
    let first = worker.work().await;
    for _ in 0..7 {
        sleep(10 * SECOND).await;
        worker.beat(&[of(&first)]).await;
    }
    let request = PauseJobRequest {
        job: "job".into(),
        ..Default::default()
    };
    stack.api.pause(asked(request)).await.unwrap();
    worker.finish(&of(&first), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    worker.no_work_for(300 * SECOND).await;
    // Nor does it after a restart.
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("two", &[]).await;
    worker.no_work_for(60 * SECOND).await;
    let request = ResumeJobRequest {
        job: "job".into(),
        ..Default::default()
    };
    stack.api.resume(asked(request)).await.unwrap();
    let second = worker.succeed().await;
    assert_eq!(
        unix_ms(&second.nominal_at.unwrap()) - unix_ms(&first.nominal_at.unwrap()),
        60_000,
        "it is not lost"
    );
    let third = worker.succeed().await;
    assert!(unix_ms(&third.nominal_at.unwrap()) > world.clock.now_ms() - 60_000);
    let skipped = world.outcomes().await[&(RunState::Skipped, "paused".to_owned())];
    assert!((5..=7).contains(&skipped), "{skipped}");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disabled_job_that_fails_by_hand_is_not_probed() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        quarantine_after: 1,
        ..Policy::default()
    };
    let spec = JobSpec {
        disabled: true,
        ..with(every("job", 600), policy)
    };
    stack.create(spec).await;
    let mut worker = stack.worker("one", &[]).await;
    trigger(&stack, "job").await;
    assert_eq!(worker.fail().await.kind(), RunKind::Manual);
    worker.no_work_for(2 * HOUR).await;
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_instant_that_only_its_jitter_holds_back_is_the_old_schedules() {
    let world = World::new();
    let stack = world.start().await;
    let policy = Policy {
        jitter: Some(duration(3_600_000)),
        ..Policy::default()
    };
    stack.create(with(every("job", 3_600), policy)).await;
    sleep(HOUR + 100 * Duration::from_millis(1)).await;
    assert_eq!(world.records().await, [], "its jitter holds it back");
    edit(&stack, "job", every("job", 1_800), "schedule").await;
    let records = world.records().await;
    assert_eq!(records.iter().map(since_start).collect::<Vec<_>>(), [3_600_000]);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_waits_for_what_a_person_tries() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        quarantine_after: 1,
        ..Policy::default()
    };
    stack.create(with(every("job", 60), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    worker.fail().await;
    assert_eq!(stack.job("job").await.phase(), Phase::Quarantined);
    sleep(3_590 * SECOND).await;
    trigger(&stack, "job").await;
    let manual = worker.work().await;
    for _ in 0..6 {
        sleep(10 * SECOND).await;
        worker.beat(&[of(&manual)]).await;
    }
    worker.finish(&of(&manual), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let next = within(&mut worker, 120 * SECOND, "the schedule goes on").await;
    assert_eq!(next.kind(), RunKind::Scheduled, "nothing is left to probe");
    stack.stop().await;
}
