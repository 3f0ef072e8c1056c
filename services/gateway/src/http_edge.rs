//! Plain HTTP at the edge: liveness and readiness. And the walls against browsers: no foreign host name,
//! no request that a page of another origin sent.

use std::net::IpAddr;

use http::{HeaderMap, Request, Response, StatusCode, header};
use tonic::body::Body;

/// Refuses what a page in a browser sent: Creel has no allowed origins yet.
pub(crate) fn refuse_browser<B>(request: &Request<B>) -> Option<Response<Body>> {
    let headers = request.headers();
    let fetch_site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let from_page = headers.contains_key(header::ORIGIN)
        || fetch_site.is_some_and(|site| site != b"none" && site != b"same-origin");
    from_page.then(|| {
        text(
            StatusCode::FORBIDDEN,
            "requests from web pages are not allowed here\n",
        )
    })
}

/// Answers a request that isn't gRPC.
pub(crate) fn answer<B>(request: &Request<B>, names: &[String], draining: bool) -> Response<Body> {
    if !is_for_us(request, names) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "this host name is not served here; see gateway.names in creel.toml\n",
        );
    }
    match (request.method(), request.uri().path()) {
        (&http::Method::GET | &http::Method::HEAD, "/livez") => text(StatusCode::OK, "ok\n"),
        (&http::Method::GET | &http::Method::HEAD, "/readyz") if draining => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        (&http::Method::GET | &http::Method::HEAD, "/readyz") => text(StatusCode::OK, "ok\n"),
        (_, "/livez" | "/readyz") => text(StatusCode::METHOD_NOT_ALLOWED, "GET\n"),
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; this port speaks gRPC (grpcurl, creel), and WebSocket to OpenClaw's clients\n",
        ),
    }
}

/// Whether a request names a host that is served here.
pub(crate) fn is_for_us<B>(request: &Request<B>, names: &[String]) -> bool {
    host_is_ours(request.uri().host(), request.headers(), names)
}

fn host_is_ours(authority: Option<&str>, headers: &HeaderMap, names: &[String]) -> bool {
    let from_header = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let Some(host) = authority.or(from_header) else {
        return false;
    };
    let host = without_port(host);
    let plain = host.trim_matches(['[', ']']);
    plain.parse::<IpAddr>().map_or_else(
        |_| names.iter().any(|name| name.eq_ignore_ascii_case(host)),
        // An address can't be rebound; which ones reach us is for the listener.
        |_| true,
    )
}

fn without_port(host: &str) -> &str {
    if host.ends_with(']') {
        return host;
    }
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}

pub(crate) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(bytes::Bytes::from_static(
        body.as_bytes(),
    ))));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn only_our_names_are_served() {
        let names = ["localhost".to_owned(), "box.example".to_owned()];
        let status = |host: &str| answer(&get("/livez", &[("host", host)]), &names, false).status();
        for host in [
            "localhost",
            "LOCALHOST:18789",
            "127.0.0.1:1",
            "[::1]:18789",
            "box.example",
        ] {
            assert_eq!(status(host), StatusCode::OK, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:18789", ""] {
            assert_eq!(status(host), StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
        assert_eq!(
            answer(&get("/livez", &[]), &names, false).status(),
            StatusCode::MISDIRECTED_REQUEST
        );
    }

    #[test]
    fn pages_are_refused_and_a_drain_is_not_ready() {
        assert!(refuse_browser(&get("/", &[("origin", "https://localhost:18789")])).is_some());
        assert!(refuse_browser(&get("/", &[("sec-fetch-site", "cross-site")])).is_some());
        assert!(refuse_browser(&get("/", &[("sec-fetch-site", "none")])).is_none());
        let ready = |draining| answer(&get("/readyz", &[("host", "127.0.0.1")]), &[], draining).status();
        assert_eq!(
            (ready(false), ready(true)),
            (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
        );
    }
}
