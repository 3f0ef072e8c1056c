//! Many jobs that are due in one instant: admitted together, and each of them once.

use std::collections::{BTreeMap, BTreeSet};

use creel_proto::scheduler::v1::{ListRunsRequest, run_service_server::RunService};
use creel_store::Page;

use super::*;
use crate::{
    lane::Lane,
    store::Kind,
    testing::{Stack, asked},
};

const JOBS: usize = 40;

async fn many(stack: &Stack) {
    for n in 0..JOBS {
        stack
            .create(with(every(&format!("job-{n:02}"), 600), Policy::default()))
            .await;
    }
}

/// Ends the next work, whatever acks come before it; the name of its job.
async fn finished(worker: &mut Worker) -> String {
    loop {
        match worker.hear().await {
            Down::Work(work) => {
                worker.finish(&of(&work), RunState::Succeeded).await;
                return work.job_name;
            }
            Down::Ack(ack) => assert!(ack.accepted),
            other => panic!("{other:?}"),
        }
    }
}

/// How many entries there are of a kind.
async fn count(world: &World, kind: Kind) -> usize {
    world
        .store
        .scan(kind.range(), Page::default())
        .await
        .unwrap()
        .entries
        .len()
}

#[tokio::test(start_paused = true)]
async fn a_herd_is_one_record_until_its_runs_begin_and_none_when_they_have() {
    let world = World::coarse();
    let stack = world.start().await;
    many(&stack).await;
    sleep(605 * SECOND).await;
    assert_eq!(
        (
            count(&world, Kind::Admission).await,
            count(&world, Kind::Run).await
        ),
        (1, 0)
    );
    // They are there for whoever asks.
    let list = async |page_size, mut page_token: String| {
        let mut names = Vec::new();
        loop {
            let request = ListRunsRequest {
                page_size,
                page_token,
                ..Default::default()
            };
            let page = RunService::list(&stack.api, asked(request))
                .await
                .unwrap()
                .into_inner();
            names.extend(page.runs.into_iter().map(|run| run.job_name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break names;
            }
        }
    };
    for size in [7, JOBS as i32, 100] {
        let names = list(size, String::new()).await;
        assert_eq!(names.len(), JOBS, "pages of {size}");
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), JOBS);
    }
    let first = world.records().await[0].clone();
    assert_eq!(stack.run(&first.run_id).await.state(), RunState::Pending);
    // One that is paused has a cursor to write: its run gets a record of its own with it.
    stack.pause("job-07").await;
    assert_eq!(
        (
            count(&world, Kind::Admission).await,
            count(&world, Kind::Run).await
        ),
        (1, 1)
    );
    assert_eq!(list(7, String::new()).await.len(), JOBS);
    stack.resume("job-07").await;
    let mut worker = stack.worker("one", &[]).await;
    let mut ran = BTreeSet::new();
    while ran.len() < JOBS {
        match worker.hear().await {
            Down::Work(work) => {
                assert!(ran.insert(of(&work).run_id));
                worker.finish(&of(&work), RunState::Succeeded).await;
            }
            Down::Ack(ack) => assert!(ack.accepted),
            other => panic!("{other:?}"),
        }
    }
    sleep(SECOND).await;
    assert_eq!(
        (
            count(&world, Kind::Admission).await,
            count(&world, Kind::Run).await
        ),
        (0, JOBS)
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_a_packed_admission_and_its_runs_loses_none_and_doubles_none() {
    let world = World::coarse();
    let stack = world.start().await;
    many(&stack).await;
    sleep(605 * SECOND).await;
    let admitted: BTreeMap<_, _> = world
        .records()
        .await
        .into_iter()
        .map(|run| (run.run_id, run.job_name))
        .collect();
    assert_eq!(admitted.len(), JOBS);
    // Some begin, some end, one job goes; then it crashes, again and again.
    stack.delete("job-03").await;
    let mut stack = stack;
    let mut ended = BTreeSet::new();
    for round in 0..3 {
        let mut worker = stack.worker(&format!("worker-{round}"), &[]).await;
        for _ in 0..4 {
            match worker.hear().await {
                Down::Work(work) => {
                    assert!(admitted.contains_key(&of(&work).run_id));
                    worker.finish(&of(&work), RunState::Succeeded).await;
                }
                Down::Ack(ack) => {
                    assert!(ack.accepted);
                    assert!(ended.insert(ack.r#ref.unwrap().run_id), "it ended twice");
                }
                other => panic!("{other:?}"),
            }
        }
        stack.crash().await;
        stack = world.start().await;
        sleep(SECOND).await;
    }
    let runs = world.records().await;
    let ids: BTreeSet<_> = runs.iter().map(|run| run.run_id.clone()).collect();
    assert_eq!(
        ids,
        admitted.into_keys().collect::<BTreeSet<_>>(),
        "as it was admitted"
    );
    assert_eq!(runs.len(), JOBS, "each has one record");
    for run in runs {
        match run.state() {
            RunState::Cancelled => assert_eq!(run.job_name, "job-03"),
            RunState::Succeeded => assert!(ended.contains(&run.run_id)),
            RunState::Pending | RunState::Dispatched => assert!(!ended.contains(&run.run_id)),
            other => panic!("{other:?}"),
        }
    }
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn works_are_made_together_and_one_that_is_refused_costs_its_own_job() {
    let world = World::coarse();
    let stack = world.start().await;
    many(&stack).await;
    let revoked = stack.job("job-03").await.job_id;
    let refusals = BTreeMap::from([(revoked, MintError::OwnerRevoked)]);
    *world.minter.refusals.lock().unwrap() = refusals;
    sleep(605 * SECOND).await;
    let mut worker = stack.worker("one", &[]).await;
    let mut names = BTreeSet::new();
    while names.len() < JOBS - 1 {
        names.insert(finished(&mut worker).await);
    }
    assert!(!names.contains("job-03"));
    let job = stack.job("job-03").await;
    assert_eq!(
        (job.phase(), job.phase_reason.as_str()),
        (Phase::Paused, "owner_revoked")
    );
    let asked = world.minter.batches.lock().unwrap().clone();
    assert_eq!(asked.iter().sum::<usize>(), JOBS, "each once: {asked:?}");
    let room = Lane::Unknown.most_held(16);
    assert!(asked[0] >= room, "all that the worker has room for: {asked:?}");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_together_counts_up_to_what_ends_the_stream() {
    let world = World::coarse();
    let stack = world.start().await;
    many(&stack).await;
    sleep(605 * SECOND).await;
    let mut worker = stack.worker("one", &[]).await;
    let mut works = Vec::new();
    for _ in 0..3 {
        works.push(of(&worker.work().await));
    }
    worker.finish(&works[0], RunState::Succeeded).await;
    let stranger = WorkRef {
        run_id: format!("{:032x}", 7),
        attempt: 1,
    };
    worker.finish(&stranger, RunState::Succeeded).await;
    worker.finish(&works[1], RunState::Failed).await;
    worker.finish(&WorkRef::default(), RunState::Succeeded).await;
    worker.finish(&works[2], RunState::Succeeded).await;
    let mut acks = BTreeMap::new();
    let error = loop {
        match worker.down.recv().await.unwrap() {
            Ok(message) => {
                if let Some(Down::Ack(ack)) = message.message {
                    acks.insert(ack.r#ref.unwrap().run_id, ack.accepted);
                }
            }
            Err(status) => break creel_wire::Error::of_status(&status),
        }
    };
    assert_eq!(error.field.as_deref(), Some("ref.run_id"));
    // The acks may be cut off with the stream; what is acked is durable either way.
    assert!(
        acks.iter()
            .all(|(run, accepted)| *accepted == (*run != stranger.run_id)),
        "{acks:?}"
    );
    sleep(SECOND).await;
    let state = async |of: &WorkRef| stack.run(&of.run_id).await.state();
    assert_eq!(state(&works[0]).await, RunState::Succeeded);
    assert_eq!(state(&works[1]).await, RunState::Failed);
    assert_eq!(state(&works[2]).await, RunState::Dispatched, "said after the end");
    stack.stop().await;
}
