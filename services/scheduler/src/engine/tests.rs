//! The service on virtual time: fires, leases, crashes, catching up, clocks.

use std::time::Duration;

use creel_proto::{
    scheduler::v1::{
        Alert, At, CatchUp, CatchUpMode, Every, EveryMode, JobSpec, OnStuck, Overlap, OverlapMode, Phase,
        Policy, Retry, RunKind, RunState, Schedule, TriggerJobRequest, UpdateJobRequest, Work, WorkAck,
        WorkParked, WorkRef, WorkerHello, at, delivery, job_service_server::JobService as _, schedule,
        scheduler_message::Message as Down, worker_message::Message as Up,
    },
    time::{duration, timestamp, unix_ms},
};
use creel_store::Txn;
use prost_types::FieldMask;
use tokio::time::sleep;

use crate::{
    MintError,
    testing::{Recorded as _, START_MS, Stack, Worker, World, asked, every, of, since_start},
};

mod alerts;
mod backfills;
mod begins;
mod clocks;
mod corners;
mod crashes;
mod edits;
mod fairness;
mod herd;
mod parking;
mod people;
mod policies;
mod store_failures;
mod waits;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// With a policy; nobody is alerted unless it says so.
fn with(spec: JobSpec, policy: Policy) -> JobSpec {
    let alert = policy.alert.clone().or_else(quiet);
    JobSpec {
        policy: Some(Policy { alert, ..policy }),
        ..spec
    }
}

fn quiet() -> Option<Alert> {
    Some(Alert {
        off: true,
        ..Alert::default()
    })
}

fn once(name: &str, after_ms: i64) -> JobSpec {
    let at = At {
        when: Some(at::When::Time(timestamp(START_MS + after_ms))),
    };
    JobSpec {
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::At(at)),
        }),
        ..every(name, 60)
    }
}

async fn edit(stack: &Stack, job: &str, spec: JobSpec, path: &str) {
    let request = UpdateJobRequest {
        job: job.into(),
        spec: Some(spec),
        update_mask: Some(FieldMask {
            paths: vec![path.to_owned()],
        }),
        ..Default::default()
    };
    stack.api.update(asked(request)).await.unwrap();
}

async fn trigger(stack: &Stack, job: &str) {
    let request = TriggerJobRequest {
        job: job.into(),
        ..Default::default()
    };
    stack.api.trigger(asked(request)).await.unwrap();
}

/// A job that waits so long after each run.
fn after_each(name: &str, seconds: i64) -> JobSpec {
    let every_one = Every {
        period: Some(duration(seconds * 1_000)),
        mode: EveryMode::FixedDelay.into(),
        ..Default::default()
    };
    JobSpec {
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::Every(every_one)),
        }),
        ..every(name, 60)
    }
}

fn hello(instance: &str) -> WorkerHello {
    WorkerHello {
        capacity: 4,
        instance: instance.into(),
        ..WorkerHello::default()
    }
}

fn overlap(mode: OverlapMode, max: u32) -> Policy {
    Policy {
        overlap: Some(Overlap {
            mode: mode.into(),
            max,
        }),
        ..Policy::default()
    }
}

/// The next work, within a time.
async fn within(worker: &mut Worker, wait: Duration, what: &str) -> Work {
    match tokio::time::timeout(wait, worker.work()).await {
        Ok(work) => work,
        Err(_) => panic!("nothing came: {what}"),
    }
}

async fn park(worker: &mut Worker, world: &World, held: &WorkRef, for_ms: i64) -> WorkAck {
    worker
        .say(Up::Parked(WorkParked {
            r#ref: Some(held.clone()),
            approval_id: "approval-1".into(),
            text: "rm -r build".into(),
            expires_at: Some(timestamp(world.clock.now_ms() + for_ms)),
        }))
        .await;
    worker.acked().await
}

