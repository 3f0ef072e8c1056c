//! Connections to services: dialled here and nowhere else, TLS always, the server known by name.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{Error, proof};

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A socket file.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// A dial takes no longer, TLS included.
pub const DIAL_TIME: Duration = Duration::from_secs(5);

/// Gives the TLS configuration of the moment, so that a renewed certificate is used at the next dial.
pub type TlsSource = Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>;

/// Dials one server.
#[derive(Clone)]
pub struct Dialler {
    target: Target,
    server_name: ServerName<'static>,
    tls: TlsSource,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// A server name that is neither a DNS name nor an address.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a server name")]
pub struct BadServerName(String);

impl Dialler {
    /// A dialler that demands a certificate for `server_name`.
    ///
    /// # Errors
    /// [`BadServerName`].
    pub fn new(target: Target, server_name: &str, tls: TlsSource) -> Result<Self, BadServerName> {
        let server_name = ServerName::try_from(server_name.trim_matches(['[', ']']))
            .map_err(|_| BadServerName(server_name.to_owned()))?
            .to_owned();
        Ok(Self {
            target,
            server_name,
            tls,
        })
    }

    /// Where it dials to.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Opens a connection and proves the server.
    ///
    /// # Errors
    /// What the system or the handshake said; `TimedOut` after [`DIAL_TIME`].
    pub async fn dial(&self) -> std::io::Result<TlsStream<Socket>> {
        let dialled = timeout(DIAL_TIME, async {
            let socket = self.connect().await?;
            TlsConnector::from((self.tls)())
                .connect(self.server_name.clone(), socket)
                .await
        });
        dialled.await.unwrap_or_else(|_| {
            Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("{} did not answer in time", self.target),
            ))
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that dials")]
    async fn connect(&self) -> std::io::Result<Socket> {
        match &self.target {
            Target::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
        }
    }

    /// A channel for generated clients. It dials when first used, and again after a loss.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let dialler = self.clone();
        endpoint().connect_with_connector_lazy(service_fn(move |_: Uri| {
            let dialler = dialler.clone();
            async move { dialler.dial().await.map(TokioIo::new) }
        }))
    }

    /// A channel over one connection, and that connection's exporter ([`proof`]). It never dials again: what was
    /// signed for a connection that is lost is good for no other, so who wants another signs again.
    ///
    /// # Errors
    /// As a call on [`Self::channel`] would fail.
    pub async fn bound(&self) -> Result<(Channel, [u8; 32]), Status> {
        let exporter = Arc::new(OnceLock::new());
        let (mut dialler, told) = (Some(self.clone()), Arc::clone(&exporter));
        let once = service_fn(move |_: Uri| {
            let (dialler, told) = (dialler.take(), Arc::clone(&told));
            async move {
                let lost =
                    || std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection was lost");
                let stream = dialler.ok_or_else(lost)?.dial().await?;
                let exporter = proof::exporter(stream.get_ref().1).map_err(std::io::Error::other)?;
                let _ = told.set(exporter);
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel = endpoint()
            .connect_with_connector(once)
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        let exporter = exporter.get().copied();
        Ok((
            channel,
            exporter.ok_or_else(|| Error::internal("binding the connection"))?,
        ))
    }
}

fn endpoint() -> Endpoint {
    // The scheme says h2 without TLS since the connector has done TLS already.
    Endpoint::from_static("http://creel.internal")
        .initial_stream_window_size(256 * 1_024)
        .initial_connection_window_size(16 * 1_024 * 1_024)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
}

/// A connected socket of either family.
#[derive(Debug)]
pub enum Socket {
    /// Of a socket file.
    Unix(UnixStream),
    /// Of an address.
    Tcp(TcpStream),
}

macro_rules! on_socket {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Unix($stream) => $call,
            Socket::Tcp($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        on_socket!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        on_socket!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on_socket!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on_socket!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        on_socket!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::Empty;
    use hyper::body::{Bytes, Incoming};
    use rustls::ServerConfig;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::{net::TcpListener, sync::mpsc};
    use tokio_util::sync::CancellationToken;
    use tower::{Service as _, ServiceExt as _};

    use super::*;
    use crate::{
        accept::{Acceptor, Connection, Limits, Listener},
        names::TrustDomain,
        tls::edge_client,
    };

    /// A server that answers every request with nothing, and tells of its connections.
    async fn server() -> (Dialler, mpsc::UnboundedReceiver<Arc<Connection>>) {
        crate::install_crypto();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap().to_string());
        let (told, seen) = mpsc::unbounded_channel();
        let acceptor = Acceptor {
            limits: Limits::default(),
            tls: Arc::new(move || Some(Arc::clone(&config))),
            domain: TrustDomain::of_root(b"root"),
            judge_local: None,
            drain: CancellationToken::new(),
        };
        tokio::spawn(acceptor.serve(Listener::Tcp(listener), move |connection| {
            told.send(connection).unwrap();
            tower::service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            })
        }));
        let client = edge_client(&certificate, None).unwrap();
        let dialler = Dialler::new(target, "localhost", Arc::new(move || Arc::clone(&client))).unwrap();
        (dialler, seen)
    }

    async fn call(channel: &mut Channel) -> bool {
        let Ok(ready) = channel.ready().await else {
            return false;
        };
        ready.call(Request::new(tonic::body::Body::empty())).await.is_ok()
    }

    #[tokio::test]
    async fn a_bound_channel_knows_its_one_connection_and_ends_with_it() {
        let (dialler, mut seen) = server().await;
        let (mut channel, exporter) = dialler.bound().await.unwrap();
        let connection = seen.recv().await.unwrap();
        assert_eq!(connection.exporter, exporter, "both ends know the same");
        assert!(call(&mut channel).await && call(&mut channel).await);
        connection.close.cancel();
        drop(connection);
        // The call that meets the end may fail for that; none is answered over another connection.
        while call(&mut channel).await {}
        assert!(!call(&mut channel).await);
        assert!(seen.try_recv().is_err(), "it dialled again");
        let (_, other) = dialler.bound().await.unwrap();
        assert_ne!(other, exporter);
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_told_as_by_any_channel() {
        let (dialler, _) = server().await;
        let nowhere = Dialler {
            target: Target::Unix("/nonexistent/socket".into()),
            ..dialler
        };
        let status = nowhere.bound().await.unwrap_err();
        let mut cause: &dyn std::error::Error = &status;
        while !cause.is::<tonic::ConnectError>() {
            cause = cause.source().expect("what dialling said");
        }
    }
}
