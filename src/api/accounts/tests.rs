//! What accounts promise, over HTTP.
use crate::api::actors::{Answer, PASSWORD, Service};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;

async fn sign_up(service: &Service, email: impl Into<Value>, password: impl Into<Value>) -> Answer {
    let body = json!({"email": email.into(), "password": password.into()});
    service.anonymous().post("/v1/accounts", &body).await
}

async fn count(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM accounts").fetch_one(pool).await.expect("a count")
}

#[sqlx::test]
async fn signing_up_makes_an_account_and_signs_it_in(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.anonymous();
    let made = alice.post("/v1/accounts", &json!({"email": "Alice@Example.com", "password": PASSWORD})).await;
    assert_eq!(made.status, 201);
    let fields: Vec<&String> = made.body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["created_at", "email", "id"]);
    assert_eq!(made.body["email"], "Alice@Example.com", "as typed");
    let id: uuid::Uuid = serde_json::from_value(made.body["id"].clone()).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert!(made.body["created_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{made:?}");
    assert_eq!(made.header("cache-control"), "no-store");

    let session = alice.get("/v1/session").await;
    assert_eq!(session.body["account"], json!({"id": id, "email": "Alice@Example.com"}));
    let hash: String =
        sqlx::query_scalar("SELECT password_hash FROM accounts").fetch_one(&pool).await.expect("a row");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
}

#[sqlx::test]
async fn one_address_has_one_account_whatever_its_case(pool: PgPool) {
    let service = Service::start(&pool).await;
    service.sign_up("alice").await;
    let again = sign_up(&service, "ALICE@example.com", PASSWORD).await;
    again.is_problem(409, "email_taken");
    assert_eq!(again.header("set-cookie"), "");
    assert_eq!(count(&pool).await, 1);
}

#[sqlx::test]
async fn of_several_people_with_one_address_one_signs_up(pool: PgPool) {
    let service = Service::start_with(&pool, |config| config.worker_threads = 16).await;
    let answers = join_all((0..4).map(|_| sign_up(&service, "alice@example.com", PASSWORD))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
    assert_eq!(count(&pool).await, 1);
}

#[sqlx::test]
async fn what_cannot_be_an_address_is_refused(pool: PgPool) {
    let service = Service::start(&pool).await;
    let long = format!("{}@example.com", "a".repeat(243));
    for email in ["", "alice", "@example.com", "alice@", "a@b@c", "a b@example.com", "a@exam\0ple.com", &long]
    {
        sign_up(&service, email, PASSWORD).await.is_invalid("email");
    }
    sign_up(&service, Value::Null, PASSWORD).await.is_invalid("email");
    assert_eq!(sign_up(&service, &long[1..], PASSWORD).await.status, 201, "254 characters");
}

#[sqlx::test]
async fn a_password_has_8_to_128_characters_and_is_not_a_common_one(pool: PgPool) {
    let service = Service::start(&pool).await;
    for password in ["", "1234567", &"x".repeat(129), "password", "PassWord1", "corr\0ect horse"] {
        sign_up(&service, "alice@example.com", password).await.is_invalid("password");
    }
    let typed = sign_up(&service, "alice@example.com", 4_815_162_342_u64).await;
    typed.is_invalid("password");
    assert!(!typed.text.contains("4815162342"), "no answer repeats a password: {typed:?}");

    let longest = "ü".repeat(127) + "!";
    for (email, password) in [("a@example.com", "äöüßÄÖÜé"), ("b@example.com", &longest)] {
        assert_eq!(sign_up(&service, email, password).await.status, 201, "{password}");
    }
    let cut = service.anonymous().sign_in("b@example.com", &"ü".repeat(127)).await;
    cut.is_problem(401, "bad_credentials");
    assert_eq!(service.anonymous().sign_in("b@example.com", &longest).await.status, 201);
}

#[sqlx::test]
async fn a_password_change_ends_every_other_session_and_renews_this_one(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let phone = service.anonymous();
    assert_eq!(phone.sign_in(&alice.email, PASSWORD).await.status, 201);
    let old = alice.at(&service);

    let body = json!({"current_password": PASSWORD, "new_password": "an even better one"});
    let changed = alice.put("/v1/account/password", &body).await;
    assert_eq!((changed.status.as_u16(), changed.text.as_str()), (204, ""));

    assert_ne!(alice.cookie, old.cookie, "a new token");
    assert_eq!(alice.get("/v1/session").await.status, 200);
    for ended in [&old, &phone] {
        ended.get("/v1/session").await.is_problem(401, "no_session");
    }
    let left = alice.get("/v1/sessions").await;
    assert_eq!(left.body["items"].as_array().map(Vec::len), Some(1), "{left:?}");
    assert_eq!(bob.get("/v1/session").await.status, 200, "another account's");
    phone.sign_in(&alice.email, PASSWORD).await.is_problem(401, "bad_credentials");
    assert_eq!(phone.sign_in(&alice.email, "an even better one").await.status, 201);
}

#[sqlx::test]
async fn a_refused_password_change_changes_nothing(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let cookie = alice.cookie.clone();
    let change = async |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        alice.put("/v1/account/password", &body).await
    };
    change("not the one", "an even better one").await.is_problem(403, "bad_credentials");
    for new in ["short", "password", &"x".repeat(129), "nul\0nul\0nul"] {
        change(PASSWORD, new).await.is_invalid("new_password");
    }
    change("", "an even better one").await.is_invalid("current_password");
    assert_eq!(alice.cookie, cookie);
    assert_eq!(alice.get("/v1/session").await.status, 200);
    assert_eq!(service.anonymous().sign_in(&alice.email, PASSWORD).await.status, 201);

    let body = json!({"current_password": PASSWORD, "new_password": "an even better one"});
    service.anonymous().put("/v1/account/password", &body).await.is_problem(401, "no_session");
}

#[sqlx::test]
async fn guessing_the_current_password_is_limited(pool: PgPool) {
    let service = Service::start_with(&pool, |config| config.login_rate_limit.count = 2).await;
    let alice = service.sign_up("alice").await;
    let body = json!({"current_password": "not the one", "new_password": "an even better one"});
    for _ in 0..2 {
        alice.put("/v1/account/password", &body).await.is_problem(403, "bad_credentials");
    }
    alice.put("/v1/account/password", &body).await.is_problem(429, "rate_limited");
}
