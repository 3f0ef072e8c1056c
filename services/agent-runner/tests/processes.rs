//! Turns with real workers in the real sandbox.

mod common;

use common::{House, MAIN, ask, example, kinds};
use creel_proto::agent::v1::{
    AbortTurnRequest, TurnState, transcript_entry::Entry, turn_event::Event,
    turn_service_server::TurnService as _,
};

fn reason(turn: &creel_proto::agent::v1::Turn) -> (&str, TurnState) {
    (
        turn.error.as_ref().map_or("", |error| error.reason.as_str()),
        turn.state(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_answers_in_a_sandbox_with_numbered_events_and_a_transcript() {
    let house = House::with("").await;
    let turn = house.run(MAIN, "hello", "").await;
    assert_eq!(
        (turn.state(), turn.reply.as_str()),
        (TurnState::Succeeded, "echo: hello"),
        "{turn:?}"
    );
    assert_ne!(turn.sandbox, "none");
    let events = house.events(&turn.turn_id, 0).await;
    assert_eq!(kinds(&events), ["accepted", "started", "delta", "usage", "final"]);
    assert_eq!(
        events.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(turn.last_sequence, 5);
    let entries = house.transcript(MAIN).await;
    let texts: Vec<_> = entries
        .iter()
        .map(|entry| match entry.entry.as_ref().unwrap() {
            Entry::User(user) => format!("user {}", user.text),
            Entry::Assistant(assistant) => format!("assistant {}", assistant.text),
            Entry::System(system) => format!("system {}", system.text),
            Entry::Ended(ended) => format!("ended {:?}", ended.state()),
        })
        .collect();
    assert_eq!(texts, ["user hello", "assistant echo: hello", "ended Succeeded"]);
    let metrics = house.metrics.encode().unwrap();
    assert!(
        metrics.contains(r#"creel_turns_total{service="agent-runner",backend="echo",outcome="succeeded"} 1"#),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_makes_the_tool_calls_it_is_asked_for_and_reports_what_came_of_them() {
    let house = House::with("").await;
    let turn = house
        .run(MAIN, "run: ls\nfetch: https://example.org/", "echo")
        .await;
    assert!(
        turn.reply
            .ends_with("exec: not done (tool_unavailable)\nweb_fetch: not done (tool_unavailable)"),
        "{}",
        turn.reply
    );
    let events = house.events(&turn.turn_id, 0).await;
    let calls: Vec<_> = events
        .iter()
        .filter_map(|event| match event.event.as_ref().unwrap() {
            Event::ToolCall(call) => Some(format!("{} {}", call.tool, call.arguments_json)),
            Event::ToolResult(result) => Some(format!("{} {}", result.ok, result.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(
        calls,
        [
            r#"exec {"command":"ls"}"#,
            "false tool_unavailable",
            r#"web_fetch {"url":"https://example.org/"}"#,
            "false tool_unavailable",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_is_a_backend() {
    let house = House::with_program("python3", &example("agent.py"), "").await;
    let turn = house.run(MAIN, "run: abc", "x").await;
    assert_eq!(
        (turn.state(), turn.reply.as_str()),
        (TurnState::Succeeded, "cba :nur / tool_unavailable"),
        "{turn:?}"
    );
    let events = house.events(&turn.turn_id, 3).await;
    assert_eq!(
        kinds(&events),
        ["delta", "delta", "tool_call", "tool_result", "usage", "final"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_example_is_a_backend() {
    let house = House::with_program("sh", &example("agent.sh"), "").await;
    let text = "it's \"quoted\" \\ and\ntwo lines, with \"topic\": \u{1f99e}";
    let turn = house.run(MAIN, text, "x").await;
    assert_eq!(turn.state(), TurnState::Succeeded, "{turn:?}");
    assert_eq!(turn.reply, format!("you said: {text} (0 events)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_worker_times_out_and_delays_nobody_else() {
    let house = House::with_program("sh", "trap '' TERM; while :; do sleep 1000; done", "").await;
    let hanging = house.start_within(MAIN, "x", "x", Some(1_000)).await.unwrap();
    let other = house.run("agent:other:main", "hello", "echo").await;
    assert_eq!(other.state(), TurnState::Succeeded);
    let turn = house.wait(&hanging.turn_id).await;
    assert_eq!(reason(&turn), ("timeout", TurnState::TimedOut));
    house.quiet().await;
    let next = house.run(MAIN, "hello", "echo").await;
    assert_eq!(next.state(), TurnState::Succeeded, "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_die_is_an_outcome_of_that_turn() {
    for (program, state, why) in [
        ("exit 3", TurnState::Failed, "backend_exited"),
        ("read -r line; kill -KILL $$", TurnState::Lost, "worker_lost"),
        ("exec >&-; sleep 1000", TurnState::Failed, "backend_exited"),
        (
            "trap '' TERM; exec >&-; while :; do sleep 1000; done",
            TurnState::Failed,
            "backend_exited",
        ),
        ("echo hello", TurnState::Failed, "bad_worker_output"),
        (
            r#"echo '{"type":"error","message":"no"}'"#,
            TurnState::Failed,
            "backend_error",
        ),
        ("cat /dev/zero", TurnState::Failed, "bad_worker_output"),
        (
            r#"yes '{"type":"delta","text":"flood flood flood flood flood flood flood flood flood flood flood flood flood flood flood flood flood"}'"#,
            TurnState::Failed,
            "output_limit",
        ),
    ] {
        let house = House::with_program("sh", program, "").await;
        let turn = house.run(MAIN, "x", "x").await;
        assert_eq!(reason(&turn), (why, state), "{program}: {turn:?}");
        if program == "exit 3" {
            assert!(turn.error.unwrap().message.contains("code 3"));
        }
        house.quiet().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_not_there_fails_its_turns_with_the_way_out() {
    let house = House::with("[backends.x]\nkind = \"command\"\nargv = [\"no-such-program\"]\n").await;
    let turn = house.run(MAIN, "x", "x").await;
    assert_eq!(reason(&turn), ("backend_missing", TurnState::Failed));
    assert!(turn.error.unwrap().hint.contains("creel.toml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_turn_ends_at_once_and_its_audit_record_is_committed() {
    let house = House::with_program("sh", "read -r line; sleep 1000", "").await;
    let turn = house.start(MAIN, "x", "x").await;
    let request = AbortTurnRequest {
        session: MAIN.into(),
        reason: "enough".into(),
        ..Default::default()
    };
    let aborted = house.turns.abort(ask(request)).await.unwrap().into_inner();
    assert_eq!(
        (aborted.turn_id.as_str(), reason(&aborted)),
        (turn.turn_id.as_str(), ("aborted", TurnState::Aborted))
    );
    assert_eq!(
        kinds(&house.events(&turn.turn_id, 1).await).last(),
        Some(&"error")
    );
    let again = AbortTurnRequest {
        turn_id: turn.turn_id.clone(),
        ..Default::default()
    };
    let refused = house.turns.abort(ask(again)).await.unwrap_err();
    assert_eq!(creel_wire::Error::of_status(&refused).reason, "turn_ended");
    let waiting = house.store.scan(
        creel_kit::idempotency::FrameKind::Outbox.range(),
        creel_store::Page::first(10),
    );
    let records = waiting.await.unwrap().entries;
    assert_eq!(records.len(), 1);
    assert!(String::from_utf8_lossy(&records[0].value).contains("turn.aborted"));
    house.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_turns_at_once_all_succeed() {
    let house = House::with("[agent]\nmax_running_turns = 16\n").await;
    let mut turns = Vec::new();
    for n in 0..100 {
        turns.push(
            house
                .start(&format!("agent:a{n}:main"), &format!("hello {n}"), "echo")
                .await
                .turn_id,
        );
    }
    for (n, turn) in turns.iter().enumerate() {
        let turn = house.wait(turn).await;
        assert_eq!(
            (turn.state(), turn.reply),
            (TurnState::Succeeded, format!("echo: hello {n}"))
        );
    }
}
