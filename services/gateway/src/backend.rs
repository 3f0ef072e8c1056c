//! The services as a caller of the WebSocket door sees them: each call is judged by the same table as one
//! that came by gRPC, and carries the caller's assertion to whoever owns the method.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
};

use creel_kit::{Deps, outbox::Outbox};
use creel_wire::{Code, Error, ServiceName, assertion, authz};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderName, Request, Response};
use tonic::{Status, body::Body, transport::Channel};
use tower::{Service, ServiceExt as _};

use crate::{UPSTREAMS, callers::Proven};

/// Where calls go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Backend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The gateway's own services.
    own: axum::Router,
    upstreams: BTreeMap<&'static str, Channel>,
    outbox: Outbox,
}

impl Backend {
    pub(crate) fn new(deps: &Deps, own: axum::Router) -> anyhow::Result<Self> {
        let mut upstreams = BTreeMap::new();
        for name in UPSTREAMS {
            upstreams.insert(name.as_str(), deps.peers.channel(name)?);
        }
        Ok(Self(Arc::new(Inner {
            own,
            upstreams,
            outbox: deps.outbox.clone(),
        })))
    }

    /// Puts on record that a caller was refused a method.
    pub(crate) fn refused(&self, principal: &str, method: &str, reason: &str) {
        self.0.outbox.refused(principal, method, reason);
    }

    /// The services as this caller may use them: for generated clients.
    pub(crate) fn for_caller(&self, proven: Arc<Proven>) -> AsCaller {
        AsCaller {
            inner: Arc::clone(&self.0),
            proven,
        }
    }
}

/// A transport for generated clients that speaks for one caller.
#[derive(Debug, Clone)]
pub(crate) struct AsCaller {
    inner: Arc<Inner>,
    proven: Arc<Proven>,
}

impl AsCaller {
    fn judge(&self, path: &str) -> Result<&'static creel_proto::Method, Error> {
        authz::decide(path, &self.proven.caller)?;
        creel_proto::method(path).ok_or_else(|| Error::internal("finding the method"))
    }
}

impl Service<Request<Body>> for AsCaller {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let refuse = |error: Error| std::future::ready(Ok(Status::from(error).into_http())).boxed();
        let path = request.uri().path();
        let method = match self.judge(path) {
            Ok(method) => method,
            Err(error) => {
                let principal = self.proven.caller.principal().to_string();
                self.inner.outbox.refused(&principal, path, &error.reason);
                return refuse(error);
            }
        };
        if method.owner == ServiceName::Gateway.as_str() {
            request.extensions_mut().insert(self.proven.caller.clone());
            let mut own = self.inner.own.clone();
            return async move {
                let Ok(response) = own.call(request).await;
                Ok(response.map(Body::new))
            }
            .boxed();
        }
        let Some(upstream) = self.inner.upstreams.get(method.owner) else {
            let message = format!("{} is not part of this stack", method.owner);
            return refuse(Error::new(Code::Unimplemented, "not_deployed", message));
        };
        let name = HeaderName::from_static(assertion::METADATA);
        request.headers_mut().insert(name, self.proven.header.clone());
        upstream.clone().oneshot(request).boxed()
    }
}
