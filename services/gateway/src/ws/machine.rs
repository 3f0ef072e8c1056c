//! One connection, as a machine: frames and news in, effects out. No IO, no clock, no randomness.
//!
//! ```text
//! challenged ──connect──▶ proving ──welcome──▶ open ──▶ over
//!      └── anything else, too late ──▶ over ◀── pairing required, refused ──┘
//! ```
//!
//! Invariants: nothing is called before identity's welcome; one `connect` per connection; after the end
//! there is no effect; a request id is answered once; at most [`MAX_IN_FLIGHT`] requests are under way.

use std::{collections::BTreeSet, sync::Arc};

use creel_wire::{DeviceId, Error, Scope, Scopes, Secret};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    connect::{self, Connect, Refusal, Role},
    failure::{Failure, NOT_PAIRED},
    frame::{self, BadFrame, Request},
    hello::Hello,
    methods::{self, Method},
};

/// Requests of one connection under way at once.
pub(crate) const MAX_IN_FLIGHT: usize = 64;
/// A connection that sends more frames that are no requests is closed.
const MAX_BAD_FRAMES: u32 = 32;
/// A peer that was not heard for so long is gone, in milliseconds: three ticks.
pub(crate) const SILENCE_MS: u64 = 90_000;
/// A device that waits for its approval may ask again after so long, in milliseconds.
const PAIRING_RETRY_MS: u64 = 2_000;

/// What identity said of a `connect`.
#[derive(Debug)]
pub(crate) enum Verdict {
    Welcome(Welcome),
    Pairing(Pairing),
    Refused {
        /// The original's code, `details.code`.
        code: &'static str,
        message: String,
        /// Coming again with the same words may help, after so many milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// Nothing was decided.
    Failed(Error),
}

/// A device that was let in.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    pub(crate) device: DeviceId,
    pub(crate) role: Role,
    pub(crate) scopes: Scopes,
    /// A new token to keep; none when the one shown stays good.
    pub(crate) new_token: Option<Secret<String>>,
    pub(crate) token_issued_at_unix_ms: Option<i64>,
}

/// A device that an operator has to let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pairing {
    pub(crate) request: String,
    /// `not-paired`, `scope-upgrade`.
    pub(crate) reason: &'static str,
    pub(crate) phrase: String,
    pub(crate) role: Role,
    pub(crate) scopes: Vec<String>,
    pub(crate) device: String,
}

/// Who gets an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    Operators(Scope),
    /// Whoever it is sent to: the sender chose the connection.
    Anyone,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    pub(crate) payload: Value,
    pub(crate) audience: Audience,
}

/// Why the door ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its device's standing changed, or nobody knows it any more.
    Revoked,
    /// It takes what it is sent too slowly.
    Slow,
    /// The service stops.
    Drain,
    /// A newer connection of the same node took its place.
    Replaced,
    /// Longer than a message may be.
    TooLong,
}

