//! Where a request's time goes: what its line names, and what its handler took itself, make up the whole.
use crate::{
    api::actors::Service,
    app::App,
    http::{admission::Admission, observe::Observe},
    server::drain::Conductor,
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    routing::get,
};
use drill::upstream::Stub;
use http_body_util::BodyExt;
use serde_json::Value;
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tower::ServiceExt;
use tracing_bunyan_formatter::JsonStorage;
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt};

const REQUESTS: usize = 400;
const AT_ONCE: usize = 16;
/// Fewer than come at once, so some wait.
const PLACES: usize = 8;

/// Keeps the fields of each request's line, by its client's id.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<HashMap<String, f64>>>);

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = JsonStorage::default();
        event.record(&mut fields);
        let Some(id) = crate::telemetry::request::with_current(|request| request.id.to_string()) else {
            return;
        };
        if let Some(latency) = fields.values().get("latency_ms").and_then(Value::as_f64) {
            let part = |name: &str| fields.values()[name].as_f64().unwrap();
            let parts = part("queue_ms") + part("db_ms") + part("redis_ms") + part("outbound_ms");
            self.0.lock().unwrap().insert(id, latency - parts);
        }
    }
}

/// Waits for everything that there is to wait for, and works in between. Answers with the milliseconds of its own work.
async fn work(State(app): State<App>) -> String {
    let mut own = 0.0;
    let mut busy = || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1) {}
        own += start.elapsed().as_secs_f64() * 1e3;
    };
    busy();
    let sleep = app.postgres.run("SELECT sleep", async |connection| {
        sqlx::query("SELECT pg_sleep(0.005)").execute(connection).await.map(drop)
    });
    sleep.await.unwrap();
    busy();
    app.redis.ping().await.unwrap();
    busy();
    let query = [("url", "https://example.com/"), ("delay_ms", "5")];
    app.outbound.as_ref().unwrap().get_json::<Value>("preview", &query).await.unwrap();
    busy();
    own.to_string()
}

#[sqlx::test]
async fn the_parts_and_the_handlers_own_work_make_up_the_whole(pool: PgPool) {
    let upstream = Stub::start().await.unwrap();
    let service = Service::start_with(&pool, |config| {
        config.preview_url = Some(upstream.url().into());
    })
    .await;
    let conductor = Conductor::new(service.config.shutdown);
    let admission = Admission::new(PLACES, Duration::from_secs(30));
    let observe = Observe::new(Duration::from_secs(30), 0, admission, conductor.drain());
    let router = observe.around(Router::new().route("/work", get(work)).with_state(service.app.clone()));

    let lines = Lines::default();
    // With one subscriber, tracing asks the thread that happens to log first, another test's, whether anyone listens.
    let _second = tracing::Dispatch::new(Registry::default());
    let _log = tracing::subscriber::set_default(Registry::default().with(lines.clone()));
    let mut clients = JoinSet::new();
    for client in 0..AT_ONCE {
        let (router, lines) = (router.clone(), lines.clone());
        clients.spawn(async move {
            let mut shares = Vec::new();
            for n in 0..REQUESTS / AT_ONCE {
                let id = format!("{client}-{n}");
                let request = Request::builder().uri("/work").header("host", "h").header("x-request-id", &id);
                let (start, answer) =
                    (Instant::now(), router.clone().oneshot(request.body(Body::empty()).unwrap()));
                let answer = answer.await.unwrap().into_body().collect().await.unwrap().to_bytes();
                let took = start.elapsed().as_secs_f64() * 1e3;
                let own: f64 = str::from_utf8(&answer).unwrap().parse().unwrap();
                shares.push((lines.0.lock().unwrap()[&id] - own).abs() / took);
            }
            shares
        });
    }
    let shares = clients.join_all().await.concat();
    let close = shares.iter().filter(|share| **share <= 0.05).count();
    let worst = shares.iter().fold(0.0_f64, |worst, share| worst.max(*share));
    eprintln!("{close} of {} within 5 %, the worst at {:.1} %", shares.len(), worst * 100.0);
    assert!(close * 100 >= shares.len() * 95, "99 % on a machine that has time for it");
}
