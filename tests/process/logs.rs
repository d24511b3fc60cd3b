//! What a whole process writes while it works.
use crate::service::{client, field, server, sign_up};
use drill::process::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;

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
    let of_request = |text: &&String| {
        serde_json::from_str::<Value>(text)
            .is_ok_and(|line| line["request_id"] == "mine-1" && line["status"].is_u64())
    };
    assert_eq!(lines.iter().filter(of_request).count(), 1);
    let token = cookie.split_once('=').unwrap().1;
    for secret in ["password-canary", "auth-canary", "cookie-canary", "correct horse battery", token] {
        assert!(!lines.iter().any(|line| line.contains(secret)), "{secret}");
    }
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap();
        for name in ["v", "name", "hostname", "pid", "level", "time", "msg", "service", "region", "version"] {
            assert!(!line[name].is_null(), "{name} is missing in {line}");
        }
    }
}
