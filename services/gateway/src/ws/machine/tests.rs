use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::ws::connect::tests::sample;

const NOW: u64 = 1_000;

fn connect_frame() -> String {
    json!({"type":"req","id":"c1","method":"connect","params":sample()}).to_string()
}

fn hello() -> Box<Hello> {
    Box::new(Hello::new("door-1", Vec::new(), 7))
}

fn welcome(role: Role, scopes: &[Scope]) -> Verdict {
    Verdict::Welcome(Welcome {
        device: DeviceId::of_public_key(&[1; 32]),
        role,
        scopes: scopes.iter().copied().collect(),
        new_token: Some(Secret::new("t".to_owned())),
        token_issued_at_unix_ms: Some(9),
    })
}

pub(crate) fn opened(role: Role, scopes: &[Scope]) -> Machine {
    let (mut machine, _) = Machine::new("n", 5, NOW);
    assert!(matches!(
        machine.handle(Input::Text(connect_frame()), NOW).as_slice(),
        [Effect::Prove(_)]
    ));
    let effects = machine.handle(Input::Verdict(welcome(role, scopes), hello()), NOW);
    assert!(matches!(effects.as_slice(), [Effect::Opened(_), Effect::Send(_)]));
    machine
}

fn sent(effects: &[Effect]) -> Vec<Value> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(text) => Some(serde_json::from_str(text).unwrap()),
            _ => None,
        })
        .collect()
}

fn closed(effects: &[Effect]) -> Option<(u16, String)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Close { code, reason } => Some((*code, reason.clone())),
        _ => None,
    })
}

fn request(id: &str, method: &str) -> Input {
    Input::Text(json!({"type":"req","id":id,"method":method}).to_string())
}

#[test]
fn the_way_in_is_challenge_connect_welcome() {
    let (mut machine, challenge) = Machine::new("n", 5, NOW);
    let challenge = sent(&[challenge]);
    let expected = json!({"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":5}});
    assert_eq!(challenge, [expected]);
    machine.handle(Input::Text(connect_frame()), NOW);
    let effects = machine.handle(
        Input::Verdict(welcome(Role::Operator, &[Scope::Read]), hello()),
        NOW,
    );
    let answer = &sent(&effects)[0];
    assert_eq!((&answer["ok"], &answer["id"]), (&json!(true), &json!("c1")));
    let auth = json!({"method":"device-token","role":"operator","scopes":["operator.read"],"deviceToken":"t","issuedAtMs":9});
    let hello = &answer["payload"];
    assert_eq!(hello["auth"], auth);
    assert_eq!(
        (&hello["type"], &hello["protocol"], &hello["server"]["connId"]),
        (&json!("hello-ok"), &json!(4), &json!("door-1"))
    );
    assert!(
        hello["features"]["methods"]
            .as_array()
            .unwrap()
            .contains(&json!("health"))
    );
    assert_eq!(
        hello["snapshot"]["sessionDefaults"]["mainSessionKey"],
        "agent:default:main"
    );
    assert_eq!(hello["policy"]["tickIntervalMs"], 30_000);
    assert!(machine.is_open());
}

#[test]
fn a_device_that_waits_is_told_to_wait_and_come_again() {
    let (mut machine, _) = Machine::new("n", 5, NOW);
    machine.handle(Input::Text(connect_frame()), NOW);
    let pairing = Pairing {
        request: "r1".to_owned(),
        reason: "not-paired",
        phrase: "six words".to_owned(),
        role: Role::Node,
        scopes: Vec::new(),
        device: "d".to_owned(),
    };
    let effects = machine.handle(Input::Verdict(Verdict::Pairing(pairing), hello()), NOW);
    let error = &sent(&effects)[0]["error"];
    assert_eq!(error["code"], "NOT_PAIRED");
    assert_eq!(error["details"]["code"], "PAIRING_REQUIRED");
    assert_eq!(error["details"]["requestId"], "r1");
    assert_eq!(error["details"]["pauseReconnect"], false);
    let (code, reason) = closed(&effects).unwrap();
    assert_eq!(code, 1008);
    assert!(reason.ends_with("(requestId: r1)"), "{reason}");
    assert!(machine.is_over());
}

