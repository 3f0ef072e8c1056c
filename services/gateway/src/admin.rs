//! The admin listener: loopback only, without TLS, `/metrics` of all services for a Prometheus on this
//! machine.

use std::{net::IpAddr, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use creel_kit::Deps;
use creel_proto::kit::v1::{GetMetricsRequest, observe_service_client::ObserveServiceClient};
use creel_wire::ServiceName;
use futures_util::future::join_all;
use tonic::transport::Channel;

use crate::{UPSTREAMS, metrics_merge::merge};

/// A service that does not answer in time is left out, and `creel_up` says so.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Admin {
    deps: Deps,
    peers: Vec<(ServiceName, ObserveServiceClient<Channel>)>,
}

/// Serves until the drain.
pub(crate) async fn serve(deps: Deps, listener: std::net::TcpListener) -> anyhow::Result<()> {
    let mut peers = Vec::new();
    for name in UPSTREAMS {
        // A backlog of some thousand series stays far below it.
        let client = ObserveServiceClient::new(deps.peers.channel(name)?).max_decoding_message_size(16 << 20);
        peers.push((name, client));
    }
    let drain = deps.drain.clone();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .with_state(Admin { deps, peers });
    let listener = tokio::net::TcpListener::from_std(listener)?;
    axum::serve(listener, router)
        .with_graceful_shutdown(drain.cancelled_owned())
        .await?;
    Ok(())
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> impl IntoResponse {
    if !names_this_machine(&headers) {
        return (
            StatusCode::MISDIRECTED_REQUEST,
            [(header::CONTENT_TYPE, "text/plain")],
            "not this host\n".to_owned(),
        );
    }
    let asked = admin.peers.iter().map(|(name, client)| {
        let mut client = client.clone();
        async move {
            let answer = tokio::time::timeout(PATIENCE, client.get_metrics(GetMetricsRequest {})).await;
            (
                *name,
                answer
                    .ok()
                    .and_then(Result::ok)
                    .map(|answer| answer.into_inner().open_metrics),
            )
        }
    });
    let mut texts = vec![admin.deps.metrics.encode().unwrap_or_default()];
    let mut up =
        String::from("# HELP creel_up Whether the service answered this scrape\n# TYPE creel_up gauge\n");
    up.push_str("creel_up{service=\"gateway\"} 1\n");
    for (name, text) in join_all(asked).await {
        up.push_str(&format!(
            "creel_up{{service=\"{name}\"}} {}\n",
            u8::from(text.is_some())
        ));
        texts.extend(text);
    }
    texts.push(up);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, kind)],
        merge(texts.iter().map(String::as_str)),
    )
}

/// Against pages that had their name rebound to loopback.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}
