//! The operations port: for probes, scrapers and people on call, never for the public.
//!
//! | Route | Answer |
//! |---|---|
//! | `GET /healthz` | 200 while every worker answers within a second, whatever else is down |
//! | `GET /readyz` | 200 `ready` or `degraded`, 503 `starting` or `draining` |
//! | `GET /metrics` | Prometheus text |
//! | `GET /version` | what runs here, and what built it |
//! | `GET /log-level` | the log filter in force, and until when |
//! | `PUT /log-level` `{level,ttl?}` | another one for a while, 5 minutes unless told |
//! | `GET /debug/stalls` | the last times a handler blocked a worker of the runtime |
//! | `GET /debug/profile/cpu?seconds=10` | where the time goes: for `go tool pprof`, in a browser as a flame graph |
//! | `GET /debug/profile/heap` | where the memory is, likewise |
//!
//! The `PUT` and `/debug` are for peers on this host only, which `kubectl port-forward` makes of you; 403 for others.
pub mod doctor;
mod health;
mod log_level;
mod probe;
mod profile;
#[cfg(test)]
mod tests;

pub use health::Health;
pub use probe::healthcheck;

use crate::{
    backing::postgres::Postgres,
    http::Problem,
    runtime::{level::LogLevel, stalls::Stalls, workers::Workers},
    server::connection::Peer,
    telemetry::metrics,
};
use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use chrono::DateTime;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Probes, scrapers and a few people.
pub const MAX_CONNECTIONS: usize = 100;
/// Less than probes wait.
const PATIENCE: Duration = Duration::from_secs(1);

pub fn router(
    health: Health,
    postgres: Postgres,
    level: LogLevel,
    stalls: Stalls,
    workers: Workers,
) -> Router {
    metrics::build_info(env!("CARGO_PKG_VERSION"), env!("BUILD_REVISION"));
    let guarded = Router::new()
        .route("/log-level", put(log_level::change))
        .with_state(level.clone())
        .route("/debug/stalls", get(show_stalls))
        .with_state(stalls)
        .route("/debug/profile/cpu", get(profile::cpu))
        .route("/debug/profile/heap", get(profile::heap))
        .with_state(profile::Turn::default())
        .route_layer(from_fn(from_this_host));
    Router::new()
        .route("/healthz", get(is_alive))
        .with_state(workers)
        .route("/readyz", get(async |State(health): State<Health>| health))
        .with_state(health)
        .route("/metrics", get(show_metrics))
        .with_state(postgres)
        .route("/version", get(async || Json(version())))
        .route("/log-level", get(log_level::show))
        .with_state(level)
        .merge(guarded)
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
}

/// Asks no dependency, but every worker: one that is held serves nobody, and only a restart ends an endless loop.
async fn is_alive(State(workers): State<Workers>) -> Result<&'static str, Problem> {
    let detail = "A worker has not answered for 1 s: /debug/stalls names the request that holds it.";
    let answered = timeout(PATIENCE, workers.answer()).await;
    answered.map(|()| "ok\n").map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "held", detail))
}

/// What changes the process, or tells much about it.
async fn from_this_host(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if peer.address.is_loopback() {
        return Ok(next.run(request).await);
    }
    let detail = "Only peers on this host may do this: use kubectl port-forward.";
    Err(Problem::new(StatusCode::FORBIDDEN, "not_this_host", detail))
}

async fn show_stalls(State(stalls): State<Stalls>) -> Json<Value> {
    Json(json!({ "items": stalls.items() }))
}

async fn show_metrics(State(postgres): State<Postgres>) -> impl IntoResponse {
    let (used, idle) = postgres.connections();
    metrics::db_connections(used, idle);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render())
}

/// What runs here, and what built it. The revision is empty when it was built outside a repository.
fn version() -> Value {
    let built_at = env!("BUILD_TIME").parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": env!("BUILD_REVISION"),
        "built_at": built_at.map(|time| time.to_rfc3339()).unwrap_or_default(),
        "rustc": env!("BUILD_RUSTC"),
    })
}
