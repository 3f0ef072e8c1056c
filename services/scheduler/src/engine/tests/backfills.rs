//! Runs for a range of the past.

use creel_proto::scheduler::v1::{
    BackfillJobRequest, BackfillJobResponse, RunKind, job_service_server::JobService as _,
};

use super::*;
use crate::testing::{Stack, asked};

/// Minutes of the grid of the job before its creation.
const BEFORE_MS: i64 = 30_000 * 60_000;

fn range(from_min: i64, until_min: i64) -> BackfillJobRequest {
    BackfillJobRequest {
        job: "job".into(),
        from: Some(timestamp(START_MS + BEFORE_MS + from_min * 60_000)),
        until: Some(timestamp(START_MS + BEFORE_MS + until_min * 60_000)),
        at_once: 2,
        ..Default::default()
    }
}

async fn backfill(
    stack: &Stack,
    request: BackfillJobRequest,
) -> Result<BackfillJobResponse, creel_wire::Error> {
    let answer = stack.api.backfill(asked(request)).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| creel_wire::Error::of_status(&status))
}

#[tokio::test(start_paused = true)]
async fn a_backfill_runs_a_range_anew_a_few_at_once_and_survives_a_crash() {
    let world = World::coarse();
    world.clock.advance(BEFORE_MS);
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    let mut worker = stack.worker("one", &[]).await;
    let live = worker.succeed().await;
    worker.succeed().await;
    let request = BackfillJobRequest {
        request_id: "r".into(),
        ..range(-4, 2)
    };
    let begun = backfill(&stack, request.clone()).await.unwrap();
    let status = begun.backfill.clone().unwrap();
    assert_eq!((status.total, status.at_once), (6, 2));
    assert_eq!(
        backfill(&stack, request).await.unwrap(),
        begun,
        "the same request"
    );
    assert_eq!(
        backfill(&stack, range(-4, 1)).await.unwrap_err().reason,
        "backfill_running"
    );
    let (a, b) = (worker.work().await, worker.work().await);
    worker.no_work_for(SECOND).await;
    assert_eq!(stack.job("job").await.backfill.unwrap().admitted, 2);
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[of(&a), of(&b)]).await;
    let mut nominal = Vec::new();
    for work in [&a, &b] {
        worker.finish(&of(work), RunState::Succeeded).await;
        nominal.push((unix_ms(&work.nominal_at.unwrap()) - START_MS - BEFORE_MS) / 60_000);
        sleep(SECOND).await;
        let admitted = stack.job("job").await.backfill.unwrap().admitted;
        assert_eq!(admitted, nominal.len() as u64 + 2, "one ends, one begins");
    }
    while nominal.len() < 6 {
        match worker.hear().await {
            Down::Work(work) => {
                if work.kind() == RunKind::Backfill {
                    nominal.push((unix_ms(&work.nominal_at.unwrap()) - START_MS - BEFORE_MS) / 60_000);
                }
                worker.finish(&of(&work), RunState::Succeeded).await;
            }
            Down::Ack(ack) => assert!(ack.accepted),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(nominal, [-4, -3, -2, -1, 0, 1]);
    sleep(2 * SECOND).await;
    assert_eq!(stack.job("job").await.backfill, None);
    let records = world.records().await;
    let of_one: Vec<_> = records
        .iter()
        .filter(|run| run.nominal_unix_ms == START_MS + BEFORE_MS + 60_000)
        .collect();
    assert_eq!(
        of_one.len(),
        2,
        "the minute that ran before ran anew, as another run"
    );
    assert!(of_one.iter().any(|run| run.run_id == of(&live).run_id));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backfill_waits_for_a_pause_and_can_be_stopped() {
    let world = World::coarse();
    world.clock.advance(BEFORE_MS);
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    let error = |result: Result<BackfillJobResponse, creel_wire::Error>| {
        let error = result.unwrap_err();
        (error.reason.to_string(), error.field.unwrap_or_default())
    };
    let is = |reason: &str, field: &str| (reason.to_owned(), field.to_owned());
    assert_eq!(
        error(backfill(&stack, range(-20_000, -1)).await),
        is("too_many", "until")
    );
    assert_eq!(error(backfill(&stack, range(-1, 10)).await).1, "until");
    assert_eq!(error(backfill(&stack, range(-1, -1)).await).1, "from");
    let only = BackfillJobRequest {
        validate_only: true,
        ..range(-6, 0)
    };
    assert_eq!(backfill(&stack, only).await.unwrap().backfill.unwrap().total, 6);
    assert_eq!(world.records().await, []);

    stack.pause("job").await;
    backfill(&stack, range(-6, 0)).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    worker.no_work_for(60 * SECOND).await;
    assert_eq!(stack.job("job").await.backfill.unwrap().admitted, 0);
    stack.resume("job").await;
    let (a, b) = (worker.work().await, worker.work().await);
    let stop = BackfillJobRequest {
        job: "job".into(),
        stop: true,
        ..Default::default()
    };
    let stopped = backfill(&stack, stop.clone()).await.unwrap();
    assert_eq!(stopped.backfill.unwrap().admitted, 2);
    assert_eq!(error(backfill(&stack, stop).await).0, "no_backfill");
    for work in [a, b] {
        assert_eq!(work.kind(), RunKind::Backfill);
        worker.finish(&of(&work), RunState::Succeeded).await;
        assert!(worker.acked().await.accepted, "what is admitted goes on");
    }
    assert_eq!(keep(&mut worker, &[]).await.kind(), RunKind::Scheduled);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wide_backfill_fills_its_places_and_a_new_schedule_ends_it() {
    let world = World::coarse();
    world.clock.advance(BEFORE_MS);
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    let wide = BackfillJobRequest {
        at_once: 40,
        ..range(-100, 0)
    };
    backfill(&stack, wide).await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(stack.job("job").await.backfill.unwrap().admitted, 40);
    edit(&stack, "job", every("job", 120), "schedule").await;
    assert_eq!(stack.job("job").await.backfill, None);
    stack.stop().await;
}
