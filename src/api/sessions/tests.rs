//! What sessions promise, over HTTP.
mod limits;
mod time;
mod token;

use crate::api::actors::{PASSWORD, Service};
use axum::http::Method;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

#[sqlx::test]
async fn signing_in_answers_the_session_and_sets_the_cookie(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let phone = service.anonymous();
    let session = phone.sign_in("ALICE@EXAMPLE.COM", PASSWORD).await;
    assert_eq!(session.status, 201);
    let shown = phone.get("/v1/session").await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.body, session.body);
    let fields: Vec<&String> = session.body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["account", "created_at", "expires_at"]);
    assert_eq!(session.body["account"], alice.get("/v1/session").await.body["account"]);
    assert_eq!(session.body["account"]["email"], "alice@example.com", "as it was typed at first");

    let cookie = session.header("set-cookie");
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert!(pair.starts_with("__Host-session="), "{cookie}");
    let mut attributes: Vec<&str> = attributes.split("; ").collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Lax", "Secure"]);
    assert_eq!(session.header("cache-control"), "no-store");
    assert_eq!(session.headers.get_all("set-cookie").iter().count(), 1);
}

#[sqlx::test]
async fn nobody_learns_from_a_sign_in_who_has_an_account(pool: PgPool) {
    let service = Service::start(&pool).await;
    service.sign_up("alice").await;
    let mut bodies = Vec::new();
    for email in ["alice@example.com", "nobody@example.com"] {
        let refused = service.anonymous().sign_in(email, "not the password").await;
        refused.is_problem(401, "bad_credentials");
        assert_eq!(refused.header("set-cookie"), "");
        bodies.push(refused.text.replace(refused.header("x-request-id"), ""));
    }
    assert_eq!(bodies[0], bodies[1]);
}

#[sqlx::test]
async fn malformed_credentials_are_named(pool: PgPool) {
    let service = Service::start(&pool).await;
    let anonymous = service.anonymous();
    for (field, body) in [
        ("email", json!({"password": PASSWORD})),
        ("password", json!({"email": "alice@example.com"})),
        ("email", json!({"email": "a\0@example.com", "password": PASSWORD})),
        ("password", json!({"email": "alice@example.com", "password": "\0"})),
        ("password", json!({"email": "alice@example.com", "password": "x".repeat(129)})),
        ("remember", json!({"email": "alice@example.com", "password": PASSWORD, "remember": true})),
        ("body", json!([])),
    ] {
        anonymous.post("/v1/session", &body).await.is_invalid(field);
    }
}

#[sqlx::test]
async fn signing_out_ends_the_session_on_every_replica(pool: PgPool) {
    let service = Service::start(&pool).await;
    let replica = Service::start_with(&pool, |config| {
        config.redis_prefix.clone_from(&service.config.redis_prefix);
    })
    .await;
    let alice = service.sign_up("alice").await;
    let elsewhere = alice.at(&replica);
    assert_eq!(elsewhere.get("/v1/session").await.status, 200, "a session is nobody's own");

    let out = alice.delete("/v1/session").await;
    assert_eq!(out.status, 204);
    let removal = "__Host-session=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax";
    assert_eq!(out.header("set-cookie"), removal);
    assert_eq!(out.header("clear-site-data"), "\"cache\", \"storage\"");
    elsewhere.get("/v1/session").await.is_problem(401, "no_session");
    elsewhere.delete("/v1/session").await.is_problem(401, "no_session");
}

#[sqlx::test]
async fn the_list_tells_where_an_account_is_signed_in(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    service.sign_up("bob").await;
    let phone = service.anonymous();
    let credentials = json!({"email": alice.email, "password": PASSWORD});
    let agent = format!("Phone \"1\" {}", "x".repeat(300));
    phone.send(Method::POST, "/v1/session", &[("user-agent", &agent)], Some(&credentials)).await;

    let list = phone.get("/v1/sessions").await;
    assert_eq!(list.status, 200);
    let items = list.body["items"].as_array().expect("a list");
    assert_eq!(items.len(), 2, "newest first, nobody else's: {list:?}");
    assert_eq!(items[0]["user_agent"], agent[..200]);
    let current: Vec<&serde_json::Value> = items.iter().map(|item| &item["current"]).collect();
    assert_eq!(current, [true, false]);
    let fields: Vec<&String> = items[0].as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["created_at", "current", "id", "last_seen_at", "user_agent"]);
    let cookie = phone.cookie.borrow().clone().expect("signed in");
    let secret = cookie.split_once('=').expect("a pair").1;
    assert!(!list.text.contains(secret), "handles are not tokens");
    service.anonymous().get("/v1/sessions").await.is_problem(401, "no_session");
}

#[sqlx::test]
async fn one_session_can_be_ended_by_its_handle(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let phone = service.anonymous();
    phone.sign_in(&alice.email, PASSWORD).await;
    let list = alice.get("/v1/sessions").await.body;
    let path =
        |item: usize| format!("/v1/sessions/{}", list["items"][item]["id"].as_str().expect("a handle"));
    let (phones, own) = (path(0), path(1));

    bob.delete(&phones).await.is_problem(404, "not_found");
    service.anonymous().delete(&phones).await.is_problem(401, "no_session");
    for nobodys in ["junk", "1", &Uuid::now_v7().to_string()] {
        alice.delete(&format!("/v1/sessions/{nobodys}")).await.is_problem(404, "not_found");
    }
    assert_eq!(phone.get("/v1/session").await.status, 200, "still there");

    let ended = alice.delete(&phones).await;
    assert_eq!((ended.status.as_u16(), ended.header("set-cookie")), (204, ""), "this one stays");
    phone.get("/v1/session").await.is_problem(401, "no_session");
    alice.delete(&phones).await.is_problem(404, "not_found");

    assert!(alice.delete(&own).await.header("set-cookie").starts_with("__Host-session=;"));
    assert_eq!(alice.cookie.take(), None);
    assert_eq!(bob.get("/v1/session").await.status, 200);
}

#[sqlx::test]
async fn one_can_sign_out_everywhere(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let phone = service.anonymous();
    phone.sign_in(&alice.email, PASSWORD).await;
    let here = alice.at(&service);

    let out = alice.delete("/v1/sessions").await;
    assert_eq!(out.status, 204);
    assert_eq!(alice.cookie.take(), None, "the cookie goes too");
    for ended in [&here, &phone] {
        ended.get("/v1/session").await.is_problem(401, "no_session");
    }
    assert_eq!(bob.get("/v1/session").await.status, 200);
    service.anonymous().delete("/v1/sessions").await.is_problem(401, "no_session");
}
