//! What clients may send that no honest one sends: every method, by its own table of parameters, with each
//! field missing, of another type, too long, too deep, out of range, or of another's. A method that is added is
//! walked by itself.

use creel_wire::Scope;
use proptest::{
    prelude::*,
    strategy::{Union, ValueTree as _},
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use super::{Asked, read};
use crate::ws::{
    connect::Role,
    frame,
    machine::{Effect, Input, Machine, tests::opened},
    methods::{self, METHODS, Method},
    params::{Field, Kind, MAX_COUNT, MAX_ID, MAX_IDS, Params},
};

const NOW: u64 = 1_000;
/// The original's codes, of `gateway-error-details` of its package.
const CODES: &[&str] = &[
    "NOT_LINKED",
    "NOT_PAIRED",
    "AGENT_TIMEOUT",
    "INVALID_REQUEST",
    "FORBIDDEN",
    "APPROVAL_NOT_FOUND",
    "UNAVAILABLE",
];
/// A device's id: good as any other id, too.
const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// JSON, or nearly, that is seldom meant.
fn nasty() -> impl Strategy<Value = String> {
    let fixed = [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "-0",
        "0.5",
        "1e308",
        "-1e308",
        "1e999",
        "NaN",
        "Infinity",
        "01",
        "9223372036854775808",
        "18446744073709551616",
        "8640000000000001",
        "[]",
        "{}",
        "[null]",
        "[[]]",
        r#"{"":{}}"#,
        r#"{"a":1,"a":2}"#,
        r#""""#,
        r#"" ""#,
        r#""a\u0000b""#,
        r#""\u001b[2J""#,
        r#""\u202e""#,
        r#""\ud800""#,
        r#""\udc00x""#,
        r#"["\ud800"]"#,
        r#""../x""#,
        r#""a/b""#,
        r#""agent:other:main""#,
        r#""agent:default:main""#,
        r#""cron:a:run:b""#,
        r#""*""#,
        "",
        "\u{7f}",
    ];
    let text = |text: String| json!(text).to_string();
    prop_oneof![
        6 => prop::sample::select(fixed.to_vec()).prop_map(str::to_owned),
        2 => ".{0,40}".prop_map(text),
        1 => (1_usize..300).prop_map(|deep| format!("{}{}", "[".repeat(deep), "]".repeat(deep))),
        1 => (1_usize..300).prop_map(|deep| format!("{}1{}", r#"{"a":"#.repeat(deep), "}".repeat(deep))),
        1 => (MAX_ID - 1..MAX_ID + 2).prop_map(move |long| text("x".repeat(long))),
        1 => Just(text("x".repeat(70_000))),
        1 => (MAX_IDS..MAX_IDS + 2).prop_map(|many| json!(vec!["a"; many]).to_string()),
    ]
}

fn honest(kind: Kind, nastiness: u32) -> BoxedStrategy<String> {
    match kind {
        Kind::Id => Just(json!(HEX).to_string()).boxed(),
        Kind::Ids => Just(json!([HEX]).to_string()).boxed(),
        // An instant, and as good as any other text.
        Kind::Text => Just(json!("1700000000000").to_string()).boxed(),
        Kind::Flag => prop::sample::select(vec!["true".to_owned(), "false".to_owned()]).boxed(),
        Kind::Count => prop::sample::select(vec!["60000".to_owned(), "0".to_owned()]).boxed(),
        Kind::Word(words) => prop::sample::select(words.to_vec())
            .prop_map(|word| json!(word).to_string())
            .boxed(),
        Kind::Within(params) => object(params, nastiness).boxed(),
        Kind::Any => prop::sample::select(vec!["[]".to_owned(), "null".to_owned()]).boxed(),
        Kind::Moot => Just("1".to_owned()).boxed(),
        Kind::Lacking => Just("null".to_owned()).boxed(),
    }
}

/// One field as JSON, or nothing. `nastiness`: of a hundred.
fn member(field: &'static Field, nastiness: u32) -> BoxedStrategy<Option<String>> {
    let name = json!(field.name).to_string();
    let named = move |value: String| Some(format!("{name}:{value}"));
    let left_out = if field.required { nastiness } else { 60 };
    weighted(vec![
        (left_out, Just(None).boxed()),
        (
            100 - nastiness,
            honest(field.kind, nastiness).prop_map(named.clone()).boxed(),
        ),
        (nastiness, nasty().prop_map(named).boxed()),
    ])
}

/// One of these; those of no weight are left out.
fn weighted(mut of: Vec<(u32, BoxedStrategy<Option<String>>)>) -> BoxedStrategy<Option<String>> {
    of.retain(|(weight, _)| *weight > 0);
    Union::new_weighted(of).boxed()
}

fn object(params: &'static Params, nastiness: u32) -> BoxedStrategy<String> {
    let members: Vec<_> = params
        .fields
        .iter()
        .map(|field| member(field, nastiness))
        .collect();
    let stranger = (".{0,12}", nasty()).prop_map(|(key, value)| Some(format!("{}:{value}", json!(key))));
    let stranger = weighted(vec![
        (100 - nastiness, Just(None).boxed()),
        (nastiness, stranger.boxed()),
    ]);
    (members, stranger)
        .prop_map(|(mut members, stranger)| {
            members.push(stranger);
            let members: Vec<_> = members.into_iter().flatten().collect();
            format!("{{{}}}", members.join(","))
        })
        .boxed()
}

/// The parameters of a frame: absent, of any shape, or an object of its fields.
fn params_of(method: &'static Method) -> BoxedStrategy<Option<String>> {
    prop_oneof![
        1 => Just(None),
        2 => nasty().prop_map(Some),
        20 => object(method.params, 6).prop_map(Some),
    ]
    .boxed()
}

fn frame_of(method: &str, id: &str, params: Option<&str>) -> String {
    let params = params
        .map(|params| format!(r#","params":{params}"#))
        .unwrap_or_default();
    format!(r#"{{"type":"req","id":{id},"method":"{method}"{params}}}"#)
}

fn any_frame() -> impl Strategy<Value = (String, Option<&'static Method>, Option<String>)> {
    let known = prop::sample::select(METHODS.iter().collect::<Vec<_>>()).prop_flat_map(|method| {
        let id = prop_oneof![9 => Just(r#""1""#.to_owned()), 1 => nasty()];
        (id, params_of(method)).prop_map(move |(id, params)| {
            let frame = frame_of(method.name, &id, params.as_deref());
            (frame, Some(method), params)
        })
    });
    let unknown = (nasty(), nasty()).prop_map(|(method, params)| {
        let frame = format!(r#"{{"type":"req","id":"1","method":{method},"params":{params}}}"#);
        (frame, None, None)
    });
    prop_oneof![15 => known, 1 => unknown]
}

/// Whether parameters are of their types and within bounds, said another way than the code says it.
fn fits(kind: Kind, required: bool, value: &Value) -> bool {
    let is_id = |value: &Value| {
        value.as_str().is_some_and(|text| {
            !text.is_empty()
                && text.len() <= MAX_ID
                && !text.chars().any(|c| c.is_control() || c == '\u{202e}')
        })
    };
    match (kind, value) {
        (Kind::Any | Kind::Moot, _) => true,
        (Kind::Within(params), Value::Null) if !required => {
            // `null` parameters are none.
            !params.fields.iter().any(|field| field.required) || required
        }
        (_, Value::Null) => !required,
        (Kind::Id, value) => is_id(value),
        (Kind::Ids, Value::Array(list)) => list.len() <= MAX_IDS && list.iter().all(is_id),
        (Kind::Text, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => true,
        (Kind::Count, value) => value.as_u64().is_some_and(|count| count <= MAX_COUNT),
        (Kind::Word(words), value) => value.as_str().is_some_and(|word| words.contains(&word)),
        (Kind::Within(params), Value::Object(members)) => {
            let known = |key: &String| params.fields.iter().any(|field| field.name == key);
            (!params.closed || members.keys().all(known))
                && params.fields.iter().all(|field| match members.get(field.name) {
                    Some(value) => field_fits(field, value),
                    None => !field.required,
                })
        }
        (Kind::Lacking, value) => *value == json!(false) || *value == json!(0) || *value == json!(""),
        _ => false,
    }
}

fn field_fits(field: &Field, value: &Value) -> bool {
    let is_empty = value.is_null() && matches!(field.kind, Kind::Within(_)) && !field.required;
    is_empty || fits(field.kind, field.required, value)
}

/// An answer of the original's shape; the error's code, if it is one.
fn judge_answer(text: &str) -> Result<Option<String>, TestCaseError> {
    let answer: Value = serde_json::from_str(text).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&answer["type"], "res");
    let id = answer["id"].as_str().unwrap_or_default();
    prop_assert!((1..=128).contains(&id.len()), "{}", answer);
    if answer["ok"] == true {
        prop_assert!(answer.get("error").is_none(), "{}", answer);
        return Ok(None);
    }
    prop_assert_eq!(&answer["ok"], &json!(false));
    let error = &answer["error"];
    let code = error["code"].as_str().unwrap_or_default();
    prop_assert!(CODES.contains(&code), "{}", answer);
    let message = error["message"].as_str().unwrap_or_default();
    prop_assert!((1..=1_024).contains(&message.len()), "{} bytes", message.len());
    prop_assert!(!message.chars().any(char::is_control), "{:?}", message);
    let known = ["code", "message", "details", "retryable", "retryAfterMs"];
    let members = error.as_object().into_iter().flat_map(|error| error.keys());
    prop_assert!(
        members.clone().all(|key| known.contains(&key.as_str())),
        "{}",
        answer
    );
    Ok(Some(code.to_owned()))
}

/// What a machine does with a frame, the call included; what was asked for, if it was let through.
fn send(machine: &mut Machine, frame: String) -> Result<Option<Asked>, TestCaseError> {
    let mut asked = None;
    for effect in machine.handle(Input::Text(frame), NOW) {
        match effect {
            Effect::Send(text) => {
                judge_answer(&text)?;
            }
            Effect::Call(method, request) => {
                let outcome = read(method, &request).map(|let_through| {
                    asked = Some(let_through);
                    Value::Null
                });
                let failed = outcome.is_err();
                let answers = machine.handle(
                    Input::Answer {
                        id: request.id,
                        outcome,
                    },
                    NOW,
                );
                let [Effect::Send(text)] = answers.as_slice() else {
                    return Err(TestCaseError::fail(format!("{answers:?}")));
                };
                prop_assert_eq!(judge_answer(text)?.is_some(), failed);
            }
            Effect::Refused(_) => {}
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
    Ok(asked)
}

fn operator() -> Machine {
    opened(Role::Operator, Scope::ALL)
}

proptest! {
    #![proptest_config(Config::with_cases(6_000))]
    #[test]
    fn whatever_is_sent_is_answered_and_nothing_invalid_reaches_a_service(
        (frame, method, params) in any_frame(), as_node in any::<bool>(),
    ) {
        let mut machine = if as_node { opened(Role::Node, &[]) } else { operator() };
        let asked = send(&mut machine, frame)?;
        prop_assert!(machine.is_open(), "one frame ends no connection");
        if let (Some(method), Some(asked)) = (method, asked) {
            let params = params.as_deref().unwrap_or("null");
            let Ok(value) = serde_json::from_str::<Value>(params) else {
                // What isn't looked at here may be what no tree can hold, but never a job, a message or an id.
                let kinds = method.params.fields.iter().map(|field| field.kind);
                let mut unseen = kinds.filter(|kind| matches!(kind, Kind::Any | Kind::Moot));
                prop_assert!(!method.params.closed || unseen.next().is_some(), "{:?}", asked);
                return Ok(());
            };
            prop_assert!(fits(Kind::Within(method.params), false, &value), "{} {} {:?}", method.name, params, asked);
        }
    }
}

#[test]
fn every_method_takes_what_an_honest_client_sends() {
    let mut runner = TestRunner::deterministic();
    for method in METHODS {
        let taken = (0..400).any(|_| {
            let params = object(method.params, 0).new_tree(&mut runner).unwrap().current();
            let frame = frame_of(method.name, r#""1""#, Some(&params));
            read(method, &frame::Request::parse(frame).unwrap()).is_ok()
        });
        assert!(
            taken,
            "{}: nothing the generator makes is taken, so it walks nothing",
            method.name
        );
    }
}

#[test]
fn each_field_of_another_type_is_refused_by_its_name() {
    let wrong = |kind: Kind| match kind {
        Kind::Id | Kind::Ids | Kind::Text | Kind::Flag | Kind::Word(_) | Kind::Within(_) => Some("1.5"),
        Kind::Count => Some(r#""1""#),
        Kind::Lacking => Some("[]"),
        Kind::Any | Kind::Moot => None,
    };
    for method in METHODS {
        for field in method.params.fields {
            let Some(wrong) = wrong(field.kind) else { continue };
            let params = format!(r#"{{"{}":{wrong}}}"#, field.name);
            let request = frame::Request::parse(frame_of(method.name, r#""1""#, Some(&params))).unwrap();
            let failure = read(method, &request).unwrap_err();
            let start = format!("invalid {} params: at /{}: ", method.name, field.name);
            assert!(failure.message.starts_with(&start), "{}", failure.message);
            assert_eq!(failure.code, "INVALID_REQUEST");
        }
    }
}

#[test]
fn no_object_has_more_fields_than_are_kept_track_of() {
    fn look(params: &Params) {
        assert!(params.fields.len() <= 64);
        for field in params.fields {
            if let Kind::Within(params) = field.kind {
                look(params);
            }
        }
    }
    METHODS.iter().for_each(|method| look(method.params));
}

#[test]
fn an_array_as_deep_as_a_frame_is_long_is_refused_not_recursed() {
    let deep = 200_000;
    let params = format!(
        r#"{{"nodeId":"n","command":"c","idempotencyKey":"k","params":{}{}}}"#,
        "[".repeat(deep),
        "]".repeat(deep)
    );
    let method = methods::find("node.invoke").unwrap();
    let request = frame::Request::parse(frame_of("node.invoke", r#""1""#, Some(&params))).unwrap();
    let failure = read(method, &request).unwrap_err();
    assert_eq!(
        failure.message,
        "invalid node.invoke params: recursion limit exceeded"
    );
}
