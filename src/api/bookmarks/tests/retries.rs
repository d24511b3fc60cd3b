//! `Idempotency-Key`: what a client may send twice.
use super::keep;
use crate::api::{
    actors::{Actor, Answer, Service, eventually},
    tests::outages::replica,
};
use axum::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::cell::Cell;

const KEY: &str = "7f1c9b0e-retry";

async fn create(actor: &Actor<'_>, key: &str, body: &Value) -> Answer {
    actor.send(Method::POST, "/v1/bookmarks", &[("idempotency-key", key)], Some(body)).await
}

async fn count(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM bookmarks").fetch_one(pool).await.expect("a count")
}

#[sqlx::test]
async fn a_repeat_gets_the_first_answer_to_the_last_byte(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let body = json!({"url": "https://example.com/", "tags": ["a"]});
    let first = create(&alice, KEY, &body).await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (201, ""));
    // What became of the bookmark since then does not matter.
    let changed = json!({"url": "https://example.com/changed"});
    let replaced =
        alice.send(Method::PUT, first.header("location"), &[("if-match", "*")], Some(&changed)).await;
    assert_eq!(replaced.status, 200);

    let same = json!({"tags": ["a"], "title": "", "url": "https://example.com/"});
    for repeat in [create(&alice, KEY, &body).await, create(&alice, KEY, &same).await] {
        assert_eq!(repeat.header("idempotency-replayed"), "true");
        assert_eq!((repeat.status, &repeat.text), (first.status, &first.text));
        for name in ["location", "etag", "content-type"] {
            assert_eq!(repeat.header(name), first.header(name), "{name}");
        }
    }
    assert_eq!(count(&pool).await, 1);
}

#[sqlx::test]
async fn a_key_holds_on_every_replica(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let other = replica(&service, &pool, |_| {}).await;
    let body = json!({"url": "https://example.com/"});
    let first = create(&alice, KEY, &body).await;
    let second = create(&alice.at(&other), KEY, &body).await;
    assert_eq!((second.status.as_u16(), second.header("idempotency-replayed")), (201, "true"));
    assert_eq!((second.text, count(&pool).await), (first.text, 1));
}

#[sqlx::test]
async fn a_key_stands_for_one_request_only(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    create(&alice, KEY, &json!({"url": "https://example.com/"})).await;
    let other = json!({"url": "https://example.com/other"});
    create(&alice, KEY, &other).await.is_problem(422, "idempotency_mismatch");
    assert_eq!(count(&pool).await, 1);
    assert_eq!(create(&alice, "another-key", &other).await.status, 201);
}

#[sqlx::test]
async fn a_refused_request_does_not_use_up_its_key(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    create(&alice, KEY, &json!({"url": "junk"})).await.is_invalid("url");
    let good = create(&alice, KEY, &json!({"url": "https://example.com/"})).await;
    assert_eq!((good.status.as_u16(), good.header("idempotency-replayed")), (201, ""));
}

#[sqlx::test]
async fn each_account_has_its_own_keys(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let hers = create(&alice, KEY, &json!({"url": "https://example.com/"})).await;
    let his = create(&bob, KEY, &json!({"url": "https://example.com/"})).await;
    assert_eq!((his.status.as_u16(), his.header("idempotency-replayed")), (201, ""));
    assert_ne!(his.body["id"], hers.body["id"]);
}

#[sqlx::test]
async fn without_a_key_each_request_is_its_own(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    for _ in 0..2 {
        keep(&alice, &json!({"url": "https://example.com/"})).await;
    }
    assert_eq!(count(&pool).await, 2);
}

#[sqlx::test]
async fn of_any_number_of_requests_with_one_key_one_runs(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let body = json!({"url": "https://example.com/"});
    let mut stopper = pool.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE bookmarks IN EXCLUSIVE MODE").execute(&mut *stopper).await.expect("a lock");
    let answered = Cell::new(0);
    let one_waits_and_all_others_are_refused = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'bookmarks'::regclass";
        eventually("each request waits for the table or has its answer", async || {
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.expect("a count");
            waiting + answered.get() == 20
        })
        .await;
        stopper.rollback().await.expect("the lock goes");
    };
    let requests = join_all((0..20).map(async |_| {
        let answer = create(&alice, KEY, &body).await;
        answered.set(answered.get() + 1);
        answer
    }));
    let (answers, ()) = tokio::join!(requests, one_waits_and_all_others_are_refused);
    let (done, running): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((done.len(), done[0].header("idempotency-replayed")), (1, ""));
    running.iter().for_each(|answer| answer.is_problem(409, "idempotency_in_progress"));
    let later = create(&alice, KEY, &body).await;
    assert_eq!((later.header("idempotency-replayed"), &later.text), ("true", &done[0].text));
    assert_eq!(count(&pool).await, 1);
}

#[sqlx::test]
async fn a_key_is_1_to_255_printable_characters(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let body = json!({"url": "https://example.com/"});
    for bad in ["", &"x".repeat(256), "a\tb", "é"] {
        create(&alice, bad, &body).await.is_invalid("idempotency-key");
    }
    assert_eq!(create(&alice, &"x".repeat(255), &body).await.status, 201);
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let twice = alice.send(Method::POST, "/v1/bookmarks", &twice, Some(&body)).await;
    twice.is_invalid("idempotency-key");
}

#[sqlx::test]
async fn a_key_is_forgotten_after_a_day(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let body = json!({"url": "https://example.com/"});
    create(&alice, KEY, &body).await;
    let age = "UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'";
    sqlx::query(age).execute(&pool).await.expect("aged");
    let anew = create(&alice, KEY, &body).await;
    assert_eq!((anew.status.as_u16(), anew.header("idempotency-replayed")), (201, ""));
    assert_eq!(count(&pool).await, 2);
}
