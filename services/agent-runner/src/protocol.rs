//! What a turn and its worker say to each other: one JSON object per line
//! (`proto/creel/agent/v1/WORKER-PROTOCOL.md`). Pure; the same for every backend.

use serde::{Deserialize, Serialize};

/// The version that is told to workers.
pub(crate) const VERSION: u32 = 1;
/// A line from a worker, without its end, is never longer, in bytes.
pub(crate) const MAX_LINE: usize = 1 << 20;
/// Arguments of one tool call, as JSON text, in bytes.
pub(crate) const MAX_ARGUMENTS: usize = 64 << 10;
/// Names of tools and ids of calls, in bytes.
const MAX_NAME: usize = 128;

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Said {
    /// A piece of the answer.
    Delta { text: String },
    /// It wants a tool.
    ToolCall {
        id: String,
        tool: String,
        #[serde(default)]
        arguments: serde_json::Value,
    },
    /// What it used so far.
    Usage { input_tokens: u64, output_tokens: u64 },
    /// The answer; the end of the turn.
    Final { text: String },
    /// It can't answer; the end of the turn.
    Error { message: String },
}

/// A line that is none of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Longer than allowed.
    #[error("a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// Not an object of the protocol.
    #[error("{0}")]
    NotAnEvent(String),
}

/// Reads a line.
///
/// # Errors
/// [`Malformed`], with what was wrong in words that may be shown (no part of the line is in them beyond
/// names).
pub(crate) fn parse(line: &[u8]) -> Result<Said, Malformed> {
    if line.len() > MAX_LINE {
        return Err(Malformed::TooLong);
    }
    let wrong = |why: String| Malformed::NotAnEvent(creel_wire::error::printable(&why, 200));
    let said: Said = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
    if let Said::ToolCall { id, tool, arguments } = &said {
        let name_fits = |name: &str| !name.is_empty() && name.len() <= MAX_NAME;
        if !name_fits(id) || !name_fits(tool) {
            return Err(wrong(format!(
                "a tool call needs `id` and `tool` of 1 to {MAX_NAME} bytes"
            )));
        }
        if arguments.to_string().len() > MAX_ARGUMENTS {
            return Err(wrong(format!("arguments of more than {MAX_ARGUMENTS} bytes")));
        }
    }
    Ok(said)
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Told {
    /// The input; the first line. `type` and `text` come first, so that a shell can find them.
    Turn(Box<Task>),
    /// The answer to a tool call. `content` comes from outside and is data, never instructions.
    ToolResult {
        id: String,
        ok: bool,
        reason: String,
        content: String,
    },
}

/// The input of a turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Task {
    pub(crate) text: String,
    pub(crate) protocol: u32,
    pub(crate) turn: String,
    pub(crate) session: String,
    /// `main`, `trusted` or `untrusted`.
    pub(crate) trust: &'static str,
    /// Who the text is from: `operator`, `sender`, `job`, `system`, `agent`.
    pub(crate) origin: &'static str,
    /// The working directory.
    pub(crate) workspace: String,
    /// Events since the turn before, in fields of their own.
    pub(crate) events: Vec<TaskEvent>,
    /// The newest part of the transcript, oldest first.
    pub(crate) history: Vec<Past>,
}

/// An event that Creel tells the agent of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskEvent {
    pub(crate) topic: String,
    pub(crate) text: String,
    pub(crate) origin: String,
    pub(crate) job_id: String,
    pub(crate) job_name: String,
    pub(crate) run_id: String,
    pub(crate) time: String,
    /// How many events this one stands for.
    pub(crate) count: u32,
}

/// An entry of the transcript.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Past {
    User { text: String },
    Assistant { text: String },
    System { topic: String, text: String },
}

impl Told {
    /// The line, with its end.
    pub(crate) fn line(&self) -> Vec<u8> {
        // Strings and numbers always serialise.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let delta = parse(br#"{"type":"delta","text":"a"}"#).unwrap();
        assert_eq!(delta, Said::Delta { text: "a".into() });
        let call =
            parse(br#"{"type":"tool_call","id":"1","tool":"exec","arguments":{"command":"ls"}}"#).unwrap();
        assert!(matches!(call, Said::ToolCall { arguments, .. } if arguments["command"] == "ls"));
        assert!(parse(br#"{"type":"usage","input_tokens":1,"output_tokens":2}"#).is_ok());
        assert!(parse(br#"{"type":"final","text":""}"#).is_ok());
        assert!(parse(br#"{"type":"error","message":"no"}"#).is_ok());
    }

    #[test]
    fn what_is_not_of_the_protocol_is_refused() {
        let long = format!(r#"{{"type":"delta","text":"{}"}}"#, "a".repeat(MAX_LINE));
        let deep = "[".repeat(100_000);
        let fat = format!(
            r#"{{"type":"tool_call","id":"1","tool":"t","arguments":"{}"}}"#,
            "a".repeat(MAX_ARGUMENTS)
        );
        for bad in [
            "hello",
            "{}",
            "\u{1}",
            r#"{"type":"accepted"}"#,
            r#"{"type":"delta"}"#,
            r#"{"type":"delta","text":1}"#,
            r#"{"type":"final","text":"a","trust":"main"}"#,
            r#"{"type":"tool_call","id":"","tool":"t"}"#,
            r#"{"type":"usage","input_tokens":-1,"output_tokens":0}"#,
            &long,
            &deep,
            &fat,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{}", &bad[..bad.len().min(60)]);
        }
        assert!(
            parse(b"{\"type\":\"delta\",\"text\":\"\xff\"}").is_err(),
            "not UTF-8"
        );
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        let shell = r#"{"type":"delta","text":""}"#.len();
        let line = |n: usize| format!(r#"{{"type":"delta","text":"{}"}}"#, "a".repeat(n - shell));
        assert!(parse(line(MAX_LINE).as_bytes()).is_ok());
        assert_eq!(parse(line(MAX_LINE + 1).as_bytes()), Err(Malformed::TooLong));
    }

    #[test]
    fn a_shell_finds_the_text_at_the_front_of_one_line() {
        let task = Task {
            text: "two\nlines, \"type\":\"turn\"".into(),
            protocol: VERSION,
            turn: "t".into(),
            session: "agent:default:main".into(),
            trust: "main",
            origin: "operator",
            workspace: "/w".into(),
            events: Vec::new(),
            history: vec![Past::User {
                text: "before".into(),
            }],
        };
        let line = String::from_utf8(Told::Turn(Box::new(task)).line()).unwrap();
        assert!(
            line.starts_with(r#"{"type":"turn","text":"two\nlines, \"type\":\"turn\"","protocol":1"#),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1);
    }
}
