//! The one place that decides whether a caller may call a method. Default: no.
//!
//! Methods are judged here, from the table the proto options spell out; rows are judged in the domain.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use creel_proto::{Admits, identity::v1::AssertionClaims};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{HeaderMap, Request, Response};
use tonic::{Status, body::Body};
use tower::Service;

use crate::{
    Caller, Code, Error, Principal, accept::Connection, assertion, caller::Peer, names::Subject, tls::Tls,
    verified::Verified,
};

const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// The caller of a request, and its message. The first line of every handler.
///
/// # Errors
/// `Internal` when the request did not pass the layer: a server wired wrongly refuses everything.
pub fn split<T>(request: tonic::Request<T>) -> Result<(Caller, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    match extensions.remove::<Caller>() {
        Some(caller) => Ok((caller, message)),
        None => Err(Error::internal("authorization").into()),
    }
}

/// Whether a caller may call the method at `path`.
///
/// # Errors
/// The typed refusal, with the scope that is missing and how to get it.
pub fn decide(path: &str, caller: &Caller) -> Result<(), Error> {
    if path.starts_with(HEALTH) {
        // Health says that something is there, which a handshake says too.
        return Ok(());
    }
    if REFLECTION.iter().any(|prefix| path.starts_with(prefix)) {
        return if matches!(caller.principal, Principal::Anonymous) {
            Err(unproven())
        } else {
            Ok(())
        };
    }
    let Some(method) = creel_proto::method(path) else {
        if matches!(caller.principal, Principal::Anonymous) {
            return Err(unproven());
        }
        let message = format!("no method {}", crate::error::printable(path, 200));
        return Err(Error::new(Code::Unimplemented, "unknown_method", message));
    };
    if method.rules.iter().any(|rule| admits(*rule, caller)) {
        return Ok(());
    }
    Err(refusal(method, caller))
}

fn admits(rule: Admits, caller: &Caller) -> bool {
    match (rule, &caller.principal) {
        (Admits::Anonymous, _)
        | (Admits::Local, Principal::Local(_))
        | (Admits::Node, Principal::Node(_))
        | (Admits::AgentTurn, Principal::AgentTurn(_))
        | (Admits::Job, Principal::Job(_))
        | (Admits::Plugin, Principal::Plugin(_))
        | (Admits::Sender, Principal::Sender(_)) => true,
        (Admits::Operator(scope), Principal::Operator(_)) => {
            scope.is_none_or(|scope| caller.scopes.iter().any(|held| held.as_str() == scope))
        }
        (Admits::Service(name), Principal::Service(peer)) => name.is_none_or(|name| name == peer.as_str()),
        _ => false,
    }
}

fn unproven() -> Error {
    let how = "creel devices cert --name NAME --scope operator.read --out DIR, then -cert DIR/cert.pem -key DIR/key.pem";
    Error::new(
        Code::Unauthenticated,
        "no_client_certificate",
        format!("no client certificate; {how}"),
    )
    .hint(how)
}

fn refusal(method: &creel_proto::Method, caller: &Caller) -> Error {
    if matches!(caller.principal, Principal::Anonymous) {
        return unproven();
    }
    // `JobService/List`: what only `List` is nobody knows.
    let name = method.path.rsplit('.').next().unwrap_or(method.path);
    let scope = method.rules.iter().find_map(|rule| match rule {
        Admits::Operator(Some(scope)) => Some(*scope),
        _ => None,
    });
    match (scope, &caller.principal) {
        (Some(scope), Principal::Operator(device)) => {
            let has: Vec<_> = caller.scopes.iter().map(|scope| scope.as_str()).collect();
            let has = if has.is_empty() {
                "nothing".to_owned()
            } else {
                has.join(", ")
            };
            let short: String = device.as_str().chars().take(12).collect();
            Error::new(
                Code::PermissionDenied,
                "scope_missing",
                format!("{name} needs {scope}; this device ({short}) has {has}"),
            )
            // Only operators are told how policy would change (`architecture.md` §7).
            .hint(format!(
                "creel devices cert --name NAME --scope {scope} --out DIR, by a device that has it"
            ))
        }
        (_, principal) => Error::new(
            Code::PermissionDenied,
            "principal_not_admitted",
            format!("{name} is not for {}", kind_of(principal)),
        ),
    }
}

const fn kind_of(principal: &Principal) -> &'static str {
    match principal {
        Principal::Anonymous => "unproven callers",
        Principal::Local(_) => "local processes",
        Principal::Service(_) => "this service",
        Principal::Operator(_) => "operators",
        Principal::Node(_) => "nodes",
        Principal::AgentTurn(_) => "agent turns",
        Principal::Job(_) => "jobs",
        Principal::Plugin(_) => "plugins",
        Principal::Sender(_) => "chat senders",
    }
}

/// Reads wall-clock time, Unix milliseconds. Passed in, so that tests own time.
pub type NowMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Who a request is from: its peer, or the caller that the peer presents.
///
/// # Errors
/// When there is an assertion and it does not hold, or the peer may present nobody.
fn identify(
    tls: &Tls,
    verified: &Verified,
    connection: &Connection,
    headers: &HeaderMap,
    now_ms: i64,
) -> Result<Caller, Error> {
    let mut values = headers.get_all(assertion::METADATA).iter();
    let Some(value) = values.next() else {
        return Ok(Caller::of_peer(&connection.peer));
    };
    let refuse =
        |reason: assertion::Refused| Error::new(Code::Unauthenticated, reason.reason(), reason.to_string());
    if values.next().is_some() || value.len() > assertion::MAX_BYTES * 4 / 3 + 4 {
        return Err(refuse(assertion::Refused::Malformed));
    }
    let Peer::Certified(Subject::Service(presenter)) = &connection.peer else {
        return Err(refuse(assertion::Refused::PresenterNotAllowed));
    };
    let text = value.as_bytes();
    let bytes = STANDARD_NO_PAD
        .decode(
            text.strip_suffix(b"==")
                .or_else(|| text.strip_suffix(b"="))
                .unwrap_or(text),
        )
        .map_err(|_| refuse(assertion::Refused::Malformed))?;
    verified
        .caller(&tls.trust(), *presenter, Bytes::from(bytes), now_ms)
        .map_err(refuse)
}

