//! The HTTP request that becomes a WebSocket (RFC 6455 §4.2): judged, and answered with 101. Pure.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tonic::body::Body;

use crate::http_edge::text;

/// Whether a request asks for a WebSocket, well or badly.
pub(crate) fn is_asked<B>(request: &Request<B>) -> bool {
    has_token(request.headers(), header::UPGRADE, "websocket")
}

/// Refusing answers are boxed: they are rare, and large.
type Refused = Box<Response<Body>>;

/// The accepting answer to a good request.
///
/// # Errors
/// The refusing answer.
pub(crate) fn accept<B>(request: &Request<B>) -> Result<Response<Body>, Refused> {
    let headers = request.headers();
    if request.method() != Method::GET || request.version() != http::Version::HTTP_11 {
        return Err(Box::new(text(
            StatusCode::METHOD_NOT_ALLOWED,
            "a WebSocket begins with GET over HTTP/1.1\n",
        )));
    }
    if !matches!(request.uri().path(), "/" | "/ws") {
        return Err(Box::new(text(
            StatusCode::NOT_FOUND,
            "WebSockets are served at /\n",
        )));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let mut refused = text(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version 13 is spoken here\n",
        );
        let version = HeaderValue::from_static("13");
        refused
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, version);
        return Err(Box::new(refused));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24);
    let (Some(key), true) = (key, has_token(headers, header::CONNECTION, "upgrade")) else {
        return Err(Box::new(text(
            StatusCode::BAD_REQUEST,
            "not a WebSocket handshake\n",
        )));
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 is always a valid header value.
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

/// "Come again in so many seconds."
pub(crate) fn later(status: StatusCode, why: &'static str, seconds: u64) -> Response<Body> {
    let mut response = text(status, why);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl Fn(&mut Request<()>)) -> Request<()> {
        let mut request = Request::builder()
            .uri("/")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        change(&mut request);
        request
    }

    #[test]
    fn the_sample_of_the_rfc_is_accepted() {
        let response = accept(&request(|_| {})).unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(is_asked(&request(|_| {})));
    }

    #[test]
    fn anything_else_is_refused() {
        let status = |change: &dyn Fn(&mut Request<()>)| accept(&request(change)).unwrap_err().status();
        assert_eq!(
            status(&|r| *r.method_mut() = Method::POST),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(
            status(&|r| *r.version_mut() = http::Version::HTTP_2),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(
            status(&|r| *r.uri_mut() = "/admin".parse().unwrap()),
            StatusCode::NOT_FOUND
        );
        let without = |name: &'static str| status(&move |r| drop(r.headers_mut().remove(name)));
        assert_eq!(without("sec-websocket-version"), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(without("sec-websocket-key"), StatusCode::BAD_REQUEST);
        assert_eq!(without("connection"), StatusCode::BAD_REQUEST);
    }
}
