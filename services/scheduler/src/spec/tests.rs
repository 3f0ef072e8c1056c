use creel_proto::time::{duration, timestamp};
use creel_schedule::Zones;

use super::*;

fn cron(expression: &str, zone: &str) -> proto::JobSpec {
    let cron = proto::Cron {
        expression: expression.into(),
        zone: zone.into(),
        ..Default::default()
    };
    proto::JobSpec {
        name: "briefing".into(),
        schedule: Some(proto::Schedule {
            kind: Some(proto::schedule::Kind::Cron(cron)),
        }),
        payload: Some(proto::Payload {
            kind: Some(payload::Kind::AgentTurn(proto::AgentTurnPayload {
                message: "Summarise my inbox".into(),
                ..Default::default()
            })),
        }),
        ..Default::default()
    }
}

fn check(spec: &proto::JobSpec) -> Result<Spec, Error> {
    Spec::check(
        spec,
        Origin {
            zones: &Zones::bundled(),
            anchor_ms: 0,
        },
    )
}

/// Field and reason of the refusal.
fn refusal(change: impl FnOnce(&mut proto::JobSpec)) -> (String, String) {
    let mut spec = cron("0 7 * * *", "Europe/Berlin");
    change(&mut spec);
    let error = check(&spec).unwrap_err();
    (error.field.unwrap(), error.reason.into_owned())
}

fn is(field: &str, reason: &str) -> (String, String) {
    (field.to_owned(), reason.to_owned())
}

#[test]
fn a_jitter_that_is_cut_short_is_taken_with_a_warning() {
    let mut spec = cron("0 * * * *", "Europe/Berlin");
    let jitter = |seconds: i64| proto::Policy {
        jitter: Some(duration(seconds * SECOND)),
        ..Default::default()
    };
    spec.policy = Some(jitter(3_599));
    assert_eq!(check(&spec).unwrap().warnings, Vec::<String>::new());
    spec.policy = Some(jitter(7_200));
    let warnings = check(&spec).unwrap().warnings;
    assert!(
        warnings[0].contains("2 h") && warnings[0].contains("1 h"),
        "{warnings:?}"
    );
}

#[test]
fn defaults_are_those_of_the_page() {
    let spec = check(&cron("0 7 * * *", "Europe/Berlin")).unwrap();
    assert_eq!(spec.policy, Policy::default());
    assert_eq!((spec.kind, spec.warnings.len()), (proto::WorkKind::AgentTurn, 0));
    assert_eq!(spec.schedule.describe(), "daily 07:00 Europe/Berlin");
    let delivery = resolved_delivery(&spec.proto);
    let main = proto::SessionDelivery {
        session: "agent:default:main".into(),
    };
    assert_eq!(delivery.to, Some(delivery::To::Session(main)));
}

#[test]
fn every_refusal_names_its_field() {
    let payload_of = |kind| Some(proto::Payload { kind: Some(kind) });
    assert_eq!(refusal(|s| s.name.clear()).0, "spec.name");
    assert_eq!(refusal(|s| s.name = "a\u{1b}".into()).0, "spec.name");
    assert_eq!(refusal(|s| s.name = "x".repeat(129)).0, "spec.name");
    assert_eq!(refusal(|s| s.schedule = None).0, "spec.schedule");
    assert_eq!(refusal(|s| s.payload = None).0, "spec.payload");
    assert_eq!(refusal(|s| s.target = "nowhere".into()).0, "spec.target");
    assert_eq!(refusal(|s| s.target = "cron:a:run:b".into()).0, "spec.target");
    let event = |text: String| payload::Kind::SystemEvent(proto::SystemEventPayload { text });
    let field = "spec.payload.system_event.text";
    assert_eq!(refusal(|s| s.payload = payload_of(event(String::new()))).0, field);
    assert_eq!(
        refusal(|s| s.payload = payload_of(event("x".repeat(MAX_TEXT_BYTES + 1)))),
        is(field, "too_long")
    );
    let command = payload::Kind::Command(proto::CommandPayload::default());
    assert_eq!(
        refusal(|s| s.payload = payload_of(command)),
        is("spec.payload.command", "not_available_yet")
    );
    let audit = payload::Kind::Audit(proto::AuditPayload {});
    assert_eq!(
        refusal(|s| s.payload = payload_of(audit)),
        is("spec.payload.audit", "not_available_yet")
    );
    let webhook = delivery::To::Webhook(proto::WebhookDelivery::default());
    let refused = refusal(|s| s.delivery = Some(proto::Delivery { to: Some(webhook) }));
    assert_eq!(refused, is("spec.delivery.webhook", "not_available_yet"));
    let mut largest = cron("0 7 * * *", "UTC");
    largest.payload = payload_of(event("x".repeat(MAX_TEXT_BYTES)));
    assert!(check(&largest).is_ok());
}

