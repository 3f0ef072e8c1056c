//! The one accept loop: TLS with a deadline, HTTP/2 or 1.1 by ALPN with upgrades, an end to every
//! connection, and a drain that lets requests finish.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::{
    caller::{LocalPeer, Peer},
    names::TrustDomain,
    opening::Opening,
    proof,
    source::Source,
    tls::subject_of,
};

/// Bounds of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Handshakes at once; more wait in the kernel's queue.
    pub handshakes: usize,
    /// A handshake takes no longer.
    pub handshake_time: Duration,
    /// Connections at once; more are closed at once.
    pub connections: usize,
    /// A connection lives no longer, so that a renewed or revoked certificate takes hold.
    pub connection_age: Duration,
    /// Requests get this long after a drain began or the age was reached.
    pub drain_time: Duration,
    /// HTTP/2 streams at once on one connection.
    pub streams: u32,
    /// Header block of a request, in bytes.
    pub header_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 64,
            handshake_time: Duration::from_secs(10),
            connections: 4_096,
            connection_age: Duration::from_secs(3_600),
            drain_time: Duration::from_secs(10),
            streams: 1_024,
            header_bytes: 64 * 1_024,
        }
    }
}

/// One accepted connection, as its requests see it (in their extensions).
#[derive(Debug)]
pub struct Connection {
    /// Unique in this process.
    pub id: u64,
    /// Whom the handshake proved.
    pub peer: Peer,
    /// The peer's leaf, DER.
    pub certificate: Option<Vec<u8>>,
    /// RFC 9266 channel binding of this TLS connection.
    pub exporter: [u8; 32],
    /// Where it came from, on TCP. For logs and rate limits; proves nothing.
    pub remote: Option<SocketAddr>,
    /// Cancelling it closes the connection now.
    pub close: CancellationToken,
}

