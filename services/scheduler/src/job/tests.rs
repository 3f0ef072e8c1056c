use super::*;

fn job(quarantine_after: u32) -> Job {
    let schedule = creel_schedule::Every::new(1_000, Timestamp::UNIX_EPOCH, Default::default()).unwrap();
    let rules = Rules {
        kind: WorkKind::AgentTurn,
        policy: Policy {
            quarantine_after,
            ..Policy::default()
        },
        disabled: false,
        delete_after: DeleteAfter::Never,
    };
    let mut job = Job::unreadable(JobId::new(0, &[0; 10]), String::new());
    job.plan = Plan::Sound(Sound {
        schedule: Schedule::Every(schedule),
        rules: Arc::new(rules),
    });
    job
}

fn end(job: &mut Job, kind: RunKind, state: RunState, at_ms: i64) {
    let at = RunRef {
        admitted_ms: at_ms,
        run: format!("{at_ms:032x}").parse().unwrap(),
    };
    job.ended(at, kind, Last::new(at_ms, at_ms, state, ""));
}

#[test]
fn failures_in_a_row_quarantine_and_a_good_probe_releases() {
    const HOUR: i64 = 3_600_000;
    let mut job = job(2);
    end(&mut job, RunKind::Scheduled, RunState::Failed, 1);
    end(&mut job, RunKind::Scheduled, RunState::Cancelled, 2);
    assert_eq!(job.hold(), None);
    end(&mut job, RunKind::Scheduled, RunState::Stuck, 3);
    assert_eq!(
        job.state.quarantine,
        Some(Quarantine {
            until_ms: 3 + HOUR,
            level: 0
        })
    );
    assert_eq!(
        (job.hold(), job.phase().0),
        (Some(SkipReason::Quarantined), Phase::Quarantined)
    );
    end(&mut job, RunKind::Manual, RunState::Failed, 4);
    assert_eq!(
        job.state.quarantine.map(|q| q.level),
        Some(0),
        "only a probe makes it longer"
    );
    end(&mut job, RunKind::Probe, RunState::TimedOut, 5);
    assert_eq!(
        job.state.quarantine,
        Some(Quarantine {
            until_ms: 5 + 2 * HOUR,
            level: 1
        })
    );
    end(&mut job, RunKind::Probe, RunState::Cancelled, 6);
    assert_eq!(
        job.state.quarantine,
        Some(Quarantine {
            until_ms: 6 + 2 * HOUR,
            level: 1
        })
    );
    end(&mut job, RunKind::Probe, RunState::Succeeded, 7);
    assert_eq!(
        (job.state.quarantine, job.state.failures, job.phase().0),
        (None, 0, Phase::Succeeded)
    );
}

#[test]
fn what_is_tried_by_hand_keeps_no_occurrence_back() {
    let mut job = job(3);
    end(&mut job, RunKind::Manual, RunState::Failed, 1);
    assert_eq!((job.state.failures, job.state.backoff_until_ms), (1, None));
    end(&mut job, RunKind::Scheduled, RunState::Failed, 2);
    let until_ms = job.state.backoff_until_ms;
    assert_eq!(until_ms, Some(2 + 60_000), "the second failure in a row");
    end(&mut job, RunKind::Manual, RunState::Failed, 3);
    assert_eq!(job.state.backoff_until_ms, until_ms);
    assert_eq!(
        job.hold(),
        Some(SkipReason::Quarantined),
        "it is a failure all the same"
    );
}

#[test]
fn four_failures_of_five_quarantine_without_a_long_row() {
    let mut job = job(100);
    for n in 0..20 {
        assert_eq!(job.hold(), None);
        let state = if n % 5 == 4 {
            RunState::Succeeded
        } else {
            RunState::Failed
        };
        end(&mut job, RunKind::Scheduled, state, n);
    }
    end(&mut job, RunKind::Scheduled, RunState::Failed, 20);
    assert_eq!(job.hold(), Some(SkipReason::Quarantined));
}

#[test]
fn a_backfill_and_an_alert_say_nothing_about_the_job() {
    let mut job = job(1);
    end(&mut job, RunKind::Backfill, RunState::Failed, 1);
    end(&mut job, RunKind::Alert, RunState::Failed, 2);
    assert_eq!(
        (job.state.failures, job.hold(), &job.state.last),
        (0, None, &None)
    );
}

#[test]
fn a_state_survives_its_record() {
    let mut job = job(1);
    end(&mut job, RunKind::Scheduled, RunState::Failed, 1);
    end(&mut job, RunKind::Manual, RunState::Succeeded, 2);
    job.state.pause = Some("because".to_owned());
    job.state.active.push(RunRef {
        admitted_ms: 9,
        run: "000000000000000000000000000000aa".parse().unwrap(),
    });
    job.state.cursor_ms = 77;
    job.state.doomed = true;
    assert_eq!(State::of_record(&job.state.record()), job.state);
}

#[test]
fn nothing_is_held_for_what_a_job_does_not_have() {
    let mut state = State::of_record(&State::new(5).record());
    assert_eq!(state.take_active(), []);
    assert_eq!((&state, &state.rare), (&State::new(5), &None));
}

#[test]
fn rules_that_are_the_same_are_held_once() {
    let mut before = None;
    let mut held = [5, 5, 6].map(job).map(|job| {
        let Plan::Sound(mut sound) = job.plan else {
            panic!("it is sound")
        };
        sound.share(&mut before);
        sound
    });
    let [one, same, other] = &held;
    assert!(Arc::ptr_eq(&one.rules, &same.rules) && !Arc::ptr_eq(&one.rules, &other.rules));
    held[0].disabled = true;
    assert!(!held[1].disabled, "a change is one job's");
}