/// The caller of an assertion that `identity` just minted for this very process: how the edge serves
/// its own methods under the same rules as everybody else's.
///
/// # Errors
/// [`assertion::Refused`] when the claims can't be read.
pub fn own_caller(claims: AssertionClaims, bytes: Bytes) -> Result<Caller, assertion::Refused> {
    assertion::caller_of(claims, None, bytes)
}

/// The caller of a connection that proved nobody.
#[must_use]
pub fn anonymous() -> Caller {
    Caller::of_peer(&Peer::Anonymous)
}

/// The value of a `-bin` header: an assertion, an exporter.
#[must_use]
pub fn bin_header(bytes: &[u8]) -> http::HeaderValue {
    let text = STANDARD_NO_PAD.encode(bytes);
    // Base64 is always a valid header value.
    http::HeaderValue::from_str(&text).unwrap_or_else(|_| http::HeaderValue::from_static(""))
}

/// Attaches an assertion to a request of a generated client.
pub fn attach<T>(request: &mut tonic::Request<T>, assertion: &[u8]) {
    request.metadata_mut().insert_bin(
        assertion::METADATA,
        tonic::metadata::MetadataValue::from_bytes(assertion),
    );
}

/// Lets requests through to `inner` only with a [`Caller`].
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    tls: Arc<Tls>,
    verified: Arc<Verified>,
    now: NowMs,
    on_refused: OnRefused,
}

/// Told of every refusal: caller, method, error. For metrics and audit.
pub type OnRefused = Arc<dyn Fn(&Caller, &str, &Error) + Send + Sync>;

impl<S> Guarded<S> {
    /// Puts the layer around a router.
    pub fn new(inner: S, tls: Arc<Tls>, now: NowMs, on_refused: OnRefused) -> Self {
        Self {
            inner,
            tls,
            verified: Arc::default(),
            now,
            on_refused,
        }
    }
}

impl<S> std::fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let refuse = |error: Error| std::future::ready(Ok(Status::from(error).into_http())).boxed();
        let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
            return refuse(Error::internal("authorization"));
        };
        let path = request.uri().path();
        let verdict = identify(
            &self.tls,
            &self.verified,
            &connection,
            request.headers(),
            (self.now)(),
        );
        match verdict {
            Err(error) => {
                (self.on_refused)(&Caller::of_peer(&connection.peer), path, &error);
                refuse(error)
            }
            Ok(caller) => match decide(path, &caller) {
                Err(error) => {
                    (self.on_refused)(&caller, path, &error);
                    refuse(error)
                }
                Ok(()) => {
                    request.extensions_mut().insert(caller);
                    self.inner.call(request).boxed()
                }
            },
        }
    }
}

/// A caller as a test needs one. It checks nothing, so it exists only with the feature `test-util`.
#[cfg(any(test, feature = "test-util"))]
#[must_use]
pub fn test_caller(principal: Principal, scopes: crate::Scopes, via: Option<crate::ServiceName>) -> Caller {
    let mut caller = Caller::of_peer(&Peer::Anonymous);
    caller.principal = principal;
    caller.scopes = scopes;
    caller.via = via;
    caller.person = "owner".to_owned();
    caller
}

/// The same caller, acting for somebody else.
#[cfg(any(test, feature = "test-util"))]
#[must_use]
pub fn test_acting_for(mut caller: Caller, person: &str) -> Caller {
    person.clone_into(&mut caller.person);
    caller
}

/// A turn of an agent in a session, as a test needs one.
#[cfg(any(test, feature = "test-util"))]
#[must_use]
pub fn test_turn(session: &str) -> Caller {
    let mut caller = test_caller(
        Principal::AgentTurn("turn".to_owned()),
        crate::Scopes::new(),
        None,
    );
    caller.label = session.to_owned();
    caller
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, Scope, Scopes};

    fn operator(scopes: &[Scope]) -> Caller {
        let device = DeviceId::of_public_key(&[3; 32]);
        test_caller(
            Principal::Operator(device),
            scopes.iter().copied().collect::<Scopes>(),
            None,
        )
    }

    #[test]
    fn what_no_rule_admits_is_refused_with_the_scope_and_the_way_to_it() {
        let send = "/creel.gateway.v1.MessageService/Send";
        assert!(decide(send, &operator(&[Scope::Write])).is_ok());
        let error = decide(send, &operator(&[Scope::Read])).unwrap_err();
        assert_eq!(
            (error.code, error.reason.as_ref()),
            (Code::PermissionDenied, "scope_missing")
        );
        assert!(error.hint.unwrap().contains("operator.write"));
        let turn = test_caller(Principal::AgentTurn("t".into()), Scopes::new(), None);
        let error = decide(send, &turn).unwrap_err();
        assert_eq!(error.hint, None, "agents are not told how policy would change");
    }

    #[test]
    fn nobody_gets_health_and_nothing_else() {
        let nobody = Caller::of_peer(&Peer::Anonymous);
        assert!(decide("/grpc.health.v1.Health/Check", &nobody).is_ok());
        for path in [
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/x.Y/Z",
            "/creel.agent.v1.TurnService/Get",
        ] {
            let error = decide(path, &nobody).unwrap_err();
            assert_eq!(error.reason, "no_client_certificate", "{path}");
        }
    }
}
