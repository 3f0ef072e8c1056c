//! One connection from the upgrade to its end: the shell around [`Machine`]. It reads, writes, keeps time,
//! asks identity and runs calls; what any of it means is the machine's.

use std::{pin::Pin, sync::Arc, time::Duration};

use creel_wire::{DeviceId, Error, accept::Connection};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use hyper::upgrade::Upgraded;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, Sleep},
};
use tokio_tungstenite::tungstenite::{self, Bytes, Message, error::CapacityError};

use super::{
    Door, HANDSHAKE, Unproven, calls,
    connect::{Client, Connect, Role},
    failure::Failure,
    figures::{Counted, Limit, UNFINISHED},
    hello::{self, Hello},
    hub::{self, Inbox, Line, Present},
    machine::{Effect, Ending, Input, Machine, Verdict, Welcome},
    prover::{Admission, Knocking},
    socket::{self, Socket},
};
use crate::{
    callers::Memory,
    connections::Live,
    nodes::{Joined, registry::Node},
};

/// Ticks come this often; `hello-ok` says so.
pub(super) const TICK: Duration = Duration::from_secs(30);

/// A device's connection, as calls see it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) door: Door,
    /// Unique in this process.
    pub(crate) connection: u64,
    pub(crate) knocking: Knocking,
    pub(crate) device: DeviceId,
    pub(crate) memory: Memory,
}

/// What a welcome made; dropping it takes the connection out everywhere.
struct Opened {
    session: Arc<Session>,
    _live: Live,
    _present: Present,
    _joined: Option<Joined>,
    _counted: Counted,
}

type Judged = (Verdict, Option<Admission>, Client, Declared);

/// What the shell needs of a `connect` after it was judged.
struct Declared {
    caps: Vec<String>,
    commands: Vec<String>,
    permissions: std::collections::BTreeMap<String, bool>,
}

struct Run {
    door: Door,
    connection: Arc<Connection>,
    knocking: Knocking,
    /// What this connection was given, until it is judged.
    nonce: String,
    unproven: Option<Unproven>,
    machine: Machine,
    line: Line,
    inbox: Inbox,
    judging: Option<BoxFuture<'static, Judged>>,
    judged: bool,
    /// Its messages may be as long as a device's.
    is_wide: bool,
    admission: Option<(Admission, Client, Declared)>,
    /// Changes of standings that were known when identity was asked.
    changes: u64,
    opened: Option<Opened>,
    calls: JoinSet<(String, Result<Value, Failure>)>,
    renewing: Option<BoxFuture<'static, Result<(), Error>>>,
    ticks: Interval,
    deadline: Pin<Box<Sleep>>,
}

/// Runs a connection to its end.
pub(crate) async fn run(door: Door, connection: Arc<Connection>, upgraded: Upgraded, unproven: Unproven) {
    let mut socket = socket::narrow(upgraded).await;
    let challenge = door.0.parts.prover.challenge(&connection);
    let (knocking, nonce) = match tokio::time::timeout(HANDSHAKE, challenge).await {
        Ok(Ok(challenge)) => challenge,
        Ok(Err(error)) => return socket::close(&mut socket, 1013, &error.message).await,
        Err(_) => return socket::close(&mut socket, 1013, "identity did not answer in time").await,
    };
    let (machine, challenge) = Machine::new(&nonce, door.0.parts.clock.now_ms(), door.now_ms());
    let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (line, inbox) = hub::line();
    let mut run = Run {
        door,
        connection,
        knocking,
        nonce,
        unproven: Some(unproven),
        machine,
        line,
        inbox,
        judging: None,
        judged: false,
        is_wide: false,
        admission: None,
        changes: 0,
        opened: None,
        calls: JoinSet::new(),
        renewing: None,
        ticks,
        deadline: Box::pin(tokio::time::sleep(HANDSHAKE)),
    };
    let mut socket = Some(socket);
    run.act(vec![challenge], &mut socket).await;
    while let Some(open) = &mut socket {
        if run.machine.is_over() {
            break;
        }
        let Some(input) = run.next(open).await else { break };
        run.count(&input);
        let effects = run.machine.handle(input, run.door.now_ms());
        run.act(effects, &mut socket).await;
    }
    if !run.judged {
        run.door.0.parts.figures.handshake(UNFINISHED);
    }
    if !run.nonce.is_empty() {
        run.door.0.parts.prover.unused(run.knocking);
    }
}

