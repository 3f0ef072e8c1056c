//! The edge listener: each request is proven, judged, and served here or forwarded.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use creel_kit::{Clock, Deps, outbox::Outbox};
use creel_wire::{
    Caller, Code, Error,
    accept::{Acceptor, Connection, Limits, Listener},
    authz,
    caller::Peer,
    names::Subject,
    observe::Observed,
    source::Buckets,
};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, service::Routes};
use tower::Service as _;

use crate::{
    callers::{Callers, Memory},
    connections::{Connections, Live},
    edge_cert::EdgeCertificate,
    forward::Upstreams,
    http_edge,
    reflection::Reflection,
    ws::{self, Door},
};

/// What the edge is made of.
pub(crate) struct Parts {
    pub(crate) deps: Deps,
    pub(crate) certificate: Arc<ArcSwap<EdgeCertificate>>,
    pub(crate) connections: Connections,
    pub(crate) callers: Callers,
    pub(crate) upstreams: Upstreams,
    /// The gateway's own services.
    pub(crate) own: Routes,
    pub(crate) door: Door,
}

/// The edge. One for all connections.
pub(crate) struct Edge {
    deps: Deps,
    certificate: Arc<ArcSwap<EdgeCertificate>>,
    connections: Connections,
    shared: Arc<Shared>,
}

struct Shared {
    connections: Connections,
    callers: Callers,
    upstreams: Upstreams,
    outbox: Outbox,
    certificate: Arc<ArcSwap<EdgeCertificate>>,
    /// Own services and health.
    local: axum::Router,
    reflection: Reflection,
    door: Door,
    drain: CancellationToken,
    clock: Clock,
    /// What those who proved nothing may still call.
    strangers: Mutex<Buckets>,
}

/// Calls of one source that proved nothing: so many at once, then five each second.
const BURST: u32 = 20;
const EVERY_MS: i64 = 200;
/// Sources told apart.
const MAX_SOURCES: usize = 4_096;

/// One connection as its requests need it.
struct Session {
    connection: Arc<Connection>,
    memory: Memory,
    /// Counts the connection while any of its requests or the connection itself lives.
    _live: Option<Live>,
}

impl Edge {
    pub(crate) async fn new(parts: Parts) -> anyhow::Result<Self> {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let local = parts.own.add_service(health);
        let shared = Shared {
            connections: parts.connections.clone(),
            callers: parts.callers,
            upstreams: parts.upstreams,
            outbox: parts.deps.outbox.clone(),
            certificate: Arc::clone(&parts.certificate),
            local: local.prepare().into_axum_router(),
            reflection: Reflection::default(),
            door: parts.door,
            drain: parts.deps.drain.clone(),
            clock: parts.deps.clock.clone(),
            strangers: Mutex::new(Buckets::new(BURST, EVERY_MS, MAX_SOURCES)),
        };
        Ok(Self {
            deps: parts.deps,
            certificate: parts.certificate,
            connections: parts.connections,
            shared: Arc::new(shared),
        })
    }

    /// Serves until the drain.
    pub(crate) async fn serve(self, listener: std::net::TcpListener) {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => Listener::Tcp(listener),
            Err(error) => return tracing::error!(%error, "the edge can't listen"),
        };
        let certificate = self.certificate;
        let acceptor = Acceptor {
            limits: Limits {
                connections: self.deps.config.gateway.max_connections as usize,
                ..Limits::default()
            },
            tls: Arc::new(move || Some(Arc::clone(&certificate.load().tls))),
            domain: self.deps.tls.trust().domain.clone(),
            judge_local: None,
            drain: self.deps.drain.clone(),
        };
        let (shared, connections, metrics) = (self.shared, self.connections, self.deps.metrics);
        acceptor
            .serve(listener, move |connection| {
                let session = Arc::new(open(connection, &connections));
                let (shared, metrics) = (Arc::clone(&shared), metrics.clone());
                let handle = tower::service_fn(move |request: Request<Incoming>| {
                    let (shared, session) = (Arc::clone(&shared), Arc::clone(&session));
                    async move { Ok::<_, Infallible>(shared.handle(&session, request).await) }
                });
                Observed::new(
                    handle,
                    Arc::new(move |method, code, seconds| metrics.rpc_finished(method, code, seconds)),
                )
            })
            .await;
    }
}

