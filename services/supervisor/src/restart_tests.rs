//! Tests of one service's machine.

use super::*;

fn at(ms: u64) -> Moment {
    Moment {
        now: Duration::from_millis(ms),
        chance: 1.0,
        clock_plausible: true,
    }
}

fn died() -> Input {
    Input::Ended(End {
        bad_config: false,
        reason: "exit 1".to_owned(),
    })
}

fn ready(now: u64) -> Machine {
    let mut machine = Machine::new(true);
    assert_eq!(machine.handle(Input::Begin, at(0)), Some(Act::Start));
    machine.handle(Input::Serving, at(now));
    assert!(machine.phase().is_ready());
    machine
}

fn until(machine: &Machine) -> u64 {
    u64::try_from(machine.deadline().unwrap().as_millis()).unwrap()
}

#[test]
fn waits_double_up_to_the_cap_and_start_over_after_a_minute_of_health() {
    let mut machine = ready(0);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..10 {
        // Ready for 20 s: neither healthy enough to forget nor too often to be given up.
        now += 20_000;
        assert_eq!(machine.handle(died(), at(now)), None);
        waits.push(until(&machine) - now);
        now = until(&machine);
        assert_eq!(machine.handle(Input::Tick, at(now - 1)), None);
        assert_eq!(machine.handle(Input::Tick, at(now)), Some(Act::Start));
        machine.handle(Input::Serving, at(now));
    }
    assert_eq!(
        waits,
        [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]
    );
    now += 59_999;
    machine.handle(died(), at(now));
    assert_eq!(until(&machine) - now, 30_000);
    now = until(&machine);
    machine.handle(Input::Tick, at(now));
    machine.handle(Input::Serving, at(now));
    machine.handle(died(), at(now + 60_000));
    assert_eq!(until(&machine) - now, 60_200);
}

#[test]
fn jitter_reaches_from_nothing_to_the_whole_wait() {
    assert_eq!(delay(3, 0.0), Duration::ZERO);
    assert_eq!(delay(3, 0.5), Duration::from_millis(800));
    assert_eq!(delay(u32::MAX, 0.999_999).as_secs(), 29);
}

#[test]
fn the_fifth_failure_in_a_minute_is_the_last_and_a_reload_gives_another_chance() {
    let mut machine = ready(0);
    let mut now = 0;
    for _ in 1..MAX_FAILURES {
        machine.handle(died(), at(now));
        now = until(&machine);
        assert_eq!(machine.handle(Input::Tick, at(now)), Some(Act::Start));
    }
    machine.handle(died(), at(now));
    assert_eq!(machine.phase(), Phase::Failed);
    assert!(machine.reason().contains("5 failures") && machine.reason().contains("exit 1"));
    assert_eq!(machine.handle(Input::Tick, at(1_000_000)), None);
    assert_eq!(machine.handle(Input::Restart, at(1_000_000)), Some(Act::Start));
    machine.handle(died(), at(1_000_001));
    assert!(matches!(machine.phase(), Phase::Backoff { .. }));
}

#[test]
fn bad_config_is_not_tried_again() {
    let mut machine = ready(0);
    let end = End {
        bad_config: true,
        reason: "creel.toml:3:1".to_owned(),
    };
    assert_eq!(machine.handle(Input::Ended(end), at(1)), None);
    assert_eq!(
        (machine.phase(), machine.reason()),
        (Phase::Failed, "creel.toml:3:1")
    );
}

#[test]
fn while_its_need_is_down_it_waits_and_it_costs_nothing() {
    let mut machine = ready(0);
    for n in 0..20 {
        machine.handle(Input::Need(false), at(n * 10));
        assert_eq!(machine.handle(died(), at(n * 10 + 1)), None);
        assert_eq!(machine.phase(), Phase::Waiting);
        assert_eq!(machine.handle(Input::Tick, at(n * 10 + 2)), None);
        assert_eq!(
            machine.handle(Input::Need(true), at(n * 10 + 3)),
            Some(Act::Start)
        );
    }
    machine.handle(died(), at(1_000));
    assert_eq!(until(&machine), 1_200, "the first failure that counts");
    machine.handle(Input::Need(false), at(1_100));
    assert_eq!(machine.handle(Input::Tick, at(1_200)), None);
    assert_eq!(machine.phase(), Phase::Waiting);
}

#[test]
fn what_stays_unready_is_killed_and_what_recovers_is_not() {
    let mut machine = ready(0);
    machine.handle(Input::NotServing("does not answer".to_owned()), at(100));
    machine.handle(Input::Serving, at(200));
    assert!(machine.phase().is_ready() && machine.reason().is_empty());
    machine.handle(Input::NotServing("does not answer".to_owned()), at(1_000));
    assert_eq!(machine.handle(Input::Tick, at(15_999)), None);
    assert_eq!(machine.handle(Input::Tick, at(16_000)), Some(Act::Kill));
    machine.handle(
        Input::Ended(End {
            bad_config: false,
            reason: "signal 9".to_owned(),
        }),
        at(16_001),
    );
    assert_eq!(machine.reason(), "does not answer");
    assert!(matches!(machine.phase(), Phase::Backoff { .. }));
}

#[test]
fn a_start_has_a_limit_but_not_before_the_time_is_set_or_without_its_need() {
    let mut machine = Machine::new(false);
    machine.handle(Input::Begin, at(0));
    assert_eq!(machine.deadline(), None);
    machine.handle(Input::Need(true), at(5_000));
    let unset = Moment {
        clock_plausible: false,
        ..at(125_000)
    };
    assert_eq!(machine.handle(Input::Tick, unset), None);
    assert_eq!(machine.handle(Input::Tick, at(244_999)), None);
    assert_eq!(machine.handle(Input::Tick, at(245_000)), Some(Act::Kill));
}

#[test]
fn a_drain_ends_with_term_then_kill_then_without_it() {
    let mut machine = ready(0);
    assert_eq!(machine.handle(Input::Drain, at(1_000)), Some(Act::Stop));
    assert_eq!(machine.handle(Input::Restart, at(1_500)), None);
    assert_eq!(machine.handle(Input::Tick, at(12_999)), None);
    assert_eq!(machine.handle(Input::Tick, at(13_000)), Some(Act::Kill));
    assert_eq!(machine.handle(Input::Tick, at(18_000)), None);
    assert_eq!(machine.phase(), Phase::Stopped);
    let mut machine = ready(0);
    machine.handle(Input::Drain, at(1_000));
    assert_eq!(machine.handle(died(), at(1_100)), None);
    assert_eq!(machine.phase(), Phase::Stopped);
}

#[test]
fn a_restart_for_another_config_costs_nothing() {
    let mut machine = ready(0);
    assert_eq!(machine.handle(Input::Restart, at(10)), Some(Act::Stop));
    assert_eq!(machine.handle(died(), at(20)), Some(Act::Start));
    assert_eq!(machine.restarts(), 1);
    machine.handle(died(), at(30));
    assert_eq!(until(&machine), 230);
}
