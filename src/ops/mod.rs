//! The operations port: for probes, scrapers and people on call, never for the public.
//!
//! | Route | Answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process can answer at all |
//! | `GET /readyz` | 200 `ready` or `degraded`, 503 `starting` or `draining` |
//! | `GET /metrics` | Prometheus text |
//! | `GET /version` | what runs here, and what built it |
mod health;
mod probe;

pub use health::Health;
pub use probe::healthcheck;

use crate::{backing::postgres::Postgres, http::Problem, telemetry::metrics};
use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use chrono::DateTime;
use serde::Serialize;

/// Probes, scrapers and a few people.
pub const MAX_CONNECTIONS: usize = 100;

pub fn router(health: Health, postgres: Postgres) -> Router {
    metrics::build_info(env!("CARGO_PKG_VERSION"), env!("BUILD_REVISION"));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async |State(health): State<Health>| health))
        .with_state(health)
        .route("/metrics", get(show_metrics))
        .with_state(postgres)
        .route("/version", get(async || Json(version())))
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
}

async fn show_metrics(State(postgres): State<Postgres>) -> impl IntoResponse {
    let (used, idle) = postgres.connections();
    metrics::db_connections(used, idle);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render())
}

/// What runs here, and what built it.
#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// The commit, empty when it was built outside a repository.
    revision: &'static str,
    /// RFC 3339 UTC.
    built_at: String,
    rustc: &'static str,
}

fn version() -> Version {
    let built_at = env!("BUILD_TIME").parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    Version {
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("BUILD_REVISION"),
        built_at: built_at.map(|time| time.to_rfc3339()).unwrap_or_default(),
        rustc: env!("BUILD_RUSTC"),
    }
}