/// Takes a connection in; one too many of its device is closed at once.
fn open(connection: Arc<Connection>, connections: &Connections) -> Session {
    let device = match &connection.peer {
        Peer::Certified(Subject::Operator(device) | Subject::Node(device)) => Some(device),
        Peer::Certified(Subject::Service(_)) | Peer::Local(_) | Peer::Anonymous => None,
    };
    let live = device.and_then(|device| {
        let live = connections.open(device, connection.id, connection.close.clone());
        if live.is_none() {
            tracing::warn!(%device, "connection closed: its device has too many");
            connection.close.cancel();
        }
        live
    });
    Session {
        connection,
        memory: Memory::default(),
        _live: live,
    }
}

impl Shared {
    async fn handle(&self, session: &Session, request: Request<Incoming>) -> Response<Body> {
        if let Some(refused) = http_edge::refuse_browser(&request) {
            return refused;
        }
        let grpc = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if !grpc {
            let certificate = self.certificate.load();
            if ws::is_asked(&request) && http_edge::is_for_us(&request, &certificate.names) {
                return self.door.upgrade(&session.connection, request).await;
            }
            return http_edge::answer(&request, &certificate.names, self.drain.is_cancelled());
        }
        match self.grpc(session, request).await {
            Ok(response) => response,
            Err(error) => Status::from(error).into_http(),
        }
    }

    async fn grpc(&self, session: &Session, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let path = request.uri().path();
        let known = creel_proto::method(path);
        let proven = match &session.connection.peer {
            Peer::Certified(Subject::Operator(device) | Subject::Node(device)) => {
                self.connections.sees()?;
                let proven = self.callers.of(&session.connection, &session.memory).await?;
                self.connections.admit(device, session.connection.id)?;
                Some(proven)
            }
            // The edge trusts no issuer of services, and has no local socket.
            Peer::Certified(Subject::Service(_)) | Peer::Local(_) | Peer::Anonymous => None,
        };
        let nobody = authz::anonymous();
        let caller: &Caller = proven.as_ref().map_or(&nobody, |proven| &proven.caller);
        let reachable = known.is_none_or(|method| method.edge);
        let verdict = authz::decide(path, caller).and_then(|()| {
            if reachable {
                Ok(())
            } else {
                Err(not_at_the_edge(path))
            }
        });
        if let Err(error) = verdict {
            self.outbox
                .refused(&caller.principal().to_string(), path, &error.reason);
            return Err(error);
        }
        match (known, &proven) {
            (Some(method), Some(proven)) if method.owner != "gateway" => {
                let header = Some(proven.header.clone());
                self.upstreams
                    .forward(method, request, header, &session.connection)
                    .await
            }
            // Let in by a rule for everybody: the ways to prove oneself.
            (Some(method), None) if method.owner != "gateway" => {
                self.slow_down(session)?;
                self.upstreams
                    .forward(method, request, None, &session.connection)
                    .await
            }
            _ => self.serve_here(request, caller.clone()).await,
        }
    }

    /// Callers who proved nothing are slowed down, each source for itself.
    fn slow_down(&self, session: &Session) -> Result<(), Error> {
        let mut buckets = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = buckets.take(session.connection.source().host(), self.clock.now_ms());
        taken.map_err(|wait_ms| {
            let message = format!(
                "{BURST} calls without a certificate at once, then five a second; the next in {wait_ms} ms"
            );
            Error::new(Code::ResourceExhausted, "slow_down", message)
        })
    }

    async fn serve_here(&self, request: Request<Incoming>, caller: Caller) -> Result<Response<Body>, Error> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller);
        let mut router = if Reflection::serves(request.uri().path()) {
            self.reflection.router()?
        } else {
            self.local.clone()
        };
        let Ok(response) = router.call(request).await;
        Ok(response.map(Body::new))
    }
}

fn not_at_the_edge(path: &str) -> Error {
    let name = creel_wire::error::printable(path, 200);
    Error::new(
        Code::PermissionDenied,
        "not_at_the_edge",
        format!("{name} is for services only"),
    )
}
