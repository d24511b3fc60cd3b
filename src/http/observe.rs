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
    server::drain::{Drain, Phase},
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
    net::{IpAddr, Ipv4Addr, SocketAddr},
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
async fn observe(observe: Arc<Observe>, request: Request, next: Guarded) -> Result<Response, Infallible> {
    let start = Instant::now();
    let current = observe.current(&request, start);
    let polled = polls::Route::new(request.extensions().get().map_or("<unmatched>", MatchedPath::as_str));
    let work = async {
        let watched = Watched::new(Arc::clone(&current), &request, start);
        let mut response = tokio::select! {
            biased;
            response = observe.answer(request, next, current.deadline) => response,
            () = observe.cut() => watched.cut(&observe.drain),
        };
        let headers = response.headers_mut();
        security::add_headers(headers);
        if let Ok(id) = HeaderValue::from_str(&current.id) {
            headers.insert(request_id::HEADER, id);
        }
        watched.answered(&response);
        response
    };
    // Pinned here, it stays where it is: each layer of futures around it would copy some kilobytes.
    Ok(polls::visible(polled, current.clone().scope(pin!(work))).await)
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

    fn current(&self, request: &Request, start: Instant) -> Arc<Current> {
        let headers = request.headers();
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        Current::new(
            request_id::of(headers),
            request_id::client(headers, peer, self.trusted_proxies),
            start + self.timeout,
            traces::server_span(headers, request.method()),
        )
    }

    /// The answer, in time and without a panic.
    async fn answer(&self, request: Request, next: Guarded, deadline: Instant) -> Response {
        let work = AssertUnwindSafe(self.admit(request, next)).catch_unwind();
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(Ok(response)) => response.into_response(),
            Ok(Err(_)) => Problem::internal(anyhow::anyhow!("a handler panicked")).into_response(),
            Err(_) => Problem::timeout().into_response(),
        }
    }

    /// Runs a sound request once its body is here and it has a place.
    async fn admit(&self, request: Request, next: Guarded) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        security::check(&head)?;
        let (body, _memory) = self.bodies.read(body).await?;
        let _place = self.admission.enter().await?;
        let Ok(response) = next.oneshot(Request::from_parts(head, body)).await;
        Ok(response)
    }

    /// The moment when the stop has no more time for requests.
    async fn cut(&self) {
        self.drain.clone().reached(Phase::Cut).await;
    }
}
