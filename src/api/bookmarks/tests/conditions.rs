//! `If-None-Match` and `If-Match`.
use super::keep;
use crate::api::actors::{Service, eventually};
use axum::http::Method;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::PgPool;

#[sqlx::test]
async fn what_has_not_changed_is_not_sent_again(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice, &json!({"url": "https://example.com/"})).await;
    let etag = alice.get(&path).await.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "a strong tag: {etag}");
    for same in [&etag, &format!("W/{etag}"), &format!("\"other\", {etag}"), "*"] {
        let answer = alice.send(Method::GET, &path, &[("if-none-match", same)], None).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (304, ""), "{same}");
        assert_eq!(answer.header("etag"), etag);
        answer.is_protected();
    }
    let other = alice.send(Method::GET, &path, &[("if-none-match", "\"other\"")], None).await;
    assert_eq!(other.status, 200);

    let body = json!({"url": "https://example.com/2"});
    alice.send(Method::PUT, &path, &[("if-match", &etag)], Some(&body)).await;
    let changed = alice.send(Method::GET, &path, &[("if-none-match", &etag)], None).await;
    assert_eq!((changed.status.as_u16(), &changed.body["url"]), (200, &json!("https://example.com/2")));
}

#[sqlx::test]
async fn a_replacement_needs_the_tag_of_what_it_replaces(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice, &json!({"url": "https://example.com/", "title": "old", "tags": ["old"]})).await;
    let old = alice.get(&path).await;
    let body = json!({"url": "https://example.com/new"});
    alice.put(&path, &body).await.is_problem(428, "if_match_required");
    let replace = async |tag: &str| alice.send(Method::PUT, &path, &[("if-match", tag)], Some(&body)).await;
    replace("\"other\"").await.is_problem(412, "stale");
    replace("").await.is_problem(412, "stale");
    replace(&format!("W/{}", old.header("etag"))).await.is_problem(412, "stale");

    let replaced = replace(old.header("etag")).await;
    assert_eq!(replaced.status, 200);
    assert_eq!((&replaced.body["title"], &replaced.body["tags"]), (&json!(""), &json!([])), "replaced whole");
    assert_eq!((&replaced.body["version"], &replaced.body["id"]), (&json!(2), &old.body["id"]));
    assert_eq!(replaced.body["created_at"], old.body["created_at"]);
    assert_ne!(replaced.body["updated_at"], old.body["updated_at"]);
    assert_ne!(replaced.header("etag"), old.header("etag"));
    let read = alice.get(&path).await;
    assert_eq!((&read.body, read.header("etag")), (&replaced.body, replaced.header("etag")));
    replace(old.header("etag")).await.is_problem(412, "stale");
}

#[sqlx::test]
async fn a_deletion_needs_the_tag_too(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice, &json!({"url": "https://example.com/"})).await;
    alice.delete(&path).await.is_problem(428, "if_match_required");
    let delete = async |tag: &str| alice.send(Method::DELETE, &path, &[("if-match", tag)], None).await;
    delete("\"other\"").await.is_problem(412, "stale");
    assert_eq!(alice.get(&path).await.status, 200);
    let deleted = delete(alice.get(&path).await.header("etag")).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    alice.get(&path).await.is_problem(404, "not_found");
    delete("*").await.is_problem(404, "not_found");
}

#[sqlx::test]
async fn of_several_writers_with_one_tag_one_wins(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice, &json!({"url": "https://example.com/"})).await;
    let mut stopper = pool.begin().await.expect("a transaction");
    sqlx::query("SELECT id FROM bookmarks FOR UPDATE").execute(&mut *stopper).await.expect("a lock");
    let all_have_read = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("three writers wait for the row", async || {
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.expect("a count");
            count == 3
        })
        .await;
        stopper.rollback().await.expect("the lock goes");
    };
    let write = async |writer: usize| {
        let body = json!({"url": format!("https://example.com/{writer}")});
        alice.send(Method::PUT, &path, &[("if-match", "\"1\"")], Some(&body)).await
    };
    let (answers, ()) = tokio::join!(join_all([write(0), write(1), write(2)]), all_have_read);
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(won.len(), 1);
    lost.iter().for_each(|answer| answer.is_problem(412, "stale"));
    assert_eq!(alice.get(&path).await.body, won[0].body);
}
