//! The WebSocket door: clients of the original (its command line, its node hosts) over `wss://` on the edge's
//! own port. It speaks their protocol and nothing else of theirs: identity judges their proofs, and every
//! method is a thin map onto a gRPC method, called with the caller's assertion under the same table.
//!
//! Invariants: nothing is parsed before the source's bucket let it in; nothing is called before identity's
//! welcome; a proven connection ends within a second of its device's revocation; every queue has a bound.
//!
//! `frame`, `params`, `connect`, `methods`, `machine`, `sources`, `upgrade` are pure; `session` runs one connection.

mod calls;
mod chat;
pub(crate) mod connect;
pub(crate) mod failure;
pub(crate) mod figures;
pub(crate) mod frame;
mod gate;
mod hello;
pub(crate) mod hub;
pub(crate) mod machine;
mod methods;
mod news;
mod params;
pub(crate) mod prover;
mod session;
mod socket;
mod sources;
mod spares;
mod upgrade;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use creel_kit::Clock;
use creel_proto::identity::v1::device_service_client::DeviceServiceClient;
use creel_wire::{Source, accept::Connection};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, transport::Channel};

pub(crate) use upgrade::is_asked;

use crate::{backend::Backend, connections::Connections, nodes::Nodes};

use self::{
    figures::{Figures, Limit},
    hub::Hub,
    prover::Prover,
    sources::{Knock, Sources},
};

/// A handshake takes no longer, from the upgrade to `hello-ok`.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections get so long to hear that the service stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the door is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) drain: CancellationToken,
    pub(crate) prover: Arc<dyn Prover>,
    pub(crate) backend: Backend,
    pub(crate) connections: Connections,
    pub(crate) nodes: Nodes,
    pub(crate) hub: Hub,
    pub(crate) figures: Figures,
    /// WebSockets at once.
    pub(crate) max_connections: usize,
}

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    start: Instant,
    sources: Mutex<Sources>,
    open: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    followed: Mutex<chat::Followed>,
    tasks: TaskTracker,
}

/// A handshake under way, counted on its source until it ends.
#[derive(Debug)]
struct Unproven {
    door: Door,
    source: Source,
    proven: bool,
}

impl Door {
    pub(crate) fn new(parts: Parts) -> Self {
        let open = Arc::new(Semaphore::new(parts.max_connections));
        Self(Arc::new(Inner {
            parts,
            start: Instant::now(),
            sources: Mutex::default(),
            open,
            followers: Arc::new(Semaphore::new(chat::MAX_FOLLOWERS)),
            followed: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Turns a request into a WebSocket, or says why not. The host was checked, and that no page sent it.
    pub(crate) async fn upgrade(
        &self,
        connection: &Arc<Connection>,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let Ok(place) = Arc::clone(&self.0.open).try_acquire_owned() else {
            self.0.parts.figures.refused(Limit::Connections);
            return upgrade::later(StatusCode::SERVICE_UNAVAILABLE, "too many connections\n", 5);
        };
        let unproven = match self.knock(connection) {
            Ok((wait, unproven)) => {
                if !wait.is_zero() {
                    // Its turn comes; what it sent meanwhile waits in the kernel.
                    tokio::time::sleep(wait).await;
                }
                unproven
            }
            Err(refused) => return *refused,
        };
        let response = match upgrade::accept(&request) {
            Ok(response) => response,
            Err(refused) => return *refused,
        };
        let upgraded = hyper::upgrade::on(&mut request);
        let (door, connection) = (self.clone(), Arc::clone(connection));
        self.0.tasks.spawn(async move {
            let upgraded = tokio::time::timeout(HANDSHAKE, upgraded);
            if let Ok(Ok(upgraded)) = upgraded.await {
                session::run(door, connection, upgraded, unproven).await;
            }
            drop(place);
        });
        response
    }

    fn knock(&self, connection: &Connection) -> Result<(Duration, Unproven), Box<Response<Body>>> {
        let source = connection.source().prefix();
        let knock = self.sources(|sources, now| sources.knock(source, now));
        match knock {
            Knock::After(wait_ms) => {
                let unproven = Unproven {
                    door: self.clone(),
                    source,
                    proven: false,
                };
                Ok((Duration::from_millis(wait_ms), unproven))
            }
            Knock::Later(after_ms) => {
                self.0.parts.figures.refused(Limit::Rate);
                let seconds = after_ms.div_ceil(1_000).max(1);
                let why = "too many failed handshakes from your network: slow down\n";
                Err(Box::new(upgrade::later(
                    StatusCode::TOO_MANY_REQUESTS,
                    why,
                    seconds,
                )))
            }
            Knock::Full => {
                self.0.parts.figures.refused(Limit::Unfinished);
                let why = "Too many unauthenticated sockets\n";
                Err(Box::new(upgrade::later(StatusCode::SERVICE_UNAVAILABLE, why, 1)))
            }
        }
    }

    fn sources<T>(&self, act: impl FnOnce(&mut Sources, u64) -> T) -> T {
        let now = self.now_ms();
        act(
            &mut self.0.sources.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        )
    }

    /// Monotonic.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What the door does by itself until the drain: it tells operators of pairings as identity decides them.
    /// Then it lets its connections say goodbye.
    pub(crate) async fn run(self, devices: DeviceServiceClient<Channel>) {
        news::follow(&self.0.parts, devices).await;
        self.0.tasks.close();
        if tokio::time::timeout(GOODBYE, self.0.tasks.wait()).await.is_err() {
            tracing::info!("WebSockets outlived the drain");
        }
    }
}

impl Inner {
    /// Notes that a turn is, or no longer is, followed; false when it was so already.
    fn following(&self, turn: &str, now: bool) -> bool {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if now {
            followed.insert(turn.to_owned())
        } else {
            followed.remove(turn)
        }
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        let (source, proven) = (self.source, self.proven);
        self.door
            .sources(|sources, now| sources.leave(source, proven, now));
    }
}
