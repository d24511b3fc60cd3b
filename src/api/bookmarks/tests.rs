//! What bookmarks promise, over HTTP.
use crate::api::actors::Service;
use axum::http::Method;
use serde_json::json;
use sqlx::PgPool;

#[sqlx::test]
async fn a_bookmark_is_visible_to_its_owner_only(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let created = alice.post("/v1/bookmarks", &json!({"url": "https://example.com/"})).await;
    assert_eq!(created.status, 201);
    let path = created.header("location");
    assert_eq!(alice.get(path).await.body, created.body);
    bob.get(path).await.is_problem(404, "not_found");
    bob.send(Method::DELETE, path, &[("if-match", "*")], None).await.is_problem(404, "not_found");
    service.anonymous().get(path).await.is_problem(401, "no_session");
}
