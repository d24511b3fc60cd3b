//! Tells of each request once, when it is over: in the log, in the metrics and in its span.
use super::{Problem, problem::Refusal};
use crate::server::{connection::Peer, drain::Drain};
use crate::telemetry::{
    logs,
    metrics::{self, Counted},
    request::{Part, Request as Current},
    traces,
};
use axum::{
    extract::{MatchedPath, Request},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use std::{
    sync::Arc,
    thread::panicking,
    time::{Duration, Instant},
};

/// A request under way.
pub struct Watched {
    current: Arc<Current>,
    client: Peer,
    method: Method,
    route: Option<MatchedPath>,
    start: Instant,
    told: bool,
    _active: Counted,
}

impl Watched {
    pub fn new(current: Arc<Current>, client: Peer, request: &Request, start: Instant) -> Self {
        Self {
            current,
            client,
            method: request.method().clone(),
            route: request.extensions().get().cloned(),
            start,
            told: false,
            _active: metrics::active_request(),
        }
    }

    pub fn answered(mut self, response: &Response) {
        self.tell(response.status(), response.extensions().get());
    }

    /// The answer to a request that the stop has no more time for.
    pub fn cut(&self, drain: &Drain) -> Response {
        drain.cut(self.route());
        Problem::stopping().into_response()
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("<unmatched>", MatchedPath::as_str)
    }

    fn tell(&mut self, status: StatusCode, refusal: Option<&Refusal>) {
        self.told = true;
        let route = self.route.as_ref().map(MatchedPath::as_str);
        let took = self.start.elapsed();
        metrics::request_finished(&self.method, route, status, took);
        self.log(status, refusal, took);
        traces::end_server_span(&self.current.otel, &self.method, route, status);
    }

    /// The request's one line.
    fn log(&self, status: StatusCode, refusal: Option<&Refusal>, took: Duration) {
        let current = &*self.current;
        let code = refusal.map(|refusal| refusal.code);
        let account_id = current.account.get().map(tracing::field::display);
        let latency_ms = (took.as_secs_f64() * 1e6).round() / 1000.0;
        let [queue_ms, db_ms, redis_ms, outbound_ms] =
            [Part::Queue, Part::Db, Part::Redis, Part::Outbound].map(|part| current.spent_ms(part));
        let (method, route, client) = (traces::method_label(&self.method), self.route(), &*self.client.text);
        let is_fault = is_fault(status);
        let status = status.as_u16();
        match refusal.and_then(|refusal| refusal.source.as_deref()) {
            Some(error) if is_fault => tracing::error!({
                method, route, status, latency_ms, account_id, client, queue_ms, db_ms, redis_ms, outbound_ms, code,
                err = logs::err_json(error) }, "request failed"
            ),
            source => tracing::info!({
                method, route, status, latency_ms, account_id, client, queue_ms, db_ms, redis_ms, outbound_ms, code,
                cause = source.map(|error| format!("{error:#}")) }, "request completed"
            ),
        }
    }
}

/// Faults carry their whole cause; the other refusals are told by their code.
fn is_fault(status: StatusCode) -> bool {
    matches!(status, StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY)
}

/// Without an answer: the client hung up (499, as nginx has it), or a layer panicked.
impl Drop for Watched {
    fn drop(&mut self) {
        if !self.told {
            let (status, code) = if panicking() { (500, "internal") } else { (499, "abandoned") };
            let status = StatusCode::from_u16(status).expect("both are in the range of statuses");
            // The scope that the request ran in has ended already.
            let current = Arc::clone(&self.current);
            current.scope(async { self.tell(status, Some(&Refusal { code, source: None })) }).now_or_never();
        }
    }
}