impl Connection {
    /// Where it came from, for limits.
    #[must_use]
    pub fn source(&self) -> Source {
        self.remote
            .map_or(Source::LOCAL, |remote| Source::of(remote.ip()))
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// A socket file.
    Unix(UnixListener),
    /// An address.
    Tcp(TcpListener),
}

/// Judges the process at the other end of a unix socket that shows no certificate.
pub type JudgeLocal = Arc<dyn Fn(&tokio::net::UnixStream) -> Option<LocalPeer> + Send + Sync>;

/// What an accept loop needs to know.
pub struct Acceptor {
    /// Bounds.
    pub limits: Limits,
    /// The configuration for the next handshake; `None` while there is no certificate.
    pub tls: Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>,
    /// The stack whose names are believed.
    pub domain: TrustDomain,
    /// Only for identity's local socket.
    pub judge_local: Option<JudgeLocal>,
    /// Stops the loop and starts the drain of its connections.
    pub drain: CancellationToken,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Serves `listener` until the drain, then until its connections ended or the drain time is over.
    /// `make` gives each connection its service.
    pub async fn serve<M, S, B>(self, listener: Listener, make: M)
    where
        M: Fn(Arc<Connection>) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let shared = Arc::new(Shared {
            handshakes: Semaphore::new(self.limits.handshakes),
            open: AtomicUsize::new(0),
            next_id: std::sync::atomic::AtomicU64::new(1),
            acceptor: self,
            make,
        });
        let drain = shared.acceptor.drain.clone();
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = drain.cancelled() => break,
            };
            match accepted {
                Ok(Stream::Tcp(stream, remote)) => {
                    // Without it the first small answer of a connection waits 40 ms for an ACK.
                    let _ = stream.set_nodelay(true);
                    tasks.spawn(Arc::clone(&shared).connection(stream, Some(remote), None));
                }
                Ok(Stream::Unix(stream)) => {
                    let local = shared
                        .acceptor
                        .judge_local
                        .as_ref()
                        .and_then(|judge| judge(&stream));
                    tasks.spawn(Arc::clone(&shared).connection(stream, None, local));
                }
                Err(error) => {
                    // Out of descriptors, mostly: let some close.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        tasks.close();
        let grace = shared.acceptor.limits.drain_time + Duration::from_secs(1);
        if timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!(
                open = shared.open.load(Ordering::Relaxed),
                "connections outlived the drain"
            );
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> std::io::Result<Stream> {
    match listener {
        Listener::Tcp(listener) => listener
            .accept()
            .await
            .map(|(stream, remote)| Stream::Tcp(stream, remote)),
        Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
    }
}

struct Shared<M> {
    acceptor: Acceptor,
    handshakes: Semaphore,
    open: AtomicUsize,
    next_id: std::sync::atomic::AtomicU64,
    make: M,
}

/// Counts a connection while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<M> Shared<M> {
    async fn connection<IO, S, B>(
        self: Arc<Self>,
        stream: IO,
        remote: Option<SocketAddr>,
        local: Option<LocalPeer>,
    ) where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        M: Fn(Arc<Connection>) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let limits = &self.acceptor.limits;
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(&self.open);
        if open >= limits.connections {
            tracing::warn!(
                limit = limits.connections,
                "connection refused: too many are open"
            );
            return;
        }
        let tls = {
            let Ok(_permit) = self.handshakes.acquire().await else {
                return;
            };
            let Some(config) = (self.acceptor.tls)() else {
                return;
            };
            match timeout(limits.handshake_time, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return tracing::debug!(%error, ?remote, "handshake failed"),
                Err(_) => return tracing::debug!(?remote, "handshake took too long"),
            }
        };
        let Some(connection) = self.describe(tls.get_ref().1, remote, local) else {
            return tracing::warn!(?remote, "certificate names nobody of this stack");
        };
        let connection = Arc::new(connection);
        let service = hyper_util::service::TowerToHyperService::new((self.make)(Arc::clone(&connection)));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.header_bytes)
            .initial_stream_window_size(256 * 1_024)
            .initial_connection_window_size(16 * 1_024 * 1_024)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.handshake_time);
        let (stream, said) = Opening::new(tls);
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        self.drive(&connection, serving, said).await;
    }

    /// `said` is cancelled once the client has said what it speaks.
    async fn drive<F>(&self, connection: &Connection, serving: F, said: CancellationToken)
    where
        F: Future + GracefulShutdown,
    {
        tokio::pin!(serving);
        let limits = &self.acceptor.limits;
        let silent = async {
            if timeout(limits.handshake_time, said.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = serving.as_mut() => return,
            () = silent => return tracing::debug!("a connection on which nothing was said"),
            () = connection.close.cancelled() => return,
            () = self.acceptor.drain.cancelled() => {}
            () = tokio::time::sleep(limits.connection_age) => {}
        }
        serving.as_mut().graceful_shutdown();
        tokio::select! {
            _ = serving.as_mut() => {}
            () = connection.close.cancelled() => {}
            () = tokio::time::sleep(limits.drain_time) => {}
        }
    }

    fn describe(
        &self,
        session: &rustls::ServerConnection,
        remote: Option<SocketAddr>,
        local: Option<LocalPeer>,
    ) -> Option<Connection> {
        let certificate = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| leaf.to_vec());
        let peer = match (&certificate, local) {
            (Some(leaf), _) => Peer::Certified(subject_of(leaf, &self.acceptor.domain)?),
            (None, Some(local)) => Peer::Local(local),
            (None, None) => Peer::Anonymous,
        };
        let exporter = proof::exporter(session).ok()?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Some(Connection {
            id,
            peer,
            certificate,
            exporter,
            remote,
            close: CancellationToken::new(),
        })
    }
}

/// What hyper's connections share without saying so.
trait GracefulShutdown {
    fn graceful_shutdown(self: std::pin::Pin<&mut Self>);
}

impl<I, S, E, B> GracefulShutdown for auto::UpgradeableConnection<'_, I, S, E>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper_util::server::conn::auto::HttpServerConnExec<S::Future, B>,
{
    fn graceful_shutdown(self: std::pin::Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}
