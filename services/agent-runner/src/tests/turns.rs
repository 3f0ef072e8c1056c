use creel_proto::agent::v1::{
    AbortTurnRequest, GetSandboxRequest, StartTurnRequest, SubscribeTurnRequest, TurnState,
    turn_event::Event, turn_service_server::TurnService as _,
};
use creel_wire::{Code, Principal, Scopes, authz::test_caller};
use tokio_stream::StreamExt as _;

use super::{Ground, House, MAIN, ask, by, of, sequences, words};
use crate::{
    queue::MAX_PER_CONTEXT,
    turn::{Failure, reason},
};

#[tokio::test]
async fn turns_of_a_session_are_serial_and_in_order_and_sessions_run_beside_each_other() {
    let mut house = House::new().await;
    let first = house.start(MAIN, "hold one").await;
    let second = house.try_start(MAIN, "hold two").await.unwrap();
    house.reach("hold one").await;
    let other = house.start("agent:other:main", "hold three").await;
    house.reach("hold three").await;
    assert_eq!(house.runner.running(), 2, "the second waits");
    let Some(Event::Accepted(accepted)) = house.stream_first(&second.turn_id).await.event else {
        panic!()
    };
    assert_eq!(accepted.queued_behind, 1);
    house.let_go_on();
    house.let_go_on();
    house.wait(&first).await;
    house.reach("hold two").await;
    house.let_go_on();
    assert_eq!(house.wait(&second.turn_id).await.reply, "two");
    assert_eq!(house.wait(&other).await.reply, "three");
    let entries = words(&house.transcript(MAIN).await);
    assert_eq!(
        entries,
        [
            "user hold one",
            "assistant one",
            "Succeeded",
            "user hold two",
            "assistant two",
            "Succeeded"
        ]
    );
    // The second was told what had been said.
    let history = &house.input(&second.turn_id)["history"];
    assert_eq!(history.as_array().unwrap().len(), 2);
    assert_eq!(history[1]["text"], "one");
}