impl Run {
    fn count(&mut self, input: &Input) {
        let figures = &self.door.0.parts.figures;
        match input {
            Input::Text(_) | Input::Binary => figures.frame_in(),
            Input::Verdict(verdict, _) => {
                self.judged = true;
                figures.judged(verdict);
            }
            Input::End(ending) => figures.closed(*ending),
            Input::Sign
            | Input::Answer { .. }
            | Input::Event(_)
            | Input::HandshakeOver
            | Input::Tick { .. } => {}
        }
    }

    /// The next thing that happens; none when the peer is gone.
    async fn next(&mut self, socket: &mut Socket) -> Option<Input> {
        let open = self.machine.is_open();
        // While identity judges, nothing is read: one message, then the verdict.
        let reading = self.judging.is_none();
        loop {
            let input = tokio::select! {
                biased;
                () = self.connection.close.cancelled() => Input::End(Ending::Revoked),
                () = self.door.0.parts.drain.cancelled() => Input::End(Ending::Drain),
                ending = self.inbox.ending.wait() => Input::End(*ending),
                judged = optional(&mut self.judging) => {
                    self.judging = None;
                    self.verdict(judged)
                }
                renewed = optional(&mut self.renewing) => {
                    self.renewing = None;
                    match renewed {
                        Ok(()) => continue,
                        Err(error) => self.not_renewed(&error)?,
                    }
                }
                Some(done) = self.calls.join_next(), if !self.calls.is_empty() => match done {
                    Ok((id, outcome)) => Input::Answer { id, outcome },
                    Err(error) => {
                        tracing::error!(%error, "a call of a WebSocket ended badly");
                        Input::End(Ending::Drain)
                    }
                },
                Some(event) = self.inbox.events.recv() => Input::Event(event),
                () = &mut self.deadline, if !open => Input::HandshakeOver,
                _ = self.ticks.tick(), if open => {
                    self.renew();
                    Input::Tick { unix_ms: self.door.0.parts.clock.now_ms() }
                }
                message = socket.next(), if reading => match message {
                    Some(Ok(Message::Text(text))) => Input::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Binary(_))) => Input::Binary,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Input::Sign,
                    Some(Err(tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                        Input::End(Ending::TooLong)
                    }
                    Some(Ok(Message::Close(_))) => {
                        socket::closed(socket).await;
                        return None;
                    }
                    Some(Err(_)) | None => return None,
                },
            };
            return Some(input);
        }
    }

    /// Carries effects out, in order.
    async fn act(&mut self, effects: Vec<Effect>, socket: &mut Option<Socket>) {
        for effect in effects {
            let Some(open) = socket.as_mut() else { return };
            let (connection, figures) = (&self.connection, &self.door.0.parts.figures);
            let sent = match effect {
                Effect::Send(text) => {
                    figures.frame_out();
                    socket::send(open, Message::text(text), connection, figures).await
                }
                Effect::Ping => socket::send(open, Message::Ping(Bytes::new()), connection, figures).await,
                Effect::Prove(connect) => {
                    self.prove(*connect);
                    true
                }
                Effect::Opened(welcome) => {
                    if let Err((code, reason)) = self.open(&welcome).await {
                        socket::close(open, code, reason).await;
                        false
                    } else {
                        true
                    }
                }
                Effect::Call(method, request) => {
                    if let Some(opened) = &self.opened {
                        let session = Arc::clone(&opened.session);
                        self.calls.spawn(async move {
                            let outcome = calls::call(&session, method, &request).await;
                            (request.id, outcome)
                        });
                    }
                    true
                }
                Effect::Refused(method) => {
                    if let Some(opened) = &self.opened {
                        opened.session.refused(method);
                    }
                    true
                }
                Effect::Close { code, reason } => {
                    socket::close(open, code, &reason).await;
                    false
                }
            };
            if !sent {
                *socket = None;
            }
        }
        if self.opened.is_some()
            && !self.is_wide
            && let Some(narrow) = socket.take()
        {
            self.is_wide = true;
            *socket = Some(socket::wide(narrow).await);
        }
    }

    fn prove(&mut self, connect: Connect) {
        let parts = &self.door.0.parts;
        self.changes = parts.connections.changes();
        let standing = parts.connections.sees();
        let (prover, knocking) = (Arc::clone(&parts.prover), self.knocking.clone());
        let nonce = std::mem::take(&mut self.nonce);
        self.judging = Some(
            async move {
                let (verdict, admission) = match standing {
                    Ok(()) => prover.prove(&knocking, &nonce, &connect).await,
                    Err(error) => (Verdict::Failed(error), None),
                };
                let declared = Declared {
                    caps: connect.caps,
                    commands: connect.commands,
                    permissions: connect.permissions,
                };
                (verdict, admission, connect.client, declared)
            }
            .boxed(),
        );
    }

    fn verdict(&mut self, (verdict, admission, client, declared): Judged) -> Input {
        self.admission = admission.map(|admission| (admission, client, declared));
        let presence = self.door.0.parts.hub.presence();
        let hello = Hello::new(&self.knocking.connection_id, presence, self.door.now_ms());
        Input::Verdict(verdict, Box::new(hello))
    }

    /// Gives a welcomed device its places.
    ///
    /// # Errors
    /// How to close when there is none, or when its standing changed meanwhile.
    async fn open(&mut self, welcome: &Welcome) -> Result<(), (u16, &'static str)> {
        let Some((admission, client, declared)) = self.admission.take() else {
            return Err((1011, "no admission"));
        };
        let parts = &self.door.0.parts;
        let id = self.connection.id;
        let Some(live) = parts
            .connections
            .open(&welcome.device, id, self.connection.close.clone())
        else {
            parts.figures.refused(Limit::DeviceConnections);
            tracing::warn!(device = %welcome.device, "connection closed: its device has too many");
            return Err((1013, "too many connections of this device"));
        };
        let memory = Memory::holding(admission.proven);
        if parts.connections.is_outdated(self.changes)
            && let Err(error) = parts.prover.renew(&self.knocking, &memory, true).await
        {
            tracing::info!(device = %welcome.device, %error, "connection closed: its device's standing changed");
            return Err((1008, "device standing changed"));
        }
        if let Some(unproven) = &mut self.unproven {
            unproven.proven = true;
        }
        self.unproven = None;
        let now = parts.clock.now_ms();
        let shown = (!matches!(client.mode.as_str(), "cli" | "probe" | "test"))
            .then(|| hello::presence(welcome, &client, &admission.name, now));
        let present = parts.hub.join(id, self.line.clone(), shown);
        let joined = (welcome.role == Role::Node).then(|| {
            let node = Node {
                name: admission.name.clone(),
                platform: client.platform.clone(),
                device_family: client.device_family.clone().unwrap_or_default(),
                model: client.model_identifier.clone().unwrap_or_default(),
                version: client.version.clone(),
                remote_address: self
                    .knocking
                    .remote
                    .map(|ip| ip.to_canonical().to_string())
                    .unwrap_or_default(),
                caps: declared.caps,
                declared: declared.commands,
                approved: admission.surface.commands,
                permissions: declared.permissions,
                connected_at_unix_ms: now,
            };
            parts
                .nodes
                .join(welcome.device.clone(), id, node, self.line.clone())
        });
        tracing::info!(device = %welcome.device, role = welcome.role.as_str(), client = %client.id, "WebSocket opened");
        self.opened = Some(Opened {
            session: Arc::new(Session {
                door: self.door.clone(),
                connection: id,
                knocking: self.knocking.clone(),
                device: welcome.device.clone(),
                memory,
            }),
            _live: live,
            _present: present,
            _joined: joined,
            _counted: parts.figures.opened(welcome.role),
        });
        Ok(())
    }

    /// An assertion can only be renewed while it holds, so an idle connection renews it, too.
    fn renew(&mut self) {
        let Some(opened) = &self.opened else { return };
        if self.renewing.is_none() {
            let session = Arc::clone(&opened.session);
            let renewing = async move {
                let prover = &session.door.0.parts.prover;
                prover.renew(&session.knocking, &session.memory, false).await
            };
            self.renewing = Some(renewing.boxed());
        }
    }

    /// Identity that isn't there is asked again at the next tick, as long as the assertion may hold.
    fn not_renewed(&self, error: &Error) -> Option<Input> {
        tracing::info!(%error, "the assertion of a WebSocket was not renewed");
        if error.code == creel_wire::Code::Unavailable {
            return Some(Input::Sign);
        }
        Some(Input::End(Ending::Revoked))
    }
}

/// What comes of a future, if there is one; else never.
async fn optional<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
