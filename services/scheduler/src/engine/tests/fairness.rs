//! What one owner has waiting, and what that costs another.

use creel_proto::scheduler::v1::{
    CreateJobRequest, ExplainJobRequest, WorkerHello, job_service_server::JobService as _,
};
use creel_wire::{Scope, authz::test_acting_for};

use super::*;
use crate::testing::{asked, asked_by, operator};

/// Takes and ends so many runs, as they come.
async fn end_each(worker: &mut Worker, mut runs: u32, outcome: RunState) {
    while runs > 0 {
        match worker.hear().await {
            Down::Work(work) => worker.finish(&of(&work), outcome).await,
            Down::Ack(ack) => {
                assert!(ack.accepted);
                runs -= 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_owner_holds_up_no_other_owner() {
    let world = World::new();
    let stack = world.start().await;
    for n in 0..300 {
        stack.create(once(&format!("flood {n}"), 60_000)).await;
    }
    // Due last of all.
    let spec = Some(once("alone", 90_000));
    let request = CreateJobRequest {
        spec,
        ..Default::default()
    };
    let other = test_acting_for(operator(&[Scope::Read, Scope::Write]), "other");
    stack.api.create(asked_by(other, request)).await.unwrap();
    sleep(100 * SECOND).await;
    let mut worker = stack.worker("one", &[]).await;
    let mut works = vec![worker.received().await, worker.received().await];
    let mut owners: Vec<_> = works.iter().map(|work| work.owner.clone()).collect();
    owners.sort();
    assert_eq!(owners, ["other", "owner"], "they take turns");
    // Nobody else waits: the flood has all the room.
    let mut acked = 0;
    while acked < 301 {
        for work in works.drain(..) {
            worker.finish(&of(&work), RunState::Succeeded).await;
        }
        match worker.hear().await {
            Down::Work(work) => works.push(work),
            Down::Ack(ack) => acked += u32::from(ack.accepted),
            other => panic!("{other:?}"),
        }
    }
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_two_places_is_not_filled_by_what_fails() {
    let world = World::new();
    let stack = world.start().await;
    let quiet = |spec| with(spec, Policy::default());
    for name in ["fails 1", "fails 2"] {
        stack.create(quiet(every(name, 60))).await;
    }
    let hello = WorkerHello {
        capacity: 2,
        instance: "small".into(),
        ..WorkerHello::default()
    };
    let mut worker = stack.attach(hello).await;
    end_each(&mut worker, 2, RunState::Failed).await;
    stack.create(quiet(once("new", 200_000))).await;
    // Both are due again. One hangs, the other waits for it: the last place is for others.
    let hangs = of(&worker.work().await);
    for _ in 0..7 {
        sleep(10 * SECOND).await;
        worker.beat(std::slice::from_ref(&hangs)).await;
    }
    let waits = ["fails 1", "fails 2"].map(|job| job.to_owned());
    let mut told = Vec::new();
    for job in &waits {
        let request = ExplainJobRequest {
            job: job.clone(),
            at: None,
        };
        let explained = stack.api.explain(asked(request)).await.unwrap().into_inner();
        told.extend(explained.findings.into_iter().map(|one| (one.reason, one.text)));
    }
    let full = told.iter().find(|(reason, _)| reason == "workers_full").unwrap();
    assert!(
        full.1.starts_with("Its last run or attempt did not end well"),
        "{told:?}"
    );
    let mut work = None;
    for _ in 0..10 {
        work = tokio::time::timeout(10 * SECOND, worker.work()).await.ok();
        if work.is_some() {
            break;
        }
        worker.beat(std::slice::from_ref(&hangs)).await;
    }
    assert_eq!(work.unwrap().job_name, "new");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_that_hang_leave_room_for_those_that_end_well() {
    let world = World::new();
    let stack = world.start().await;
    let quiet = |spec| with(spec, Policy::default());
    stack.create(quiet(every("prompt", 10))).await;
    stack.create(quiet(once("fails", 5_000))).await;
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(worker.fail().await.job_name, "fails");
    assert_eq!(worker.succeed().await.job_name, "prompt");
    for n in 0..40 {
        stack.create(quiet(once(&format!("hangs {n}"), 12_000))).await;
    }
    // Of its 16 places two are for those that end well, and two for what comes alone: of a herd one gets one.
    let mut hanging = Vec::new();
    for _ in 0..13 {
        let work = worker.work().await;
        assert!(work.job_name.starts_with("hangs"), "{}", work.job_name);
        hanging.push(of(&work));
    }
    for _ in 0..3 {
        assert_eq!(worker.succeed().await.job_name, "prompt");
        worker.beat(&hanging).await;
    }
    // Nor do they get more after a restart.
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &hanging).await;
    assert_eq!(worker.succeed().await.job_name, "prompt");
    worker.beat(&hanging).await;
    let job = stack.job("hangs 39").await;
    assert_eq!(job.phase(), Phase::Running);
    // A job that is new begins at once.
    stack.create(quiet(once("alone", 57_000))).await;
    assert_eq!(worker.succeed().await.job_name, "alone");
    assert_eq!(worker.succeed().await.job_name, "prompt");
    worker.beat(&hanging).await;
    // What ends badly once waits behind them.
    assert_eq!(worker.fail().await.job_name, "prompt");
    worker.beat(&hanging).await;
    worker.no_work_for(25 * SECOND).await;
    for over in &hanging[..2] {
        worker.finish(over, RunState::Succeeded).await;
        assert!(worker.acked().await.accepted);
    }
    assert!(worker.work().await.job_name.starts_with("hangs"));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn prompt_jobs_that_all_hang_at_once_leave_room_for_what_is_told_of_them() {
    let world = World::new();
    let stack = world.start().await;
    let slow = Policy {
        expected: Some(duration(30_000)),
        alert: Some(Alert::default()),
        ..Policy::default()
    };
    for n in 0..30 {
        stack
            .create(with(every(&format!("wave {n}"), 100), slow.clone()))
            .await;
    }
    let mut worker = stack.worker("one", &[]).await;
    end_each(&mut worker, 30, RunState::Succeeded).await;
    // All that came now ends soon, as far as anybody knows. Of 16 places they get 14, and one for what came last.
    let mut hanging = Vec::new();
    for _ in 0..15 {
        let work = worker.work().await;
        assert!(work.job_name.starts_with("wave"), "{}", work.job_name);
        hanging.push(of(&work));
    }
    let told = loop {
        if let Ok(work) = tokio::time::timeout(10 * SECOND, worker.work()).await {
            break work;
        }
        worker.beat(&hanging).await;
    };
    assert_eq!(told.kind(), RunKind::Alert, "{}", told.job_name);
    stack.stop().await;
}