impl House {
    async fn stream_first(&self, turn: &str) -> creel_proto::agent::v1::TurnEvent {
        let request = SubscribeTurnRequest {
            turn_id: turn.into(),
            from_sequence: 1,
        };
        let mut stream = self.turns.subscribe(ask(request)).await.unwrap().into_inner();
        stream.next().await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_subscriber_resumes_anywhere_without_gap_or_duplicate_to_the_end() {
    let mut house = House::new().await;
    let turn = house.start(MAIN, "hold hello").await;
    house.reach("hold hello").await;
    let request = SubscribeTurnRequest {
        turn_id: turn.clone(),
        from_sequence: 0,
    };
    let mut live = house.turns.subscribe(ask(request)).await.unwrap().into_inner();
    assert_eq!(live.next().await.unwrap().unwrap().sequence, 1);
    assert_eq!(live.next().await.unwrap().unwrap().sequence, 2);
    house.let_go_on();
    let rest: Vec<_> = live.map(Result::unwrap).collect().await;
    assert_eq!(sequences(&rest), [3, 4]);
    for from in 1..=4 {
        assert_eq!(
            sequences(&house.subscribe(&turn, from).await.unwrap()),
            (from..=4).collect::<Vec<_>>()
        );
    }
    assert!(
        house.subscribe(&turn, 5).await.unwrap().is_empty(),
        "nothing follows the end"
    );
    let error = house.subscribe(&turn, 6).await.unwrap_err();
    assert_eq!(
        (error.reason.as_ref(), error.field.as_deref()),
        ("sequence_ahead", Some("from_sequence"))
    );
    assert_eq!(
        house.subscribe("nothing", 1).await.unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test]
async fn one_request_id_is_one_turn() {
    let house = House::new().await;
    let request = |text: &str| StartTurnRequest {
        request_id: "r1".into(),
        session: MAIN.into(),
        text: text.into(),
        ..Default::default()
    };
    let (one, two) = tokio::join!(house.send(request("say hi")), house.send(request("say hi")));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(
        (one.turn_id.as_str(), one.state()),
        (two.turn_id.as_str(), TurnState::Accepted)
    );
    house.wait(&one.turn_id).await;
    assert_eq!(house.send(request("say hi")).await.unwrap().turn_id, one.turn_id);
    assert_eq!(
        house.send(request("say ho")).await.unwrap_err().reason,
        "request_id_reused"
    );
    assert_eq!(house.transcript(MAIN).await.len(), 3);
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_by_field() {
    let house = House::new().await;
    let valid = StartTurnRequest {
        session: MAIN.into(),
        text: "x".into(),
        ..Default::default()
    };
    let field = async |request: StartTurnRequest| house.send(request).await.unwrap_err().field.unwrap();
    assert_eq!(
        field(StartTurnRequest {
            session: "main".into(),
            ..valid.clone()
        })
        .await,
        "session"
    );
    assert_eq!(
        field(StartTurnRequest {
            text: String::new(),
            ..valid.clone()
        })
        .await,
        "text"
    );
    assert_eq!(
        field(StartTurnRequest {
            text: "x".repeat((1 << 20) + 1),
            ..valid.clone()
        })
        .await,
        "text"
    );
    assert_eq!(
        field(StartTurnRequest {
            backend: "nobody".into(),
            ..valid.clone()
        })
        .await,
        "backend"
    );
    for ms in [0, -1, 24 * 3_600 * 1_000 + 1] {
        let timeout = Some(creel_proto::time::duration(ms));
        assert_eq!(
            field(StartTurnRequest {
                timeout,
                ..valid.clone()
            })
            .await,
            "timeout",
            "{ms}"
        );
    }
    let sender = test_caller(Principal::Sender("webchat/x".into()), Scopes::new(), None);
    let refused = house.turns.start(by(sender, valid)).await.unwrap_err();
    assert_eq!(of(refused).reason, "session_not_for_sender");
}

#[tokio::test]
async fn the_longest_text_goes_through_whole() {
    let house = House::new().await;
    let text = format!("say {}", "x".repeat((1 << 20) - 100));
    let turn = house.run(MAIN, &text).await;
    assert_eq!(turn.state(), TurnState::Succeeded, "{:?}", turn.error);
    assert_eq!(turn.reply.len(), text.len() - 4);
    assert_eq!(
        words(&house.transcript(MAIN).await)[0].len(),
        "user ".len() + text.len()
    );
    let inputs = house
        .ground
        .profile
        .state(creel_wire::ServiceName::AgentRunner)
        .join("inputs");
    assert_eq!(
        std::fs::read_dir(inputs).unwrap().count(),
        0,
        "the input's file is gone"
    );
}

#[tokio::test]
async fn waiting_is_bounded_and_says_so() {
    let mut house = House::new().await;
    house.start(MAIN, "hold first").await;
    house.reach("hold first").await;
    for _ in 0..MAX_PER_CONTEXT {
        house.start(MAIN, "say x").await;
    }
    let error = house.try_start(MAIN, "say x").await.unwrap_err();
    assert_eq!(
        (error.code, error.reason.as_ref()),
        (Code::ResourceExhausted, "context_queue_full")
    );
    assert!(error.hint.is_some());
    house.start("agent:other:main", "say x").await;

    let mut house = Ground::new("[agent]\nmax_running_turns = 1\nmax_waiting_turns = 2\n")
        .house()
        .await;
    house.start("agent:a:main", "hold first").await;
    house.reach("hold first").await;
    house.start("agent:b:main", "say x").await;
    assert_eq!(
        house.try_start("agent:c:main", "say x").await.unwrap_err().reason,
        "owner_queue_full"
    );
    // Nothing is left of what was refused.
    assert!(house.runner.follow("x").is_none());
    let missing = creel_proto::agent::v1::GetContextRequest {
        session: "agent:c:main".into(),
    };
    let missing =
        creel_proto::agent::v1::context_service_server::ContextService::get(&house.contexts, ask(missing));
    assert_eq!(of(missing.await.unwrap_err()).code, Code::NotFound);
}

#[tokio::test]
async fn running_and_waiting_turns_can_be_aborted_and_the_answer_is_kept() {
    let mut house = House::new().await;
    let running = house.start(MAIN, "silent").await;
    let waiting = house.start(MAIN, "say never").await;
    house.reach("silent").await;
    let request = |turn: &str| AbortTurnRequest {
        request_id: format!("abort {turn}"),
        turn_id: turn.into(),
        reason: "enough".into(),
        ..Default::default()
    };
    for turn in [&waiting, &running] {
        let aborted = house.turns.abort(ask(request(turn))).await.unwrap().into_inner();
        assert_eq!(
            (aborted.state(), aborted.turn_id.as_str()),
            (TurnState::Aborted, turn.as_str())
        );
        assert_eq!(aborted.error.as_ref().unwrap().message, "aborted: enough");
        let again = house.turns.abort(ask(request(turn))).await.unwrap().into_inner();
        assert_eq!(again, aborted, "the same request has the same answer");
        let events = house.subscribe(turn, 1).await.unwrap();
        assert!(matches!(events.last().unwrap().event, Some(Event::Error(_))));
    }
    // The running one's input was there first.
    let entries = words(&house.transcript(MAIN).await);
    assert_eq!(
        entries,
        [
            "user silent",
            "user say never",
            "Aborted aborted",
            "Aborted aborted"
        ]
    );
    let nothing = AbortTurnRequest {
        session: MAIN.into(),
        ..Default::default()
    };
    assert_eq!(
        of(house.turns.abort(ask(nothing)).await.unwrap_err()).reason,
        "no_turn"
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_ends_when_its_time_is_over() {
    let house = House::new().await;
    let request = StartTurnRequest {
        session: MAIN.into(),
        text: "silent".into(),
        timeout: Some(creel_proto::time::duration(86_000_000)),
        ..Default::default()
    };
    let turn = house.send(request).await.unwrap().turn_id;
    // Wait answers with the state at its own time's end.
    assert_eq!(house.wait(&turn).await.state(), TurnState::Running);
    house.subscribe(&turn, 1).await.unwrap();
    let turn = house.wait(&turn).await;
    assert_eq!(
        (turn.state(), turn.error.unwrap().reason.as_str()),
        (TurnState::TimedOut, reason::TIMEOUT)
    );
}

#[tokio::test]
async fn a_worker_that_cannot_be_launched_fails_its_turn_with_the_hint() {
    let house = House::new().await;
    let failure = Failure::new(
        reason::SANDBOX_UNAVAILABLE,
        "sandbox_unavailable: net: no seccomp",
    )
    .hint("allow seccomp");
    *house.script.refuse.lock().unwrap() = Some(failure);
    let turn = house.run(MAIN, "say x").await;
    let error = turn.error.clone().unwrap();
    assert_eq!(
        (turn.state(), error.reason.as_str(), error.hint.as_str()),
        (TurnState::Failed, "sandbox_unavailable", "allow seccomp")
    );
    *house.script.refuse.lock().unwrap() = None;
    assert_eq!(house.run(MAIN, "say x").await.reply, "x");
    assert_eq!(
        house.run(MAIN, "die").await.error.unwrap().reason,
        reason::BACKEND_EXITED
    );
}

#[tokio::test]
async fn a_draining_service_takes_nothing() {
    let house = House::new().await;
    house.drain.cancel();
    let error = house.try_start(MAIN, "say x").await.unwrap_err();
    assert_eq!(
        (error.code, error.reason.as_ref()),
        (Code::Unavailable, "draining")
    );
}

#[tokio::test]
async fn an_old_turn_that_is_forgotten_leaves_the_transcript() {
    let house = House::new().await;
    let (one, two) = (
        house.run(MAIN, "say one").await.turn_id,
        house.run(MAIN, "say two").await.turn_id,
    );
    let folder = house.runner.turn_record(&one).await.unwrap().folder;
    house.runner.forget_turn(&folder, 1).await.unwrap();
    assert_eq!(
        house.runner.turn_record(&one).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(house.subscribe(&one, 1).await.unwrap_err().code, Code::NotFound);
    assert_eq!(house.wait(&two).await.reply, "two");
    assert_eq!(house.transcript(MAIN).await.len(), 6);
    house.runner.forget_turn(&folder, 1).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_ends_the_process_and_loses_nothing() {
    let ground = Ground::new("");
    let mut house = ground.house().await;
    let turn = house.start(MAIN, "hold x").await;
    house.reach("hold x").await;
    // The transcript's folder is gone: its end can't be written down.
    let dir = ground
        .profile
        .state(creel_wire::ServiceName::AgentRunner)
        .join("transcripts");
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "in the way").unwrap();
    house.let_go_on();
    let error = house.runner.run().await.unwrap_err();
    assert!(
        error.to_string().starts_with("can't go on: keeping a turn"),
        "{error}"
    );
    assert_eq!(
        house.runner.turn(&turn).await.unwrap().state(),
        TurnState::Running,
        "nobody was told of an end"
    );
    std::fs::remove_file(&dir).unwrap();
    assert_eq!(
        ground.house().await.wait(&turn).await.reply,
        "x",
        "the log knew it"
    );
}

#[tokio::test]
async fn the_sandbox_is_told_wall_by_wall_or_why_there_is_none() {
    let house = House::new().await;
    let ask_it = || async {
        let answer = house.turns.get_sandbox(ask(GetSandboxRequest {})).await;
        answer.unwrap().into_inner()
    };
    let sandbox = ask_it().await;
    assert_eq!(sandbox.level, "partial");
    let walls: Vec<_> = sandbox.walls.iter().map(|wall| wall.name.as_str()).collect();
    assert_eq!(walls, ["fs", "net", "ipc", "kill"]);
    assert_eq!(
        (sandbox.walls[2].level.as_str(), sandbox.walls[2].detail.as_str()),
        ("partial", "a gap")
    );
    *house.script.refuse.lock().unwrap() = Some(Failure::new("sandbox_unavailable", "no Landlock"));
    let sandbox = ask_it().await;
    assert_eq!(sandbox.level, "none");
    assert_eq!(sandbox.refusal.unwrap().reason, "sandbox_unavailable");
}
