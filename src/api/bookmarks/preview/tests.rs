//! What previews promise, over HTTP, with a stub of the upstream.
use crate::{
    api::actors::{Actor, NOWHERE, Service},
    config::Config,
};
use drill::upstream::Stub;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use std::time::{Duration, Instant};

fn of(stub: &Stub) -> impl FnOnce(&mut Config) {
    let url = stub.url();
    |config| config.preview_url = Some(url.into())
}

/// Keeps a bookmark; returns the path of its preview.
async fn keep(actor: &Actor<'_>) -> String {
    let created = actor.post("/v1/bookmarks", &json!({"url": "https://example.org/a/good-read"})).await;
    format!("{}/preview", created.header("location"))
}

#[sqlx::test]
async fn a_preview_is_asked_for_once_and_kept_for_an_hour(pool: PgPool) {
    let stub = Stub::start().await.expect("a stub");
    let service = Service::start_with(&pool, of(&stub)).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let expected = json!({
        "title": "good read",
        "description": "A page on example.org",
        "image_url": "https://example.org/preview.png",
    });
    let path = keep(&alice).await;
    for _ in 0..2 {
        let preview = alice.get(&path).await;
        assert_eq!((preview.status.as_u16(), preview.body), (200, expected.clone()));
    }
    assert_eq!(bob.get(&keep(&bob).await).await.body, expected, "a page is the same for everybody");
    assert_eq!(stub.calls(), 1);

    let redis = &service.app.redis;
    let keys: Vec<String> =
        redis.run("keys", redis::cmd("KEYS").arg(redis.key("preview:*"))).await.expect("Redis answers");
    let left: i64 = redis.run("ttl", redis::cmd("TTL").arg(&keys)).await.expect("one key");
    assert!((3500..=3600).contains(&left), "{left} s");
}

#[sqlx::test]
async fn cold_previews_of_one_bookmark_share_one_call(pool: PgPool) {
    let stub = Stub::start().await.expect("a stub");
    stub.delay(Duration::from_millis(500));
    let service = Service::start_with(&pool, of(&stub)).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice).await;
    let answers = join_all((0..8).map(|_| alice.get(&path))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(stub.calls(), 1);
}

#[sqlx::test]
async fn a_client_that_hangs_up_does_not_take_the_others_preview_along(pool: PgPool) {
    let stub = Stub::start().await.expect("a stub");
    stub.delay(Duration::from_millis(500));
    let service = Service::start_with(&pool, of(&stub)).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice).await;
    let impatient = tokio::time::timeout(Duration::from_millis(250), alice.get(&path));
    let (hung_up, answer) = tokio::join!(impatient, alice.get(&path));
    assert!(hung_up.is_err(), "it was to hang up before the upstream answers");
    assert_eq!((answer.status.as_u16(), stub.calls()), (200, 1), "{answer:?}");
}

#[sqlx::test]
async fn without_an_upstream_there_are_no_previews(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let path = keep(&alice).await;
    alice.get(&path).await.is_problem(501, "preview_disabled");
    bob.get(&path).await.is_problem(404, "not_found");
}

#[sqlx::test]
async fn others_bookmarks_have_no_preview(pool: PgPool) {
    let stub = Stub::start().await.expect("a stub");
    let service = Service::start_with(&pool, of(&stub)).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let path = keep(&alice).await;
    assert_eq!(alice.get(&path).await.status, 200);
    bob.get(&path).await.is_problem(404, "not_found");
    service.anonymous().get(&path).await.is_problem(401, "no_session");
}

#[sqlx::test]
async fn an_answer_that_is_of_no_use_is_502_and_is_not_kept(pool: PgPool) {
    let stub = Stub::start().await.expect("a stub");
    let service = Service::start_with(&pool, of(&stub)).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice).await;
    for (status, body) in [
        (500, "{}"),
        (404, "{}"),
        (302, "{}"),
        (200, "not json"),
        (200, "{}"),
        (200, r#"{"title":7}"#),
        (200, "canary"),
    ] {
        stub.answer(status, body);
        let refused = alice.get(&path).await;
        refused.is_problem(502, "upstream_failed");
        let port = stub.url().rsplit(':').next().expect("a port").to_owned();
        for leak in ["canary", "127.0.0.1", port.as_str(), "serde", "missing field"] {
            assert!(
                !refused.body["detail"].as_str().is_some_and(|detail| detail.contains(leak)),
                "{refused:?}"
            );
        }
    }
    stub.reset();
    assert_eq!(alice.get(&path).await.status, 200);
}

#[sqlx::test]
async fn an_upstream_that_refuses_is_502(pool: PgPool) {
    let service =
        Service::start_with(&pool, |config| config.preview_url = Some(format!("http://{NOWHERE}").into()))
            .await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice).await;
    let refused = alice.get(&path).await;
    refused.is_problem(502, "upstream_failed");
    assert!(!refused.text.contains(NOWHERE), "{refused:?}");
}

#[sqlx::test]
async fn a_slow_upstream_is_504_in_time(pool: PgPool) {
    let stub = Stub::start().await.expect("a stub");
    stub.delay(Duration::from_secs(60));
    let service = Service::start_with(&pool, |config| {
        of(&stub)(config);
        config.preview_timeout = Duration::from_millis(300);
    })
    .await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice).await;
    let start = Instant::now();
    alice.get(&path).await.is_problem(504, "upstream_timeout");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(alice.get("/v1/bookmarks").await.status, 200, "everything else is well");
}

#[sqlx::test]
async fn an_upstream_that_keeps_failing_is_left_alone(pool: PgPool) {
    let stub = Stub::start().await.expect("a stub");
    stub.answer(500, "{}");
    let service = Service::start_with(&pool, of(&stub)).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice).await;
    for _ in 0..20 {
        alice.get(&path).await.is_problem(502, "upstream_failed");
    }
    let refused = alice.get(&path).await;
    refused.is_problem(503, "upstream_unavailable");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=5).contains(&wait), "{wait}");
    assert_eq!(stub.calls(), 20);
}
