//! What still works while Postgres or Redis is down.
use crate::{
    api::actors::{Actor, NOWHERE, PASSWORD, Service},
    config::Config,
    http::session::Token,
};
use axum::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use uuid::Uuid;

/// A peer that takes connections and never says a word.
pub async fn silence() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

pub fn address(listener: &TcpListener) -> String {
    listener.local_addr().expect("bound").to_string()
}

/// A replica of `service` with other settings.
pub async fn replica(service: &Service, pool: &PgPool, change: impl FnOnce(&mut Config)) -> Service {
    Service::start_with(pool, |config| {
        config.redis_prefix.clone_from(&service.config.redis_prefix);
        change(config);
    })
    .await
}

async fn public_routes_answer(service: &Service) {
    for path in ["/", "/docs", "/openapi.json"] {
        assert_eq!(service.anonymous().get(path).await.status, 200, "{path}");
    }
}

/// Checks that a 503 comes, in time, and that it leaves the cookie alone.
pub async fn is_down(actor: &Actor<'_>, method: Method, path: &str, body: &Value, limit: Duration) {
    let start = Instant::now();
    let body = (method == Method::POST || method == Method::PUT).then_some(body);
    let answer = actor.send(method, path, &[("if-match", "*")], body).await;
    answer.is_problem(503, "unavailable");
    assert_eq!(answer.header("set-cookie"), "");
    assert!(start.elapsed() < limit, "{path} took {:?}", start.elapsed());
    for leak in ["edis", "ostgres", "127.0.0.1", "refused"] {
        assert!(!answer.text.contains(leak), "{answer:?}");
    }
}

/// Half a second beyond the promise, for machines with better things to do.
pub const MARGIN: Duration = Duration::from_millis(500);

#[sqlx::test]
async fn without_redis_nobody_is_signed_out(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let change = json!({"current_password": PASSWORD, "new_password": "an even better one"});
    let mute = silence().await;
    for redis in [NOWHERE.to_owned(), address(&mute)] {
        let broken = replica(&service, &pool, |config| config.redis_url = format!("redis://{redis}").into());
        let broken = broken.await;
        let elsewhere = alice.at(&broken);
        let all = [
            (Method::GET, "/v1/session"),
            (Method::DELETE, "/v1/session"),
            (Method::GET, "/v1/sessions"),
            (Method::DELETE, "/v1/sessions"),
            (Method::PUT, "/v1/account/password"),
        ];
        let limit = Duration::from_millis(500) + MARGIN;
        join_all(all.map(|(method, path)| is_down(&elsewhere, method, path, &change, limit))).await;
        public_routes_answer(&broken).await;
        broken.anonymous().get("/v1/session").await.is_problem(401, "no_session");
    }
    assert_eq!(alice.get("/v1/session").await.status, 200);
    assert_eq!(service.anonymous().sign_in(&alice.email, PASSWORD).await.status, 201, "nothing was done");
}

#[sqlx::test]
async fn without_redis_nobody_signs_in_and_no_account_is_left_behind(pool: PgPool) {
    let service = Service::start(&pool).await;
    service.sign_up("alice").await;
    let broken =
        replica(&service, &pool, |config| config.redis_url = format!("redis://{NOWHERE}").into()).await;
    let anonymous = broken.anonymous();
    anonymous.sign_in("alice@example.com", PASSWORD).await.is_problem(503, "unavailable");
    let bob = json!({"email": "bob@example.com", "password": PASSWORD});
    anonymous.post("/v1/accounts", &bob).await.is_problem(503, "unavailable");
    assert_eq!(anonymous.cookie.take(), None);
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM accounts").fetch_one(&pool).await.expect("a count");
    assert_eq!(count, 1);
    assert_eq!(service.anonymous().post("/v1/accounts", &bob).await.status, 201, "the address is free");
}

#[tokio::test]
async fn without_redis_each_process_limits_by_itself() {
    let service = Service::without_postgres(|config| {
        config.redis_url = format!("redis://{NOWHERE}").into();
        config.rate_limit.count = 3;
        config.login_rate_limit.count = 1;
    })
    .await;
    let anonymous = service.anonymous();
    for _ in 0..2 {
        anonymous.get("/v1/session").await.is_problem(401, "no_session");
    }
    anonymous.sign_in("alice@example.com", PASSWORD).await.is_problem(503, "unavailable");
    anonymous.get("/v1/session").await.is_problem(429, "rate_limited");

    let service = Service::without_postgres(|config| {
        config.redis_url = format!("redis://{NOWHERE}").into();
        config.login_rate_limit.count = 1;
    })
    .await;
    let anonymous = service.anonymous();
    anonymous.sign_in("alice@example.com", PASSWORD).await.is_problem(503, "unavailable");
    anonymous.sign_in("alice@example.com", PASSWORD).await.is_problem(429, "rate_limited");
}

#[tokio::test]
async fn without_redis_a_made_up_token_does_not_escape_the_limit() {
    let service = Service::without_postgres(|config| {
        config.redis_url = format!("redis://{NOWHERE}").into();
        config.rate_limit.count = 2;
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let token = Token::new(Uuid::now_v7()).expect("randomness");
        let stranger = service.anonymous();
        stranger.cookie.replace(Some(format!("__Host-session={}", token.as_str())));
        answers.push(stranger.get("/v1/session").await.status.as_u16());
    }
    assert_eq!(answers, [503, 503, 429]);
}

#[sqlx::test]
async fn a_query_that_outlives_its_request_is_504(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let hurried =
        replica(&service, &pool, |config| config.request_timeout = Duration::from_millis(400)).await;
    let mut lock = pool.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE accounts").execute(&mut *lock).await.expect("nobody else is there");
    hurried.anonymous().sign_in(&alice.email, PASSWORD).await.is_problem(504, "timeout");
}

#[sqlx::test]
async fn without_postgres_sessions_go_on_and_the_rest_is_503_soon(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let mute = silence().await;
    for postgres in [NOWHERE.to_owned(), address(&mute)] {
        let url = format!("postgres://nobody@{postgres}/none");
        let broken = replica(&service, &pool, |config| config.database_url = url.into()).await;
        let elsewhere = alice.at(&broken);
        assert_eq!(elsewhere.get("/v1/session").await.status, 200);
        assert_eq!(elsewhere.get("/v1/sessions").await.status, 200);
        public_routes_answer(&broken).await;
        let change = json!({"current_password": PASSWORD, "new_password": "an even better one"});
        let limit = Duration::from_millis(1100) + MARGIN;
        let anonymous = broken.anonymous();
        let bob = json!({"email": "bob@example.com", "password": PASSWORD});
        let ((), sign_in, sign_up) = tokio::join!(
            is_down(&elsewhere, Method::PUT, "/v1/account/password", &change, limit),
            anonymous.sign_in("alice@example.com", PASSWORD),
            anonymous.post("/v1/accounts", &bob)
        );
        sign_in.is_problem(503, "unavailable");
        sign_up.is_problem(503, "unavailable");
        assert_eq!(elsewhere.delete("/v1/session").await.status, 204, "signing out needs no database");
        alice.sign_in(&alice.email, PASSWORD).await;
    }
}
