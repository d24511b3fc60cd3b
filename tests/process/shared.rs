//! Two servers on the same services: no state of a client lives in one process.
use crate::service::{client, server, sign_up};
use serde_json::Value;
use sqlx::PgPool;

#[sqlx::test]
async fn a_session_holds_and_ends_on_every_replica(pool: PgPool) {
    let (one, two) = tokio::join!(server(&pool, "shared").start(), server(&pool, "shared").start());
    let (one, two) = (one.unwrap(), two.unwrap());
    let cookie = sign_up(&one, "alice@example.com").await;

    let show = async |url: String| client().get(url).header("cookie", &cookie).send().await.unwrap();
    assert_eq!(
        show(two.url("/v1/session")).await.json::<Value>().await.unwrap()["account"]["email"],
        "alice@example.com"
    );
    let out = client().delete(two.url("/v1/session")).header("cookie", &cookie).send().await.unwrap();
    assert_eq!(out.status(), 204);
    assert_eq!(show(one.url("/v1/session")).await.status(), 401);
}
