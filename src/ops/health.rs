//! Readiness as one value: who may change it, and what the probes say of it. {%- capture file %}{% raw %}
use crate::{app::App, backing::migrate, telemetry::metrics};
use anyhow::Chain;
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

/// All that `/readyz` knows, in one atomic byte: a probe reads it and asks no dependency.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicU8>);

const POSTGRES_UP: u8 = 1;
const REDIS_UP: u8 = 1 << 1;
/// Both dependencies were seen, and the schema has what this binary needs. Never taken back.
const STARTED: u8 = 1 << 2;
const DRAINING: u8 = 1 << 3;

/// While starting, and then.
const CHECK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

impl Health {
    /// The stop has begun; no way back. Returns whether it was ever ready before.
    pub fn drain(&self) -> bool {
        self.0.fetch_or(DRAINING, Relaxed) & STARTED != 0
    }

    fn set(&self, bit: u8, on: bool) {
        if on {
            self.0.fetch_or(bit, Relaxed)
        } else {
            self.0.fetch_and(!bit, Relaxed)
        };
    }

    fn is(&self, bit: u8) -> bool {
        self.0.load(Relaxed) & bit == bit
    }

    /// Keeps the value true for as long as it is polled.
    pub async fn watch(self, app: App) {
        let migrations = migrate::versions();
        for round in 0_u64.. {
            let schema = app.postgres.migrations();
            let (schema, redis) = tokio::join!(schema, app.redis.ping());
            self.note("postgres", POSTGRES_UP, round == 0, schema.as_ref().err().map(|error| error as _));
            self.note("redis", REDIS_UP, round == 0, redis.as_ref().err().map(|error| error as _));
            let upstream = app.outbound.iter(); // example
            upstream.for_each(|preview| metrics::dependency_up("preview", preview.is_up())); // example
            let is_complete = |had: Vec<i64>| migrations.iter().all(|version| had.contains(version));
            if !self.is(STARTED) && redis.is_ok() && schema.is_ok_and(is_complete) {
                self.set(STARTED, true);
                app.postgres.check_most_connections().await;
            }
            tokio::time::sleep(CHECK_EVERY[usize::from(self.is(STARTED))]).await;
        }
    }

    /// Logs what is found first, and each change, once.
    fn note(&self, dependency: &'static str, bit: u8, first: bool, error: Option<&(dyn Error + 'static)>) {
        metrics::dependency_up(dependency, error.is_none());
        match (self.is(bit), error) {
            (up, Some(error)) if up || first => {
                let cause = Chain::new(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
                tracing::warn!(dependency, cause, "dependency lost");
            }
            (false, None) => tracing::info!(dependency, "dependency up"),
            _ => {}
        }
        self.set(bit, error.is_none());
    }

    fn report(&self) -> (StatusCode, Report) {
        let bits = self.0.load(Relaxed);
        let up = |bit| Check { status: if bits & bit == bit { "up" } else { "down" } };
        let (code, status) = match bits {
            _ if bits & DRAINING != 0 => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            _ if bits & STARTED == 0 => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            _ if bits & (POSTGRES_UP | REDIS_UP) == POSTGRES_UP | REDIS_UP => (StatusCode::OK, "ready"),
            _ => (StatusCode::OK, "degraded"),
        };
        (code, Report { status, checks: Checks { postgres: up(POSTGRES_UP), redis: up(REDIS_UP) } })
    }
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize)]
struct Checks {
    postgres: Check,
    redis: Check,
}

#[derive(Serialize)]
struct Check {
    status: &'static str,
}

/// 200 `ready`, 200 `degraded` (taking every replica out would make an outage worse), 503 `starting` or `draining`.
impl IntoResponse for Health {
    fn into_response(self) -> Response {
        let (code, report) = self.report();
        (code, Json(report)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_the_process_through_its_life() {
        let health = Health::default();
        let now = |health: &Health| (health.report().0.as_u16(), health.report().1.status);
        assert_eq!(now(&health), (503, "starting"));
        health.set(POSTGRES_UP | REDIS_UP, true);
        assert_eq!(now(&health), (503, "starting"), "the schema may still be too old");
        health.set(STARTED, true);
        assert_eq!(now(&health), (200, "ready"));
        health.set(REDIS_UP, false);
        assert_eq!(now(&health), (200, "degraded"));
        health.drain();
        assert_eq!(now(&health), (503, "draining"));
    }
}
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
