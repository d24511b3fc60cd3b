//! The outermost layer: gives each request its id, deadline and span, and tells of it when it is done.
use super::{Problem, problem::Refusal, request_id, security};
use crate::telemetry::{
    logs, metrics,
    request::{Part, Request as Current},
    traces,
};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

/// What the layer needs to know of the settings.
#[derive(Clone, Copy)]
pub struct Observe {
    pub request_timeout: Duration,
    pub trusted_proxies: usize,
}

/// Runs the request under its deadline; whatever happens inside, the client gets an answer and the log one line.
pub async fn observe(State(observe): State<Observe>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let _active = metrics::active_request();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let current = observe.current(&request, start);
    let work = async {
        let mut response = answer(request, next, current.deadline).await;
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&current.id) {
            headers.insert(request_id::HEADER, id);
        }
        security::add_headers(headers);
        report(&current, &method, route.as_ref().map(MatchedPath::as_str), &response, start.elapsed());
        response
    };
    current.clone().scope(work).await
}

impl Observe {
    fn current(self, request: &Request, start: Instant) -> Arc<Current> {
        let headers = request.headers();
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        Current::new(
            request_id::of(headers),
            request_id::client(headers, peer, self.trusted_proxies),
            start + self.request_timeout,
            traces::server_span(headers, request.method()),
        )
    }
}

/// The answer, in time and without a panic.
async fn answer(request: Request, next: Next, deadline: Instant) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(problem) = security::check(&parts) {
        return problem.into_response();
    }
    let work = AssertUnwindSafe(next.run(Request::from_parts(parts, body))).catch_unwind();
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::internal(anyhow::anyhow!("a handler panicked")).into_response(),
        Err(_) => Problem::timeout().into_response(),
    }
}

fn report(current: &Current, method: &Method, route: Option<&str>, response: &Response, took: Duration) {
    metrics::request_finished(method, route, response.status(), took);
    log(current, method, route.unwrap_or("<unmatched>"), response, took);
    traces::end_server_span(&current.otel, method, route, response.status());
}

/// The request's one line.
fn log(current: &Current, method: &Method, route: &str, response: &Response, took: Duration) {
    let status = response.status();
    let refusal = response.extensions().get::<Refusal>();
    let code = refusal.map(|refusal| refusal.code);
    let account_id = current.account.get().map(tracing::field::display);
    let latency_ms = took.as_micros() as f64 / 1000.0;
    let [queue_ms, db_ms, redis_ms, outbound_ms] =
        [Part::Queue, Part::Db, Part::Redis, Part::Outbound].map(|part| current.spent_ms(part));
    let (method, status_code, client) = (method.as_str(), status.as_u16(), &current.client);
    match refusal.and_then(|refusal| refusal.source.as_deref()) {
        Some(error) if matches!(status, StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY) => {
            let err = logs::err_json(error);
            tracing::error!(
                method, route, status = status_code, latency_ms, account_id, %client, queue_ms, db_ms, redis_ms,
                outbound_ms, code, err, "request failed"
            );
        }
        source => tracing::info!(
            method, route, status = status_code, latency_ms, account_id, %client, queue_ms, db_ms, redis_ms,
            outbound_ms, code, cause = source.map(|error| format!("{error:#}")), "request completed"
        ),
    }
}
