//! The token: what the store knows of it, and when it is worth nothing.
use crate::{
    api::actors::{Actor, PASSWORD, Service},
    http::session::Token,
};
use axum::http::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

fn secret(actor: &Actor) -> String {
    let cookie = actor.cookie.borrow().clone().expect("signed in");
    cookie.split_once('=').expect("a pair").1.to_owned()
}

/// Every key of this service in Redis, and with a session's key what it holds.
async fn stored(service: &Service) -> Vec<Vec<u8>> {
    let redis = &service.app.redis;
    let keys = redis.run("keys", redis::cmd("KEYS").arg(redis.key("*"))).await;
    let mut found: Vec<Vec<u8>> = keys.expect("Redis answers");
    for key in found.clone() {
        if shows(std::slice::from_ref(&key), "sessions:") {
            let all: Vec<Vec<u8>> =
                redis.run("all", redis::cmd("HGETALL").arg(&key)).await.expect("Redis answers");
            found.extend(all);
        }
    }
    found
}

fn shows(stored: &[Vec<u8>], text: &str) -> bool {
    stored.iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[sqlx::test]
async fn the_store_knows_the_hash_of_a_token_and_not_the_token(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    alice.get("/v1/session").await;
    let secret = secret(&alice);
    assert!(secret.len() >= 22, "128 bits take 22 characters of base64url: {secret}");
    let stored = stored(&service).await;
    let hash = Sha256::digest(&secret).to_vec();
    assert!(stored.contains(&hash), "{hash:?} is missing in {stored:?}");
    assert!(!shows(&stored, &secret), "{secret} is in {stored:?}");
}

#[sqlx::test]
async fn a_token_sent_along_with_a_sign_in_dies(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let first = alice.at(&service);
    assert_eq!(alice.sign_in("alice@example.com", PASSWORD).await.status, 201);
    assert_ne!(alice.cookie, first.cookie);
    first.get("/v1/session").await.is_problem(401, "no_session");

    let second = alice.at(&service);
    let bob = json!({"email": "bob@example.com", "password": PASSWORD});
    assert_eq!(alice.post("/v1/accounts", &bob).await.status, 201);
    second.get("/v1/session").await.is_problem(401, "no_session");
    assert_eq!(alice.get("/v1/session").await.body["account"]["email"], "bob@example.com");
}

#[sqlx::test]
async fn a_sign_in_that_fails_leaves_the_session_alone(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    alice.sign_in("alice@example.com", "not the password").await.is_problem(401, "bad_credentials");
    assert_eq!(alice.get("/v1/session").await.status, 200);
}

#[sqlx::test]
async fn a_token_that_was_never_given_out_is_never_adopted(pool: PgPool) {
    let service = Service::start(&pool).await;
    let mallory = service.anonymous();
    let token = Token::new(Uuid::now_v7()).expect("randomness");
    for planted in [token.as_str(), "", "junk", &"A".repeat(64), &"é".repeat(32), &"x".repeat(8192)] {
        mallory.cookie.replace(Some(format!("__Host-session={planted}")));
        let refused = mallory.get("/v1/session").await;
        refused.is_problem(401, "no_session");
        assert_eq!(refused.header("set-cookie"), "");
    }
    let stored = stored(&service).await;
    assert!(!shows(&stored, "sessions:"), "{stored:?}");

    // Not even with the id of an account that is signed in elsewhere.
    let alice = service.sign_up("alice").await;
    let id: Uuid = serde_json::from_value(alice.get("/v1/session").await.body["account"]["id"].clone())
        .expect("an account");
    let forged = Token::new(id).expect("randomness");
    mallory.cookie.replace(Some(format!("__Host-session={}", forged.as_str())));
    mallory.get("/v1/session").await.is_problem(401, "no_session");

    mallory.sign_in(&alice.email, PASSWORD).await;
    assert_ne!(secret(&mallory), forged.as_str(), "a sign-in makes its own token");
}

#[sqlx::test]
async fn two_session_cookies_are_none(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let (hers, his) = (secret(&alice), secret(&bob));
    let anonymous = service.anonymous();
    for other in [&hers, &his, "junk"] {
        let both = format!("__Host-session={hers}; __Host-session={other}");
        let refused = anonymous.send(Method::GET, "/v1/session", &[("cookie", &both)], None).await;
        refused.is_problem(401, "no_session");
    }
    let two_headers =
        [("cookie", format!("__Host-session={hers}")), ("cookie", format!("__Host-session={his}"))];
    let two_headers = two_headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    anonymous.send(Method::GET, "/v1/session", &two_headers, None).await.is_problem(401, "no_session");

    let among_others = format!("a=b; __Host-session={hers}; session={his}");
    let one = anonymous.send(Method::GET, "/v1/session", &[("cookie", &among_others)], None).await;
    assert_eq!(one.status, 200);
}
