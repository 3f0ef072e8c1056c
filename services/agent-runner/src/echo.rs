//! The built-in backend: answers with the message, and on lines `run: CMD`, `fetch: URL`,
//! `remember: …`, `schedule: …` makes the tool call, so that everything can be tried without a model.
//! Deterministic; runs as a worker process (`creeld turn-worker`) without runtime or threads.

use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::protocol::TaskEvent;

/// The longest part of a message that is echoed, in bytes: its JSON fits one line whatever is in it.
const MAX_ECHO: usize = 128 << 10;
/// Tool calls of one message; further lines are only echoed.
const MAX_CALLS: usize = 32;
/// The longest argument of a tool call, in bytes.
const MAX_ARGUMENT: usize = 8 << 10;

/// What begins a line that asks for a tool: prefix, tool, name of the argument.
const TOOLS: [(&str, &str, &str); 4] = [
    ("run:", "exec", "command"),
    ("fetch:", "web_fetch", "url"),
    ("remember:", "memory", "text"),
    ("schedule:", "cron", "text"),
];

/// The whole life of an `echo` worker: `creeld turn-worker`.
#[must_use]
pub fn turn_worker_main() -> ExitCode {
    match answer(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

#[derive(Deserialize)]
struct Input {
    text: String,
    #[serde(default)]
    events: Vec<TaskEvent>,
}

#[derive(Deserialize)]
struct Result_ {
    ok: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    content: String,
}

/// Reads one turn and answers it.
///
/// # Errors
/// The system's, or `InvalidData` for a line that is not of the protocol.
pub(crate) fn answer(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let input: Input = serde_json::from_value(line(from)?)?;
    let mut reply = String::new();
    if !input.text.is_empty() {
        reply.push_str("echo: ");
        reply.push_str(&cut(&input.text));
    }
    for event in &input.events {
        let text = cut(&event.text);
        reply.push_str(if reply.is_empty() { "event" } else { "\nevent" });
        reply.push_str(&format!(" ({}): {text}", event.topic));
    }
    let reply = cut(&reply);
    stream(to, &reply)?;
    let mut whole = reply;
    for (number, (tool, name, argument)) in calls(&input.text).into_iter().enumerate() {
        let id = (number + 1).to_string();
        say(
            to,
            &json!({ "type": "tool_call", "id": id, "tool": tool, "arguments": { name: argument } }),
        )?;
        let result: Result_ = serde_json::from_value(line(from)?)?;
        let told = if result.ok {
            cut(&result.content)
        } else {
            format!("not done ({})", result.reason)
        };
        let more = format!("\n{tool}: {told}");
        say(to, &json!({ "type": "delta", "text": more }))?;
        whole.push_str(&more);
    }
    let words = |text: &str| text.split_whitespace().count();
    let (heard, said) = (words(&input.text), words(&whole));
    say(
        to,
        &json!({ "type": "usage", "input_tokens": heard, "output_tokens": said }),
    )?;
    say(to, &json!({ "type": "final", "text": cut(&whole) }))
}

/// The tool calls that a message asks for.
fn calls(text: &str) -> Vec<(&'static str, &'static str, &str)> {
    let of_line = |line| {
        let line: &str = line;
        TOOLS.iter().find_map(|(prefix, tool, name)| {
            let argument = line.strip_prefix(prefix)?.trim();
            (!argument.is_empty() && argument.len() <= MAX_ARGUMENT).then_some((*tool, *name, argument))
        })
    };
    text.lines().filter_map(of_line).take(MAX_CALLS).collect()
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_ECHO);
    let more = text.len() - end;
    if more == 0 {
        text.to_owned()
    } else {
        format!("{}… ({more} more bytes)", &text[..end])
    }
}

/// Says a text in pieces, at most about 64.
fn stream(to: &mut impl Write, text: &str) -> io::Result<()> {
    let piece = (text.len() / 64).max(16);
    let mut rest = text;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(rest.ceil_char_boundary(piece.min(rest.len())));
        say(to, &json!({ "type": "delta", "text": head }))?;
        rest = tail;
    }
    Ok(())
}

fn say(to: &mut impl Write, event: &Value) -> io::Result<()> {
    writeln!(to, "{event}")?;
    to.flush()
}

fn line(from: &mut impl BufRead) -> io::Result<Value> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{self, Said};

    fn run(lines: &[Value]) -> Vec<Said> {
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut output = Vec::new();
        answer(&mut input.as_bytes(), &mut output).unwrap();
        output
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| protocol::parse(line).unwrap())
            .collect()
    }

    fn final_of(said: &[Said]) -> &str {
        match said.last() {
            Some(Said::Final { text }) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_echoes_in_pieces_that_make_up_the_answer() {
        let said = run(&[json!({ "type": "turn", "text": "hello, what a fine day it is" })]);
        assert_eq!(final_of(&said), "echo: hello, what a fine day it is");
        let pieces: Vec<_> = said
            .iter()
            .filter_map(|s| {
                if let Said::Delta { text } = s {
                    Some(text.as_str())
                } else {
                    None
                }
            })
            .collect();
        assert!(pieces.len() > 1);
        assert_eq!(pieces.concat(), final_of(&said));
    }

    #[test]
    fn lines_become_tool_calls_and_their_results_are_reported() {
        let text = "run: ls -l\nfetch: https://example.org/\nremember: tea\nschedule: daily\nrun:\nwalk: no";
        let refused = json!({ "type": "tool_result", "id": "1", "ok": false, "reason": "tool_unavailable", "content": "" });
        let done = json!({ "type": "tool_result", "id": "3", "ok": true, "reason": "", "content": "noted" });
        let said = run(&[
            json!({ "type": "turn", "text": text }),
            refused.clone(),
            refused.clone(),
            done,
            refused,
        ]);
        let calls: Vec<_> = said
            .iter()
            .filter_map(|s| {
                if let Said::ToolCall { tool, arguments, .. } = s {
                    Some((tool.as_str(), arguments.to_string()))
                } else {
                    None
                }
            })
            .collect();
        assert_eq!(calls[0], ("exec", r#"{"command":"ls -l"}"#.to_owned()));
        assert_eq!(
            calls.iter().map(|(tool, _)| *tool).collect::<Vec<_>>(),
            ["exec", "web_fetch", "memory", "cron"]
        );
        assert!(final_of(&said).ends_with("\nexec: not done (tool_unavailable)\nweb_fetch: not done (tool_unavailable)\nmemory: noted\ncron: not done (tool_unavailable)"));
    }

    #[test]
    fn events_are_answered_as_events() {
        let event = TaskEvent {
            topic: "job event".into(),
            text: "tick".into(),
            origin: "job".into(),
            job_id: "j".into(),
            job_name: "n".into(),
            run_id: "r".into(),
            time: String::new(),
            count: 1,
        };
        let said = run(&[json!({ "type": "turn", "text": "", "events": [event] })]);
        assert_eq!(final_of(&said), "event (job event): tick");
    }

    #[test]
    fn the_longest_message_fits_the_protocol() {
        let said = run(&[json!({ "type": "turn", "text": "\u{1}".repeat(1 << 20) })]);
        assert!(final_of(&said).ends_with("more bytes)"));
        assert!(answer(&mut b"nonsense\n".as_slice(), &mut Vec::new()).is_err());
    }
}
