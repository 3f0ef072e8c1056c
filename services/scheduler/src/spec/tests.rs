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
    let civil = |time: &str, zone: &str| {
        let civil = proto::CivilTime {
            time: time.into(),
            zone: zone.into(),
        };
        let at = proto::At {
            when: Some(at_when(civil)),
        };
        let schedule = Some(proto::Schedule {
            kind: Some(proto::schedule::Kind::At(at)),
        });
        check(&proto::JobSpec {
            schedule,
            ..cron("* * * * *", "UTC")
        })
    };
    fn at_when(civil: proto::CivilTime) -> proto::at::When {
        proto::at::When::Civil(civil)
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
