//! What a whole process writes while it works, and while nobody reads it.
use crate::{
    service::{client, field, server, sign_up},
    traces::{CALLER, TRACE},
};
use drill::process::{Server, Signal};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// One object with every field that each line has, and no key twice.
pub fn assert_sound(text: &str) -> Value {
    drill::log::sound(text).unwrap()
}

#[sqlx::test]
async fn each_request_is_one_line_and_no_line_holds_a_secret(pool: PgPool) {
    let server =
        server(&pool, "logs").env("REGION", "eu-test-1").env("LOG_LEVEL", "debug").start().await.unwrap();
    let cookie = sign_up(&server, "alice@example.com").await;
    let body = json!({"email": "alice@example.com", "password": "password-canary"});
    let sign_in = client().post(server.url("/v1/session")).header("authorization", "Bearer auth-canary");
    let sign_in =
        sign_in.header("cookie", "other=cookie-canary").header("x-request-id", "mine-1").json(&body);
    assert_eq!(sign_in.send().await.unwrap().status(), 401);
    let line = server.line(|line| line["request_id"] == "mine-1").await.unwrap();
    server.signal(Signal::Term).unwrap();
    assert_eq!(server.wait().await.unwrap().code, Some(0));

    assert_eq!((field(&line, "method"), field(&line, "route")), ("POST", "/v1/session"));
    assert_eq!((line["status"].as_u64(), field(&line, "code")), (Some(401), "bad_credentials"));
    assert_eq!((field(&line, "region"), field(&line, "client")), ("eu-test-1", "127.0.0.1"));
    for name in ["latency_ms", "queue_ms", "db_ms", "redis_ms", "outbound_ms"] {
        assert!(line[name].is_number(), "{name}: {line}");
    }
    let lines = server.lines();
    let of_request = |line: &&Value| line["request_id"] == "mine-1" && line["status"].is_u64();
    let parsed: Vec<Value> = lines.iter().map(|line| assert_sound(line)).collect();
    assert_eq!(parsed.iter().filter(of_request).count(), 1);
    let token = cookie.split_once('=').unwrap().1;
    for secret in ["password-canary", "auth-canary", "cookie-canary", "correct horse battery", token] {
        assert!(!lines.iter().any(|line| line.contains(secret)), "{secret}");
    }
}

#[sqlx::test]
async fn a_request_whose_client_hangs_up_has_its_line_too(pool: PgPool) {
    let server = server(&pool, "abandoned").start().await.unwrap();
    let cookie = sign_up(&server, "alice@example.com").await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("SELECT id FROM accounts FOR UPDATE").execute(&mut *lock).await.unwrap();
    let passwords = json!({ "current_password": "correct horse battery", "new_password": "a better one" });
    let change = client().put(server.url("/v1/account/password")).header("cookie", cookie).json(&passwords);
    let change =
        change.header("x-request-id", "gone").header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    assert!(change.timeout(Duration::from_millis(300)).send().await.unwrap_err().is_timeout());
    let line = server.line(|line| line["request_id"] == "gone" && line["status"].is_u64()).await.unwrap();
    assert_eq!((line["status"].as_u64(), field(&line, "code")), (Some(499), "abandoned"));
    assert_eq!(field(&line, "trace_id"), TRACE);
}

/// Asks `GET /` again and again, eight at a time, until `enough`. Answers with the 99th percentile of what each took.
async fn p99_of(client: &Client, server: &Server, enough: impl AsyncFn() -> bool) -> Duration {
    let (mut took, url) = (Vec::new(), server.url("/"));
    while !enough().await {
        let mut asking = JoinSet::new();
        for _ in 0..8 {
            let (client, url) = (client.clone(), url.clone());
            asking.spawn(async move {
                let mut took = Vec::new();
                for _ in 0..25 {
                    let start = Instant::now();
                    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
                    took.push(start.elapsed());
                }
                took
            });
        }
        took.extend(asking.join_all().await.concat());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

async fn dropped(client: &Client, server: &Server) -> u64 {
    let metrics = client.get(server.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
    metrics.lines().find_map(|line| line.strip_prefix("log_lines_dropped_total ")).unwrap().parse().unwrap()
}

#[sqlx::test]
async fn a_blocked_stdout_costs_lines_which_are_counted_and_no_request(pool: PgPool) {
    // A busy log fills the buffer soon.
    let server = server(&pool, "blocked").env("LOG_LEVEL", "trace,hyper=trace").start().await.unwrap();
    let (client, start) = (client(), Instant::now());
    let calm = p99_of(&client, &server, async || start.elapsed() > Duration::from_secs(1)).await;
    server.hold_stdout(true);
    let blocked = p99_of(&client, &server, async || dropped(&client, &server).await > 1000).await;
    assert!(blocked < calm * 4 + Duration::from_millis(250), "{calm:?} before, {blocked:?} blocked");

    server.hold_stdout(false);
    let told = server.line(|line| line["msg"] == "log lines dropped").await.unwrap();
    assert!(told["dropped"].as_u64().unwrap() > 1000, "{told}");
    server.signal(Signal::Term).unwrap();
    assert_eq!(server.wait().await.unwrap().code, Some(0));
    let lines = server.lines();
    let told = lines.iter().map(|line| assert_sound(line)).filter_map(|line| line["dropped"].as_u64());
    assert!(told.sum::<u64>() > 1000);
    assert!(lines.last().unwrap().contains("\"stopped\""), "{:?}", lines.last());
}
