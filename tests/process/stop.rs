//! Stopping: what is under way is finished, in stages that the log names.
use crate::service::{client, field, server};
use drill::process::{Server, Signal};
use serde_json::json;
use sqlx::{PgPool, Postgres, Transaction};
use std::time::Duration;

/// While it lasts, nobody is signed in: the query waits, for up to 2 s.
async fn lock(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE accounts").execute(&mut *lock).await.unwrap();
    lock
}

/// Signs in, and sends the signal once the query waits for the lock.
async fn stop_amid_a_sign_in(server: &Server, pool: &PgPool) -> reqwest::Response {
    let body = json!({"email": "nobody@example.com", "password": "correct horse battery"});
    let slow = client().post(server.url("/v1/session")).json(&body).send();
    let stop = async {
        let waiting =
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'accounts'::regclass)";
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(pool).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.signal(Signal::Term).unwrap();
    };
    let (answer, ()) = tokio::join!(slow, stop);
    answer.unwrap()
}

#[sqlx::test]
async fn a_slow_answer_still_arrives_after_sigterm(pool: PgPool) {
    let server = server(&pool, "stop").start().await.unwrap();
    server.ready().await.unwrap();
    let lock = lock(&pool).await;
    let release = async {
        server.line(|line| line["msg"] == "listener closed").await.unwrap();
        lock.rollback().await.unwrap();
    };
    let (answer, ()) = tokio::join!(stop_amid_a_sign_in(&server, &pool), release);
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["connection"], "close");

    let exit = server.wait().await.unwrap();
    assert_eq!(exit.code, Some(0));
    assert!(exit.took < Duration::from_secs(15), "{exit:?}");
    let lines: Vec<serde_json::Value> =
        server.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stages: Vec<&str> = lines.iter().map(|line| field(line, "msg")).collect();
    let place = |stage: &str| {
        stages.iter().position(|msg| *msg == stage).unwrap_or_else(|| panic!("{stage}: {stages:?}"))
    };
    let order =
        ["stop requested", "lame duck", "closing", "listener closed", "dependencies released", "stopped"];
    assert!(order.map(place).is_sorted(), "{stages:?}");
    assert_eq!(server.stderr(), "");
}

#[sqlx::test]
async fn readiness_goes_first_while_requests_are_still_served(pool: PgPool) {
    let server = server(&pool, "duck").env("SHUTDOWN_LAME_DUCK", "2s").start().await.unwrap();
    server.ready().await.unwrap();
    server.signal(Signal::Int).unwrap();
    server.line(|line| line["msg"] == "lame duck").await.unwrap();
    let ready = client().get(server.ops_url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("\"status\":\"draining\""));
    assert_eq!(client().get(server.ops_url("/healthz")).send().await.unwrap().status(), 200);
    assert_eq!(client().get(server.url("/")).send().await.unwrap().status(), 200);
    assert_eq!(server.wait().await.unwrap().code, Some(0));
}

#[sqlx::test]
async fn a_second_signal_ends_it_at_once(pool: PgPool) {
    let server = server(&pool, "twice").env("SHUTDOWN_LAME_DUCK", "15s").start().await.unwrap();
    server.ready().await.unwrap();
    server.signal(Signal::Term).unwrap();
    server.line(|line| line["msg"] == "lame duck").await.unwrap();
    server.signal(Signal::Term).unwrap();
    let exit = server.wait().await.unwrap();
    assert_eq!(exit.code, Some(1));
    assert!(exit.took < Duration::from_secs(3), "{exit:?}");
}

#[sqlx::test]
async fn what_still_runs_at_the_drain_limit_is_cut_and_told(pool: PgPool) {
    let server = server(&pool, "cut").env("SHUTDOWN_DRAIN", "500ms").start().await.unwrap();
    server.ready().await.unwrap();
    let _lock = lock(&pool).await;
    let answer = stop_amid_a_sign_in(&server, &pool).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "stopping");
    assert_eq!(server.wait().await.unwrap().code, Some(1));
    let cut = server.line(|line| line["msg"] == "requests cut").await.unwrap();
    assert_eq!((&cut["requests"], &cut["routes"]), (&json!(1), &json!({"/v1/session": 1})));
}

#[sqlx::test]
async fn a_panic_of_a_task_that_must_not_end_drains_the_server_and_fails_it(pool: PgPool) {
    // No supervisor says 0. It makes the task that feeds the watchdog panic, as a fork's own task might.
    let server = server(&pool, "fault").env("WATCHDOG_USEC", 0).start().await.unwrap();
    let exit = server.wait().await.unwrap();
    assert_eq!(exit.code, Some(1));
    let lines: Vec<serde_json::Value> =
        server.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (field(line, "msg"), line["level"].as_u64())).collect();
    let stages =
        [("panic", 60), ("stop forced", 60), ("closing", 30), ("dependencies released", 30), ("stopped", 30)];
    let place = |stage: (&str, u64)| {
        told.iter().position(|(msg, level)| (*msg, *level) == (stage.0, Some(stage.1))).unwrap()
    };
    assert!(stages.map(place).is_sorted(), "{told:?}");
    assert_eq!(server.stderr(), "");
}
