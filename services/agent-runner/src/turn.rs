//! The life of one turn, pure: inputs in, typed effects or a named refusal out.
//!
//! ```text
//! accepted ──started──▶ running ──final | error | gone | timeout | abort | stopped──▶ ended
//!     └────not launched | abort | timeout | stopped────────────────────────────────────▲
//! ```
//! Invariants ([`holds`]): events are numbered without a gap; the last event of an ended turn, and of
//! no other, is `final` or `error`; nothing happens after the end.

use std::{borrow::Cow, collections::BTreeSet};

use creel_proto::agent::v1::{
    Accepted, Final, Started, TextDelta, ToolCall, ToolResult, TurnError, TurnState, Usage, turn_event::Event,
};

use crate::protocol::{Malformed, Said, Told};

/// What a worker may say in all at most, in bytes of its lines.
pub(crate) const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// Events of one turn.
pub(crate) const MAX_EVENTS: u64 = 100_000;
/// Tool calls of one turn.
pub(crate) const MAX_CALLS: usize = 64;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    Failed,
    TimedOut,
    Aborted,
    Lost,
    Interrupted,
}

impl End {
    pub(crate) const fn state(self) -> TurnState {
        match self {
            Self::Succeeded => TurnState::Succeeded,
            Self::Failed => TurnState::Failed,
            Self::TimedOut => TurnState::TimedOut,
            Self::Aborted => TurnState::Aborted,
            Self::Lost => TurnState::Lost,
            Self::Interrupted => TurnState::Interrupted,
        }
    }

    /// Lower-case, for metrics and messages.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Aborted => "aborted",
            Self::Lost => "lost",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a turn did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Failure {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason: Cow::Borrowed(reason),
            message: message.into(),
            hint: String::new(),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn to_proto(&self) -> TurnError {
        TurnError {
            reason: self.reason.to_string(),
            message: self.message.clone(),
            hint: self.hint.clone(),
        }
    }
}

/// How it went, once it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// The answer; empty unless it succeeded.
    pub(crate) reply: String,
    pub(crate) failure: Option<Failure>,
}

impl Outcome {
    /// What the last event of a log says: for a turn whose end is in the log but not in the store.
    pub(crate) fn of_last(event: &Event) -> Option<Self> {
        match event {
            Event::Final(last) => Some(Self {
                end: End::Succeeded,
                reply: last.text.clone(),
                failure: None,
            }),
            Event::Error(error) => Some(Self {
                end: match error.reason.as_str() {
                    reason::TIMEOUT => End::TimedOut,
                    reason::ABORTED => End::Aborted,
                    reason::WORKER_LOST => End::Lost,
                    reason::INTERRUPTED => End::Interrupted,
                    _ => End::Failed,
                },
                reply: String::new(),
                failure: Some(Failure {
                    reason: Cow::Owned(error.reason.clone()),
                    message: error.message.clone(),
                    hint: error.hint.clone(),
                }),
            }),
            _ => None,
        }
    }
}

/// Stable reasons of turns that did not succeed.
pub(crate) mod reason {
    pub(crate) const TIMEOUT: &str = "timeout";
    pub(crate) const ABORTED: &str = "aborted";
    pub(crate) const WORKER_LOST: &str = "worker_lost";
    pub(crate) const INTERRUPTED: &str = "interrupted";
    pub(crate) const BACKEND_ERROR: &str = "backend_error";
    pub(crate) const BACKEND_EXITED: &str = "backend_exited";
    pub(crate) const BAD_OUTPUT: &str = "bad_worker_output";
    pub(crate) const OUTPUT_LIMIT: &str = "output_limit";
    pub(crate) const MEMORY_LIMIT: &str = "memory_limit";
    pub(crate) const TOOL_UNAVAILABLE: &str = "tool_unavailable";
    pub(crate) const SANDBOX_UNAVAILABLE: &str = "sandbox_unavailable";
    pub(crate) const SANDBOX_PROFILE: &str = "sandbox_profile";
    pub(crate) const BACKEND_MISSING: &str = "backend_missing";
}

/// How a worker went without having said `final` or `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// With an exit code.
    Exited(i32),
    /// It closed its output and had to be ended.
    Silent,
    /// A signal from elsewhere ended it.
    Signalled(i32),
    /// It went over its memory.
    Memory,
    /// Its end is unknown: sandbox or spawner went away.
    Unknown,
}

