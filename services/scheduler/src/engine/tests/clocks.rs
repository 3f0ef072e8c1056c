//! Clocks that are set, machines that sleep, nights of clock changes, new zone data.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use creel_proto::scheduler::v1::{
    AcceptClockRequest, ClockState, Cron, DstMode, ExplainJobRequest, SchedulerStatus, StatusRequest,
    admin_service_server::AdminService as _, job_service_server::JobService as _,
};
use creel_schedule::{ZoneSources, Zones};

use super::*;
use crate::testing::{Stack, asked};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

async fn status(stack: &Stack) -> SchedulerStatus {
    stack
        .api
        .status(asked(StatusRequest {}))
        .await
        .unwrap()
        .into_inner()
}

async fn accept(stack: &Stack) -> Result<u64, creel_wire::Error> {
    let answer = stack.api.accept_clock(asked(AcceptClockRequest::default())).await;
    answer
        .map(|answer| answer.into_inner().jobs_moved)
        .map_err(|status| creel_wire::Error::of_status(&status))
}

async fn findings(stack: &Stack, job: &str) -> Vec<String> {
    let request = ExplainJobRequest {
        job: job.into(),
        at: None,
    };
    let answer = stack.api.explain(asked(request)).await.unwrap().into_inner();
    answer.findings.into_iter().map(|one| one.reason).collect()
}