fn civil(time: &str, zone: &str) -> Result<Spec, Error> {
    let civil = proto::CivilTime {
        time: time.into(),
        zone: zone.into(),
    };
    let at = proto::At {
        when: Some(proto::at::When::Civil(civil)),
    };
    let schedule = Some(proto::Schedule {
        kind: Some(proto::schedule::Kind::At(at)),
    });
    check(&proto::JobSpec {
        schedule,
        ..cron("* * * * *", "UTC")
    })
}

#[test]
fn a_reading_that_clocks_leave_out_or_show_twice_is_told() {
    let told = |time| civil(time, "Europe/Berlin").unwrap().warnings;
    assert_eq!(
        told("2027-03-28T02:30:00"),
        ["clocks in Europe/Berlin leave out 02:30 on that day; it is due at 03:00 CEST"]
    );
    assert_eq!(
        told("2027-10-31T02:30:00"),
        ["clocks in Europe/Berlin show 02:30 twice on that day; it is due the first time, at 02:30 CEST"]
    );
    assert_eq!(told("2027-03-28T03:30:00"), Vec::<String>::new());
}

#[test]
fn what_is_new_in_a_job_is_held_to_more_than_what_is_kept() {
    let id = "01a221fd-5911-77d7-84f5-3c7eba5a5e31";
    let blank = |name: &str, message: &str| proto::JobSpec {
        name: name.into(),
        payload: Some(crate::testing::turn(message)),
        ..cron("0 7 * * *", "UTC")
    };
    for (spec, field) in [
        (blank(id, "m"), "spec.name"),
        (blank(&id.replace('-', ""), "m"), "spec.name"),
        (blank("briefing", " \n\t"), "spec.payload.agent_turn.message"),
    ] {
        assert_eq!(written(&spec, None).unwrap_err().field.as_deref(), Some(field));
        assert!(
            written(&spec, Some(&spec)).is_ok() && check(&spec).is_ok(),
            "what is kept"
        );
        let before = cron("0 7 * * *", "UTC");
        assert!(written(&spec, Some(&before)).is_err(), "what is changed");
    }
    assert!(written(&blank("01a221fd", "m"), None).is_ok());
}

