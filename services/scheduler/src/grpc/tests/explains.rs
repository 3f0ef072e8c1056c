//! Why, and what is next; who watches; what is taken away.

use std::time::Duration;

use creel_proto::scheduler::v1::{
    CancelRunRequest, ExplainJobRequest, ExplainJobResponse, GetRunRequest, PruneRequest, ResetRunRequest,
    RunKind, SnapshotRequest, StatusRequest, TailRunsRequest, TriggerJobRequest, WatchJobsRequest,
    admin_service_server::AdminService as _, snapshot_record::Record,
};
use creel_wire::authz::test_acting_for;
use tokio::time::sleep;

use super::*;
use crate::testing::of;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE_MS: i64 = 60_000;

async fn explain(stack: &Stack, job: &str, at_ms: Option<i64>) -> ExplainJobResponse {
    let request = ExplainJobRequest {
        job: job.into(),
        at: at_ms.map(|at| timestamp(START_MS + at)),
    };
    stack.api.explain(asked(request)).await.unwrap().into_inner()
}

/// Outcome and reason of an occurrence.
async fn outcome(stack: &Stack, job: &str, at_ms: i64) -> (String, String) {
    let occurrence = explain(stack, job, Some(at_ms)).await.occurrence.unwrap();
    assert!(!occurrence.text.is_empty());
    (occurrence.outcome, occurrence.reason)
}

fn is(outcome: &str, reason: &str) -> (String, String) {
    (outcome.to_owned(), reason.to_owned())
}