#[test]
fn whatever_else_comes_first_ends_the_connection() {
    let first = |text: &str| {
        let (mut machine, _) = Machine::new("n", 5, NOW);
        let effects = machine.handle(Input::Text(text.to_owned()), NOW);
        assert!(machine.is_over(), "{text}");
        (sent(&effects), closed(&effects).unwrap())
    };
    let (answers, (code, _)) = first("not json");
    assert_eq!((answers.len(), code), (0, 1008));
    let (answers, (code, _)) = first(r#"{"type":"req","id":"1","method":"health"}"#);
    assert_eq!(
        answers[0]["error"]["message"],
        "invalid handshake: first request must be connect"
    );
    assert_eq!(code, 1008);
    let (answers, _) = first(r#"{"type":"req","id":"1","method":"connect","params":{"minProtocol":4}}"#);
    assert_eq!(
        answers[0]["error"]["message"],
        "invalid connect params: missing field `maxProtocol`"
    );
    let mut old = sample();
    old["maxProtocol"] = json!(3);
    let (answers, (code, _)) =
        first(&json!({"type":"req","id":"1","method":"connect","params":old}).to_string());
    assert_eq!(answers[0]["error"]["details"]["expectedProtocol"], 4);
    assert_eq!(code, 1002);
}

#[test]
fn a_second_connect_and_a_word_before_the_verdict_are_refused() {
    let mut machine = opened(Role::Operator, &[Scope::Read]);
    let effects = machine.handle(Input::Text(connect_frame()), NOW);
    assert_eq!(sent(&effects)[0]["error"]["code"], "FORBIDDEN");
    assert!(machine.is_open());
    let (mut machine, _) = Machine::new("n", 5, NOW);
    machine.handle(Input::Text(connect_frame()), NOW);
    let effects = machine.handle(Input::Text(connect_frame()), NOW);
    assert_eq!(closed(&effects).unwrap().0, 1008);
    let late = machine.handle(Input::Verdict(welcome(Role::Operator, &[]), hello()), NOW);
    assert!(late.is_empty(), "the verdict comes too late");
}

#[test]
fn ids_are_answered_once_and_bounded() {
    let mut machine = opened(Role::Operator, &[Scope::Read]);
    for n in 0..MAX_IN_FLIGHT {
        let effects = machine.handle(request(&n.to_string(), "health"), NOW);
        assert!(matches!(effects.as_slice(), [Effect::Call(..)]));
    }
    let effects = machine.handle(request("0", "health"), NOW);
    assert_eq!(
        sent(&effects)[0]["error"]["message"],
        "duplicate request id: the first is under way"
    );
    let effects = machine.handle(request("more", "health"), NOW);
    assert_eq!(sent(&effects)[0]["error"]["retryable"], true);
    let answer = |machine: &mut Machine| {
        let input = Input::Answer {
            id: "0".to_owned(),
            outcome: Ok(json!({})),
        };
        machine.handle(input, NOW).len()
    };
    assert_eq!((answer(&mut machine), answer(&mut machine)), (1, 0));
    assert!(matches!(
        machine.handle(request("0", "health"), NOW).as_slice(),
        [Effect::Call(..)]
    ));
}

#[test]
fn what_may_not_be_called_is_put_on_record_and_what_does_not_exist_is_not() {
    let mut machine = opened(Role::Operator, &[Scope::Read]);
    let effects = machine.handle(request("1", "cron.add"), NOW);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Refused("cron.add"), Effect::Send(_)]
    ));
    let effects = machine.handle(request("2", "nothing"), NOW);
    assert!(matches!(effects.as_slice(), [Effect::Send(_)]));
}

#[test]
fn an_answer_that_fits_no_frame_is_told_as_such() {
    let mut machine = opened(Role::Operator, &[Scope::Read]);
    machine.handle(request("1", "health"), NOW);
    let input = Input::Answer {
        id: "1".to_owned(),
        outcome: Ok(json!("x".repeat(frame::MAX_BYTES))),
    };
    let answer = &sent(&machine.handle(input, NOW))[0];
    assert_eq!((&answer["ok"], &answer["id"]), (&json!(false), &json!("1")));
}

#[test]
fn events_reach_those_who_may_see_them_and_leave_no_gaps() {
    let mut reader = opened(Role::Operator, &[Scope::Read]);
    let mut node = opened(Role::Node, &[]);
    let mut send = |audience: Audience| {
        let event = Arc::new(Event {
            name: "x",
            payload: Value::Null,
            audience,
        });
        let seq = |machine: &mut Machine| {
            let effects = machine.handle(Input::Event(Arc::clone(&event)), NOW);
            sent(&effects).first().map(|event| event["seq"].as_u64().unwrap())
        };
        (seq(&mut reader), seq(&mut node))
    };
    assert_eq!(send(Audience::Operators(Scope::Read)), (Some(1), None));
    assert_eq!(send(Audience::Operators(Scope::Pairing)), (None, None));
    assert_eq!(send(Audience::Anyone), (Some(2), Some(1)));
}