fn cron(name: &str, expression: &str, zone: &str) -> JobSpec {
    let cron = Cron {
        expression: expression.into(),
        zone: zone.into(),
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
async fn a_clock_that_jumps_a_year_ahead_uses_up_no_year() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(every("hourly", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    sleep(SECOND).await;
    world.clock.advance(YEAR_MS);
    worker.no_work_for(50 * SECOND).await;
    world.clock.advance(-YEAR_MS);
    let work = worker.succeed().await;
    assert_eq!(unix_ms(&work.nominal_at.unwrap()), START_MS + HOUR_MS);
    assert_eq!(status(&stack).await.clock(), ClockState::Trusted);
    assert_eq!(accept(&stack).await.unwrap_err().reason, "clock_trusted");

    // This time it stays.
    world.clock.advance(YEAR_MS);
    let jumped = world.clock.now_ms();
    worker.no_work_for(3 * HOUR).await;
    let shown = status(&stack).await;
    assert_eq!(shown.clock(), ClockState::Suspect);
    assert_eq!(
        (creel_proto::time::duration_ms(&shown.clock_jump.unwrap()) + HOUR_MS / 2) / HOUR_MS,
        365 * 24
    );
    assert_eq!(findings(&stack, "hourly").await, ["clock_suspect"]);
    // A restart makes it no better.
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("two", &[]).await;
    worker.no_work_for(HOUR).await;
    assert_eq!(accept(&stack).await.unwrap(), 0);
    assert_eq!(world.released_by().await, ["operator"]);
    // One run for all that was missed.
    let work = worker.succeed().await;
    assert!(unix_ms(&work.nominal_at.unwrap()) > jumped + 3 * HOUR_MS);
    assert_eq!(status(&stack).await.clock(), ClockState::Trusted);
    let coalesced = world.outcomes().await[&(RunState::Skipped, "coalesced".to_owned())];
    let skipped = world.outcomes().await[&(RunState::Skipped, "window".to_owned())];
    assert_eq!(coalesced + skipped, 365 * 24 + 3);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_clock_that_follows_a_time_server_is_believed_after_a_minute() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(every("hourly", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    sleep(SECOND).await;
    world.clock.advance(YEAR_MS);
    worker.no_work_for(HOUR).await;
    assert_eq!(status(&stack).await.clock(), ClockState::Suspect);
    world.synced.store(true, Ordering::Relaxed);
    worker.no_work_for(50 * SECOND).await;
    assert_eq!(status(&stack).await.clock(), ClockState::Suspect);
    worker.succeed().await;
    assert_eq!(status(&stack).await.clock(), ClockState::Trusted);
    assert_eq!(world.released_by().await, ["ntp"]);
    // Set back by as much: what ran ahead begins anew as soon as the server says so, too.
    world.clock.advance(-YEAR_MS);
    worker.succeed().await;
    assert_eq!(status(&stack).await.clock(), ClockState::Trusted);
    assert_eq!(world.released_by().await, ["ntp", "ntp"]);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_hours_ahead_are_believed_after_a_minute() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(every("hourly", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    sleep(SECOND).await;
    world.clock.advance(2 * HOUR_MS + HOUR_MS / 2);
    let jumped = world.clock.now_ms();
    sleep(2 * SECOND).await;
    assert_eq!(findings(&stack, "hourly").await, ["clock_held"]);
    let work = worker.succeed().await;
    assert!(world.clock.now_ms() - jumped >= 59_000, "after a minute");
    assert_eq!(unix_ms(&work.nominal_at.unwrap()), START_MS + 2 * HOUR_MS);
    // Half an hour back: what ran does not run again, and nothing is suspect.
    world.clock.advance(-HOUR_MS);
    worker.no_work_for(HOUR).await;
    assert_eq!(status(&stack).await.clock(), ClockState::Trusted);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_clock_set_back_jobs_wait_or_begin_anew() {
    let world = World::coarse();
    // The grid of the job begins before all this.
    world.clock.advance(10 * HOUR_MS);
    let began = world.clock.now_ms();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    let mut worker = stack.worker("one", &[]).await;
    let first = worker.succeed().await;
    for _ in 0..4 {
        worker.succeed().await;
    }
    world.clock.advance(-5 * HOUR_MS);
    worker.no_work_for(HOUR).await;
    assert_eq!(status(&stack).await.clock(), ClockState::Suspect);
    assert_eq!(findings(&stack, "job").await, ["clock_suspect"]);
    // A crash makes it no better: the store has seen later times.
    stack.crash().await;
    let stack = world.start().await;
    let mut worker = stack.worker("two", &[]).await;
    assert_eq!(status(&stack).await.clock(), ClockState::Suspect);
    assert_eq!(accept(&stack).await.unwrap(), 1);
    let mut again = worker.succeed().await;
    assert!(unix_ms(&again.nominal_at.unwrap()) < began - 3 * HOUR_MS);
    // The instant that ran before comes again, as another run.
    let mut ids = std::collections::BTreeSet::from([of(&again).run_id]);
    while again.nominal_at != first.nominal_at {
        again = worker.succeed().await;
        assert!(ids.insert(of(&again).run_id));
    }
    assert_ne!(of(&again).run_id, of(&first).run_id);
    assert_eq!(stack.run(&of(&first).run_id).await.state(), RunState::Succeeded);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_machine_loses_no_lease_and_catches_up_once() {
    let world = World::coarse();
    let stack = world.start().await;
    stack.create(every("held", 3_600)).await;
    let mut worker = stack.worker("one", &[]).await;
    let held = worker.work().await;
    stack.create(every("missed", 600)).await;
    world.suspend(9 * HOUR_MS);
    // Its lease counts time that passed, not time on the wall; and time is looked at without being woken for it.
    worker.beat(&[of(&held)]).await;
    let missed = keep(&mut worker, &[of(&held)]).await;
    assert_eq!(missed.job_name, "missed");
    assert_eq!(unix_ms(&missed.nominal_at.unwrap()) % 600_000, START_MS % 600_000);
    assert!(world.clock.now_ms() - unix_ms(&missed.nominal_at.unwrap()) <= 660_000);
    assert_eq!(status(&stack).await.clock(), ClockState::Trusted);
    worker.finish(&of(&held), RunState::Succeeded).await;
    assert!(worker.acked().await.accepted);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nights_of_clock_changes_run_each_fixed_time_once() {
    // (expression, zone, an hour or so before, the one instant)
    let nights = [
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-29T00:10:00Z",
            "2026-03-29T01:00:00Z",
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-11-01T04:40:00Z",
            "2026-11-01T05:30:00Z",
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T14:00:00Z",
            "2026-04-04T14:45:00Z",
        ),
    ];
    let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    for (expression, zone, before, at) in nights {
        let world = World::coarse();
        world.clock.advance(ms(before) - START_MS);
        let stack = world.start().await;
        stack.create(cron("night", expression, zone)).await;
        let mut worker = stack.worker("one", &[]).await;
        let work = worker.succeed().await;
        assert_eq!(unix_ms(&work.nominal_at.unwrap()), ms(at), "{zone}");
        // Through the hour that the clocks show twice, or not at all.
        worker.no_work_for(3 * HOUR).await;
        assert_eq!(world.records().await.len(), 1, "{zone}");
        stack.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_night_takes_and_what_runs_at_its_end_are_two_records() {
    let world = World::coarse();
    let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    world.clock.advance(ms("2026-03-29T00:10:00Z") - START_MS);
    let stack = world.start().await;
    let JobSpec { schedule, .. } = cron("night", "0,30 2,3 * * *", "Europe/Berlin");
    let Some(schedule::Kind::Cron(skipping)) = schedule.unwrap().kind else {
        panic!("it is cron")
    };
    let skipping = Cron {
        dst: DstMode::Skip.into(),
        ..skipping
    };
    let spec = JobSpec {
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::Cron(skipping)),
        }),
        ..every("night", 60)
    };
    stack.create(spec).await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.succeed().await;
    // 03:00 is the instant at which 02:00 and 02:30 were taken.
    assert_eq!(unix_ms(&work.nominal_at.unwrap()), ms("2026-03-29T01:00:00Z"));
    let outcomes = world.outcomes().await;
    assert_eq!(outcomes[&(RunState::Skipped, "dst".to_owned())], 2);
    assert_eq!(stack.run(&of(&work).run_id).await.state(), RunState::Succeeded);
    stack.stop().await;
}

/// Zone data of which one zone has another offset.
fn changed_zones() -> Zones {
    static SWITCH: AtomicBool = AtomicBool::new(false);
    if !SWITCH.swap(true, Ordering::SeqCst) {
        return Zones::bundled();
    }
    let dir = std::env::temp_dir().join(format!("creel-zones-{}", std::process::id()));
    fs::create_dir_all(dir.join("Europe")).unwrap();
    fs::write(dir.join("UTC"), zone_file("UTC0")).unwrap();
    fs::write(dir.join("Europe/Berlin"), zone_file("XXX-5")).unwrap();
    fs::write(dir.join("tzdata.zi"), "# version 2099z\n").unwrap();
    let zones = Zones::load(&ZoneSources {
        tzdir: Some(dir.clone()),
        system: Vec::new(),
    });
    zones.get("Europe/Berlin").unwrap();
    fs::remove_dir_all(dir).unwrap();
    zones
}

/// A zone file (RFC 9636) without transitions: what its last line says holds for ever.
fn zone_file(rule: &str) -> Vec<u8> {
    let part = || {
        let mut part = b"TZif2".to_vec();
        part.extend([0; 15]);
        // Counts: isut, isstd, leap, transitions, types, characters.
        for count in [0_u32, 0, 0, 0, 1, 4] {
            part.extend(count.to_be_bytes());
        }
        let digits: String = rule.chars().filter(|c| c.is_ascii_digit() || *c == '-').collect();
        let offset = -digits.parse::<i32>().unwrap() * 3_600;
        part.extend(offset.to_be_bytes());
        part.extend([0, 0]);
        part.extend(b"XXX\0");
        part
    };
    let mut file = part();
    file.extend(part());
    file.extend(format!("\n{rule}\n").bytes());
    file
}

#[tokio::test(start_paused = true)]
async fn new_zone_data_moves_jobs_without_a_restart() {
    let world = World {
        zones: changed_zones,
        ..World::coarse()
    };
    let stack = world.start().await;
    stack.create(cron("noon", "0 12 * * *", "Europe/Berlin")).await;
    stack.create(cron("other", "0 12 * * *", "UTC")).await;
    let next = async |job: &str| unix_ms(&stack.job(job).await.next_run_at.unwrap()) - START_MS;
    assert_eq!(
        (next("noon").await, next("other").await),
        (11 * HOUR_MS, 12 * HOUR_MS)
    );
    sleep(HOUR + 60 * SECOND).await;
    assert_eq!(
        (next("noon").await, next("other").await),
        (7 * HOUR_MS, 12 * HOUR_MS)
    );
    assert!(status(&stack).await.zone_data_version.starts_with("2099z"));
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.succeed().await;
    assert_eq!(
        (work.job_name.as_str(), unix_ms(&work.nominal_at.unwrap())),
        ("noon", START_MS + 7 * HOUR_MS)
    );
    stack.stop().await;
}
