//! A service's port: routes behind the authorization layer, with health and metrics, until the drain.

use std::sync::Arc;

use creel_proto::kit::v1::{
    GetMetricsRequest, GetMetricsResponse,
    observe_service_server::{ObserveService, ObserveServiceServer},
};
use creel_wire::{
    Error,
    accept::{Acceptor, Connection, JudgeLocal, Limits, Listener},
    authz::{self, Guarded},
    complete::Completed,
    observe::Observed,
    tls::{ClientAuth, Tls},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, body::Body, service::Routes};
use tower::{Service as _, ServiceExt};

use crate::{Clock, metrics::Metrics, outbox::Outbox};

/// What serving needs of the frame.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// Certificate and trust.
    pub(crate) tls: Arc<Tls>,
    /// The time.
    pub(crate) clock: Clock,
    /// Figures.
    pub(crate) metrics: Metrics,
    /// Audit.
    pub(crate) outbox: Outbox,
    /// The end.
    pub(crate) drain: CancellationToken,
}

/// Serves routes behind the authorization layer, with health and metrics, until the drain.
pub(crate) async fn serve_routes(
    routes: Routes,
    listener: Listener,
    clients: ClientAuth,
    judge_local: Option<JudgeLocal>,
    common: Common,
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let router = routes
        .add_service(health)
        .add_service(ObserveServiceServer::new(Observe(common.metrics.clone())))
        .prepare()
        .into_axum_router();
    let metrics = common.metrics.clone();
    let outbox = common.outbox.clone();
    let guarded = Guarded::new(
        Completed::new(ServiceExt::<http::Request<Body>>::map_response(
            router,
            |response: axum::response::Response| response.map(Body::new),
        )),
        Arc::clone(&common.tls),
        common.clock.now_fn(),
        Arc::new(move |caller, path, error| {
            tracing::debug!(principal = %caller.principal(), path, reason = %error.reason, "refused");
            outbox.refused(&caller.principal().to_string(), path, &error.reason);
        }),
    );
    let observed = Observed::new(
        guarded,
        Arc::new(move |method, code, seconds| metrics.rpc_finished(method, code, seconds)),
    );
    let tls = Arc::clone(&common.tls);
    let acceptor = Acceptor {
        limits: Limits::default(),
        domain: common.tls.trust().domain.clone(),
        tls: Arc::new(move || tls.server(clients)),
        judge_local,
        drain: common.drain.clone(),
    };
    let leaving = common.drain.clone();
    tokio::spawn(async move {
        leaving.cancelled().await;
        reporter
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
    });
    acceptor
        .serve(listener, move |connection: Arc<Connection>| {
            let mut observed = observed.clone();
            tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(Arc::clone(&connection));
                observed.call(request.map(Body::new))
            })
        })
        .await;
}

#[derive(Debug)]
struct Observe(Metrics);

#[tonic::async_trait]
impl ObserveService for Observe {
    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let _ = authz::split(request)?;
        let open_metrics = self.0.encode().map_err(|_| Error::internal("encoding metrics"))?;
        Ok(Response::new(GetMetricsResponse { open_metrics }))
    }
}
