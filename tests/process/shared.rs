//! Two servers on the same services: no state of a client lives in one process.
use crate::service::{client, server, sign_up};
use serde_json::{Value, json};
use sqlx::PgPool;

#[sqlx::test]
async fn a_session_and_an_idempotency_key_hold_on_every_replica(pool: PgPool) {
    let (one, two) = tokio::join!(server(&pool, "shared").start(), server(&pool, "shared").start());
    let (one, two) = (one.unwrap(), two.unwrap());
    let cookie = sign_up(&one, "alice@example.com").await;

    let keep = async |url: String| {
        let keep = client().post(url).header("cookie", &cookie).header("idempotency-key", "once");
        keep.json(&json!({"url": "https://example.com/"})).send().await.unwrap()
    };
    let first = keep(one.url("/v1/bookmarks")).await;
    assert_eq!(first.status(), 201);
    let second = keep(two.url("/v1/bookmarks")).await;
    assert_eq!(
        (second.status().as_u16(), &second.headers()["idempotency-replayed"]),
        (201, &"true".parse().unwrap())
    );
    assert_eq!(first.text().await.unwrap(), second.text().await.unwrap());
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM bookmarks").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 1);

    let show = async |url: String| client().get(url).header("cookie", &cookie).send().await.unwrap();
    assert_eq!(
        show(two.url("/v1/session")).await.json::<Value>().await.unwrap()["account"]["email"],
        "alice@example.com"
    );
    let out = client().delete(two.url("/v1/session")).header("cookie", &cookie).send().await.unwrap();
    assert_eq!(out.status(), 204);
    assert_eq!(show(one.url("/v1/session")).await.status(), 401);
}
