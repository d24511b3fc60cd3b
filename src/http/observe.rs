//! The way in and out: each request gets its id, deadline and span, its body and its place, and is told of when it is
//! done.
//!
//! One layer for all of it: whatever lies inside of a layer of axum's is copied once more for each request.
use super::{
    Problem,
    admission::Admission,
    body::Bodies,
    report::Watched,
    request_id,
    security::{self, Guarded},
};
use crate::{
    runtime::polls,
    server::{
        connection::Peer,
        drain::{Drain, Phase},
    },
    telemetry::{request::Request as Current, traces},
};
use axum::{
    Router,
    extract::{ConnectInfo, MatchedPath, Request},
    http::HeaderValue,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use std::{
    convert::Infallible,
    mem,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tower::{Layer, ServiceExt, layer::layer_fn, service_fn};

/// What all requests share.
pub struct Observe {
    timeout: Duration,
    trusted_proxies: usize,
    admission: Admission,
    bodies: Bodies,
    drain: Drain,
}

/// Runs the request under its deadline; whatever happens inside, the client gets an answer and the log one line.
async fn observe(
    observe: Arc<Observe>,
    mut request: Request,
    mut next: Guarded,
) -> Result<Response, Infallible> {
    let start = Instant::now();
    let (current, client) = observe.current(&request, start);
    let polled = polls::Route::new(request.extensions().get().map_or("<unmatched>", MatchedPath::as_str));
    // Pinned where it is made, here as further in: each move of such a future copies some kilobytes.
    let work = pin!(async {
        let watched = Watched::new(Arc::clone(&current), client, &request, start);
        let answer = pin!(observe.answer(&mut request, &mut next, current.deadline));
        let mut drain = observe.drain.clone();
        let mut response = tokio::select! {
            biased;
            response = answer => response,
            // The stop has no more time for requests.
            () = drain.reached(Phase::Cut) => watched.cut(&observe.drain),
        };
        let headers = response.headers_mut();
        security::add_headers(headers);
        if let Ok(id) = HeaderValue::from_str(&current.id) {
            headers.insert(request_id::HEADER, id);
        }
        watched.answered(&response);
        response
    });
    Ok(polls::visible(polled, current.clone().scope(work)).await)
}

impl Observe {
    pub fn new(timeout: Duration, trusted_proxies: usize, admission: Admission, drain: Drain) -> Arc<Self> {
        Arc::new(Self { timeout, trusted_proxies, admission, bodies: Bodies::default(), drain })
    }

    /// The routes with all of this around each. Axum's `from_fn` would box what lies within for each request.
    pub fn around(self: Arc<Self>, routes: Router) -> Router {
        routes.layer(layer_fn(move |route| {
            let (shared, next) = (Arc::clone(&self), security::csrf().layer(route));
            service_fn(move |request| observe(Arc::clone(&shared), request, next.clone()))
        }))
    }

    fn current(&self, request: &Request, start: Instant) -> (Arc<Current>, Peer) {
        let headers = request.headers();
        let peer = request.extensions().get().map(|ConnectInfo(peer)| Peer::clone(peer));
        let peer = peer.unwrap_or_else(|| IpAddr::from([0; 4]).into());
        let client = request_id::client(headers, peer, self.trusted_proxies);
        let span = traces::server_span(headers, request.method());
        (Current::new(request_id::of(headers), client.address, start + self.timeout, span), client)
    }

    /// The answer, in time and without a panic.
    async fn answer(&self, request: &mut Request, next: &mut Guarded, deadline: Instant) -> Response {
        let work = pin!(self.admit(request, next));
        let work = AssertUnwindSafe(work).catch_unwind();
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(Ok(response)) => response.into_response(),
            Ok(Err(_)) => Problem::internal(anyhow::anyhow!("a handler panicked")).into_response(),
            Err(_) => Problem::timeout().into_response(),
        }
    }

    /// Runs a sound request once its body is here and it has a place.
    async fn admit(&self, request: &mut Request, next: &mut Guarded) -> Result<Response, Problem> {
        security::check(request)?;
        let (body, _memory) = self.bodies.read(mem::take(request.body_mut())).await?;
        *request.body_mut() = body;
        let _place = self.admission.enter().await?;
        next.oneshot(mem::take(request)).await.map_err(|never| match never {})
    }
}