impl Ending {
    /// For metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Slow => "slow",
            Self::Drain => "drain",
            Self::Replaced => "replaced",
            Self::TooLong => "too_long",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Input {
    Text(String),
    Binary,
    /// A ping or pong.
    Sign,
    Verdict(Verdict, Box<Hello>),
    Answer {
        id: String,
        outcome: Result<Value, Failure>,
    },
    Event(Arc<Event>),
    /// The handshake's time is over.
    HandshakeOver,
    Tick {
        unix_ms: i64,
    },
    End(Ending),
}

#[derive(Debug)]
pub(crate) enum Effect {
    Send(String),
    /// Ask identity; the answer comes as [`Input::Verdict`].
    Prove(Box<Connect>),
    /// The connection is a device's now.
    Opened(Welcome),
    /// Do the work; the answer comes as [`Input::Answer`].
    Call(&'static Method, Request),
    /// It asked for a method that it may not call: for the record.
    Refused(&'static str),
    Ping,
    Close {
        code: u16,
        reason: String,
    },
}

#[derive(Debug)]
enum Phase {
    Challenged,
    Proving { id: String },
    Open(Open),
    Over,
}

#[derive(Debug)]
struct Open {
    role: Role,
    scopes: Scopes,
    in_flight: BTreeSet<String>,
    sequence: u64,
    bad_frames: u32,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    heard_at_ms: u64,
}

impl Machine {
    /// A connection that was just opened, and the challenge it is sent.
    pub(crate) fn new(nonce: &str, unix_ms: i64, now_ms: u64) -> (Self, Effect) {
        let payload = json!({ "nonce": nonce, "ts": unix_ms });
        let machine = Self {
            phase: Phase::Challenged,
            heard_at_ms: now_ms,
        };
        (
            machine,
            Effect::Send(frame::event("connect.challenge", &payload, None)),
        )
    }

    /// Whether it is a device's connection.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether it has ended.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Takes one input; `now_ms` is monotonic.
    pub(crate) fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        if matches!(input, Input::Text(_) | Input::Binary | Input::Sign) {
            self.heard_at_ms = now_ms;
        }
        match (&mut self.phase, input) {
            (Phase::Over, _) | (_, Input::Sign) => Vec::new(),
            (_, Input::End(ending)) => self.end(ending),
            (Phase::Challenged, Input::Text(text)) => self.connect(text),
            (Phase::Challenged | Phase::Proving { .. }, Input::HandshakeOver) => {
                self.close(1008, "handshake timeout")
            }
            (Phase::Proving { .. }, Input::Verdict(verdict, hello)) => self.judged(verdict, hello),
            // One frame, then the verdict: whoever says more before it is no client of this protocol.
            (Phase::Proving { .. }, Input::Text(_)) => self.close(1008, "request before hello-ok"),
            (Phase::Challenged | Phase::Proving { .. }, Input::Binary) => {
                self.close(1003, "text frames only")
            }
            (Phase::Open(open), Input::Text(text)) => {
                let effects = open.text(text);
                self.if_patient(effects)
            }
            (Phase::Open(open), Input::Binary) => {
                let effects = open.bad(BadFrame {
                    id: None,
                    why: "text frames only".to_owned(),
                    garbage: true,
                });
                self.if_patient(effects)
            }
            (Phase::Open(open), Input::Answer { id, outcome }) => {
                if !open.in_flight.remove(&id) {
                    return Vec::new();
                }
                let mut answer = match outcome {
                    Ok(payload) => frame::answer(&id, &payload),
                    Err(failure) => frame::refusal(&id, &failure),
                };
                if answer.len() > frame::MAX_BYTES {
                    let failure = Failure::invalid("the answer is longer than a frame may be; ask for less");
                    answer = frame::refusal(&id, &failure);
                }
                vec![Effect::Send(answer)]
            }
            (Phase::Open(open), Input::Event(event)) => open.event(&event),
            (Phase::Open(open), Input::Tick { unix_ms }) => {
                if now_ms.saturating_sub(self.heard_at_ms) >= SILENCE_MS {
                    return self.close(1001, "nothing heard");
                }
                let tick = open.number("tick", &json!({ "ts": unix_ms }));
                vec![tick, Effect::Ping]
            }
            (Phase::Open(_), Input::Verdict(..) | Input::HandshakeOver)
            | (Phase::Challenged, Input::Verdict(..))
            | (
                Phase::Challenged | Phase::Proving { .. },
                Input::Answer { .. } | Input::Event(_) | Input::Tick { .. },
            ) => Vec::new(),
        }
    }

    fn connect(&mut self, text: String) -> Vec<Effect> {
        let request = match Request::parse(text) {
            Ok(request) => request,
            // No answer for what isn't even JSON; the original closes without a word, too.
            Err(BadFrame { garbage: true, .. }) => return self.close(1008, "invalid handshake"),
            Err(bad) => {
                let failure = Failure::invalid(format!("invalid request frame: {}", bad.why));
                let id = bad.id.unwrap_or_else(|| "invalid".to_owned());
                return self.refuse(&id, failure, 1008);
            }
        };
        let judged = if request.method == "connect" {
            request
                .params()
                .map_err(|failure| Refusal::Params(failure.message))
                .and_then(connect::judge)
        } else {
            Err(Refusal::NotConnect)
        };
        match judged {
            Ok(connect) => {
                self.phase = Phase::Proving { id: request.id };
                vec![Effect::Prove(Box::new(connect))]
            }
            Err(refusal) => self.refuse(&request.id, refusal.failure(), refusal.close_code()),
        }
    }

    fn judged(&mut self, verdict: Verdict, hello: Box<Hello>) -> Vec<Effect> {
        let Phase::Proving { id } = std::mem::replace(&mut self.phase, Phase::Over) else {
            return Vec::new();
        };
        match verdict {
            Verdict::Welcome(welcome) => {
                let payload = HelloOk {
                    hello,
                    auth: auth(&welcome),
                };
                self.phase = Phase::Open(Open {
                    role: welcome.role,
                    scopes: welcome.scopes.clone(),
                    in_flight: BTreeSet::new(),
                    sequence: 0,
                    bad_frames: 0,
                });
                let hello = Effect::Send(frame::answer(&id, &payload));
                vec![Effect::Opened(welcome), hello]
            }
            Verdict::Pairing(pairing) => {
                let failure = pairing_required(&pairing);
                let reason = format!("{} (requestId: {})", failure.message, pairing.request);
                let answer = Effect::Send(frame::refusal(&id, &failure));
                vec![answer, closing(1008, &reason)]
            }
            Verdict::Refused {
                code,
                message,
                retry_after_ms,
            } => {
                let mut failure = connect::device_auth(code, &message);
                if let Some(after) = retry_after_ms {
                    failure = failure.retry(after);
                }
                self.refuse(&id, failure, 1008)
            }
            // 1013: try again later.
            Verdict::Failed(error) => self.refuse(&id, error.into(), 1013),
        }
    }

    fn refuse(&mut self, id: &str, failure: Failure, code: u16) -> Vec<Effect> {
        self.phase = Phase::Over;
        let reason = failure.message.clone();
        let answer = Effect::Send(frame::refusal(id, &failure));
        vec![answer, closing(code, &reason)]
    }

    fn close(&mut self, code: u16, reason: &str) -> Vec<Effect> {
        self.phase = Phase::Over;
        vec![closing(code, reason)]
    }

    fn end(&mut self, ending: Ending) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let (Ending::Drain, Phase::Open(open)) = (ending, &mut self.phase) {
            effects.push(open.number("shutdown", &json!({ "reason": "service restart" })));
        }
        let (code, reason) = match ending {
            Ending::Revoked => (1008, "device standing changed"),
            Ending::Slow => (1008, "slow consumer"),
            Ending::Drain => (1012, "service restart"),
            Ending::Replaced => (1000, "replaced by a newer connection of this node"),
            Ending::TooLong => (1009, "message too long"),
        };
        effects.extend(self.close(code, reason));
        effects
    }