#[test]
fn a_silent_peer_is_left_after_three_ticks() {
    let mut machine = opened(Role::Operator, &[]);
    let tick = Input::Tick { unix_ms: 1 };
    let effects = machine.handle(tick, NOW + SILENCE_MS - 1);
    assert!(matches!(effects.as_slice(), [Effect::Send(_), Effect::Ping]));
    machine.handle(Input::Sign, NOW + SILENCE_MS - 1);
    assert!(closed(&machine.handle(Input::Tick { unix_ms: 1 }, NOW + SILENCE_MS)).is_none());
    let effects = machine.handle(Input::Tick { unix_ms: 1 }, NOW + 2 * SILENCE_MS);
    assert_eq!(closed(&effects).unwrap().0, 1001);
}

#[test]
fn each_ending_has_its_code() {
    for (ending, code) in [
        (Ending::Revoked, 1008),
        (Ending::Slow, 1008),
        (Ending::Drain, 1012),
        (Ending::Replaced, 1000),
        (Ending::TooLong, 1009),
    ] {
        let mut machine = opened(Role::Operator, &[]);
        let effects = machine.handle(Input::End(ending), NOW);
        assert_eq!(closed(&effects).unwrap().0, code, "{ending:?}");
        assert_eq!(sent(&effects).len(), usize::from(ending == Ending::Drain));
    }
}

#[test]
fn too_many_bad_frames_end_it() {
    let mut machine = opened(Role::Operator, &[]);
    for _ in 0..MAX_BAD_FRAMES {
        let effects = machine.handle(Input::Text("{}".to_owned()), NOW);
        assert_eq!(sent(&effects)[0]["id"], "invalid");
    }
    assert!(machine.is_open());
    machine.handle(Input::Binary, NOW);
    assert!(machine.is_over());
}

fn any_input() -> impl Strategy<Value = u8> {
    0_u8..16
}

fn make(kind: u8, n: u8) -> Input {
    let id = (n % 5).to_string();
    match kind {
        0 => Input::Text(connect_frame()),
        1 => Input::Text("garbage".to_owned()),
        2 => Input::Text("{\"type\":\"req\"}".to_owned()),
        3..=5 => request(&id, if n.is_multiple_of(2) { "health" } else { "nothing" }),
        6 => Input::Binary,
        7 => Input::Sign,
        8 => Input::Verdict(welcome(Role::Operator, &[Scope::Read]), hello()),
        9 => Input::Verdict(
            Verdict::Refused {
                code: "x",
                message: "no".to_owned(),
                retry_after_ms: None,
            },
            hello(),
        ),
        10 | 11 => Input::Answer {
            id,
            outcome: Ok(Value::Null),
        },
        12 => Input::HandshakeOver,
        13 => Input::Tick { unix_ms: 0 },
        14 => Input::Event(Arc::new(Event {
            name: "x",
            payload: Value::Null,
            audience: Audience::Anyone,
        })),
        _ => Input::End(Ending::Revoked),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_order_of_inputs_breaks_an_invariant(inputs in prop::collection::vec((any_input(), any::<u8>()), 0..60)) {
        let (mut machine, _) = Machine::new("n", 5, NOW);
        let (mut proofs, mut under_way) = (0, BTreeSet::new());
        for (kind, n) in inputs {
            // An ending in every sixteenth input would leave little to see.
            let kind = if kind == 15 && !n.is_multiple_of(8) { 13 } else { kind };
            let (was_over, was_open) = (machine.is_over(), machine.is_open());
            let before = under_way.clone();
            for effect in machine.handle(make(kind, n), NOW) {
                prop_assert!(!was_over, "an effect after the end");
                match effect {
                    Effect::Prove(_) => proofs += 1,
                    Effect::Call(_, request) => {
                        prop_assert!(was_open, "a call before the welcome");
                        prop_assert!(under_way.insert(request.id), "an id twice under way");
                    }
                    Effect::Opened(_) => prop_assert!(proofs == 1 && machine.is_open()),
                    Effect::Close { .. } => prop_assert!(machine.is_over()),
                    Effect::Send(text) => {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        if kind == 10 || kind == 11 {
                            let id = frame["id"].as_str().unwrap_or_default();
                            prop_assert!(before.contains(id), "an answer nobody asked for");
                            under_way.remove(id);
                        }
                    }
                    Effect::Ping | Effect::Refused(_) => {}
                }
            }
            prop_assert!(proofs <= 1 && under_way.len() <= MAX_IN_FLIGHT);
        }
    }

    #[test]
    fn no_text_makes_it_panic(texts in prop::collection::vec(".{0,80}", 0..8)) {
        let (mut fresh, _) = Machine::new("n", 5, NOW);
        let mut open = opened(Role::Operator, &[Scope::Read]);
        for text in texts {
            fresh.handle(Input::Text(text.clone()), NOW);
            open.handle(Input::Text(text), NOW);
        }
    }
}
