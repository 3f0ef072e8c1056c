//! What people do while things run.

use creel_proto::scheduler::v1::{
    CancelRunRequest, ListRunsRequest, PauseJobRequest, TriggerJobRequest,
    job_service_server::JobService as _, run_service_server::RunService,
};

use super::*;
use crate::testing::{Stack, asked};

#[tokio::test(start_paused = true)]
async fn a_pause_is_on_record_as_one_range() {
    let world = World::new();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    stack.create(every("job", 60)).await;
    worker.succeed().await;
    let request = PauseJobRequest {
        job: "job".into(),
        reason: "holidays".into(),
        ..Default::default()
    };
    let job = stack.api.pause(asked(request)).await.unwrap().into_inner();
    assert_eq!(
        (job.phase(), job.phase_reason.as_str(), job.next_run_at),
        (Phase::Paused, "holidays", None)
    );
    worker.no_work_for(600 * SECOND).await;
    stack.resume("job").await;
    let work = worker.succeed().await;
    assert_eq!(unix_ms(&work.nominal_at.unwrap()), START_MS + 12 * 60_000);
    let records = world.records().await;
    let skipped: Vec<_> = records
        .iter()
        .filter(|record| record.state() == RunState::Skipped)
        .collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(
        (skipped[0].reason.as_str(), skipped[0].skipped_count),
        ("paused", 10)
    );
    assert_eq!(
        (
            since_start(skipped[0]),
            skipped[0].skipped_until_unix_ms - START_MS
        ),
        (120_000, 11 * 60_000)
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn triggers_run_beside_the_schedule_and_under_its_policy() {
    let world = World::new();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    stack.create(every("job", 3_600)).await;
    let trigger = |id: &str| {
        let request = TriggerJobRequest {
            job: "job".into(),
            request_id: id.into(),
            ..Default::default()
        };
        stack.api.trigger(asked(request))
    };
    let run = trigger("a").await.unwrap().into_inner();
    assert_eq!(run.kind(), RunKind::Manual);
    let work = worker.work().await;
    assert_eq!(of(&work).run_id, run.run_id);
    assert_eq!(
        trigger("a").await.unwrap().into_inner().run_id,
        run.run_id,
        "the same request"
    );
    let refused = creel_wire::Error::of_status(&trigger("b").await.unwrap_err());
    assert_eq!(refused.reason, "overlap");
    assert_eq!(refused.hint.as_deref(), Some("creel cron runs --job job"));
    let asked_only = TriggerJobRequest {
        job: "job".into(),
        validate_only: true,
        ..Default::default()
    };
    let told = stack.api.trigger(asked(asked_only)).await.unwrap_err();
    assert_eq!(
        creel_wire::Error::of_status(&told).reason,
        "overlap",
        "as it would be"
    );
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    assert_ne!(trigger("c").await.unwrap().into_inner().run_id, run.run_id);
    worker.succeed().await;
    // The schedule did not move.
    assert_eq!(
        unix_ms(&worker.succeed().await.nominal_at.unwrap()),
        START_MS + 3_600_000
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_changes_of_one_job_at_once_fit_the_store() {
    let world = World::new();
    let stack = world.start().await;
    let overlap = Some(Overlap {
        mode: OverlapMode::Allow.into(),
        max: 1_000,
    });
    stack
        .create(with(
            every("busy", 1),
            Policy {
                overlap,
                ..Policy::default()
            },
        ))
        .await;
    stack.stop().await;
    // None of them is missed yet: all run.
    sleep(55 * SECOND).await;
    let stack = world.start().await;
    let triggers: Vec<_> = (0..100)
        .map(|_| {
            let api = stack.api.clone();
            tokio::spawn(async move {
                let request = TriggerJobRequest {
                    job: "busy".into(),
                    ..Default::default()
                };
                api.trigger(asked(request)).await.unwrap().into_inner().run_id
            })
        })
        .collect();
    let mut runs = std::collections::BTreeSet::new();
    for trigger in triggers {
        runs.insert(trigger.await.unwrap());
    }
    assert_eq!(runs.len(), 100);
    let outcomes = world.outcomes().await;
    assert_eq!(
        outcomes.keys().collect::<Vec<_>>(),
        [&(RunState::Pending, String::new())]
    );
    let all: u64 = outcomes.into_values().sum();
    assert!((155..160).contains(&all), "{all}");
    stack.delete("busy").await;
    let outcomes = world.outcomes().await;
    assert_eq!(
        outcomes.keys().collect::<Vec<_>>(),
        [&(RunState::Cancelled, "job_deleted".to_owned())]
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn runs_are_cancelled_wherever_they_are() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    let cancel = async |stack: &Stack, run_id: &str| {
        let request = CancelRunRequest {
            run_id: run_id.into(),
            ..Default::default()
        };
        stack
            .api
            .cancel(asked(request))
            .await
            .map(tonic::Response::into_inner)
    };
    sleep(61 * SECOND).await;
    let pending = world.records().await[0].run_id.clone();
    assert_eq!(
        cancel(&stack, &pending).await.unwrap().state(),
        RunState::Cancelled
    );
    assert_eq!(
        cancel(&stack, &pending).await.unwrap().state(),
        RunState::Cancelled,
        "twice is once"
    );
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    let asked_to = cancel(&stack, &of(&work).run_id).await.unwrap();
    assert_eq!(asked_to.state(), RunState::Dispatched, "its worker is asked");
    assert_eq!(worker.cancelled().await.reason, "cancelled");
    // A crash in between: it is asked again.
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[of(&work)]).await;
    assert_eq!(worker.cancelled().await.reason, "cancelled");
    worker.finish(&of(&work), RunState::Cancelled).await;
    assert!(worker.acked().await.accepted);
    let job = stack.job("job").await;
    assert_eq!(
        (job.last_status.as_str(), job.consecutive_failures),
        ("cancelled", 0)
    );
    let done = worker.succeed().await;
    let refused = cancel(&stack, &of(&done).run_id).await.unwrap_err();
    assert_eq!(creel_wire::Error::of_status(&refused).reason, "run_finished");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn old_runs_go_and_the_last_failure_stays() {
    let world = World::new();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    let policy = Policy {
        keep_runs: 8,
        ..Policy::default()
    };
    stack.create(with(every("job", 10), policy)).await;
    let failed = worker.fail().await;
    for _ in 0..40 {
        worker.succeed().await;
    }
    sleep(SECOND).await;
    let records = world.records().await;
    assert!((9..=12).contains(&records.len()), "{}", records.len());
    assert_eq!(records[0].run_id, of(&failed).run_id);
    let newest_first: Vec<_> = records.iter().rev().map(|record| record.run_id.clone()).collect();
    for job in ["job", ""] {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListRunsRequest {
                job: job.into(),
                page_size: 3,
                page_token,
                ..Default::default()
            };
            let page = RunService::list(&stack.api, asked(request))
                .await
                .unwrap()
                .into_inner();
            assert!(page.runs.len() <= 3);
            listed.extend(page.runs.into_iter().map(|run| run.run_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, newest_first);
    }
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_month_later_only_the_last_success_is_left() {
    let world = World::coarse();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    stack.create(once("early", 5_000)).await;
    worker.succeed().await;
    stack.create(every("hourly", 3_600)).await;
    worker.succeed().await;
    let last = worker.succeed().await;
    stack.pause("hourly").await;
    world.suspend(31 * 86_400_000);
    sleep(300 * SECOND).await;
    let mut records = world.records().await;
    records.retain(|record| record.state() == RunState::Succeeded);
    let left: Vec<_> = records.iter().map(|record| record.job_name.as_str()).collect();
    assert_eq!(left, ["early", "hourly"]);
    assert_eq!(records[1].run_id, of(&last).run_id);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_over_is_never_pruned() {
    let world = World::coarse();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    let policy = Policy {
        keep_runs: 1,
        overlap: Some(Overlap {
            mode: OverlapMode::Allow.into(),
            max: 3,
        }),
        ..Policy::default()
    };
    stack.create(with(every("job", 20), policy)).await;
    let held = of(&worker.work().await);
    for _ in 0..6 {
        let work = keep(&mut worker, std::slice::from_ref(&held)).await;
        worker.beat(std::slice::from_ref(&held)).await;
        worker.finish(&of(&work), RunState::Succeeded).await;
        assert!(worker.acked().await.accepted);
    }
    sleep(SECOND).await;
    let records = world.records().await;
    assert!(records.len() < 6, "{}", records.len());
    assert_eq!(records[0].run_id, held.run_id);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_row_of_skipped_ones_is_listed_however_long_it_grows() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        keep_for: Some(duration(60_000)),
        ..Policy::default()
    };
    stack.create(with(every("job", 600), policy)).await;
    stack.pause("job").await;
    sleep(HOUR + 60 * SECOND).await;
    let request = ListRunsRequest {
        job: "job".into(),
        ..Default::default()
    };
    let page = RunService::list(&stack.api, asked(request))
        .await
        .unwrap()
        .into_inner();
    let skipped: Vec<_> = page.runs.iter().map(|run| run.skipped_count).collect();
    assert_eq!(skipped, [6]);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_jobs_runs_are_answered_for_a_day() {
    let world = World::coarse();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    stack.create(every("job", 60)).await;
    let ran = of(&worker.succeed().await);
    stack.delete("job").await;
    sleep(23 * HOUR).await;
    assert_eq!(stack.run(&ran.run_id).await.state(), RunState::Succeeded);
    sleep(2 * HOUR).await;
    assert_eq!(world.records().await, []);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_waited_ends_when_its_owner_is_revoked() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        overlap: Some(Overlap {
            mode: OverlapMode::Allow.into(),
            max: 3,
        }),
        ..Policy::default()
    };
    stack.create(with(every("job", 60), policy)).await;
    sleep(200 * SECOND).await;
    *world.minter.refusal.lock().unwrap() = Some(MintError::OwnerRevoked);
    let one_place = WorkerHello {
        capacity: 1,
        ..hello("one")
    };
    let _worker = stack
        .attach_for(&[creel_proto::scheduler::v1::WorkKind::AgentTurn], one_place)
        .await;
    sleep(20 * SECOND).await;
    let outcomes = world.outcomes().await;
    assert_eq!(
        outcomes[&(RunState::Cancelled, "owner_revoked".to_owned())],
        3,
        "{outcomes:?}"
    );
    stack.stop().await;
}
