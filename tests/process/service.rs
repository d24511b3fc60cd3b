//! The built server with a database and a key prefix of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "tests have their own client and find the servers they were given"
)]
use drill::process::{Builder, Server};
use redis::AsyncConnectionConfig;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};
use std::time::Duration;

pub const BIN: &str = env!("CARGO_BIN_EXE_server");

/// What a server of this test needs; servers with the same `prefix` share their state.
pub fn server(pool: &PgPool, prefix: &str) -> Builder {
    with_services(Server::builder(BIN), pool, prefix)
}

/// The same, with this many file descriptors at most.
pub fn server_with_descriptors(descriptors: usize, pool: &PgPool, prefix: &str) -> Builder {
    let script = format!("ulimit -n {descriptors} && exec {BIN} serve");
    with_services(Server::builder("/bin/sh").args(&["-c", &script]), pool, prefix)
}

fn with_services(builder: Builder, pool: &PgPool, prefix: &str) -> Builder {
    builder
        .env("DATABASE_URL", pool.connect_options().to_url_lossy())
        .env("REDIS_URL", redis_url())
        .env("REDIS_PREFIX", format!("test:{prefix}:{}:", std::process::id()))
        .env("SHUTDOWN_LAME_DUCK", "0s")
}

/// From the environment, else from the `.env` that `make services` writes.
pub fn redis_url() -> String {
    let from_file = || {
        let file = std::fs::read_to_string(".env").ok()?;
        file.lines().find_map(|line| line.strip_prefix("REDIS_URL=").map(str::to_owned))
    };
    std::env::var("REDIS_URL")
        .ok()
        .or_else(from_file)
        .expect("make test sets REDIS_URL, make services writes .env")
}

/// Gives Redis this command.
pub async fn redis_command(words: &[&str]) {
    let client = redis::Client::open(redis_url()).expect("a sound URL");
    let patient = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connected = client.get_multiplexed_async_connection_with_config(&patient).await;
    let mut command = redis::Cmd::new();
    command.arg(words);
    command.exec_async(&mut connected.expect("Redis is up")).await.expect("a command it knows");
}

pub fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::new()
}

/// Signs up and returns the cookie; asks again while the machine is too busy, as a good client does.
pub async fn sign_up(server: &Server, email: &str) -> String {
    let body = json!({"email": email, "password": "correct horse battery"});
    for _ in 0..50 {
        let answer = client().post(server.url("/v1/accounts")).json(&body).send().await.expect("an answer");
        if answer.status() == 503 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        assert_eq!(answer.status(), 201);
        let cookie = answer.headers()["set-cookie"].to_str().expect("ASCII");
        return cookie.split(';').next().expect("a pair").to_owned();
    }
    panic!("the server is busy for seconds");
}

/// The value of a log line's field, as text.
pub fn field<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}