    /// Ends a connection whose frames were no requests too often.
    fn if_patient(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        if matches!(&self.phase, Phase::Open(open) if open.bad_frames > MAX_BAD_FRAMES) {
            effects.extend(self.close(1008, "too many invalid frames"));
        }
        effects
    }
}

impl Open {
    fn text(&mut self, text: String) -> Vec<Effect> {
        let request = match Request::parse(text) {
            Ok(request) => request,
            Err(bad) => return self.bad(bad),
        };
        if self.in_flight.contains(&request.id) {
            let failure = Failure::invalid("duplicate request id: the first is under way");
            return vec![Effect::Send(frame::refusal(&request.id, &failure))];
        }
        let found = if request.method == "connect" {
            let why = "connect is only valid as the first request";
            Err(Failure::new(super::failure::FORBIDDEN, why))
        } else if self.in_flight.len() >= MAX_IN_FLIGHT {
            Err(Failure::busy())
        } else {
            methods::find(&request.method)
        };
        let mut effects = Vec::new();
        let admitted = found.and_then(|method| {
            let admitted = methods::admit(method, self.role, &self.scopes);
            if admitted.is_err() {
                effects.push(Effect::Refused(method.name));
            }
            admitted.map(|()| method)
        });
        effects.push(match admitted {
            Ok(method) => {
                self.in_flight.insert(request.id.clone());
                Effect::Call(method, request)
            }
            Err(failure) => Effect::Send(frame::refusal(&request.id, &failure)),
        });
        effects
    }

    fn bad(&mut self, bad: BadFrame) -> Vec<Effect> {
        self.bad_frames += 1;
        let failure = Failure::invalid(format!("invalid request frame: {}", bad.why));
        let id = bad.id.unwrap_or_else(|| "invalid".to_owned());
        vec![Effect::Send(frame::refusal(&id, &failure))]
    }

    fn event(&mut self, event: &Event) -> Vec<Effect> {
        let admitted = match &event.audience {
            Audience::Operators(scope) => self.role == Role::Operator && self.scopes.contains(scope),
            Audience::Anyone => true,
        };
        if admitted {
            vec![self.number(event.name, &event.payload)]
        } else {
            Vec::new()
        }
    }

    /// Events are counted per connection, so that one that isn't for a client leaves no gap.
    fn number(&mut self, name: &str, payload: &Value) -> Effect {
        self.sequence += 1;
        Effect::Send(frame::event(name, payload, Some(self.sequence)))
    }
}

fn closing(code: u16, reason: &str) -> Effect {
    Effect::Close {
        code,
        reason: frame::close_reason(reason),
    }
}

/// The whole of it. It holds a token: no `Debug`.
#[derive(Serialize)]
struct HelloOk {
    #[serde(flatten)]
    hello: Box<Hello>,
    auth: Value,
}

fn auth(welcome: &Welcome) -> Value {
    let scopes: Vec<_> = welcome.scopes.iter().map(|scope| scope.as_str()).collect();
    let mut auth = json!({
        "method": "device-token",
        "role": welcome.role.as_str(),
        "scopes": scopes,
    });
    if let Some(token) = &welcome.new_token {
        auth["deviceToken"] = json!(token.expose());
    }
    if let Some(at) = welcome.token_issued_at_unix_ms {
        auth["issuedAtMs"] = json!(at);
    }
    auth
}

fn pairing_required(pairing: &Pairing) -> Failure {
    let requirement = match pairing.reason {
        "scope-upgrade" => "device is asking for more scopes than currently approved",
        _ => "device is not approved yet",
    };
    let hint = format!("creel devices approve {}", pairing.request);
    Failure::new(NOT_PAIRED, format!("pairing required: {requirement}"))
        .details(json!({
            "code": "PAIRING_REQUIRED",
            "reason": pairing.reason,
            "requestId": pairing.request,
            "remediationHint": format!("{hint}; its words: {}", pairing.phrase),
            // Without these the original's node host stops until somebody restarts it.
            "recommendedNextStep": "wait_then_retry",
            "retryable": true,
            "pauseReconnect": false,
            "deviceId": pairing.device,
            "requestedRole": pairing.role.as_str(),
            "requestedScopes": pairing.scopes,
        }))
        .retry(PAIRING_RETRY_MS)
}

#[cfg(test)]
pub(crate) mod tests;