/// What happens to a turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// Its worker runs and the store says so.
    Started { backend: String, sandbox: String },
    /// There is no worker.
    NotLaunched(Failure),
    /// The worker said something, in so many bytes.
    Line {
        said: Result<Said, Malformed>,
        bytes: usize,
    },
    /// The worker is gone.
    Gone(Gone),
    /// Its time is over.
    Timeout,
    /// Somebody ended it, for this reason.
    Abort(String),
    /// The service stops, or was found to have stopped.
    Stopped,
}

/// What follows, in order: persist, act.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Write this event under this number.
    Emit(u64, Event),
    /// Tell the worker.
    Tell(Told),
    /// Commit the outcome, then end the worker.
    End(Outcome),
}

/// Why an input does not fit the turn's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Guard {
    #[error("the turn runs already")]
    StartsOnce,
    #[error("the turn does not run yet")]
    Runs,
    #[error("the turn has ended")]
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Accepted,
    Running,
    Ended(End),
}

/// One turn.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    phase: Phase,
    /// The newest event.
    sequence: u64,
    terminal: bool,
    output_bytes: u64,
    /// What its worker may say in all.
    most_bytes: u64,
    calls: BTreeSet<String>,
}

impl Turn {
    /// A turn that was just accepted, and its first event.
    pub(crate) fn accepted(queued_behind: u32) -> (Self, Event) {
        (
            Self::found(Phase::Accepted, 1),
            Event::Accepted(Accepted { queued_behind }),
        )
    }

    /// A turn as the log shows it: so many events, none of them the last.
    pub(crate) const fn found(phase: Phase, sequence: u64) -> Self {
        Self {
            phase,
            sequence,
            terminal: false,
            output_bytes: 0,
            most_bytes: MAX_OUTPUT_BYTES,
            calls: BTreeSet::new(),
        }
    }

    /// The turn, whose worker may say so much and no more.
    pub(crate) const fn within(mut self, bytes: u64) -> Self {
        self.most_bytes = bytes;
        self
    }

    #[cfg(test)]
    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes an input.
    ///
    /// # Errors
    /// The [`Guard`] that the input failed; nothing has changed then.
    pub(crate) fn apply(&mut self, input: Input) -> Result<Vec<Effect>, Guard> {
        self.guard(&input)?;
        let mut out = Vec::new();
        match input {
            Input::Started { backend, sandbox } => {
                self.phase = Phase::Running;
                self.emit(&mut out, Event::Started(Started { backend, sandbox }));
            }
            Input::NotLaunched(failure) => self.fail(&mut out, End::Failed, failure),
            Input::Line { said, bytes } => self.line(&mut out, said, bytes),
            Input::Gone(gone) => self.gone(&mut out, &gone),
            Input::Timeout => {
                let failure = Failure::new(reason::TIMEOUT, "the turn did not end in time");
                self.fail(&mut out, End::TimedOut, failure);
            }
            Input::Abort(why) => {
                let why = creel_wire::error::printable(&why, 256);
                let message = if why.is_empty() {
                    "aborted".to_owned()
                } else {
                    format!("aborted: {why}")
                };
                self.fail(&mut out, End::Aborted, Failure::new(reason::ABORTED, message));
            }
            Input::Stopped => {
                let message = "agent-runner stopped while the turn ran; it was not run again";
                self.fail(
                    &mut out,
                    End::Interrupted,
                    Failure::new(reason::INTERRUPTED, message),
                );
            }
        }
        debug_assert!(holds(self), "{self:?}");
        Ok(out)
    }

    /// Every refusal, in one place.
    fn guard(&self, input: &Input) -> Result<(), Guard> {
        match (self.phase, input) {
            (Phase::Ended(_), _) => Err(Guard::Open),
            (Phase::Running, Input::Started { .. } | Input::NotLaunched(_)) => Err(Guard::StartsOnce),
            (Phase::Accepted, Input::Line { .. } | Input::Gone(_)) => Err(Guard::Runs),
            _ => Ok(()),
        }
    }

