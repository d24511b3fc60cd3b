//! The outermost layer: gives each request its id, deadline and span, and tells of it when it is done.
use super::{Problem, report::Watched, request_id, security};
use crate::{
    runtime::polls::{self, Route},
    server::drain::{Drain, Phase},
    telemetry::{request::Request as Current, traces},
};
use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::HeaderValue,
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// What the layer needs to know of the settings.
#[derive(Clone)]
pub struct Observe {
    pub request_timeout: Duration,
    pub trusted_proxies: usize,
    pub drain: Drain,
}

/// Runs the request under its deadline; whatever happens inside, the client gets an answer and the log one line.
pub async fn observe(State(mut observe): State<Observe>, request: Request, next: Next) -> Response {
    let current = observe.current(&request, Instant::now());
    let route = Route::new(request.extensions().get().map_or("<unmatched>", MatchedPath::as_str));
    let work = async {
        let watched = Watched::new(Arc::clone(&current), &request);
        let mut response = tokio::select! {
            response = answer(request, next, current.deadline) => response,
            () = observe.drain.reached(Phase::Cut) => watched.cut(&observe.drain),
        };
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&current.id) {
            headers.insert(request_id::HEADER, id);
        }
        security::add_headers(headers);
        watched.answered(&response);
        response
    };
    // Pinned here, it stays where it is: each layer of futures around it would copy some kilobytes.
    polls::visible(route, current.clone().scope(pin!(work))).await
}

impl Observe {
    fn current(&self, request: &Request, start: Instant) -> Arc<Current> {
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
