//! Frames of the original's protocol: requests read with bounds, answers and events written. Pure.
//!
//! A request's parameters stay text until the method that takes them reads them into its own type: a
//! tree of everything a client sends would take many times the frame's bytes.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    failure::Failure,
    params::{self, Params},
};

/// The largest message before a connection has proven itself, in bytes.
pub(crate) const PRE_AUTH_BYTES: usize = 64 * 1024;
/// The largest message after, in bytes.
pub(crate) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The longest id of a request, in bytes.
const MAX_ID: usize = 128;
/// The longest name of a method, in bytes.
const MAX_METHOD: usize = 64;

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) method: String,
    /// The whole frame; [`Request::params`] reads from it.
    text: String,
}

/// A frame that is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadFrame {
    /// To be answered under this id, if the frame had one.
    pub(crate) id: Option<String>,
    pub(crate) why: String,
    /// It wasn't JSON at all.
    pub(crate) garbage: bool,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    method: Option<String>,
}

#[derive(Deserialize)]
struct Body<P> {
    params: Option<P>,
}

impl Request {
    /// Reads a frame.
    ///
    /// # Errors
    /// [`BadFrame`], for any text whatever.
    pub(crate) fn parse(text: String) -> Result<Self, BadFrame> {
        let head: Head = match serde_json::from_str(&text) {
            Ok(head) => head,
            Err(error) => {
                return Err(BadFrame {
                    id: None,
                    why: error.to_string(),
                    garbage: error.is_syntax() || error.is_eof(),
                });
            }
        };
        let id = head.id.filter(|id| !id.is_empty() && id.len() <= MAX_ID);
        let bad = |id: &Option<String>, why: &str| {
            Err(BadFrame {
                id: id.clone(),
                why: why.to_owned(),
                garbage: false,
            })
        };
        if head.kind.as_deref() != Some("req") {
            return bad(&id, "at /type: must be \"req\"");
        }
        let method = head
            .method
            .filter(|name| !name.is_empty() && name.len() <= MAX_METHOD);
        match (id, method) {
            (Some(id), Some(method)) => Ok(Self { id, method, text }),
            (None, _) => bad(&None, "at /id: must be a string of 1 to 128 bytes"),
            (id, None) => bad(&id, "at /method: must be a string of 1 to 64 bytes"),
        }
    }

    /// The parameters as a method wants them; none are as `{}`.
    ///
    /// # Errors
    /// [`Failure`] in the original's words.
    pub(crate) fn params<P: DeserializeOwned>(&self) -> Result<P, Failure> {
        let wrong = |error| self.wrong(&error);
        match serde_json::from_str::<Body<P>>(&self.text).map_err(wrong)?.params {
            Some(params) => Ok(params),
            None => serde_json::from_str("{}").map_err(wrong),
        }
    }

    /// Holds the parameters against what the method knows.
    ///
    /// # Errors
    /// [`Failure`] in the original's words.
    pub(crate) fn check(&self, params: &'static Params) -> Result<(), Failure> {
        params::check(&self.text, params).map_err(|error| self.wrong(&error))
    }

    /// The refusal of parameters, in the original's words.
    pub(crate) fn invalid(&self, why: impl fmt::Display) -> Failure {
        Failure::invalid(format!("invalid {} params: {why}", self.method))
    }

    fn wrong(&self, error: &serde_json::Error) -> Failure {
        // The place in the frame says nothing to whoever wrote the parameters.
        let text = error.to_string();
        self.invalid(text.split(" at line ").next().unwrap_or_default())
    }

    /// How long the frame was, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "res")]
struct Answer<'a, P> {
    id: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Failure>,
}

/// The answer to a request that was done.
pub(crate) fn answer<P: Serialize>(id: &str, payload: &P) -> String {
    text(&Answer {
        id,
        ok: true,
        payload: Some(payload),
        error: None,
    })
}

