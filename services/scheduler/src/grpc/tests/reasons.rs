//! Whatever keeps an occurrence from running (a sleep, a clock, a night of clock changes, crashes, an owner who is
//! gone) has its reason in the log and in `Explain`.

use creel_proto::{
    scheduler::v1::{At, CatchUp, DstMode, ExplainJobRequest, ExplainJobResponse, Policy, at},
    time::duration,
};
use tokio::time::sleep;

use super::*;
use crate::MintError;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn seconds(n: u64) -> std::time::Duration {
    std::time::Duration::from_secs(n)
}

async fn explain(stack: &Stack, job: &str, at_ms: Option<i64>) -> ExplainJobResponse {
    let request = ExplainJobRequest {
        job: job.into(),
        at: at_ms.map(timestamp),
    };
    stack.api.explain(asked(request)).await.unwrap().into_inner()
}

/// What `Explain` says of an instant, after checking that the log says the same.
async fn why(stack: &Stack, job: &str, at_ms: i64) -> String {
    let occurrence = explain(stack, job, Some(at_ms)).await.occurrence.unwrap();
    let run = occurrence.run.unwrap();
    assert_eq!(run.reason, occurrence.reason);
    let request = ListRunsRequest {
        job: job.into(),
        page_size: 500,
        ..Default::default()
    };
    let listed = RunService::list(&stack.api, asked(request))
        .await
        .unwrap()
        .into_inner();
    assert!(listed.runs.contains(&run), "it is in the log");
    assert!(!occurrence.text.is_empty());
    format!("{} {}", occurrence.outcome, occurrence.reason)
}

async fn findings(stack: &Stack, job: &str) -> Vec<String> {
    let explained = explain(stack, job, None).await;
    explained.findings.into_iter().map(|one| one.reason).collect()
}

fn nightly(name: &str, expression: &str, zone: &str, dst: DstMode) -> JobSpec {
    let cron = Cron {
        expression: expression.into(),
        zone: zone.into(),
        dst: dst.into(),
        ..Default::default()
    };
    JobSpec {
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::Cron(cron)),
        }),
        ..every(name, 60)
    }
}

#[tokio::test(start_paused = true)]
async fn a_sleep_and_a_clock_a_year_ahead_leave_their_reasons() {
    let world = World::coarse();
    let stack = world.start().await;
    let catch_up = Some(CatchUp {
        window: Some(duration(DAY_MS)),
        ..CatchUp::default()
    });
    let hourly = JobSpec {
        policy: Some(Policy {
            catch_up,
            ..Policy::default()
        }),
        ..every("hourly", 3_600)
    };
    create(&stack, new(hourly)).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    world.suspend(3 * HOUR_MS + HOUR_MS / 2);
    worker.succeed().await;
    for hour in [1, 2] {
        assert_eq!(
            why(&stack, "hourly", START_MS + hour * HOUR_MS).await,
            "skipped coalesced"
        );
    }
    assert_eq!(why(&stack, "hourly", START_MS + 3 * HOUR_MS).await, "ran ");

    world.clock.advance(365 * DAY_MS);
    sleep(seconds(30)).await;
    assert_eq!(findings(&stack, "hourly").await, ["clock_suspect"]);
    world.synced.store(true, std::sync::atomic::Ordering::Relaxed);
    worker.succeed().await;
    assert_eq!(
        why(&stack, "hourly", START_MS + 100 * DAY_MS).await,
        "skipped window"
    );
    assert_eq!(findings(&stack, "hourly").await, [""; 0]);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_night_that_swallows_an_hour_is_told() {
    let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let world = World::coarse();
    world.clock.advance(ms("2026-03-28T00:00:00Z") - START_MS);
    let stack = world.start().await;
    let skip = nightly("night", "30 2 * * *", "Europe/Berlin", DstMode::Skip);
    create(&stack, new(skip)).await.unwrap();
    let mut worker = stack.worker("one", &[]).await;
    for at in ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"] {
        let work = worker.succeed().await;
        assert_eq!(unix_ms(&work.nominal_at.unwrap()), ms(at));
    }
    assert_eq!(
        why(&stack, "night", ms("2026-03-29T01:00:00Z")).await,
        "skipped dst"
    );
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_restarts_and_an_owner_who_is_gone_are_told() {
    let world = World::coarse();
    for _ in 0..2 {
        let stack = world.start().await;
        if world.records().await.is_empty() && stack.try_job("job").await.is_err() {
            create(&stack, new(every("job", 60))).await.unwrap();
        }
        sleep(seconds(1)).await;
        stack.crash().await;
    }
    sleep(seconds(200)).await;
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    sleep(seconds(5)).await;
    assert!(
        findings(&stack, "job")
            .await
            .contains(&"catch_up_held".to_owned())
    );
    worker.succeed().await;
    assert_eq!(why(&stack, "job", START_MS + 60_000).await, "skipped window");

    // Revoked between admission and dispatch: it was due, and nobody may run it any more.
    *world.minter.refusal.lock().unwrap() = Some(MintError::OwnerRevoked);
    let due_ms = unix_ms(&stack.job("job").await.next_run_at.unwrap());
    worker.no_work_for(seconds(300)).await;
    assert_eq!(why(&stack, "job", due_ms).await, "ran owner_revoked");
    assert_eq!(why(&stack, "job", due_ms + 120_000).await, "skipped paused");
    assert_eq!(findings(&stack, "job").await, ["owner_revoked"]);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_only_occurrence_of_a_one_shot_has_its_why() {
    let world = World::new();
    let stack = world.start().await;
    let mut worker = stack.worker("one", &[]).await;
    let once = |name, at_ms| {
        let at = At {
            when: Some(at::When::Time(timestamp(at_ms))),
        };
        let schedule = Schedule {
            kind: Some(schedule::Kind::At(at)),
        };
        JobSpec {
            schedule: Some(schedule),
            ..every(name, 60)
        }
    };
    stack.create(once("once", START_MS + 5_000)).await;
    let asked = explain(&stack, "once", Some(START_MS + 9_000)).await;
    assert_eq!(asked.occurrence.unwrap().outcome, "not_yet");
    worker.succeed().await;
    assert_eq!(why(&stack, "once", START_MS + 9_000).await, "ran ");
    let before = explain(&stack, "once", Some(START_MS - 1)).await;
    assert_eq!(before.occurrence.unwrap().outcome, "before_creation");
    let now = explain(&stack, "once", None).await.occurrence.unwrap();
    assert_eq!(now.outcome, "ran");
    let late = CreateJobRequest {
        late_ok: true,
        ..new(once("late", START_MS - 2 * DAY_MS))
    };
    create(&stack, late).await.unwrap();
    worker.succeed().await;
    let text = explain(&stack, "late", None).await.occurrence.unwrap().text;
    assert!(
        text.starts_with("It ran, 2 d ") && text.contains(" late, and succeeded"),
        "{text}"
    );
}
