//! Every form of `cron add`, and what reaches the wire.

use clap::Parser as _;
use creel_proto::scheduler::v1::{
    At, Cron, Every, EveryMode, OverlapMode, Payload, Policy, Retry, at::When, payload,
};
use creel_proto::time::{duration, timestamp};
use creel_wire::Code;

use super::*;
use crate::{
    args::{Cli, Command, cron::Cron as CronCommand},
    times::tests::berlin,
    views::job::tests::job,
};

fn add(args: &[&str]) -> Result<Plan, Failure> {
    let args = [&["creel", "cron", "add"], args].concat();
    let cli = Cli::try_parse_from(args).map_err(|error| Failure::usage(error.to_string()))?;
    match cli.command {
        Command::Cron(CronCommand::Add(add)) => plan(&add, &berlin()),
        other => panic!("{other:?}"),
    }
}

fn cron(spec: &JobSpec) -> Cron {
    match spec.schedule.clone().unwrap().kind.unwrap() {
        schedule::Kind::Cron(cron) => cron,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_short_form_is_a_turn_by_the_calendar_in_our_own_zone() {
    let plan = add(&["briefing", "0 7 * * *", "Summarise my inbox"]).unwrap();
    assert!(plan.zone_is_ours);
    assert_eq!(
        (plan.spec.name.as_str(), plan.spec.target.as_str()),
        ("briefing", "main")
    );
    let schedule = cron(&plan.spec);
    assert_eq!(
        (schedule.expression.as_str(), schedule.zone.as_str()),
        ("0 7 * * *", "Europe/Berlin")
    );
    let Some(Payload {
        kind: Some(payload::Kind::AgentTurn(turn)),
    }) = plan.spec.payload
    else {
        panic!("no turn")
    };
    assert_eq!(turn.message, "Summarise my inbox");
    assert_eq!(plan.spec.policy, None, "the scheduler's own defaults");
    let mixed = add(&["tick", "* * * * *", "--event", "tick"]).unwrap().spec;
    assert!(matches!(
        mixed.payload.unwrap().kind,
        Some(payload::Kind::SystemEvent(_))
    ));
    let long = add(&[
        "briefing",
        "--cron",
        "0 7 * * *",
        "--message",
        "Summarise my inbox",
    ])
    .unwrap();
    assert_eq!(
        long.spec.schedule.unwrap(),
        add(&["x", "0 7 * * *", "y"]).unwrap().spec.schedule.unwrap()
    );
}

#[test]
fn an_h_is_drawn_from_the_name() {
    let expression = |args: &[&str]| add(args).map(|plan| cron(&plan.spec).expression);
    let drawn = expression(&["briefing", "H 7 * * *", "m"]).unwrap();
    assert_eq!(drawn, "39 7 * * *");
    assert_eq!(
        expression(&["briefing", "--cron", "H 7 * * *", "--message", "m"]).unwrap(),
        drawn
    );
    assert_ne!(expression(&["report", "H 7 * * *", "m"]).unwrap(), drawn);
    let failure = expression(&["briefing", "H(5-1) 7 * * *", "m"]).unwrap_err();
    assert!(failure.error().unwrap().hint.as_ref().unwrap().contains("H(a-b)"));
}

#[test]
fn every_flag_reaches_the_spec() {
    let plan = add(&[
        "pulse",
        "--every",
        "30m",
        "--message",
        "hi",
        "--target",
        "anna",
        "--delete-after-run",
        "--timeout",
        "5m",
        "--overlap",
        "buffer-one",
        "--if-missed",
        "all",
        "--backend",
        "py",
        "--retries",
        "2",
    ])
    .unwrap();
    let Some(schedule::Kind::Every(Every {
        period,
        anchor: None,
        mode,
    })) = plan.spec.schedule.unwrap().kind
    else {
        panic!("no interval")
    };
    assert_eq!(
        (period.unwrap(), mode),
        (duration(1_800_000), EveryMode::FixedRate.into())
    );
    assert!(!plan.zone_is_ours && plan.spec.delete_after_run);
    assert_eq!(plan.spec.target, "agent:default:webchat:local:dm:anna");
    let Policy {
        catch_up,
        overlap,
        timeout,
        retry,
        ..
    } = plan.spec.policy.unwrap();
    let catch_up = catch_up.unwrap();
    assert_eq!((catch_up.mode(), catch_up.max), (CatchUpMode::All, 1_000));
    assert_eq!(overlap.unwrap().mode(), OverlapMode::BufferOne);
    assert_eq!(timeout.unwrap(), duration(300_000));
    assert_eq!(
        retry.unwrap(),
        Retry {
            attempts: 3,
            backoff: None,
            max_backoff: None,
            past_next: false,
        }
    );
    let Some(payload::Kind::AgentTurn(turn)) = plan.spec.payload.unwrap().kind else {
        panic!("no turn")
    };
    assert_eq!(turn.backend, "py");
}

#[test]
fn every_kind_of_work_and_rule_has_its_flags() {
    let payload = |flags: &[&str]| {
        let spec = add(&[&["x", "--every", "5m"][..], flags].concat()).unwrap().spec;
        spec.payload.unwrap().kind.unwrap()
    };
    let payload::Kind::Command(words) = payload(&["--cwd", "/srv", "--", "df", "-h"]) else {
        panic!("no command")
    };
    assert_eq!(
        (words.argv, words.cwd.as_str()),
        (vec!["df".to_owned(), "-h".to_owned()], "/srv")
    );
    let payload::Kind::Command(line) = payload(&["--command", "df -h | sort"]) else {
        panic!("no command")
    };
    assert_eq!((line.text.as_str(), line.argv.len()), ("df -h | sort", 0));
    assert!(matches!(payload(&["--audit"]), payload::Kind::Audit(_)));

    let spec = add(&[
        "x",
        "--cron",
        "0 30 7 ? * MON",
        "--syntax",
        "quartz",
        "--dst",
        "skip",
        "--tz",
        "UTC",
        "--event",
        "e",
        "--deliver",
        "https://hooks.example/x",
        "--jitter",
        "10s",
        "--expected",
        "1m",
        "--on-stuck",
        "retry",
        "--keep-runs",
        "10",
        "--keep-for",
        "48h",
        "--delete-after",
        "always",
        "--disabled",
        "--overlap",
        "allow",
        "--overlap-max",
        "3",
        "--retries",
        "3",
        "--backoff",
        "5s",
        "--max-backoff",
        "1m",
        "--past-next",
    ])
    .unwrap()
    .spec;
    let shown = serde_json::to_value(SpecView::from(&spec)).unwrap();
    let expected = serde_json::json!({
        "name": "x", "description": null,
        "schedule": { "kind": "cron", "expr": "0 30 7 ? * MON", "zone": "UTC", "dst": "skip", "syntax": "quartz" },
        "target": "main",
        "payload": { "kind": "systemEvent", "text": "e" },
        "policy": {
            "overlap": { "mode": "allow", "max": 3 }, "jitterMs": 10_000, "expectedMs": 60_000,
            "retry": { "attempts": 4, "backoffMs": 5_000, "maxBackoffMs": 60_000, "pastNext": true },
            "onStuck": "retry", "keepRuns": 10, "keepForMs": 172_800_000,
        },
        "delivery": { "kind": "webhook", "url": "https://hooks.example/x" },
        "enabled": false, "deleteAfterRun": false, "deleteAfter": "always",
    });
    assert_eq!(shown, expected);
    let Some(schedule::Kind::Every(every)) = add(&[
        "x",
        "--every",
        "5m",
        "--anchor",
        "2026-11-22 12:00",
        "--after-end",
        "--event",
        "e",
    ])
    .unwrap()
    .spec
    .schedule
    .unwrap()
    .kind
    else {
        panic!("no interval")
    };
    assert_eq!(every.mode(), EveryMode::FixedDelay);
    let noon = "2026-11-22T11:00:00Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .as_millisecond();
    // The reading is one of this machine's clock, which in tests may be any; the instant is whole either way.
    let anchor_ms = creel_proto::time::unix_ms(&every.anchor.unwrap());
    assert_eq!((noon - anchor_ms) % 900_000, 0);
}

#[test]
fn one_shots_count_from_now_or_are_readings_of_our_clock() {
    let when = |args: &[&str]| {
        let plan = add(args).unwrap();
        match plan.spec.schedule.unwrap().kind.unwrap() {
            schedule::Kind::At(At { when: Some(when) }) => when,
            other => panic!("{other:?}"),
        }
    };
    let twenty = when(&["tea", "--at", "in 20m", "--event", "Tea"]);
    assert_eq!(
        twenty,
        When::Time(timestamp(
            "2026-11-22T10:20:00Z"
                .parse::<jiff::Timestamp>()
                .unwrap()
                .as_millisecond()
        ))
    );
    let When::Civil(civil) = when(&[
        "x",
        "--at",
        "2026-12-01 07:00",
        "--tz",
        "America/New_York",
        "--event",
        "y",
    ]) else {
        panic!("not a reading")
    };
    assert_eq!(
        (civil.time.as_str(), civil.zone.as_str()),
        ("2026-12-01T07:00:00", "America/New_York")
    );
}

#[test]
fn what_contradicts_itself_is_usage() {
    for bad in [
        vec!["x"],
        vec!["x", "--every", "5m"],
        vec!["x", "--message", "m"],
        vec!["x", "--every", "5m", "--cron", "* * * * *", "--message", "m"],
        vec!["x", "* * * * *", "m", "--cron", "* * * * *"],
        vec!["x", "--every", "5m", "--message", "m", "--event", "e"],
        vec!["x", "--every", "5m", "--message", "m", "--tz", "UTC"],
        vec!["x", "--every", "5m", "--event", "e", "--backend", "py"],
        vec!["x", "--at", "tomorrow", "--event", "e"],
        vec!["x", "--json-spec", "[]"],
        vec!["x", "--json-spec", r#"{"schedule":{"everyMs":60000}}"#],
        vec![
            "x",
            "--json-spec",
            r#"{"schedule":{"everyMs":60000},"payload":{"kind":"audit"},"wakeMode":"now"}"#,
        ],
    ] {
        assert_eq!(
            add(&bad).unwrap_err().code(),
            Some(Code::InvalidArgument),
            "{bad:?}"
        );
    }
}

#[test]
fn json_in_the_seeds_spelling_is_read_and_a_shown_job_can_be_copied() {
    let seed = r#"{"schedule":{"kind":"cron","expr":"0 8 28 1 *","tz":"Europe/Berlin"},
        "payload":{"kind":"systemEvent","text":"t"},"sessionTarget":"main","deleteAfterRun":true}"#;
    let plan = add(&["x", "--json-spec", seed]).unwrap();
    assert!(!plan.zone_is_ours && plan.spec.delete_after_run);
    assert_eq!(
        (plan.spec.name.as_str(), cron(&plan.spec).zone.as_str()),
        ("x", "Europe/Berlin")
    );
    let bare = r#"{"schedule":{"expr":"0 8 * * *"},"payload":{"kind":"systemEvent","text":"t"}}"#;
    let plan = add(&["x", "--json-spec", bare]).unwrap();
    assert!(plan.zone_is_ours);
    assert_eq!(cron(&plan.spec).zone, "Europe/Berlin");

    let shown = serde_json::to_string(&JobView::from(&job())).unwrap();
    let copy = add(&["copy", "--json-spec", &shown]).unwrap().spec;
    let original = job().spec.unwrap();
    assert_eq!((copy.name.as_str(), &copy.payload), ("copy", &original.payload));
    assert_eq!(
        (cron(&copy).expression, &copy.target),
        (cron(&original).expression, &original.target)
    );
}

#[test]
fn two_lines_say_what_will_happen() {
    let mut job = job();
    job.schedule_text = "daily 07:00 Europe/Berlin".into();
    job.next_run_at = Some(timestamp(
        "2026-11-23T06:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_millisecond(),
    ));
    assert_eq!(
        summary(&job, false, true, &berlin()),
        "tick: daily 07:00 Europe/Berlin (from this machine); next Mon 23 Nov 07:00 CET\n\
         if asleep then: once on waking, within 24 h (--if-missed skip|run|all) · after 3 failures: alert to session main"
    );
    let spec = add(&["x", "--every", "5m", "--message", "m", "--if-missed", "skip"])
        .unwrap()
        .spec;
    assert_eq!(missed(&spec), "if asleep then: skipped");
    let spec = add(&["x", "--every", "5m", "--message", "m"]).unwrap().spec;
    assert_eq!(missed(&spec), "if asleep then: once on waking, within 5 min");
    let spec = add(&[
        "x",
        "--every",
        "5m",
        "--message",
        "m",
        "--if-missed",
        "all",
        "--window",
        "2h",
    ])
    .unwrap()
    .spec;
    assert_eq!(
        missed(&spec),
        "if asleep then: each on waking, at most 1000, within 2 h"
    );
    let told = |flags: &[&str]| {
        let spec = add(&[&["x", "--every", "5m", "--message", "m"][..], flags].concat())
            .unwrap()
            .spec;
        alert(&spec)
    };
    assert_eq!(
        told(&["--alert-after", "1"]),
        "after a failure: alert to session main"
    );
    assert_eq!(
        told(&["--alert-to", "ops", "--alert-every", "10m"]),
        "after 3 failures: alert to session agent:default:webchat:local:dm:ops"
    );
    assert_eq!(told(&["--no-alert"]), "nobody is told of failures");
    let spec = add(&["x", "--at", "in 5m", "--message", "m"]).unwrap().spec;
    assert_eq!(missed(&spec), "if asleep then: once on waking");
    assert!(
        summary(
            &Job {
                spec: Some(spec),
                ..job.clone()
            },
            true,
            true,
            &berlin()
        )
        .starts_with("x (unchanged): ")
    );
}
