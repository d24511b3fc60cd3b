//! The limit on sign-ins.
use crate::{
    api::actors::{Answer, PASSWORD, Service},
    config::Config,
};
use axum::http::Method;
use serde_json::json;
use sqlx::PgPool;

fn three_behind_one_proxy(config: &mut Config) {
    (config.login_rate_limit.count, config.trusted_proxies) = (3, 1);
}

async fn sign_in(service: &Service, network: &str, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password});
    let headers = [("x-forwarded-for", network)];
    service.anonymous().send(Method::POST, "/v1/session", &headers, Some(&body)).await
}

#[track_caller]
fn is_limited(answer: &Answer) {
    answer.is_problem(429, "rate_limited");
    assert_eq!(answer.header("ratelimit-policy"), "\"sign-ins\";q=3;w=60");
    assert!(answer.header("ratelimit").starts_with("\"sign-ins\";r=0;t="), "{answer:?}");
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=20).contains(&wait), "one is free after a third of a minute: {wait}");
}

#[sqlx::test]
async fn an_account_is_guarded_against_guessing_from_many_networks(pool: PgPool) {
    let service = Service::start_with(&pool, three_behind_one_proxy).await;
    let alice = service.sign_up("alice").await;
    for (guess, email) in ["alice@example.com", "Alice@Example.com", "ALICE@EXAMPLE.COM"].iter().enumerate() {
        let network = format!("192.0.2.{guess}");
        sign_in(&service, &network, email, "a guess").await.is_problem(401, "bad_credentials");
    }
    is_limited(&sign_in(&service, "192.0.2.9", "alice@example.com", PASSWORD).await);
    assert_eq!(alice.get("/v1/session").await.status, 200, "who is signed in stays so");
    service.sign_up("bob").await;
    assert_eq!(sign_in(&service, "192.0.2.10", "bob@example.com", PASSWORD).await.status, 201);
}

#[sqlx::test]
async fn an_address_without_an_account_is_limited_alike(pool: PgPool) {
    let service = Service::start_with(&pool, three_behind_one_proxy).await;
    for guess in 0..3 {
        let network = format!("192.0.2.{guess}");
        sign_in(&service, &network, "nobody@example.com", "a guess").await.is_problem(401, "bad_credentials");
    }
    is_limited(&sign_in(&service, "192.0.2.9", "nobody@example.com", "a guess").await);
}

#[sqlx::test]
async fn a_network_is_limited_whomever_it_names(pool: PgPool) {
    let service = Service::start_with(&pool, three_behind_one_proxy).await;
    for guess in 0..3 {
        // One customer's /64; what the client claims itself is not believed.
        let network = format!("198.51.100.{guess}, 2001:db8:1:2::{guess}");
        let answer = sign_in(&service, &network, &format!("u{guess}@example.com"), "a guess").await;
        answer.is_problem(401, "bad_credentials");
    }
    is_limited(&sign_in(&service, "2001:db8:1:2:ffff::1", "u9@example.com", "a guess").await);
    let headers = [("x-forwarded-for", "2001:db8:1:2::7")];
    let body = json!({"email": "new@example.com", "password": PASSWORD});
    let sign_up = service.anonymous().send(Method::POST, "/v1/accounts", &headers, Some(&body)).await;
    is_limited(&sign_up);
    let next_door = sign_in(&service, "2001:db8:1:3::1", "u9@example.com", "a guess").await;
    next_door.is_problem(401, "bad_credentials");
}