#[test]
fn schedules_are_refused_with_position_and_hint() {
    let error = check(&cron("0 24 * * *", "UTC")).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("spec.schedule.cron.expression"));
    assert_eq!(error.reason, "invalid_expression");
    let error = check(&cron("0 7 * * *", "Europe/Berln")).unwrap_err();
    assert_eq!(
        (error.field.as_deref(), error.reason.as_ref()),
        (Some("spec.schedule.cron.zone"), "unknown_zone")
    );
    assert_eq!(error.hint.as_deref(), Some("did you mean `Europe/Berlin`?"));
    assert!(check(&cron("0 0 30 2 *", "UTC")).is_err(), "30 February");
    assert_eq!(check(&cron("0 0 */2 * 1", "UTC")).unwrap().warnings.len(), 1);
    let every = |ms| {
        let every = proto::Every {
            period: Some(duration(ms)),
            ..Default::default()
        };
        let schedule = Some(proto::Schedule {
            kind: Some(proto::schedule::Kind::Every(every)),
        });
        check(&proto::JobSpec {
            schedule,
            ..cron("* * * * *", "UTC")
        })
    };
    assert!(every(1_000).is_ok());
    for ms in [999, 0, -1] {
        let error = every(ms).unwrap_err();
        assert_eq!(
            (error.field.as_deref(), error.reason.as_ref()),
            (Some("spec.schedule.every.period"), "invalid_period")
        );
    }
    assert!(civil("2026-12-01T07:00:00", "Europe/Berlin").is_ok());
    for (time, zone, field) in [
        ("in 20m", "UTC", "spec.schedule.at.civil.time"),
        ("tomorrow", "UTC", "spec.schedule.at.civil.time"),
        ("2026-12-01T07:00:00", "", "spec.schedule.at.civil.zone"),
        ("2026-12-01T07:00:00", "Mars/Base", "spec.schedule.at.civil.zone"),
    ] {
        assert_eq!(
            civil(time, zone).unwrap_err().field.as_deref(),
            Some(field),
            "{time} {zone}"
        );
    }
    let at = proto::At {
        when: Some(proto::at::When::Time(timestamp(i64::MAX))),
    };
    let schedule = Some(proto::Schedule {
        kind: Some(proto::schedule::Kind::At(at)),
    });
    let error = check(&proto::JobSpec {
        schedule,
        ..cron("* * * * *", "UTC")
    })
    .unwrap_err();
    assert_eq!(error.field.as_deref(), Some("spec.schedule.at.time"));
}

#[test]
fn policies_have_limits_and_unknown_rules_are_refused() {
    let field = |policy: proto::Policy| refusal(|s| s.policy = Some(policy)).0;
    let overlap = |mode, max| Some(proto::Overlap { mode, max });
    let allow = proto::OverlapMode::Allow.into();
    let policy = proto::Policy::default;
    assert_eq!(
        field(proto::Policy {
            overlap: overlap(allow, 0),
            ..policy()
        }),
        "spec.policy.overlap.max"
    );
    assert_eq!(
        field(proto::Policy {
            overlap: overlap(allow, 1_001),
            ..policy()
        }),
        "spec.policy.overlap.max"
    );
    assert_eq!(
        field(proto::Policy {
            overlap: overlap(99, 1),
            ..policy()
        }),
        "spec.policy.overlap.mode"
    );
    assert_eq!(
        field(proto::Policy {
            on_stuck: 9,
            ..policy()
        }),
        "spec.policy.on_stuck"
    );
    assert_eq!(
        field(proto::Policy {
            timeout: Some(duration(999)),
            ..policy()
        }),
        "spec.policy.timeout"
    );
    let retry = Some(proto::Retry {
        attempts: 21,
        ..Default::default()
    });
    assert_eq!(
        field(proto::Policy { retry, ..policy() }),
        "spec.policy.retry.attempts"
    );
    let mut short = cron("0 7 * * *", "UTC");
    short.policy = Some(proto::Policy {
        timeout: Some(duration(0)),
        ..policy()
    });
    let message = check(&short).unwrap_err().message;
    assert_eq!(message, "0 s is not between 1 s and 7 d");
    let catch_up = Some(proto::CatchUp {
        max: 1_001,
        ..Default::default()
    });
    assert_eq!(
        field(proto::Policy { catch_up, ..policy() }),
        "spec.policy.catch_up.max"
    );
    let mut spec = cron("* * * * *", "UTC");
    spec.policy = Some(proto::Policy {
        overlap: overlap(allow, 1_000),
        keep_runs: 10_000,
        ..policy()
    });
    let policy = check(&spec).unwrap().policy;
    assert_eq!(
        (policy.overlap, policy.keep_runs),
        (Overlap::Allow { max: 1_000 }, 10_000)
    );
}
