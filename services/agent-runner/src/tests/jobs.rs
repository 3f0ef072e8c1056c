use creel_proto::{
    agent::v1::{Origin, StartTurnRequest, Trust, WorkRecord, turn_service_server::TurnService as _},
    scheduler::v1::{
        AgentTurnPayload, Payload as PayloadMessage, RunState, SystemEventPayload, Work, WorkRef,
        payload::Kind as Payload,
    },
};
use creel_wire::authz::test_acting_for;

use super::{Ground, House, MAIN, by, operator, words};

const PERSON: &str = "anna";

fn work(run: &str, attempt: u32, payload: Payload) -> Work {
    Work {
        r#ref: Some(WorkRef {
            run_id: run.to_owned(),
            attempt,
        }),
        job_id: "j1".into(),
        job_name: "briefing".into(),
        payload: Some(PayloadMessage { kind: Some(payload) }),
        target: MAIN.into(),
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

fn event(text: &str) -> Payload {
    Payload::SystemEvent(SystemEventPayload { text: text.into() })
}

impl House {
    /// Waits until a run has ended and its summary is where it goes.
    async fn over(&self, run: &str) -> WorkRecord {
        let mut changes = self.runner.works.changes();
        loop {
            changes.borrow_and_update();
            if let Some(record) = self
                .runner
                .works
                .get(run)
                .filter(|r| r.outcome != 0 && r.delivery_state != "pending")
            {
                return record;
            }
            changes.changed().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_isolated_run_tells_its_target_and_starts_nothing_there() {
    let house = House::new().await;
    house.run(MAIN, "say before").await;
    house
        .runner
        .take_work(&work("r1", 1, turn("say the summary")))
        .await;
    let record = house.over("r1").await;
    assert_eq!(record.outcome, i32::from(RunState::Succeeded));
    assert_eq!(
        (record.summary.as_str(), record.delivery_state.as_str()),
        ("the summary", "delivered")
    );
    assert_eq!(record.session, "cron:j1:run:r1");
    // It saw nothing of the conversation it delivered to.
    assert_eq!(
        house.input(&record.turn_id)["history"].as_array().unwrap().len(),
        0
    );
    let entries = house.transcript(MAIN).await;
    assert_eq!(words(&entries)[3..], ["job summary: the summary"]);
    let from = entries[3].provenance.clone().unwrap();
    assert_eq!(
        (
            from.origin(),
            from.job_id.as_str(),
            from.job_name.as_str(),
            from.run_id.as_str()
        ),
        (Origin::Job, "j1", "briefing", "r1")
    );
    assert_eq!(
        house.runner.turns_of(&creel_wire::SessionKey::main("default")),
        (None, vec![]),
        "no turn began"
    );

    // The next turn is told of it in a field of its own, once.
    let next = house.run(MAIN, "say after").await.turn_id;
    let told = house.input(&next);
    assert_eq!(
        (
            told["events"][0]["topic"].as_str(),
            told["events"][0]["run_id"].as_str()
        ),
        (Some("job summary"), Some("r1"))
    );
    assert!(
        !told["history"]
            .as_array()
            .unwrap()
            .iter()
            .any(|past| past["kind"] == "system")
    );
    let later = house.run(MAIN, "say later").await.turn_id;
    assert_eq!(house.input(&later)["events"].as_array().unwrap().len(), 0);
    let runs = house
        .runner
        .contexts
        .find(&creel_wire::SessionKey::parse("cron:j1:run:r1").unwrap())
        .await
        .unwrap();
    assert_eq!(runs.as_ref().unwrap().record.trust, i32::from(Trust::Trusted));
}

#[tokio::test]
async fn an_event_starts_a_turn_in_its_target() {
    let house = House::new().await;
    house.runner.take_work(&work("r1", 1, event("tick"))).await;
    let record = house.over("r1").await;
    assert_eq!(
        (record.session.as_str(), record.delivery_state.as_str()),
        (MAIN, "delivered")
    );
    let told = house.input(&record.turn_id);
    assert_eq!(
        (told["text"].as_str(), told["origin"].as_str()),
        (Some(""), Some("job"))
    );
    assert_eq!(
        (
            told["events"][0]["topic"].as_str(),
            told["events"][0]["text"].as_str()
        ),
        (Some("job event"), Some("tick"))
    );
    assert_eq!(words(&house.transcript(MAIN).await)[0], "job event: tick");
}

#[tokio::test]
async fn a_failed_run_is_told_too() {
    let house = House::new().await;
    house.runner.take_work(&work("r1", 1, turn("die"))).await;
    let record = house.over("r1").await;
    assert_eq!(
        (record.outcome, record.reason.as_str()),
        (i32::from(RunState::Failed), "backend_exited")
    );
    let entries = words(&house.transcript(MAIN).await);
    assert!(
        entries[0].starts_with("job summary: briefing failed: backend_exited: "),
        "{entries:?}"
    );
    // One that can't become a turn at all is ended with its reason.
    house.runner.take_work(&work("r2", 1, turn(""))).await;
    let record = house.over("r2").await;
    assert_eq!(
        (record.outcome, record.reason.as_str()),
        (i32::from(RunState::Failed), "invalid_argument")
    );
}

#[tokio::test]
async fn a_run_that_comes_again_is_the_same_turn_also_after_a_restart() {
    let ground = Ground::new("");
    let mut before = ground.house().await;
    let given = work("r1", 1, turn("silent"));
    before.runner.take_work(&given).await;
    before.reach("silent").await;
    let first = before.runner.works.get("r1").unwrap();
    before.runner.take_work(&given).await;
    assert_eq!(before.runner.works.get("r1").unwrap(), first);

    let after = ground.house().await;
    let record = after.over("r1").await;
    assert_eq!(
        (record.turn_id.as_str(), record.outcome, record.reason.as_str()),
        (first.turn_id.as_str(), i32::from(RunState::Failed), "interrupted")
    );
    after.runner.take_work(&given).await;
    assert_eq!(
        after.runner.works.get("r1").unwrap(),
        record,
        "it is not run again"
    );
    let told = words(&after.transcript(MAIN).await);
    assert_eq!(told.len(), 1, "{told:?}");
    // Delivered once, also if the process died right after it.
    let again = ground.house().await;
    assert_eq!(words(&again.transcript(MAIN).await), told);
    // Acknowledged: forgotten.
    again
        .runner
        .forget_work(&WorkRef {
            run_id: "r1".into(),
            attempt: 1,
        })
        .await;
    assert_eq!(ground.house().await.runner.works.all(), []);
}

#[tokio::test]
async fn a_newer_attempt_ends_the_older_one_and_an_older_one_is_not_taken() {
    let mut house = House::new().await;
    house.runner.take_work(&work("r1", 1, turn("silent"))).await;
    house.reach("silent").await;
    let old = house.runner.works.get("r1").unwrap().turn_id;
    house.runner.take_work(&work("r1", 2, turn("say new"))).await;
    let record = house.over("r1").await;
    assert_eq!((record.attempt, record.summary.as_str()), (2, "new"));
    assert_eq!(house.wait(&old).await.error.unwrap().reason, "aborted");
    house.runner.take_work(&work("r1", 1, turn("say old"))).await;
    assert_eq!(house.runner.works.get("r1").unwrap(), record);
    assert_eq!(words(&house.transcript(MAIN).await), ["job summary: new"]);
    // What belongs to the older attempt changes nothing.
    house
        .runner
        .cancel_work(
            &WorkRef {
                run_id: "r1".into(),
                attempt: 1,
            },
            "late",
        )
        .await;
    house
        .runner
        .forget_work(&WorkRef {
            run_id: "r1".into(),
            attempt: 1,
        })
        .await;
    assert_eq!(house.runner.works.get("r1").unwrap(), record);
}

#[tokio::test]
async fn a_cancelled_run_is_cancelled() {
    let mut house = House::new().await;
    house.runner.take_work(&work("r1", 1, turn("silent"))).await;
    house.reach("silent").await;
    house
        .runner
        .cancel_work(
            &WorkRef {
                run_id: "r1".into(),
                attempt: 1,
            },
            "not needed",
        )
        .await;
    let record = house.over("r1").await;
    assert_eq!(
        (record.outcome, record.error.as_str()),
        (i32::from(RunState::Cancelled), "aborted: not needed")
    );
}

#[tokio::test]
async fn many_summaries_of_one_job_wait_as_one() {
    let house = House::new().await;
    for n in 0..3 {
        house
            .runner
            .take_work(&work(&format!("r{n}"), 1, turn(&format!("say {n}"))))
            .await;
        house.over(&format!("r{n}")).await;
    }
    let next = house.run(MAIN, "say x").await.turn_id;
    let events = house.input(&next)["events"].clone();
    assert_eq!(
        (
            events.as_array().unwrap().len(),
            events[0]["text"].as_str(),
            events[0]["count"].as_u64()
        ),
        (1, Some("2"), Some(3))
    );
    assert_eq!(
        words(&house.transcript(MAIN).await)[..3],
        ["job summary: 0", "job summary: 1", "job summary: 2"]
    );
}

#[tokio::test]
async fn old_runs_of_a_job_are_forgotten_and_recent_ones_kept() {
    let house = House::new().await;
    for n in 0..203 {
        house.ground.clock.advance(1);
        house
            .runner
            .take_work(&work(&format!("r{n}"), 1, turn("say x")))
            .await;
        house.over(&format!("r{n}")).await;
        let reference = WorkRef {
            run_id: format!("r{n}"),
            attempt: 1,
        };
        house.runner.forget_work(&reference).await;
    }
    house.drain.cancel();
    house.runner.run().await.unwrap();
    let left = crate::store::contexts_with("cron:j1:run:");
    let left = house.ground.store.scan_all(left, 999).await.unwrap().entries;
    assert_eq!(left.len(), 200);
    let gone = |n: usize| {
        !left
            .iter()
            .any(|entry| crate::store::last_part(&entry.key) == Some(format!("cron:j1:run:r{n}")))
    };
    assert!(gone(0) && gone(2) && !gone(3) && !gone(202));
}

#[tokio::test]
async fn what_jobs_said_is_bounded_in_all_and_what_floods_goes_first() {
    let config = "[agent]\nkept_mib = 16\nmax_running_turns = 1\n";
    let house = Ground::new(config).house().await;
    let talk = house.run(MAIN, "say hello").await.turn_id;
    house
        .runner
        .take_work(&work("quiet", 1, turn("say little")))
        .await;
    let quiet = house.over("quiet").await.turn_id;
    let mut floods = Vec::new();
    for n in 0..5 {
        let run = format!("flood-{n}");
        // The ids of turns sort by time.
        house.ground.clock.advance(1);
        house.runner.take_work(&work(&run, 1, turn("flood 20"))).await;
        let record = house.over(&run).await;
        assert_eq!(
            record.reason, "output_limit",
            "a turn may say its part of half of it: {record:?}"
        );
        floods.push(record.turn_id);
    }
    // It runs when the last of them has left its place.
    house.run(MAIN, "say more").await;
    let state = house.ground.profile.state(creel_wire::ServiceName::AgentRunner);
    let mut todo = vec![state.join("events"), state.join("transcripts")];
    let mut bytes = 0;
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => todo.push(entry.path()),
                false => bytes += entry.metadata().unwrap().len(),
            }
        }
    }
    assert!((4 << 20..=16 << 20).contains(&bytes), "{bytes}");
    assert!(house.runner.turn_record(&floods[0]).await.is_err(), "gone");
    for kept in [&talk, &quiet] {
        assert!(!house.subscribe(kept, 1).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn runs_that_hang_leave_their_owner_a_place_to_talk() {
    let mut house = Ground::new("[agent]\nmax_running_turns = 4\n").house().await;
    for n in 0..4 {
        let work = Work {
            owner: PERSON.into(),
            ..work(&n.to_string(), 1, turn("silent"))
        };
        house.runner.take_work(&work).await;
    }
    for _ in 0..3 {
        house.reach("silent").await;
    }
    let request = StartTurnRequest {
        session: MAIN.into(),
        text: "say hello".into(),
        ..Default::default()
    };
    let caller = test_acting_for(operator(), PERSON);
    let started = house.turns.start(by(caller, request)).await.unwrap().into_inner();
    assert_eq!(house.wait(&started.turn_id).await.reply, "hello");
}
