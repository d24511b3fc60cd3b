//! Starting: with everything, with nothing, with bad settings.
use crate::service::{BIN, server};
use drill::process::{Server, Signal, run};
use serde_json::Value;
use sqlx::PgPool;
use std::time::Duration;

const URLS: [(&str, &str); 2] = [
    ("DATABASE_URL", "postgres://user:pg-canary@127.0.0.1:1/none"),
    ("REDIS_URL", "redis://:redis-canary@127.0.0.1:1"),
];

#[sqlx::test]
async fn a_server_with_its_services_up_is_ready_at_once(pool: PgPool) {
    let server = server(&pool, "boot").start().await.unwrap();
    server.ready().await.unwrap();
    let version = reqwest_get(&server.ops_url("/version")).await;
    assert!(version.contains("\"rustc\":\"rustc "), "{version}");
    let metrics = reqwest_get(&server.ops_url("/metrics")).await;
    for name in ["build_info", "db_client_connections", "dependency_up", "process_open_fds"] {
        assert!(
            metrics.contains(&format!("\n# TYPE {name} ")) || metrics.starts_with(&format!("# HELP {name} ")),
            "{name}"
        );
    }
    assert_eq!(run(BIN, &["healthcheck"], &with_ops_port(&server)).await.unwrap().code, Some(0));
}

fn with_ops_port(server: &Server) -> [(&'static str, &'static str); 3] {
    let port: &'static str = server.ops_port().to_string().leak();
    [URLS[0], URLS[1], ("OPS_PORT", port)]
}

async fn reqwest_get(url: &str) -> String {
    crate::service::client().get(url).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_server_without_its_services_is_alive_but_not_ready_and_stops_at_once() {
    let [database, redis] = URLS;
    let server = Server::builder(BIN)
        .env(database.0, database.1)
        .env(redis.0, redis.1)
        .env("SHUTDOWN_LAME_DUCK", "0s");
    let server = server.start().await.unwrap();
    assert_eq!(reqwest_get(&server.ops_url("/healthz")).await, "ok\n");
    assert!(reqwest_get(&server.ops_url("/readyz")).await.contains("\"status\":\"starting\""));
    for dependency in ["postgres", "redis"] {
        let lost = |line: &Value| line["msg"] == "dependency lost" && line["dependency"] == dependency;
        let line = server.line(lost).await.expect("what it waits for is in the log");
        assert!(line["cause"].as_str().is_some_and(|cause| cause.contains("refused")), "{line}");
    }
    server.signal(Signal::Term).unwrap();
    let exit = server.wait().await.unwrap();
    assert_eq!(exit.code, Some(0));
    assert!(exit.took < Duration::from_secs(5), "{exit:?}");
}

#[tokio::test]
async fn all_bad_settings_are_named_at_once_and_nothing_starts() {
    let bad = [URLS[0], URLS[1], ("PORT", "eighty"), ("QUEUE_WAIT", "5"), ("RATE_LIMIT", "many")];
    for command in ["check-config", "doctor", "serve", "migrate"] {
        let output = run(BIN, &[command], &bad).await.unwrap();
        assert_eq!((output.code, output.stdout.as_str()), (Some(78), ""), "{command}");
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        for (name, line) in ["PORT", "QUEUE_WAIT", "RATE_LIMIT"].iter().zip(lines) {
            assert!(line.contains(name), "{line}");
        }
    }
}

#[tokio::test]
async fn check_config_prints_what_is_in_force_and_no_secret() {
    let given = [URLS[0], URLS[1], ("PORT", "8123"), ("SHUTDOWN_BUDGET", "24s")];
    let output = run(BIN, &["check-config"], &given).await.unwrap();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    assert!(!output.stdout.contains("canary"), "{}", output.stdout);
    for line in
        ["PORT=8123", "SHUTDOWN_BUDGET=24s", "DATABASE_URL=postgres://user:[REDACTED]@127.0.0.1:1/none"]
    {
        assert!(output.stdout.lines().any(|printed| printed == line), "{line}");
    }
    // What is printed may be given again.
    let again: Vec<(&str, &str)> = output.stdout.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(run(BIN, &["check-config"], &again).await.unwrap().code, Some(0));
}

#[tokio::test]
async fn help_and_the_document_need_no_settings() {
    let help = run(BIN, &["--help"], &[]).await.unwrap();
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("check-config"), "{}", help.stdout);
    let document = run(BIN, &["openapi"], &[]).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(&document.stdout).unwrap();
    assert!(document["paths"]["/v1/session"]["post"].is_object());
    let unknown = run(BIN, &["sevre"], &[]).await.unwrap();
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("sevre") && unknown.stderr.contains("Usage"), "{}", unknown.stderr);
    assert_eq!(
        run(BIN, &["healthcheck"], &[URLS[0], URLS[1], ("OPS_PORT", "1")]).await.unwrap().code,
        Some(1)
    );
}

#[sqlx::test(migrations = false)]
async fn a_server_waits_for_its_schema(pool: PgPool) {
    let waiting = server(&pool, "schema").start().await.unwrap();
    waiting.line(|line| line["msg"] == "dependency up" && line["dependency"] == "postgres").await.unwrap();
    assert!(reqwest_get(&waiting.ops_url("/readyz")).await.contains("starting"));
    let migrate = server(&pool, "schema").args(&["migrate"]).spawn().unwrap();
    assert_eq!(migrate.wait().await.unwrap().code, Some(0));
    waiting.ready().await.unwrap();
}

#[tokio::test]
async fn a_migration_that_waits_for_its_database_ends_on_sigterm() {
    let [database, redis] = URLS;
    let migrate = Server::builder(BIN).args(&["migrate"]).env(database.0, database.1).env(redis.0, redis.1);
    let migrate = migrate.spawn().unwrap();
    migrate.line(|line| line["level"].as_u64() > Some(20)).await.unwrap();
    migrate.signal(Signal::Term).unwrap();
    let exit = migrate.wait().await.unwrap();
    assert_eq!(exit.code, Some(1));
    assert!(exit.took < Duration::from_secs(2), "{exit:?}");
}
