//! What bookmarks answer while Redis or Postgres is down.
use super::keep;
use crate::api::{
    actors::{NOWHERE, Service},
    tests::outages::{MARGIN, address, is_down, replica, silence},
};
use axum::http::Method;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;

/// Every operation, cached previews too: whose the bookmark is must be asked.
fn operations(bookmark: &str) -> [(Method, String); 6] {
    [
        (Method::GET, "/v1/bookmarks".to_owned()),
        (Method::POST, "/v1/bookmarks".to_owned()),
        (Method::GET, bookmark.to_owned()),
        (Method::PUT, bookmark.to_owned()),
        (Method::DELETE, bookmark.to_owned()),
        (Method::GET, format!("{bookmark}/preview")),
    ]
}

#[sqlx::test]
async fn without_redis_or_postgres_every_operation_is_503_and_nothing_is_lost(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let body = json!({"url": "https://example.com/"});
    let bookmark = keep(&alice, &body).await;
    let mute = silence().await;
    for down in [NOWHERE.to_owned(), address(&mute)] {
        let redis = replica(&service, &pool, |config| config.redis_url = format!("redis://{down}").into());
        let url = format!("postgres://nobody@{down}/none");
        let postgres = replica(&service, &pool, |config| config.database_url = url.into());
        for (broken, limit_ms) in [(redis.await, 500), (postgres.await, 1100)] {
            let elsewhere = alice.at(&broken);
            let limit = Duration::from_millis(limit_ms) + MARGIN;
            let all = operations(&bookmark);
            let all =
                all.iter().map(|(method, path)| is_down(&elsewhere, method.clone(), path, &body, limit));
            join_all(all).await;
        }
    }
    assert_eq!(alice.get(&bookmark).await.body["version"], 1);
}
