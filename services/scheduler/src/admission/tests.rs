use creel_schedule::{ScheduleSpec, Zones};

use super::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn schedule(json: &str) -> Schedule {
    let spec: ScheduleSpec = serde_json::from_str(json).unwrap();
    spec.resolve(&Zones::bundled(), Timestamp::UNIX_EPOCH).unwrap()
}

fn minutely() -> Schedule {
    schedule(r#"{"expr":"* * * * *","tz":"UTC"}"#)
}

struct Case {
    schedule: Schedule,
    policy: Policy,
    cursor_ms: i64,
    active: usize,
    waiting: usize,
    hold: Option<SkipReason>,
    backoff_until_ms: i64,
}

impl Case {
    fn new(schedule: Schedule) -> Self {
        let policy = Policy::default();
        Self {
            schedule,
            policy,
            cursor_ms: 0,
            active: 0,
            waiting: 0,
            hold: None,
            backoff_until_ms: i64::MIN,
        }
    }

    fn at(&self, now_ms: i64) -> Decision {
        let view = View {
            schedule: &self.schedule,
            policy: &self.policy,
            job: [1; 16],
            cursor_ms: self.cursor_ms,
            finished_ms: 0,
            hold: self.hold,
            active: self.active,
            waiting: self.waiting,
            grace_ms: MINUTE,
            catch_up_from_ms: i64::MIN,
            backoff_until_ms: self.backoff_until_ms,
        };
        decide(Guards::all(), now_ms, &view)
    }
}

fn admit(minute: i64, late: bool) -> Step {
    Step::Admit {
        nominal_ms: minute * MINUTE,
        late,
    }
}

fn skip(first: i64, last: i64, reason: SkipReason) -> Step {
    let count = u64::try_from(last - first + 1).unwrap();
    Step::Skip {
        first_ms: first * MINUTE,
        last_ms: last * MINUTE,
        count,
        reason,
    }
}

#[test]
fn on_time_one_runs_and_the_next_wakes() {
    let decision = Case::new(minutely()).at(MINUTE + 5);
    assert_eq!(decision.steps, [admit(1, false)]);
    assert_eq!((decision.cursor_ms, decision.wake_ms), (MINUTE, Some(2 * MINUTE)));
    let early = Case::new(minutely()).at(MINUTE - 1);
    assert_eq!(
        (early.steps.len(), early.cursor_ms, early.wake_ms),
        (0, 0, Some(MINUTE))
    );
}

#[test]
fn what_was_missed_is_caught_up_as_the_policy_says() {
    use SkipReason::{Coalesced, Window};
    let hourly = || Case::new(schedule(r#"{"expr":"0 * * * *","tz":"UTC"}"#));
    let steps = |catch_up, now| {
        let mut case = hourly();
        case.policy.catch_up = catch_up;
        case.at(now).steps
    };
    // 01:00 to 05:00 were missed; it is 05:30.
    let now = 5 * HOUR + 30 * MINUTE;
    assert_eq!(
        steps(CatchUp::Last, now),
        [
            Step::Skip {
                first_ms: HOUR,
                last_ms: 4 * HOUR,
                count: 4,
                reason: Coalesced
            },
            admit(300, true)
        ]
    );
    let all = Step::Skip {
        first_ms: HOUR,
        last_ms: 5 * HOUR,
        count: 5,
        reason: Window,
    };
    assert_eq!(steps(CatchUp::Skip, now), [all]);
    let first = Step::Skip {
        first_ms: HOUR,
        last_ms: 3 * HOUR,
        count: 3,
        reason: Coalesced,
    };
    assert_eq!(
        steps(CatchUp::All { max: 2 }, now),
        [first, admit(240, true), admit(300, true)]
    );
    // It is 05:00:30: not a miss, and it makes up for the others.
    let now = 5 * HOUR + MINUTE / 2;
    let before = Step::Skip {
        first_ms: HOUR,
        last_ms: 4 * HOUR,
        count: 4,
        reason: Coalesced,
    };
    assert_eq!(steps(CatchUp::Last, now), [before, admit(300, false)]);
    assert_eq!(steps(CatchUp::Skip, now).last(), Some(&admit(300, false)));
    // A day later the first ones are beyond the window.
    let decision = hourly().at(26 * HOUR + 30 * MINUTE);
    assert_eq!(
        decision.steps[0],
        Step::Skip {
            first_ms: HOUR,
            last_ms: 2 * HOUR,
            count: 2,
            reason: Window
        }
    );
    assert_eq!(decision.cursor_ms, 26 * HOUR);
}

#[test]
fn one_shots_run_late_unless_a_window_says_otherwise() {
    let mut case = Case::new(schedule(r#"{"kind":"at","atMs":1000}"#));
    let year = 366 * 24 * HOUR;
    assert_eq!(
        case.at(year).steps,
        [Step::Admit {
            nominal_ms: 1_000,
            late: true
        }]
    );
    assert_eq!(case.at(year).wake_ms, None);
    case.policy.window_ms = Some(HOUR);
    let skipped = Step::Skip {
        first_ms: 1_000,
        last_ms: 1_000,
        count: 1,
        reason: SkipReason::Window,
    };
    assert_eq!(case.at(year).steps, [skipped]);
}

#[test]
fn overlap_modes() {
    let mut case = Case::new(minutely());
    case.active = 1;
    assert_eq!(case.at(MINUTE).steps, [skip(1, 1, SkipReason::Overlap)]);
    case.policy.overlap = Overlap::BufferOne;
    assert_eq!(case.at(MINUTE).steps, [admit(1, false)]);
    (case.active, case.waiting) = (2, 1);
    assert_eq!(case.at(MINUTE).steps, [skip(1, 1, SkipReason::Overlap)]);
    case.policy.overlap = Overlap::Allow { max: 3 };
    assert_eq!(
        case.at(2 * MINUTE).steps,
        [admit(1, false), skip(2, 2, SkipReason::Overlap)]
    );
    case.policy.overlap = Overlap::Replace;
    let decision = case.at(2 * MINUTE);
    assert_eq!(decision.steps, [skip(1, 1, SkipReason::Overlap), admit(2, false)]);
    assert!(decision.replace);
    // What is made up for waits for its turn instead.
    case.policy.catch_up = CatchUp::All { max: 2 };
    case.cursor_ms = 0;
    let decision = case.at(4 * MINUTE + 1);
    assert_eq!(
        decision.steps[..3],
        [skip(1, 1, SkipReason::Coalesced), admit(2, true), admit(3, true)]
    );
    case.cursor_ms = 3 * MINUTE;
    assert!(!case.at(5 * MINUTE + 1).steps.is_empty());
    case.policy.overlap = Overlap::BufferOne;
    (case.active, case.waiting) = (0, 0);
    let few = schedule(r#"{"everyMs":10000,"anchorMs":0}"#);
    let case = Case {
        schedule: few,
        cursor_ms: 0,
        ..case
    };
    let admitted = |decision: &Decision| {
        let admits = decision.steps.iter();
        admits.filter(|step| matches!(step, Step::Admit { .. })).count()
    };
    assert_eq!(
        admitted(&case.at(30_000)),
        2,
        "one begins, one waits, and one is skipped"
    );
}

#[test]
fn holds_move_the_cursor_in_ranges() {
    let mut case = Case::new(minutely());
    case.hold = Some(SkipReason::Paused);
    let decision = case.at(10 * MINUTE);
    assert_eq!(decision.steps, [skip(1, 10, SkipReason::Paused)]);
    assert_eq!(
        (decision.cursor_ms, decision.wake_ms),
        (10 * MINUTE, Some(11 * MINUTE))
    );
}

#[test]
fn a_clock_set_back_fires_nothing_again() {
    let mut case = Case::new(minutely());
    case.cursor_ms = 100 * MINUTE;
    let decision = case.at(50 * MINUTE);
    assert_eq!((decision.steps.len(), decision.cursor_ms), (0, 100 * MINUTE));
    assert_eq!(decision.wake_ms, Some(101 * MINUTE));
}

#[test]
fn ages_of_seconds_are_walked_in_bounded_calls() {
    let mut case = Case::new(schedule(r#"{"everyMs":1000,"anchorMs":0}"#));
    let (now, mut calls, mut admitted, mut skipped) = (10 * 86_400_000, 0, 0, 0);
    loop {
        let decision = case.at(now);
        for step in &decision.steps {
            match step {
                Step::Admit { .. } => admitted += 1,
                Step::Skip { count, reason, .. } => {
                    assert!(calls > 7 || *reason == SkipReason::Window, "{step:?}");
                    skipped += count;
                }
            }
        }
        case.cursor_ms = decision.cursor_ms;
        case.active = usize::from(admitted > 0);
        calls += 1;
        if decision.wake_ms != Some(now) {
            break;
        }
    }
    assert_eq!((admitted, skipped + admitted, calls), (1, 864_000, 9));
}

#[test]
fn fixed_delay_counts_from_the_end() {
    let delay = schedule(r#"{"everyMs":60000,"anchorMs":0,"mode":"fixed_delay"}"#);
    let policy = Policy::default();
    let view = View {
        schedule: &delay,
        policy: &policy,
        job: [1; 16],
        cursor_ms: MINUTE,
        finished_ms: 90_000,
        hold: None,
        active: 0,
        waiting: 0,
        grace_ms: MINUTE,
        catch_up_from_ms: 0,
        backoff_until_ms: i64::MIN,
    };
    assert_eq!(decide(Guards::all(), 2 * MINUTE, &view).wake_ms, Some(150_000));
    let decision = decide(Guards::all(), 150_000, &view);
    assert_eq!(
        decision.steps,
        [Step::Admit {
            nominal_ms: 150_000,
            late: false
        }]
    );
    assert_eq!(decision.wake_ms, None, "the run's end decides");
    let running = View { active: 1, ..view };
    assert_eq!(decide(Guards::all(), 500_000, &running).steps, []);
    // Looked at late: what would have followed it has not come up.
    let short = schedule(r#"{"everyMs":10000,"anchorMs":0,"mode":"fixed_delay"}"#);
    let view = View {
        schedule: &short,
        ..view
    };
    let first = Step::Admit {
        nominal_ms: 100_000,
        late: false,
    };
    assert_eq!(decide(Guards::all(), 130_000, &view).steps, [first]);
    // Missed: one of those that would have followed, and that has just come up.
    let decision = decide(Guards::all(), HOUR, &view);
    assert!(
        matches!(decision.steps[..], [Step::Skip { .. }, Step::Admit { nominal_ms, .. }] if HOUR - nominal_ms <= MINUTE),
        "{decision:?}"
    );
    // Missed, and not made up for: the one after it comes.
    let long = schedule(r#"{"everyMs":600000,"anchorMs":0,"mode":"fixed_delay"}"#);
    let never = Policy {
        catch_up: CatchUp::Skip,
        ..policy
    };
    let view = View {
        policy: &never,
        schedule: &long,
        ..view
    };
    let decision = decide(Guards::all(), HOUR, &view);
    assert_eq!(
        (decision.steps.len(), decision.wake_ms),
        (1, Some(90_000 + 6 * 600_000))
    );
}

#[test]
fn jitter_moves_the_fire_and_not_the_name() {
    let mut case = Case::new(minutely());
    case.policy.jitter_ms = HOUR;
    let fire = case.at(0).wake_ms.unwrap();
    assert!(
        (MINUTE..2 * MINUTE).contains(&fire),
        "capped below the next instant: {fire}"
    );
    assert_eq!(case.at(fire - 1).steps, []);
    assert_eq!(case.at(fire).steps, [admit(1, false)]);
}

#[test]
fn missed_ones_wait_while_catching_up_is_held() {
    let case = Case::new(minutely());
    let view = View {
        schedule: &case.schedule,
        policy: &case.policy,
        job: [1; 16],
        cursor_ms: 0,
        finished_ms: 0,
        hold: None,
        active: 0,
        waiting: 0,
        grace_ms: MINUTE,
        catch_up_from_ms: HOUR,
        backoff_until_ms: i64::MIN,
    };
    let decision = decide(Guards::all(), 10 * MINUTE, &view);
    assert_eq!(
        (decision.steps.len(), decision.cursor_ms, decision.wake_ms),
        (0, 0, Some(HOUR))
    );
    assert_eq!(decide(Guards::all(), HOUR, &view).cursor_ms, HOUR);
}

#[test]
fn what_a_clock_change_swallows_is_recorded() {
    // 02:30 does not exist on 29 March 2026 in Berlin.
    let skipping = schedule(r#"{"expr":"30 2 * * *","tz":"Europe/Berlin","dst":"skip"}"#);
    let at = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
    let mut case = Case::new(skipping);
    case.cursor_ms = at("2026-03-28T12:00:00Z");
    let decision = case.at(at("2026-03-30T00:30:00Z"));
    let seam = at("2026-03-29T01:00:00Z");
    let swallowed = Step::Skip {
        first_ms: seam,
        last_ms: seam,
        count: 1,
        reason: SkipReason::Dst,
    };
    assert!(decision.steps.contains(&swallowed), "{:?}", decision.steps);
}

#[test]
fn after_failures_the_next_run_is_the_newest_that_came_up_meanwhile() {
    let mut case = Case::new(minutely());
    case.policy.overlap = Overlap::Allow { max: 9 };
    case.backoff_until_ms = 4 * MINUTE + 30_000;
    let early = case.at(2 * MINUTE);
    assert_eq!(
        (early.steps.len(), early.cursor_ms, early.wake_ms),
        (0, 0, Some(case.backoff_until_ms))
    );
    let then = case.at(case.backoff_until_ms);
    assert_eq!(then.steps, [skip(1, 3, SkipReason::Backoff), admit(4, false)]);
    // What comes up after the backoff is no part of it.
    let later = case.at(5 * MINUTE);
    assert_eq!(
        later.steps,
        [skip(1, 4, SkipReason::Backoff), admit(5, false)],
        "looked at late: one run, not two"
    );
    case.backoff_until_ms = MINUTE + 1;
    assert_eq!(case.at(MINUTE + 1).steps, [admit(1, false)]);
}
