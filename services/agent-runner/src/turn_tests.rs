use proptest::prelude::*;

use super::*;

fn said() -> impl Strategy<Value = Result<Said, Malformed>> {
    prop_oneof![
        4 => "[a-z]{0,4}".prop_map(|text| Ok(Said::Delta { text })),
        3 => "[a-c]".prop_map(|id| Ok(Said::ToolCall { id, tool: "t".into(), arguments: serde_json::Value::Null })),
        1 => Just(Ok(Said::Usage { input_tokens: 1, output_tokens: 1 })),
        1 => "[a-z]{0,4}".prop_map(|text| Ok(Said::Final { text })),
        1 => Just(Ok(Said::Error { message: "timeout".into() })),
        1 => Just(Err(Malformed::TooLong)),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => Just(Input::Started { backend: "echo".into(), sandbox: "full".into() }),
        1 => Just(Input::NotLaunched(Failure::new(reason::SANDBOX_UNAVAILABLE, "no"))),
        12 => (said(), 0usize..64).prop_map(|(said, bytes)| Input::Line { said, bytes }),
        1 => Just(Input::Gone(Gone::Exited(3))),
        1 => Just(Input::Gone(Gone::Signalled(9))),
        1 => Just(Input::Timeout),
        1 => Just(Input::Abort("why".into())),
        1 => Just(Input::Stopped),
    ]
}

proptest! {
    /// Whatever comes in whatever order: numbers without a gap, one last event, one outcome, and every
    /// refusal is the one that the state alone demands.
    #[test]
    fn any_history_is_numbered_and_ends_once(inputs in prop::collection::vec(input(), 0..40)) {
        let (mut turn, first) = Turn::accepted(0);
        prop_assert!(matches!(first, Event::Accepted(_)));
        let mut newest = 1;
        let mut last_event = first;
        let mut outcomes = Vec::new();
        for input in inputs {
            let before = turn.phase();
            match turn.apply(input.clone()) {
                Err(guard) => {
                    let expected = match before {
                        Phase::Ended(_) => Guard::Open,
                        Phase::Running => Guard::StartsOnce,
                        Phase::Accepted => Guard::Runs,
                    };
                    prop_assert_eq!(guard, expected);
                    prop_assert_eq!(turn.phase(), before, "a refusal changes nothing");
                }
                Ok(effects) => {
                    prop_assert!(!matches!(before, Phase::Ended(_)));
                    for (place, effect) in effects.iter().enumerate() {
                        match effect {
                            Effect::Emit(sequence, event) => {
                                newest += 1;
                                prop_assert_eq!(*sequence, newest);
                                last_event = event.clone();
                            }
                            Effect::Tell(_) => prop_assert!(place > 0, "persisted before it is told"),
                            Effect::End(outcome) => {
                                prop_assert_eq!(place, effects.len() - 1);
                                prop_assert!(place > 0);
                                outcomes.push(outcome.clone());
                            }
                        }
                    }
                }
            }
            prop_assert!(holds(&turn));
        }
        prop_assert_eq!(outcomes.len(), usize::from(matches!(turn.phase(), Phase::Ended(_))));
        // The log alone tells the same outcome.
        prop_assert_eq!(Outcome::of_last(&last_event), outcomes.pop());
    }
}

fn running() -> Turn {
    let (mut turn, _) = Turn::accepted(0);
    turn.apply(Input::Started {
        backend: "b".into(),
        sandbox: "full".into(),
    })
    .unwrap();
    turn
}

fn delta(bytes: usize) -> Input {
    Input::Line {
        said: Ok(Said::Delta { text: String::new() }),
        bytes,
    }
}

fn end_of(effects: &[Effect]) -> Option<(End, &str)> {
    match effects.last() {
        Some(Effect::End(Outcome { end, failure, .. })) => {
            Some((*end, failure.as_ref().map_or("", |f| &f.reason)))
        }
        _ => None,
    }
}

#[test]
fn output_is_bounded_in_bytes_and_events() {
    let mut turn = running();
    let most = usize::try_from(MAX_OUTPUT_BYTES).unwrap();
    assert_eq!(
        end_of(&turn.apply(delta(most - 1)).unwrap()),
        None,
        "at the limit"
    );
    assert_eq!(
        end_of(&turn.apply(delta(0)).unwrap()),
        Some((End::Failed, reason::OUTPUT_LIMIT))
    );

    let mut turn = Turn::found(Phase::Running, MAX_EVENTS - 3);
    assert_eq!(end_of(&turn.apply(delta(0)).unwrap()), None, "at the limit");
    assert_eq!(
        end_of(&turn.apply(delta(0)).unwrap()),
        Some((End::Failed, reason::OUTPUT_LIMIT))
    );
}

#[test]
fn tool_calls_are_bounded_unique_and_answered() {
    let call = |id: String| Input::Line {
        said: Ok(Said::ToolCall {
            id,
            tool: "exec".into(),
            arguments: serde_json::Value::Null,
        }),
        bytes: 1,
    };
    let mut turn = running();
    for n in 0..MAX_CALLS {
        let effects = turn.apply(call(n.to_string())).unwrap();
        let [
            Effect::Emit(_, Event::ToolCall(_)),
            Effect::Emit(_, Event::ToolResult(result)),
            Effect::Tell(told),
        ] = effects.as_slice()
        else {
            panic!("{effects:?}")
        };
        assert_eq!(
            (result.ok, result.reason.as_str()),
            (false, reason::TOOL_UNAVAILABLE)
        );
        assert!(matches!(told, Told::ToolResult { id, .. } if *id == n.to_string()));
    }
    let mut again = turn.clone();
    assert_eq!(
        end_of(&again.apply(call("0".into())).unwrap()),
        Some((End::Failed, reason::BAD_OUTPUT))
    );
    assert_eq!(
        end_of(&turn.apply(call("x".into())).unwrap()),
        Some((End::Failed, reason::BAD_OUTPUT))
    );
}

#[test]
fn each_way_to_go_has_its_own_end() {
    for (gone, end, why) in [
        (Gone::Exited(0), End::Failed, reason::BACKEND_EXITED),
        (Gone::Silent, End::Failed, reason::BACKEND_EXITED),
        (Gone::Signalled(11), End::Lost, reason::WORKER_LOST),
        (Gone::Unknown, End::Lost, reason::WORKER_LOST),
        (Gone::Memory, End::Failed, reason::MEMORY_LIMIT),
    ] {
        assert_eq!(
            end_of(&running().apply(Input::Gone(gone)).unwrap()),
            Some((end, why))
        );
    }
}

#[test]
fn a_backend_cannot_choose_our_reasons() {
    let said = Ok(Said::Error {
        message: "aborted\u{1b}[2J".into(),
    });
    let effects = running().apply(Input::Line { said, bytes: 1 }).unwrap();
    assert_eq!(end_of(&effects), Some((End::Failed, reason::BACKEND_ERROR)));
    let Some(Effect::End(outcome)) = effects.last() else {
        panic!()
    };
    assert!(!outcome.failure.as_ref().unwrap().message.contains('\u{1b}'));
}
