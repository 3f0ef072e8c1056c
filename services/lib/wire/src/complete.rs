//! Lets a handler that has begun run to its end, whether or not its caller still waits.
//!
//! A server drops a handler's future when the connection breaks. Between a commit and what follows from
//! it (a turn that is queued, a revocation that takes hold) that would leave the record without its
//! effect until the next restart. Streamed answers are not held: they end when their body is dropped.

use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::Service;

use crate::Error;

/// Runs each request of `inner` as a task of its own.
#[derive(Debug, Clone)]
pub struct Completed<S>(S);

impl<S> Completed<S> {
    /// Puts the layer around a router.
    pub const fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, B> Service<Request<B>> for Completed<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let running = tokio::spawn(self.0.call(request));
        async move {
            running.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a handler did not end");
                Ok(Status::from(Error::internal("the request")).into_http())
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_handler_whose_caller_left_still_ends() {
        let (begun, go_on, ended) = (
            Arc::new(Notify::new()),
            Arc::new(Notify::new()),
            Arc::new(Notify::new()),
        );
        let parts = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&ended));
        let mut service = Completed::new(tower::service_fn(move |_: Request<Body>| {
            let (begun, go_on, ended) = parts.clone();
            async move {
                begun.notify_one();
                go_on.notified().await;
                ended.notify_one();
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
        let mut calling = service.call(Request::new(Body::empty()));
        tokio::select! {
            _ = &mut calling => panic!("it waits"),
            () = begun.notified() => {}
        }
        drop(calling);
        go_on.notify_one();
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(10), ended.notified()).await;
        assert!(in_time.is_ok(), "the handler was dropped with its caller");
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_an_error_of_its_request() {
        let mut service = Completed::new(tower::service_fn(|_: Request<Body>| async {
            if true {
                panic!("a defect");
            }
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        let response = service.call(Request::new(Body::empty())).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::Internal);
    }
}