/// The next work; what is held meanwhile is renewed.
async fn keep(worker: &mut Worker, held: &[WorkRef]) -> Work {
    loop {
        match tokio::time::timeout(10 * SECOND, worker.work()).await {
            Ok(work) => return work,
            Err(_) => worker.beat(held).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fire_is_durable_before_a_worker_has_it_and_acked_when_its_end_is() {
    let world = World::new();
    let stack = world.start().await;
    let job = stack.create(every("briefing", 60)).await;
    assert_eq!(unix_ms(&job.next_run_at.unwrap()), START_MS + 60_000);
    let mut worker = stack.worker("one", &[]).await;

    let work = worker.work().await;
    let records = world.records().await;
    assert_eq!((records.len(), records[0].state()), (1, RunState::Dispatched));
    assert_eq!(since_start(&records[0]), 60_000);
    let r#ref = of(&work);
    assert_eq!(
        (r#ref.run_id.as_str(), r#ref.attempt),
        (records[0].run_id.as_str(), 1)
    );
    assert_eq!(work.assertion, format!("for {}", r#ref.run_id).into_bytes());
    assert_eq!(
        (work.target.as_str(), work.owner.as_str()),
        ("agent:default:main", "owner")
    );
    let Some(delivery::To::Session(to)) = work.delivery.unwrap().to else {
        panic!("to a session")
    };
    assert_eq!(to.session, "agent:default:main");
    let subject = world.minter.subjects.lock().unwrap()[0].clone();
    assert_eq!(
        (subject.scopes.join(" ").as_str(), subject.owner.as_str()),
        ("operator.read operator.write", "owner")
    );

    worker.started(&r#ref, "cron:j:run:r").await;
    sleep(SECOND).await;
    assert_eq!(stack.run(&r#ref.run_id).await.state(), RunState::Running);
    assert_eq!(stack.job("briefing").await.phase(), Phase::Running);
    worker.finish(&r#ref, RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    let record = world.records().await.remove(0);
    assert_eq!(
        (record.state(), record.summary.as_str()),
        (RunState::Succeeded, "said so")
    );
    let job = stack.job("briefing").await;
    assert_eq!(
        (job.phase(), job.last_status.as_str()),
        (Phase::Succeeded, "succeeded")
    );
    assert_eq!(unix_ms(&job.next_run_at.unwrap()), START_MS + 120_000);

    // The same result again: the same answer, now from the store.
    worker.finish(&r#ref, RunState::Failed).await;
    assert_eq!(
        worker.acked().await,
        WorkAck {
            r#ref: Some(r#ref),
            accepted: true
        }
    );
    assert_eq!(world.records().await[0].state(), RunState::Succeeded);
    let next = worker.succeed().await;
    assert_eq!(unix_ms(&next.nominal_at.unwrap()), START_MS + 120_000);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_run_holds_up_nothing_but_its_own_job() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("hangs", 10)).await;
    stack.create(every("works", 60)).await;
    let mut worker = stack.worker("one", &[]).await;
    let hanging = worker.work().await;
    assert_eq!(hanging.job_name, "hangs");
    let other = keep(&mut worker, &[of(&hanging)]).await;
    assert_eq!(other.job_name, "works");
    // 20 s to 60 s: skipped, in one record, with the reason.
    let mut skipped = world.records().await;
    skipped.retain(|record| record.state() == RunState::Skipped);
    assert_eq!(skipped.len(), 1);
    assert_eq!(
        (skipped[0].reason.as_str(), since_start(&skipped[0])),
        ("overlap", 20_000)
    );
    assert_eq!(
        (skipped[0].skipped_count, skipped[0].skipped_until_unix_ms),
        (5, START_MS + 60_000)
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_leaves_a_stuck_run_or_the_next_attempt() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("fails", 3_600)).await;
    let mut one = stack.worker("one", &[]).await;
    let lost = of(&one.work().await);
    drop(one);
    sleep(29 * SECOND).await;
    assert_eq!(stack.run(&lost.run_id).await.state(), RunState::Dispatched);
    sleep(2 * SECOND).await;
    let run = stack.run(&lost.run_id).await;
    assert_eq!((run.state(), run.reason.as_str()), (RunState::Stuck, "lost"));
    assert_eq!(stack.job("fails").await.phase(), Phase::Stuck);
    stack.delete("fails").await;

    let policy = Policy {
        on_stuck: OnStuck::Retry.into(),
        ..Policy::default()
    };
    stack.create(with(every("retries", 3_600), policy)).await;
    let mut two = stack.worker("two", &[]).await;
    let first = of(&two.work().await);
    let mut three = stack.worker("three", &[]).await;
    let second = of(&three.work().await);
    assert_eq!((&second.run_id, second.attempt), (&first.run_id, 2));
    two.finish(&first, RunState::Succeeded).await;
    assert_eq!(
        two.acked().await,
        WorkAck {
            r#ref: Some(first.clone()),
            accepted: false
        }
    );
    three.finish(&second, RunState::Succeeded).await;
    assert!(three.acked().await.accepted);
    let run = stack.run(&second.run_id).await;
    assert_eq!((run.state(), run.attempt), (RunState::Succeeded, 2));
    two.finish(&first, RunState::Succeeded).await;
    assert_eq!(
        two.acked().await,
        WorkAck {
            r#ref: Some(first),
            accepted: false
        }
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_loses_every_worker_is_given_up() {
    let world = World::new();
    let stack = world.start().await;
    let policy = Policy {
        on_stuck: OnStuck::Retry.into(),
        ..Policy::default()
    };
    stack.create(with(every("kills", 3_600), policy)).await;
    for attempt in 1..=3 {
        let mut worker = stack.worker(&format!("{attempt}"), &[]).await;
        assert_eq!(of(&worker.work().await).attempt, attempt);
    }
    sleep(31 * SECOND).await;
    let record = world.records().await.remove(0);
    assert_eq!(
        (record.state(), record.reason.as_str()),
        (RunState::Failed, "interrupted")
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_asked_to_stop_and_then_given_up() {
    let world = World::new();
    let stack = world.start().await;
    let policy = Policy {
        timeout: Some(duration(20_000)),
        expected: Some(duration(5_000)),
        ..Policy::default()
    };
    stack.create(with(every("slow", 3_600), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    assert_eq!(work.timeout, Some(duration(20_000)));
    let cancel = worker.cancelled().await;
    assert_eq!(
        (cancel.r#ref, cancel.reason.as_str()),
        (Some(of(&work)), "timeout")
    );
    worker.finish(&of(&work), RunState::Cancelled).await;
    assert!(worker.acked().await.accepted);
    let run = stack.run(&of(&work).run_id).await;
    assert_eq!(
        (run.state(), run.reason.as_str(), run.slow),
        (RunState::TimedOut, "timeout", true)
    );

    let work = worker.work().await;
    worker.cancelled().await;
    for _ in 0..4 {
        // It lives, and it does not answer.
        worker.beat(&[of(&work)]).await;
        sleep(8 * SECOND).await;
    }
    assert_eq!(stack.run(&of(&work).run_id).await.state(), RunState::TimedOut);
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(!worker.acked().await.accepted);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_shots_complete_and_deleted_ones_still_answer() {
    let world = World::coarse();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    stack.create(once("stays", 5_000)).await;
    worker.succeed().await;
    let job = stack.job("stays").await;
    assert_eq!((job.phase(), job.next_run_at), (Phase::Completed, None));

    stack
        .create(JobSpec {
            delete_after_run: true,
            ..with(once("goes", 20_000), Policy::default())
        })
        .await;
    worker.fail().await;
    assert_eq!(
        stack.job("goes").await.last_status,
        "failed",
        "kept, since it failed"
    );
    stack.delete("goes").await;
    stack
        .create(JobSpec {
            delete_after_run: true,
            ..once("goes", 40_000)
        })
        .await;
    let work = worker.succeed().await;
    assert_eq!(
        stack.try_job("goes").await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted, "a late repetition is answered");
    assert_eq!(world.records().await.len(), 3);
    drop(worker);
    sleep(25 * HOUR).await;
    assert_eq!(
        world.records().await.len(),
        1,
        "a day later the runs of deleted jobs are gone"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_identity_runs_wait_and_a_revoked_owner_stops_the_job() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("waits", 60)).await;
    *world.minter.refusal.lock().unwrap() = Some(MintError::Unavailable("down".into()));
    let mut worker = stack.worker("one", &[]).await;
    worker.no_work_for(100 * SECOND).await;
    assert_eq!(world.records().await[0].state(), RunState::Pending);
    let asked = world.minter.subjects.lock().unwrap().len();
    assert!((5..20).contains(&asked), "asked again, ever more slowly: {asked}");
    *world.minter.refusal.lock().unwrap() = None;
    let work = worker.succeed().await;
    assert_eq!(unix_ms(&work.nominal_at.unwrap()), START_MS + 60_000);

    *world.minter.refusal.lock().unwrap() = Some(MintError::OwnerRevoked);
    worker.no_work_for(100 * SECOND).await;
    let job = stack.job("waits").await;
    assert_eq!(
        (job.phase(), job.phase_reason.as_str()),
        (Phase::Paused, "owner_revoked")
    );
    assert!(
        world
            .outcomes()
            .await
            .contains_key(&(RunState::Cancelled, "owner_revoked".to_owned()))
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_garbage_record_costs_its_own_job() {
    let world = World::new();
    let stack = world.start().await;
    let broken = stack.create(every("broken", 60)).await;
    let unread = stack.create(every("unread", 60)).await;
    stack.create(every("sound", 60)).await;
    stack.stop().await;
    let state = crate::store::state_key(broken.job_id.parse().unwrap());
    let record = crate::store::job_key(unread.job_id.parse().unwrap());
    let garbage = Txn::new()
        .put(state, b"\xff\xff\xff".to_vec())
        .put(record, b"\xff\xff\xff".to_vec());
    world.store.commit(garbage).await.unwrap();

    let stack = world.start().await;
    for name in ["broken", &unread.job_id] {
        let job = stack.job(name).await;
        assert_eq!(job.phase(), Phase::Quarantined);
        assert!(
            job.phase_reason.starts_with("invalid record"),
            "{}",
            job.phase_reason
        );
    }
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(worker.succeed().await.job_name, "sound");
    stack.delete("broken").await;
    stack.delete(&unread.job_id).await;
    assert_eq!(worker.succeed().await.job_name, "sound");
    stack.stop().await;
}
