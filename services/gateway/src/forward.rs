//! Forwarding by path: one generic way for every method of every service. Two HTTP/2 connections per
//! service, one for calls and one for streams, so that a slow stream stalls no call.

mod cut;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use creel_kit::Deps;
use creel_wire::{
    Code, Error, ServiceName, accept::Connection, assertion, authz, channel::Dialler, proof, source,
};
use http::{HeaderName, HeaderValue, Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::UPSTREAMS;

/// A service that was just restarted gets so many more dials, with a pause between.
const DIALS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(40);

/// Connections to the services. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upstreams(Arc<BTreeMap<&'static str, Upstream>>);

#[derive(Debug)]
struct Upstream {
    name: ServiceName,
    drain: CancellationToken,
    dialler: Dialler,
    calls: Line,
    streams: Line,
}

/// One connection, dialled when first used and again after a loss.
#[derive(Debug, Default)]
struct Line {
    sender: ArcSwapOption<SendRequest<Incoming>>,
    dialling: Mutex<()>,
}

impl Upstreams {
    pub(crate) fn new(deps: &Deps) -> anyhow::Result<Self> {
        let mut upstreams = BTreeMap::new();
        for name in UPSTREAMS {
            let dialler = deps.peers.dialler(name)?;
            let upstream = Upstream {
                name,
                drain: deps.drain.clone(),
                dialler,
                calls: Line::default(),
                streams: Line::default(),
            };
            upstreams.insert(name.as_str(), upstream);
        }
        Ok(Self(Arc::new(upstreams)))
    }

    /// Passes a request on with the caller's assertion, or, to a method that is for everybody, without
    /// one. Body, trailers, deadline and cancellation pass untouched; what the service leaves unfinished ends
    /// with a status.
    pub(crate) async fn forward(
        &self,
        method: &creel_proto::Method,
        request: Request<Incoming>,
        header: Option<HeaderValue>,
        connection: &Connection,
    ) -> Result<Response<Body>, Error> {
        let upstream = self.0.get(method.owner).ok_or_else(|| {
            Error::new(
                Code::Unimplemented,
                "not_deployed",
                format!("{} is not part of this stack", method.owner),
            )
        })?;
        let line = if method.client_streaming || method.server_streaming {
            &upstream.streams
        } else {
            &upstream.calls
        };
        let mut sender = line.sender(upstream).await?;
        let request = prepare(request, method, upstream.name, header, connection)?;
        let answer = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let drain = is_endless(method).then(|| upstream.drain.clone());
        match answer.await {
            Ok(response) => Ok(response.map(|body| Body::new(cut::Answer::new(body, upstream.name, drain)))),
            Err(error) => {
                tracing::warn!(service = %upstream.name, %error, "forwarding failed");
                Err(unavailable(upstream.name))
            }
        }
    }
}

/// Whether a stream goes on until somebody ends it. A drain that waited for one would always take its whole time; a
/// turn's stream ends with the turn, and is waited for.
fn is_endless(method: &creel_proto::Method) -> bool {
    method.server_streaming && (method.path.ends_with("/Watch") || method.path.ends_with("/Tail"))
}

fn unavailable(name: ServiceName) -> Error {
    Error::new(
        Code::Unavailable,
        "service_unavailable",
        format!("{name} did not answer"),
    )
    .hint("creel status")
}

impl Line {
    async fn sender(&self, upstream: &Upstream) -> Result<SendRequest<Incoming>, Error> {
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let _dialling = self.dialling.lock().await;
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        for tried in 1..=DIALS {
            match connect(&upstream.dialler).await {
                Ok(sender) => {
                    self.sender.store(Some(Arc::new(sender.clone())));
                    return Ok(sender);
                }
                Err(error) if tried == DIALS => {
                    tracing::warn!(service = %upstream.name, %error, "dialling failed")
                }
                Err(_) => tokio::time::sleep(PAUSE * tried).await,
            }
        }
        Err(unavailable(upstream.name))
    }

    fn open(&self) -> Option<SendRequest<Incoming>> {
        let sender = self.sender.load();
        sender
            .as_ref()
            .filter(|sender| !sender.is_closed())
            .map(|sender| SendRequest::clone(sender))
    }
}

async fn connect(dialler: &Dialler) -> anyhow::Result<SendRequest<Incoming>> {
    let stream = dialler.dial().await?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(256 * 1_024)
        .initial_connection_window_size(16 * 1_024 * 1_024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a service ended");
        }
    });
    Ok(sender)
}

fn prepare(
    mut request: Request<Incoming>,
    method: &creel_proto::Method,
    service: ServiceName,
    header: Option<HeaderValue>,
    connection: &Connection,
) -> Result<Request<Incoming>, Error> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(service.as_str())
        .path_and_query(PathAndQuery::from_static(method.path))
        .build()
        .map_err(|_| Error::internal("addressing the service"))?;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    strip(headers);
    if let Some(header) = header {
        headers.insert(HeaderName::from_static(assertion::METADATA), header);
    }
    if let Ok(from) = HeaderValue::from_str(&connection.source().to_string()) {
        headers.insert(HeaderName::from_static(source::METADATA), from);
    }
    // Who is not in yet signs for its connection; identity alone judges that.
    if service == ServiceName::Identity {
        let exporter = authz::bin_header(&connection.exporter);
        headers.insert(HeaderName::from_static(proof::METADATA), exporter);
    }
    request.extensions_mut().clear();
    Ok(request)
}

/// Takes away what only services may say, and what is for this hop alone.
fn strip(headers: &mut http::HeaderMap) {
    let foreign: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("creel-"))
        .cloned()
        .collect();
    for name in foreign {
        headers.remove(name);
    }
    headers.remove(http::header::HOST);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_creel_header_comes_in_from_outside() {
        let mut headers = http::HeaderMap::new();
        for name in [
            "creel-assertion-bin",
            "creel-exporter-bin",
            "creel-source",
            "te",
            "grpc-timeout",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("x"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("y"));
        }
        strip(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left.len(), 2);
        assert!(!left.iter().any(|name| name.starts_with("creel-")));
    }
}
