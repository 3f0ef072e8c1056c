//! Where what people do meets what waits: an edit, a pause, a try by hand.

use creel_proto::scheduler::v1::{AgentTurnPayload, Payload, SystemEventPayload, WorkKind, payload};

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
async fn what_was_admitted_before_a_pause_still_runs_and_nothing_after_it() {
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
    stack.pause("job").await;
    worker.finish(&of(&first), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let second = worker.succeed().await;
    assert_eq!(
        unix_ms(&second.nominal_at.unwrap()) - unix_ms(&first.nominal_at.unwrap()),
        60_000,
        "it is not lost"
    );
    worker.no_work_for(300 * SECOND).await;
    // Nor does anything after a restart.
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("two", &[]).await;
    worker.no_work_for(60 * SECOND).await;
    stack.resume("job").await;
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
    let records = world.records().await;
    assert!(
        records.iter().all(|run| run.kind != i32::from(RunKind::Probe)),
        "none waits"
    );
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

#[tokio::test(start_paused = true)]
async fn a_pause_and_its_end_part_what_came_up_to_the_instant() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 10), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    worker.fail().await;
    // It waits for half a minute after its failure: 20 s and 30 s are passed over.
    sleep(25 * SECOND).await;
    stack.pause("job").await;
    sleep(20 * SECOND).await;
    stack.resume("job").await;
    let outcomes = world.outcomes().await;
    let backoff = outcomes[&(RunState::Skipped, "backoff".to_owned())];
    let paused = outcomes[&(RunState::Skipped, "paused".to_owned())];
    assert!(
        (2..=3).contains(&backoff) && (1..=2).contains(&paused),
        "{outcomes:?}"
    );
    assert_eq!(
        outcomes.len(),
        3,
        "nothing runs for what came up meanwhile: {outcomes:?}"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_releases_a_quarantined_job() {
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
    let spec = JobSpec {
        description: "mended".into(),
        ..JobSpec::default()
    };
    edit(&stack, "job", spec, "description").await;
    assert_eq!(stack.job("job").await.consecutive_failures, 0);
    let work = within(&mut worker, 70 * SECOND, "the next occurrence").await;
    assert_eq!(work.kind(), RunKind::Scheduled);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_edits_at_once_are_both_there() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 3_600), Policy::default())).await;
    let described = JobSpec {
        description: "words".into(),
        ..JobSpec::default()
    };
    let disabled = JobSpec {
        disabled: true,
        ..JobSpec::default()
    };
    tokio::join!(
        edit(&stack, "job", described, "description"),
        edit(&stack, "job", disabled, "disabled"),
    );
    let spec = stack.job("job").await.spec.unwrap();
    assert_eq!((spec.description.as_str(), spec.disabled), ("words", true));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_runs_by_hand_what_belongs_to_a_revoked_owner() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    *world.minter.refusal.lock().unwrap() = Some(MintError::OwnerRevoked);
    let _worker = stack.worker("one", &[]).await;
    sleep(80 * SECOND).await;
    let job = stack.job("job").await;
    assert_eq!(
        (job.phase(), job.phase_reason.as_str()),
        (Phase::Paused, "owner_revoked")
    );
    let request = TriggerJobRequest {
        job: "job".into(),
        ..Default::default()
    };
    let refused = stack.api.trigger(asked(request)).await.unwrap_err();
    assert_eq!(creel_wire::Error::of_status(&refused).reason, "owner_revoked");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_has_the_time_of_its_payload_and_a_success_is_one_whoever_asked_it_to_stop() {
    let world = World::coarse();
    let stack = world.start().await;
    let hasty = AgentTurnPayload {
        message: "Be quick".into(),
        timeout: Some(duration(5_000)),
        ..Default::default()
    };
    let spec = JobSpec {
        payload: Some(Payload {
            kind: Some(payload::Kind::AgentTurn(hasty)),
        }),
        ..every("job", 3_600)
    };
    stack.create(with(spec, Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    assert_eq!(work.timeout, Some(duration(5_000)));
    assert_eq!(worker.cancelled().await.reason, "timeout");
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    assert_eq!(stack.run(&of(&work).run_id).await.state(), RunState::Succeeded);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_through_a_sleep_is_slow_by_the_wall() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        expected: Some(duration(60_000)),
        ..Policy::default()
    };
    stack.create(with(every("job", 3_600), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    worker.started(&of(&work), "cron:j:run:r").await;
    sleep(SECOND).await;
    world.suspend(1_800_000);
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    assert!(stack.run(&of(&work).run_id).await.slow);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_that_is_over_begins_again_at_another_time_and_a_resume_releases() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        quarantine_after: 1,
        ..Policy::default()
    };
    stack.create(with(once("once", 5_000), policy.clone())).await;
    let mut worker = stack.worker("one", &[]).await;
    worker.succeed().await;
    assert_eq!(stack.job("once").await.phase(), Phase::Completed);
    edit(&stack, "once", once("once", 60_000), "schedule").await;
    let work = within(&mut worker, 70 * SECOND, "its new time").await;
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);

    stack.create(with(every("often", 60), policy)).await;
    worker.fail().await;
    assert_eq!(stack.job("often").await.phase(), Phase::Quarantined);
    stack.resume("often").await;
    let work = within(&mut worker, 70 * SECOND, "the next occurrence").await;
    assert_eq!(work.kind(), RunKind::Scheduled);
    stack.stop().await;
}
