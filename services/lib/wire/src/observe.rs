//! Watches requests go by: method, status, seconds. The status of a gRPC answer is in its trailers,
//! so the body is watched to its end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower::Service;

/// Told of each finished request: a method's path (of a bounded set), its status, its seconds.
pub type OnFinished = Arc<dyn Fn(&'static str, Code, f64) + Send + Sync>;

/// Watches the requests of `inner`.
#[derive(Clone)]
pub struct Observed<S> {
    inner: S,
    on_finished: OnFinished,
}

impl<S> std::fmt::Debug for Observed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

impl<S> Observed<S> {
    /// Watches a service.
    pub const fn new(inner: S, on_finished: OnFinished) -> Self {
        Self { inner, on_finished }
    }
}

/// The path as a label: known methods by name, everything else as one.
#[must_use]
pub fn label(path: &str) -> &'static str {
    creel_proto::method(path).map_or("other", |method| method.path)
}

impl<S, B> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = label(request.uri().path());
        let started = Instant::now();
        let on_finished = Arc::clone(&self.on_finished);
        let answer = self.inner.call(request);
        async move {
            let response = answer.await?;
            let code = code_of(response.headers());
            let watch = Watch {
                method,
                started,
                code,
                on_finished,
            };
            Ok(response.map(|inner| {
                Body::new(Watched {
                    inner,
                    watch: Some(watch),
                })
            }))
        }
        .boxed()
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    Status::from_header_map(headers).map(|status| status.code())
}

struct Watch {
    method: &'static str,
    started: Instant,
    code: Option<Code>,
    on_finished: OnFinished,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A body dropped before its trailers: the caller left.
        let code = self.code.unwrap_or(Code::Cancelled);
        (self.on_finished)(self.method, code, self.started.elapsed().as_secs_f64());
    }
}

struct Watched {
    inner: Body,
    watch: Option<Watch>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(trailers), Some(watch)) = (frame.trailers_ref(), self.watch.as_mut()) {
                    watch.code = code_of(trailers).or(watch.code);
                }
            }
            Poll::Ready(Some(Err(status))) => {
                if let Some(watch) = self.watch.as_mut() {
                    watch.code = Some(status.code());
                }
            }
            Poll::Ready(None) => self.watch = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
