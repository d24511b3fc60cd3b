//! How long sessions live. Redis keeps this time, so these tests must let it pass.
use crate::api::actors::{PASSWORD, Service};
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// Long enough for a request to come through on a crowded machine.
const IDLE: Duration = Duration::from_secs(4);

#[sqlx::test]
async fn a_session_ends_when_it_is_not_used_and_lives_on_while_it_is(pool: PgPool) {
    let service = Service::start_with(&pool, |config| config.session_idle = IDLE).await;
    let (alice, phone) = (service.sign_up("alice").await, service.anonymous());
    phone.sign_in(&alice.email, PASSWORD).await;
    let seen = |list: &serde_json::Value| list["items"][0]["last_seen_at"].as_str().map(str::to_owned);
    let first_seen = seen(&alice.get("/v1/sessions").await.body);

    let start = Instant::now();
    while start.elapsed() < IDLE + Duration::from_millis(100) {
        assert_eq!(alice.get("/v1/session").await.status, 200, "in use");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let list = alice.get("/v1/sessions").await.body;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "the idle one is not listed: {list}");
    assert!(seen(&list) > first_seen, "{first_seen:?} {list}");
    phone.get("/v1/session").await.is_problem(401, "no_session");
}

#[sqlx::test]
async fn a_session_ends_at_its_limit_however_busy_it_is(pool: PgPool) {
    let life = Duration::from_secs(1);
    let service = Service::start_with(&pool, |config| {
        (config.session_idle, config.session_max) = (life, life);
    })
    .await;
    let start = Instant::now();
    let alice = service.sign_up("alice").await;
    let (session, signed_up) = (alice.get("/v1/session").await.body, Instant::now());
    let time = |name: &str| session[name].as_str().and_then(|time| time.parse().ok()).expect(name);
    let (created, expires): (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>) =
        (time("created_at"), time("expires_at"));
    assert_eq!((expires - created).to_std(), Ok(life));

    let ended = loop {
        let answer = alice.get("/v1/session").await;
        if answer.status != 200 {
            break answer;
        }
        assert!(signed_up.elapsed() < life + Duration::from_secs(5), "it never ends");
    };
    ended.is_problem(401, "no_session");
    assert!(start.elapsed() >= life, "too early");
}

#[sqlx::test]
async fn the_store_forgets_a_session_that_nobody_ends(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let id = alice.get("/v1/session").await.body["account"]["id"].as_str().expect("an id").to_owned();
    let redis = &service.app.redis;
    let key = redis.key(format!("sessions:{{{id}}}"));
    let left: i64 = redis.run("ttl", redis::cmd("TTL").arg(key)).await.expect("Redis answers");
    let most = 12 * 3600 + 60;
    assert!((1..=most).contains(&left), "{left} s: its longest life, and the limit's window");
}