    fn line(&mut self, out: &mut Vec<Effect>, said: Result<Said, Malformed>, bytes: usize) {
        self.output_bytes = self.output_bytes.saturating_add(bytes as u64).saturating_add(1);
        // Room is kept for the last event.
        if self.output_bytes > self.most_bytes || self.sequence + 3 > MAX_EVENTS {
            let message = format!(
                "the worker said more than {} bytes or {MAX_EVENTS} events",
                self.most_bytes
            );
            return self.fail(out, End::Failed, Failure::new(reason::OUTPUT_LIMIT, message));
        }
        let bad = |why: String| {
            Failure::new(reason::BAD_OUTPUT, why).hint("WORKER-PROTOCOL.md says what a worker may write")
        };
        match said {
            Err(malformed) => self.fail(out, End::Failed, bad(malformed.to_string())),
            Ok(Said::Delta { text }) => self.emit(out, Event::Delta(TextDelta { text })),
            Ok(Said::Usage {
                input_tokens,
                output_tokens,
            }) => {
                self.emit(
                    out,
                    Event::Usage(Usage {
                        input_tokens,
                        output_tokens,
                    }),
                );
            }
            Ok(Said::ToolCall { id, .. }) if self.calls.contains(&id) => {
                self.fail(
                    out,
                    End::Failed,
                    bad("the id of a tool call was used before".to_owned()),
                );
            }
            Ok(Said::ToolCall { .. }) if self.calls.len() >= MAX_CALLS => {
                self.fail(out, End::Failed, bad(format!("more than {MAX_CALLS} tool calls")));
            }
            Ok(Said::ToolCall { id, tool, arguments }) => {
                self.calls.insert(id.clone());
                let arguments_json = arguments.to_string();
                self.emit(
                    out,
                    Event::ToolCall(ToolCall {
                        call_id: id.clone(),
                        tool,
                        arguments_json,
                    }),
                );
                // No service offers tools to turns, so there is one answer.
                let reason = reason::TOOL_UNAVAILABLE.to_owned();
                let (ok, content) = (false, String::new());
                let result = ToolResult {
                    call_id: id.clone(),
                    ok,
                    reason: reason.clone(),
                    content: content.clone(),
                };
                self.emit(out, Event::ToolResult(result));
                out.push(Effect::Tell(Told::ToolResult {
                    id,
                    ok,
                    reason,
                    content,
                }));
            }
            Ok(Said::Final { text }) => {
                self.emit(out, Event::Final(Final { text: text.clone() }));
                self.end(
                    out,
                    Outcome {
                        end: End::Succeeded,
                        reply: text,
                        failure: None,
                    },
                );
            }
            Ok(Said::Error { message }) => {
                // The reason is ours: a backend can't pass its failure off as a timeout.
                let message = creel_wire::error::printable(&message, 4_096);
                self.fail(out, End::Failed, Failure::new(reason::BACKEND_ERROR, message));
            }
        }
    }

    fn gone(&mut self, out: &mut Vec<Effect>, gone: &Gone) {
        let exited = |message: String| (End::Failed, Failure::new(reason::BACKEND_EXITED, message));
        let lost = |message: String| (End::Lost, Failure::new(reason::WORKER_LOST, message));
        let (end, failure) = match gone {
            Gone::Exited(code) => exited(format!(
                "the backend exited with code {code} without a final event"
            )),
            Gone::Silent => exited("the backend closed its output without a final event".to_owned()),
            Gone::Signalled(signal) => lost(format!("signal {signal} ended the worker")),
            Gone::Unknown => lost("the worker is gone".to_owned()),
            Gone::Memory => {
                let hint = "raise agent.turn_memory_mib in creel.toml";
                let failure = Failure::new(
                    reason::MEMORY_LIMIT,
                    "the worker used more memory than a turn may",
                );
                (End::Failed, failure.hint(hint))
            }
        };
        self.fail(out, end, failure);
    }

    fn fail(&mut self, out: &mut Vec<Effect>, end: End, failure: Failure) {
        self.emit(out, Event::Error(failure.to_proto()));
        self.end(
            out,
            Outcome {
                end,
                reply: String::new(),
                failure: Some(failure),
            },
        );
    }

    fn emit(&mut self, out: &mut Vec<Effect>, event: Event) {
        self.sequence += 1;
        self.terminal = matches!(event, Event::Final(_) | Event::Error(_));
        out.push(Effect::Emit(self.sequence, event));
    }

    fn end(&mut self, out: &mut Vec<Effect>, outcome: Outcome) {
        self.phase = Phase::Ended(outcome.end);
        out.push(Effect::End(outcome));
    }
}

/// The invariants of a turn.
pub(crate) fn holds(turn: &Turn) -> bool {
    let ended = matches!(turn.phase, Phase::Ended(_));
    turn.sequence >= 1
        && turn.sequence <= MAX_EVENTS
        && turn.calls.len() <= MAX_CALLS
        && turn.terminal == ended
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