/// The answer to a request that was not.
pub(crate) fn refusal(id: &str, failure: &Failure) -> String {
    text(&Answer::<()> {
        id,
        ok: false,
        payload: None,
        error: Some(failure),
    })
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "event")]
struct Event<'a> {
    event: &'a str,
    payload: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

/// An event. `seq` counts the events of one connection; the challenge has none.
pub(crate) fn event(name: &str, payload: &Value, seq: Option<u64>) -> String {
    text(&Event {
        event: name,
        payload,
        seq,
    })
}

fn text<T: Serialize>(frame: &T) -> String {
    // Strings, numbers and JSON values always serialise.
    serde_json::to_string(frame).unwrap_or_default()
}

/// A close reason: at most 120 bytes, cut between characters (RFC 6455 leaves room for 123).
pub(crate) fn close_reason(text: &str) -> String {
    let mut end = text.len().min(120);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Request, BadFrame> {
        Request::parse(text.to_owned())
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Params {
        a: u8,
    }

    #[test]
    fn a_request_is_read_and_its_parameters_by_type() {
        let request = parse(r#"{"type":"req","id":"1","method":"x.y","params":{"a":7,"b":[]}}"#).unwrap();
        assert_eq!((request.id.as_str(), request.method.as_str()), ("1", "x.y"));
        assert_eq!(request.params::<Params>().unwrap(), Params { a: 7 });
        let none = parse(r#"{"type":"req","id":"1","method":"x.y"}"#).unwrap();
        let error = none.params::<Params>().unwrap_err();
        assert_eq!(error.message, "invalid x.y params: missing field `a`");
        assert_eq!(error.code, "INVALID_REQUEST");
    }

    #[test]
    fn what_is_no_request_is_told_under_its_id_where_it_has_one() {
        let id = |text: &str| parse(text).unwrap_err().id;
        assert_eq!(id(r#"{"type":"res","id":"7"}"#), Some("7".to_owned()));
        assert_eq!(id(r#"{"type":"req","id":"7","method":""}"#), Some("7".to_owned()));
        assert_eq!(id(r#"{"type":"req","id":7,"method":"x"}"#), None);
        let long = "x".repeat(129);
        assert_eq!(
            id(&format!(r#"{{"type":"req","id":"{long}","method":"x"}}"#)),
            None
        );
        let longest = "x".repeat(128);
        assert!(parse(&format!(r#"{{"type":"req","id":"{longest}","method":"x"}}"#)).is_ok());
        assert!(parse("hello").unwrap_err().garbage);
        assert!(!parse(r#"{"type":"req"}"#).unwrap_err().garbage);
    }

    #[test]
    fn deep_nesting_is_refused_not_recursed() {
        let deep = format!(
            r#"{{"type":"req","id":"1","method":"x","params":{}"#,
            "[".repeat(60_000)
        );
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn answers_and_events_have_the_originals_shape() {
        let ok: Value = serde_json::from_str(&answer("1", &json!({"a":1}))).unwrap();
        assert_eq!(ok, json!({"type":"res","id":"1","ok":true,"payload":{"a":1}}));
        let failed: Value = serde_json::from_str(&refusal("1", &Failure::invalid("no"))).unwrap();
        let expected =
            json!({"type":"res","id":"1","ok":false,"error":{"code":"INVALID_REQUEST","message":"no"}});
        assert_eq!(failed, expected);
        let tick: Value = serde_json::from_str(&event("tick", &json!({"ts":1}), Some(3))).unwrap();
        assert_eq!(
            tick,
            json!({"type":"event","event":"tick","payload":{"ts":1},"seq":3})
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,400}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_close_reason_fits_and_is_a_beginning(text in ".{0,200}") {
            let reason = close_reason(&text);
            prop_assert!(reason.len() <= 120 && text.starts_with(&reason));
            prop_assert!(text.len() <= 120 || reason.len() > 116);
        }
    }
}
