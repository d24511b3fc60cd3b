//! Where a request's time went, as its line tells it: what is made slow is what is blamed.
use crate::service::{client, redis_url, server, sign_up};
use drill::{
    process::{Builder, Server},
    proxy::{Mode, Proxy},
    upstream::Stub,
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};
use std::{net::SocketAddr, time::Duration};

const PARTS: [&str; 4] = ["queue_ms", "db_ms", "redis_ms", "outbound_ms"];
const TIMES: usize = 5;
/// There and back: 200 ms.
const SLOW: Mode = Mode::Latency { each_way: Duration::from_millis(100), jitter: Duration::ZERO };

/// A signed-in client with one bookmark.
struct Alice {
    server: Server,
    cookie: String,
    bookmark: String,
}

impl Alice {
    async fn start(server: Builder) -> Self {
        let server = server.env("RATE_LIMIT", "100000/1m").start().await.unwrap();
        server.ready().await.unwrap();
        let cookie = sign_up(&server, "alice@example.com").await;
        let keep = client().post(server.url("/v1/bookmarks")).header("cookie", &cookie);
        let kept = keep.json(&json!({ "url": "https://example.com/" })).send().await.unwrap();
        let bookmark = kept.headers()["location"].to_str().unwrap().to_owned();
        Self { server, cookie, bookmark }
    }

    /// The line of one request, which may fail; but not for Redis or Postgres being late, as on a busy machine they are.
    async fn line(&self, path: &str, id: &str) -> Value {
        let mut line = Value::Null;
        for attempt in 0..5 {
            let id = format!("{id}-{attempt}");
            let request = client().get(self.server.url(path)).header("cookie", &self.cookie);
            request.header("x-request-id", &id).send().await.unwrap();
            line =
                self.server.line(|line| line["request_id"] == id && line["status"].is_u64()).await.unwrap();
            if line["code"] != "unavailable" {
                break;
            }
        }
        line
    }
}

/// In each line `part` took at least so many milliseconds; in most of them more than all others together. On a busy
/// machine another part may be slow too, and is rightly told of.
fn assert_blamed(part: &str, at_least: f64, lines: &[Value]) {
    let of = |line: &Value, name: &str| line[name].as_f64().unwrap();
    let others =
        |line: &Value| PARTS.iter().filter(|other| **other != part).map(|other| of(line, other)).sum::<f64>();
    assert!(lines.iter().all(|line| of(line, part) >= at_least), "{part}: {lines:?}");
    let blamed = lines.iter().filter(|line| of(line, part) > others(line)).count();
    assert!(blamed * 2 > lines.len(), "{part}: {lines:?}");
}

async fn proxy_for(url: &str, port: u16) -> Proxy {
    let authority = url.split("://").nth(1).unwrap().split(['/', '?']).next().unwrap();
    let host = authority.rsplit('@').next().unwrap();
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
    let address: SocketAddr = tokio::net::lookup_host(host).await.unwrap().next().unwrap();
    Proxy::start(address).await.unwrap()
}

#[sqlx::test]
async fn a_slow_postgres_is_blamed(pool: PgPool) {
    let url = pool.connect_options().to_url_lossy().to_string();
    let proxy = proxy_for(&url, 5432).await;
    let server = server(&pool, "split-db").env("DATABASE_URL", proxy.url_for(&url).unwrap());
    let alice = Alice::start(server).await;
    proxy.set(SLOW).await;
    let mut lines = Vec::new();
    for n in 0..TIMES {
        lines.push(alice.line(&alice.bookmark, &format!("db-{n}")).await);
    }
    assert_blamed("db_ms", 200.0, &lines);
}

#[sqlx::test]
async fn a_slow_redis_is_blamed(pool: PgPool) {
    let proxy = proxy_for(&redis_url(), 6379).await;
    let server = server(&pool, "split-redis").env("REDIS_URL", proxy.url_for(&redis_url()).unwrap());
    let alice = Alice::start(server).await;
    proxy.set(SLOW).await;
    let mut lines = Vec::new();
    for n in 0..TIMES {
        lines.push(alice.line("/v1/session", &format!("redis-{n}")).await);
    }
    assert_blamed("redis_ms", 200.0, &lines);
}

#[sqlx::test]
async fn a_slow_upstream_is_blamed_by_each_that_waits_for_it(pool: PgPool) {
    let upstream = Stub::start().await.unwrap();
    let proxy = proxy_for(&upstream.url(), 80).await;
    // Nothing is kept of a bad answer: each request asks the upstream.
    upstream.answer(404, "{}");
    let server = server(&pool, "split-outbound").env("PREVIEW_URL", proxy.url_for(&upstream.url()).unwrap());
    let alice = Alice::start(server).await;
    let preview = format!("{}/preview", alice.bookmark);
    proxy.set(SLOW).await;
    let mut lines = Vec::new();
    for n in 0..TIMES {
        let (one, two) = (format!("outbound-{n}"), format!("with-{n}"));
        let both = tokio::join!(alice.line(&preview, &one), alice.line(&preview, &two));
        let ms = |line: &Value| line["outbound_ms"].as_f64().unwrap();
        let (caller, other) = if ms(&both.0) > ms(&both.1) { both } else { (both.1, both.0) };
        // It may have come late, and waited for the rest of the call only.
        assert!(ms(&other) > 0.0, "{other}");
        lines.push(caller);
    }
    assert_blamed("outbound_ms", 200.0, &lines);
}

#[sqlx::test]
async fn the_wait_for_a_place_is_blamed_on_the_queue(pool: PgPool) {
    let upstream = Stub::start().await.unwrap();
    let server = server(&pool, "split-queue").env("PREVIEW_URL", upstream.url());
    let alice = Alice::start(server.env("MAX_IN_FLIGHT", 1).env("QUEUE_WAIT", "5s")).await;
    upstream.answer(404, "{}");
    upstream.delay(Duration::from_millis(800));
    let preview = format!("{}/preview", alice.bookmark);
    let mut lines = Vec::new();
    for n in 0..TIMES {
        let calls = upstream.calls();
        let second = async {
            while upstream.calls() == calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            alice.line("/", &format!("queue-{n}")).await
        };
        let first = format!("first-{n}");
        let (_, second) = tokio::join!(alice.line(&preview, &first), second);
        lines.push(second);
    }
    assert_blamed("queue_ms", 200.0, &lines);
}
