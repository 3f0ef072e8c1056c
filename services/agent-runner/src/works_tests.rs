use creel_proto::scheduler::v1::{
    AgentTurnPayload, AuditPayload, NoDelivery, Payload as PayloadMessage, SessionDelivery,
    SystemEventPayload, WebhookDelivery, WorkRef,
};

use super::*;
use crate::turn::Failure;

pub(crate) fn work(run: &str, attempt: u32, payload: Payload) -> Work {
    Work {
        r#ref: Some(WorkRef {
            run_id: run.to_owned(),
            attempt,
        }),
        job_id: "j1".into(),
        job_name: "briefing".into(),
        payload: Some(PayloadMessage { kind: Some(payload) }),
        target: "agent:default:main".into(),
        owner: "owner".into(),
        ..Work::default()
    }
}

fn turn(message: &str) -> Payload {
    Payload::AgentTurn(AgentTurnPayload {
        message: message.into(),
        ..Default::default()
    })
}

#[test]
fn a_turn_is_isolated_and_an_event_goes_to_its_target() {
    let job = read(&work("r1", 1, turn("hello")), 5).unwrap();
    assert_eq!(
        (job.key.to_string().as_str(), job.text.as_str()),
        ("cron:j1:run:r1", "hello")
    );
    assert_eq!(
        (job.record.deliver_to.as_str(), job.record.delivery_state.as_str()),
        ("agent:default:main", "pending")
    );
    assert_eq!(job.event, None);

    let job = read(
        &work(
            "r1",
            1,
            Payload::SystemEvent(SystemEventPayload { text: "tick".into() }),
        ),
        5,
    )
    .unwrap();
    let event = job.event.unwrap();
    assert_eq!((job.key, job.text.as_str()), (SessionKey::main("default"), ""));
    assert_eq!((event.topic.as_str(), event.text.as_str()), ("job event", "tick"));
    let from = event.provenance.unwrap();
    assert_eq!(
        (from.job_id.as_str(), from.job_name.as_str(), from.run_id.as_str()),
        ("j1", "briefing", "r1")
    );
}

#[test]
fn a_refused_run_names_no_context_that_was_never_made() {
    let error = Error::invalid("backend", "no backend `nosuch`");
    let read_well = |payload| read(&work("r1", 1, payload), 5).unwrap().record;
    let turn = read_well(turn("hello"));
    assert_eq!(turn.session, "cron:j1:run:r1");
    let refused_turn = refused(turn, &error);
    assert_eq!(
        (refused_turn.session.as_str(), refused_turn.error.as_str()),
        ("", "no backend `nosuch`")
    );
    let event = read_well(Payload::SystemEvent(SystemEventPayload { text: "tea".into() }));
    let session = event.session.clone();
    assert_eq!(
        refused(event, &error).session,
        session,
        "the target is there whatever comes of the event"
    );
}

#[test]
fn what_cannot_be_right_is_refused_with_its_record() {
    let refuse = |work: &Work| {
        let (record, error) = *read(work, 5).unwrap_err();
        assert_eq!((record.run_id.as_str(), record.attempt), ("r1", 1));
        error.field.unwrap()
    };
    let with = |change: fn(&mut Work)| {
        let mut work = work("r1", 1, turn("hello"));
        change(&mut work);
        work
    };
    assert_eq!(refuse(&work("r1", 1, Payload::Audit(AuditPayload {}))), "payload");
    assert_eq!(refuse(&work("r1", 1, turn(""))), "payload");
    assert_eq!(refuse(&work("r1", 1, turn(&"x".repeat(MAX_TEXT + 1)))), "payload");
    assert!(read(&work("r1", 1, turn(&"x".repeat(MAX_TEXT))), 5).is_ok());
    assert_eq!(refuse(&with(|work| work.target = "nobody".into())), "target");
    assert_eq!(
        refuse(&with(|work| work.target = "cron:a:run:b".into())),
        "delivery"
    );
    assert_eq!(refuse(&with(|work| work.job_id = String::new())), "job_id");
}

#[test]
fn delivery_says_where_the_summary_goes() {
    let state = |to: To| {
        let mut work = work("r1", 1, turn("hello"));
        work.delivery = Some(Delivery { to: Some(to) });
        let record = read(&work, 5).unwrap().record;
        (record.delivery_state, record.deliver_to)
    };
    let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(state(To::None(NoDelivery {})), own("none", ""));
    assert_eq!(state(To::Webhook(WebhookDelivery::default())), own("failed", ""));
    assert_eq!(
        state(To::Session(SessionDelivery {
            session: "main".into()
        })),
        own("pending", "agent:default:main")
    );
    assert_eq!(
        state(To::Session(SessionDelivery {
            session: "agent:x:main".into()
        })),
        own("pending", "agent:x:main")
    );
}

#[test]
fn the_shorter_time_holds() {
    let timeout = |own: i64, limit: i64| {
        let payload = AgentTurnPayload {
            message: "x".into(),
            timeout: (own > 0).then(|| creel_proto::time::duration(own)),
            ..Default::default()
        };
        let mut work = work("r1", 1, Payload::AgentTurn(payload));
        work.timeout = (limit > 0).then(|| creel_proto::time::duration(limit));
        read(&work, 5).unwrap().timeout_ms
    };
    assert_eq!(
        [
            timeout(0, 0),
            timeout(5, 0),
            timeout(0, 7),
            timeout(5, 7),
            timeout(9, 7)
        ],
        [0, 5, 7, 5, 7]
    );
}

#[test]
fn summaries_are_short_and_say_how_it_failed() {
    let record = read(&work("r1", 2, turn("hello")), 5).unwrap().record;
    let reply = "é".repeat(MAX_SUMMARY);
    let done = with_outcome(
        record.clone(),
        &Outcome {
            end: End::Succeeded,
            reply,
            failure: None,
        },
    );
    assert_eq!(done.outcome, i32::from(RunState::Succeeded));
    let event = summary(&done, 9);
    assert!(event.text.len() <= MAX_SUMMARY && event.text.starts_with("éé"));
    for (end, state) in [
        (End::Failed, RunState::Failed),
        (End::TimedOut, RunState::TimedOut),
        (End::Aborted, RunState::Cancelled),
        (End::Lost, RunState::Failed),
        (End::Interrupted, RunState::Failed),
    ] {
        let failure = Some(Failure::new("why", "it broke"));
        let failed = with_outcome(
            record.clone(),
            &Outcome {
                end,
                reply: String::new(),
                failure,
            },
        );
        assert_eq!(failed.outcome, i32::from(state));
        assert!(summary(&failed, 9).text.ends_with("why: it broke"));
    }
}

#[test]
fn an_older_attempt_never_comes_back() {
    let works = Works::new(64);
    assert_eq!(
        (works.capacity, Works::new(1).capacity, Works::new(1_024).capacity),
        (48, 1, 768)
    );
    let record = |attempt| WorkRecord {
        run_id: "r".into(),
        attempt,
        ..Default::default()
    };
    works.put(record(2));
    works.put(record(1));
    assert_eq!(works.get("r").unwrap().attempt, 2);
    let turn = |attempt| TurnRecord {
        run_id: "r".into(),
        attempt,
        ..Default::default()
    };
    let outcome = Outcome {
        end: End::Succeeded,
        reply: "x".into(),
        failure: None,
    };
    assert!(works.ended(&turn(1), &outcome).is_none(), "fenced off");
    works.put(works.ended(&turn(2), &outcome).unwrap());
    assert!(works.ended(&turn(2), &outcome).is_none(), "one outcome");
}