#[tokio::test(start_paused = true)]
async fn every_occurrence_has_its_why() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    let reasons = |explained: &ExplainJobResponse| -> Vec<String> {
        explained.findings.iter().map(|one| one.reason.clone()).collect()
    };
    let now = explain(&stack, "job", None).await;
    assert_eq!(now.occurrence, None);
    assert_eq!(reasons(&now), ["no_worker"]);
    let next: Vec<_> = now
        .next
        .iter()
        .map(|at| unix_ms(&at.nominal_at.unwrap()) - START_MS)
        .collect();
    assert_eq!(next, [1, 2, 3, 4, 5].map(|n| n * MINUTE_MS));
    assert_eq!(outcome(&stack, "job", 5 * MINUTE_MS).await, is("not_yet", ""));
    assert_eq!(
        outcome(&stack, "job", -5 * MINUTE_MS).await,
        is("before_creation", "")
    );
    sleep(61 * SECOND).await;
    assert_eq!(outcome(&stack, "job", MINUTE_MS).await, is("waiting", ""));
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    assert_eq!(outcome(&stack, "job", MINUTE_MS + 7).await, is("running", ""));
    for _ in 0..6 {
        sleep(10 * SECOND).await;
        worker.beat(&[of(&work)]).await;
    }
    let meanwhile = explain(&stack, "job", None).await;
    assert_eq!(reasons(&meanwhile), ["overlap"]);
    let skipped = meanwhile.occurrence.unwrap();
    assert_eq!(
        (skipped.outcome.as_str(), skipped.reason.as_str()),
        ("skipped", "overlap")
    );
    worker.finish(&of(&work), RunState::Failed).await;
    assert!(worker.acked().await.accepted);
    assert_eq!(outcome(&stack, "job", MINUTE_MS).await, is("ran", "backend"));
    worker.succeed().await;
    assert_eq!(outcome(&stack, "job", 3 * MINUTE_MS).await, is("ran", ""));
    stack.pause("job").await;
    sleep(300 * SECOND).await;
    // One record of a range stands for all of them.
    for minute in [4, 6, 7] {
        assert_eq!(
            outcome(&stack, "job", minute * MINUTE_MS).await,
            is("skipped", "paused")
        );
    }
    let paused = explain(&stack, "job", None).await;
    assert_eq!(reasons(&paused), ["paused"]);
    assert!(paused.next.iter().all(|at| at.reason == "paused"));
    assert_eq!(paused.findings[0].hint, "creel cron resume job");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_by_hand_is_told_of_and_keeps_nothing_back() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(explain(&stack, "job", None).await.newest, None);
    let request = TriggerJobRequest {
        job: "job".into(),
        ..Default::default()
    };
    stack.api.trigger(asked(request)).await.unwrap();
    let tried = of(&worker.fail().await).run_id;
    let explained = explain(&stack, "job", None).await;
    assert_eq!((explained.occurrence, explained.findings), (None, Vec::new()));
    let newest = explained.newest.unwrap();
    assert_eq!(
        (newest.run_id.as_str(), newest.kind(), newest.state()),
        (tried.as_str(), RunKind::Manual, RunState::Failed)
    );
    assert_eq!(
        explain(&stack, "job", Some(0)).await.newest,
        None,
        "an instant is asked about, not the job"
    );
    let due = worker.succeed().await;
    assert_eq!(
        unix_ms(&due.nominal_at.unwrap()),
        START_MS + MINUTE_MS,
        "in its time"
    );
    let explained = explain(&stack, "job", None).await;
    assert_eq!(explained.occurrence.unwrap().run.unwrap().run_id, of(&due).run_id);
    assert_eq!(explained.newest, None, "it is shown already");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_takes_a_run_from_its_worker() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 3_600))).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    let reset = async |run_id: &str, retry: bool| {
        let request = ResetRunRequest {
            run_id: run_id.into(),
            retry,
            ..Default::default()
        };
        stack
            .api
            .reset(asked(request))
            .await
            .map(tonic::Response::into_inner)
    };
    let hung = worker.work().await;
    let run = reset(&of(&hung).run_id, true).await.unwrap();
    assert_eq!(run.attempt, 2);
    let cancel = worker.cancelled().await;
    assert_eq!(
        (cancel.r#ref, cancel.reason.as_str()),
        (Some(of(&hung)), "fenced")
    );
    let again = worker.work().await;
    assert_eq!(of(&again).attempt, 2);
    worker.finish(&of(&hung), RunState::Succeeded).await;
    assert!(
        !worker.acked().await.accepted,
        "what the fenced attempt says is not taken"
    );
    let run = reset(&of(&again).run_id, false).await.unwrap();
    assert_eq!((run.state(), run.reason.as_str()), (RunState::Cancelled, "reset"));
    assert_eq!(worker.cancelled().await.reason, "fenced");
    sleep(SECOND).await;
    let error = refusal(reset(&of(&again).run_id, true).await);
    assert_eq!(error.reason, "run_finished");
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_is_named_by_either_end_of_its_id() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    let over = of(&worker.succeed().await).run_id;
    let running = of(&worker.work().await).run_id;
    let get = async |run_id: &str| {
        let request = GetRunRequest {
            run_id: run_id.into(),
        };
        RunService::get(&stack.api, asked(request))
            .await
            .map(|run| run.into_inner().run_id)
    };
    for whole in [&over, &running] {
        for part in [&whole[..8], &whole[24..], &whole[1..], whole.as_str()] {
            assert_eq!(get(part).await.unwrap(), *whole, "{part}");
        }
    }
    for (part, code) in [
        (&over[..7], Code::InvalidArgument),
        (&over[8..20], Code::NotFound),
        ("no-id", Code::InvalidArgument),
    ] {
        let error = refusal(get(part).await);
        assert_eq!(
            (error.code, error.field.as_deref()),
            (code, Some("run_id")),
            "{part}"
        );
        assert!(error.hint.is_some());
    }
    let request = GetRunRequest {
        run_id: running[..8].into(),
    };
    let stranger = test_acting_for(operator(&[Scope::Read]), "guest");
    let error = refusal(RunService::get(&stack.api, asked_by(stranger, request)).await);
    assert_eq!(error.code, Code::NotFound, "nobody learns of others' runs");
    let request = CancelRunRequest {
        run_id: running[20..].into(),
        ..Default::default()
    };
    stack.api.cancel(asked(request)).await.unwrap();
    assert_eq!(worker.cancelled().await.r#ref.unwrap().run_id, running);
    let request = ResetRunRequest {
        run_id: running[..12].into(),
        ..Default::default()
    };
    let run = stack.api.reset(asked(request)).await.unwrap().into_inner();
    assert_eq!((run.run_id, run.reason.as_str()), (running, "reset"));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tails_and_watches_leave_nothing_out() {
    let world = World::new();
    let stack = world.start().await;
    let request = WatchJobsRequest {
        name_prefix: "jo".into(),
    };
    let mut jobs = JobService::watch(&stack.api, asked(request))
        .await
        .unwrap()
        .into_inner();
    create(&stack, new(every("other", 3_600))).await.unwrap();
    create(&stack, new(every("job", 60))).await.unwrap();
    let change = jobs.next().await.unwrap().unwrap();
    assert_eq!(
        (change.job.unwrap().spec.unwrap().name.as_str(), change.deleted),
        ("job", false)
    );
    let mut worker = stack.worker("one", &[]).await;
    let mut ran = Vec::new();
    for _ in 0..3 {
        ran.push(of(&worker.succeed().await).run_id);
    }
    let request = TailRunsRequest {
        job: "job".into(),
        state: RunState::Succeeded.into(),
        last: 2,
    };
    let mut tail = stack.api.tail(asked(request)).await.unwrap().into_inner();
    for id in &ran[1..] {
        assert_eq!(tail.next().await.unwrap().unwrap().run_id, *id, "oldest first");
    }
    let next = of(&worker.succeed().await).run_id;
    assert_eq!(tail.next().await.unwrap().unwrap().run_id, next);
    stack.delete("job").await;
    let gone = loop {
        let change = jobs.next().await.unwrap().unwrap();
        if change.deleted {
            break change.job.unwrap();
        }
    };
    assert_eq!(gone.spec.unwrap().name, "job");
    // Whoever does not keep up is told, once.
    let mut slow = stack
        .api
        .tail(asked(TailRunsRequest::default()))
        .await
        .unwrap()
        .into_inner();
    create(&stack, new(every("busy", 1))).await.unwrap();
    stack.pause("other").await;
    stack.stop().await;
    while slow.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn jobs_are_listed_by_phase_and_by_what_is_next() {
    let world = World::new();
    let stack = world.start().await;
    for (name, seconds) in [("a", 300), ("b", 60), ("c", 120), ("d", 30)] {
        create(&stack, new(every(name, seconds))).await.unwrap();
    }
    stack.pause("d").await;
    let list = async |order_by: &str, phases: &[Phase], page_size| {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListJobsRequest {
                order_by: order_by.into(),
                phases: phases.iter().map(|phase| (*phase).into()).collect(),
                page_size,
                page_token,
                ..Default::default()
            };
            let page = JobService::list(&stack.api, asked(request))
                .await
                .unwrap()
                .into_inner();
            names.extend(page.jobs.into_iter().map(|job| job.spec.unwrap().name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break names.concat();
            }
        }
    };
    for size in [1, 2, 3, 0] {
        assert_eq!(list("", &[], size).await, "abcd");
        assert_eq!(
            list("next_run", &[], size).await,
            "bcad",
            "no next run comes last"
        );
        assert_eq!(list("name", &[Phase::Paused], size).await, "d");
        assert_eq!(list("next_run", &[Phase::Scheduled], size).await, "bca");
    }
    let wrong = ListJobsRequest {
        order_by: "size".into(),
        ..Default::default()
    };
    let error = refusal(JobService::list(&stack.api, asked(wrong)).await);
    assert_eq!(error.field.as_deref(), Some("order_by"));
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_whole_and_pruning_keeps_the_last_success() {
    let world = World::new();
    let stack = world.start().await;
    create(&stack, new(every("job", 60))).await.unwrap();
    create(&stack, new(every("idle", 36_000))).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    let mut last = String::new();
    for _ in 0..4 {
        last = of(&worker.succeed().await).run_id;
    }
    let held = worker.work().await;
    let status = stack
        .api
        .status(asked(StatusRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.jobs, status.runs_with_workers, status.runs_waiting),
        (2, 1, 0)
    );
    assert_eq!(status.workers.len(), 1);
    assert_eq!((status.workers[0].capacity, status.workers[0].holding), (16, 1));

    let mut copy = stack
        .api
        .snapshot(asked(SnapshotRequest {}))
        .await
        .unwrap()
        .into_inner();
    let (mut kinds, mut before) = (String::new(), String::new());
    while let Some(record) = copy.next().await {
        kinds.push(match record.unwrap().record.unwrap() {
            Record::Header(_) => 'h',
            Record::Job(job) => {
                assert!(job.spec.is_some());
                before = job.job_id;
                'j'
            }
            Record::Run(run) => {
                assert_eq!(run.job_id, before);
                assert_eq!(
                    (run.run_id, run.kind),
                    (of(&held).run_id, RunKind::Scheduled.into())
                );
                'r'
            }
            Record::End(end) => {
                assert_eq!((end.jobs, end.runs), (2, 1));
                'e'
            }
        });
    }
    // Jobs come in the order of their ids; a run comes after its own.
    assert!(["hjrje", "hjjre"].contains(&kinds.as_str()), "{kinds}");
    let prune = async |before_ms: Option<i64>| {
        let request = PruneRequest {
            before: before_ms.map(|ms| timestamp(START_MS + ms)),
            ..Default::default()
        };
        stack
            .api
            .prune(asked(request))
            .await
            .map(|done| done.into_inner().runs_removed)
    };
    assert_eq!(prune(None).await.unwrap(), 0);
    let ahead = refusal(prune(Some(86_400_000)).await);
    assert_eq!(ahead.field.as_deref(), Some("before"));
    assert_eq!(prune(Some(300_000)).await.unwrap(), 3);
    let left: Vec<_> = world.records().await.into_iter().map(|run| run.run_id).collect();
    assert_eq!(left, [last, of(&held).run_id]);
    stack.delete("idle").await;
    sleep(Duration::from_secs(60)).await;
    let mut world_later = world.config.clone();
    world_later.tombstone_ms = 0;
    let done = crate::prune::now(
        &world.store,
        &stack.api.engine,
        &world_later,
        world.clock.now_ms(),
        None,
        None,
    )
    .await
    .unwrap();
    assert_eq!(done.tombstones, 1);
    stack.stop().await;
}
