//! The table of `reference/scheduler.md` §3.4, and crashes at random.

use std::collections::{BTreeMap, BTreeSet};

use creel_proto::scheduler::v1::RunRecord;
use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn durable_and_not_given_away_goes_out_after_a_restart() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 3_600)).await;
    sleep(HOUR + SECOND).await;
    let before = world.records().await;
    assert_eq!((before.len(), before[0].state()), (1, RunState::Pending));
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.succeed().await;
    assert_eq!(
        (of(&work).run_id, of(&work).attempt),
        (before[0].run_id.clone(), 1)
    );
    assert_eq!(world.records().await.len(), 1);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_keeps_its_run() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    let held = of(&worker.work().await);
    stack.crash().await;
    let stack = world.start().await;
    sleep(20 * SECOND).await;
    let mut worker = stack.worker("one", std::slice::from_ref(&held)).await;
    sleep(20 * SECOND).await;
    assert_eq!(
        stack.run(&held.run_id).await.state(),
        RunState::Running,
        "held again, and renewed by coming back"
    );
    // Done while the scheduler was away, or now: it counts once.
    worker.finish(&held, RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    stack.crash().await;
    let stack = world.start().await;
    // The ack was lost: it says so again.
    let mut worker = stack.worker("one", std::slice::from_ref(&held)).await;
    assert_eq!(worker.cancelled().await.reason, "fenced");
    worker.finish(&held, RunState::Succeeded).await;
    assert!(worker.acked().await.accepted, "the stored answer");
    let records = world.records().await;
    assert_eq!(
        (records.len(), records[0].state(), records[0].attempt),
        (1, RunState::Succeeded, 1)
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_same_worker_does_not_hold_was_never_begun() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    let lost = of(&worker.work().await);
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    let again = worker.succeed().await;
    assert_eq!((of(&again).run_id, of(&again).attempt), (lost.run_id, 2));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_held_that_does_not_come_back_is_stuck() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    let lost = of(&worker.work().await);
    stack.crash().await;
    let stack = world.start().await;
    let mut other = stack.worker("another", &[]).await;
    other.no_work_for(29 * SECOND).await;
    assert_eq!(
        stack.run(&lost.run_id).await.state(),
        RunState::Dispatched,
        "it may still come back"
    );
    other.no_work_for(2 * SECOND).await;
    assert_eq!(stack.run(&lost.run_id).await.state(), RunState::Stuck);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_of_a_process_ends_the_first() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 3_600)).await;
    let mut first = stack.worker("one", &[]).await;
    let held = of(&first.work().await);
    let mut second = stack.worker("one", std::slice::from_ref(&held)).await;
    assert!(first.down.recv().await.is_none(), "ended");
    second.finish(&held, RunState::Succeeded).await;
    assert!(second.acked().await.accepted);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_third_start_in_five_minutes_catches_up_later() {
    let world = World::new();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    stack.crash().await;
    let stack = world.start().await;
    sleep(SECOND).await;
    stack.crash().await;
    sleep(200 * SECOND).await;
    // Two were missed, one is due.
    let stack = world.start().await;
    sleep(55 * SECOND).await;
    assert_eq!(world.records().await, [], "held");
    sleep(10 * SECOND).await;
    let outcomes = world.outcomes().await;
    assert!(
        outcomes.contains_key(&(RunState::Pending, String::new())),
        "{outcomes:?}"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restarts_that_are_far_apart_are_no_crash_loop() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(with(every("job", 60), Policy::default())).await;
    stack.crash().await;
    let stack = world.start().await;
    sleep(SECOND).await;
    stack.crash().await;
    sleep(301 * SECOND).await;
    let stack = world.start().await;
    sleep(2 * SECOND).await;
    let outcomes = world.outcomes().await;
    assert!(
        outcomes.contains_key(&(RunState::Pending, String::new())),
        "{outcomes:?}"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_gives_a_run_no_more_time() {
    let world = World::coarse();
    let stack = world.start().await;
    let policy = Policy {
        timeout: Some(duration(30_000)),
        ..Policy::default()
    };
    stack.create(with(every("job", 3_600), policy)).await;
    let mut worker = stack.worker("one", &[]).await;
    let held = of(&worker.work().await);
    sleep(20 * SECOND).await;
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", std::slice::from_ref(&held)).await;
    let asked = tokio::time::timeout(15 * SECOND, worker.cancelled()).await;
    assert_eq!(asked.unwrap().reason, "timeout");
    stack.stop().await;
}

/// What a worker remembers over crashes of the scheduler: the runs that are not acked, and how often each began.
#[derive(Default)]
struct Memory {
    held: BTreeMap<String, WorkRef>,
    begun: BTreeMap<String, u32>,
    acked: BTreeSet<String>,
}

impl Memory {
    async fn serve(&mut self, worker: &mut Worker, for_ms: u64) {
        let end = tokio::time::Instant::now() + Duration::from_millis(for_ms);
        for held in self.held.values() {
            worker.finish(held, RunState::Succeeded).await;
        }
        while let Ok(Some(Ok(message))) = tokio::time::timeout_at(end, worker.down.recv()).await {
            match message.message.unwrap() {
                Down::Work(work) => {
                    let r#ref = of(&work);
                    if self.held.insert(r#ref.run_id.clone(), r#ref.clone()).is_none() {
                        *self.begun.entry(r#ref.run_id.clone()).or_insert(0) += 1;
                    }
                    worker.finish(&r#ref, RunState::Succeeded).await;
                }
                Down::Ack(ack) => {
                    let r#ref = ack.r#ref.unwrap();
                    assert!(ack.accepted, "one worker, always back in time: nothing is fenced");
                    self.held.remove(&r#ref.run_id);
                    self.acked.insert(r#ref.run_id);
                }
                Down::Cancel(_) | Down::Welcome(_) | Down::Begin(_) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Killed at random moments, with a worker that lives on: every occurrence has one record, each run began
    /// once, and each result counted once.
    #[test]
    fn no_crash_loses_or_doubles_an_occurrence(lives in prop::collection::vec(1_u64..9_000, 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let stack = world.start().await;
            for seconds in [1, 2, 3, 7] {
                stack.create(every(&format!("every {seconds}"), seconds)).await;
            }
            stack.stop().await;
            let mut memory = Memory::default();
            for life in lives {
                let stack = world.start().await;
                let held: Vec<_> = memory.held.values().cloned().collect();
                let mut worker = stack.worker("one", &held).await;
                memory.serve(&mut worker, life).await;
                stack.crash().await;
                sleep(Duration::from_millis(life % 700)).await;
            }
            // A last life long enough for whatever catching up is held.
            let stack = world.start().await;
            let held: Vec<_> = memory.held.values().cloned().collect();
            let mut worker = stack.worker("one", &held).await;
            memory.serve(&mut worker, 100_000).await;
            let until = world.clock.now_ms() - 5_000;
            stack.stop().await;
            let records = world.records().await;
            for seconds in [1, 2, 3, 7] {
                account(&format!("every {seconds}"), seconds * 1_000, until, &records, &memory);
            }
            assert!(memory.begun.values().all(|begun| *begun == 1), "{:?}", memory.begun);
        });
    }
}

/// Every instant of a job's grid up to `until` is in exactly one record, and each run of them succeeded.
fn account(name: &str, step: i64, until: i64, records: &[RunRecord], memory: &Memory) {
    let mut accounted: Vec<i64> = Vec::new();
    for record in records.iter().filter(|record| record.job_name == name) {
        let last = record.skipped_until_unix_ms.max(record.nominal_unix_ms);
        let before = accounted.len();
        accounted.extend((record.nominal_unix_ms..=last).step_by(usize::try_from(step).unwrap()));
        if record.state() == RunState::Skipped {
            assert_eq!(
                (accounted.len() - before) as u64,
                record.skipped_count,
                "{record:?}"
            );
        } else if record.nominal_unix_ms <= until {
            assert_eq!(record.state(), RunState::Succeeded, "{record:?}");
            assert!(memory.acked.contains(&record.run_id));
        }
    }
    accounted.sort_unstable();
    assert_eq!(accounted.first(), Some(&(START_MS + step)), "{name}");
    for pair in accounted.windows(2) {
        assert_eq!(pair[1] - pair[0], step, "{name}: lost or doubled at {}", pair[0]);
    }
    assert!(*accounted.last().unwrap() > until - step, "{name}");
}
