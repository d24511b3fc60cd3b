//! What notes promise, over HTTP.
use crate::api::actors::{Actor, Service};
use serde_json::{Value, json};
use sqlx::PgPool;

/// Makes a note and returns where it is.
async fn make(actor: &Actor<'_>, text: &str) -> String {
    let made = actor.post("/v1/notes", &json!({"text": text})).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.header("location").to_owned()
}

#[sqlx::test]
async fn a_note_comes_back_as_it_was_sent_until_it_is_deleted(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let path = make(&alice, "An \"odd\" one 🦀").await;
    let read = alice.get(&path).await;
    assert_eq!((read.status.as_u16(), &read.body["text"]), (200, &json!("An \"odd\" one 🦀")));
    assert_eq!(alice.delete(&path).await.status, 204);
    alice.get(&path).await.is_problem(404, "not_found");
    alice.delete(&path).await.is_problem(404, "not_found");
}

#[sqlx::test]
async fn a_note_is_there_for_its_owner_only(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob, anonymous) =
        (service.sign_up("alice").await, service.sign_up("bob").await, service.anonymous());
    let path = make(&alice, "mine").await;
    bob.get(&path).await.is_problem(404, "not_found");
    bob.delete(&path).await.is_problem(404, "not_found");
    assert_eq!(bob.get("/v1/notes").await.body["items"], json!([]));
    anonymous.get(&path).await.is_problem(401, "no_session");
    anonymous.get("/v1/notes").await.is_problem(401, "no_session");
    assert_eq!(alice.get(&path).await.status, 200, "untouched");
}

#[sqlx::test]
async fn what_is_out_of_range_is_named(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    for text in [json!(""), json!("x".repeat(1001)), json!("a\0"), json!(7), Value::Null] {
        alice.post("/v1/notes", &json!({"text": text})).await.is_invalid("text");
    }
    alice.get("/v1/notes?cursor=junk").await.is_invalid("cursor");
    assert_eq!(alice.get("/v1/notes").await.body["items"], json!([]), "nothing refused was kept");
}

#[sqlx::test]
async fn pages_hold_everything_once_and_the_newest_first(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    for number in 0..=super::PAGE {
        make(&alice, &number.to_string()).await;
    }
    let first = alice.get("/v1/notes").await.body;
    let cursor = first["next_cursor"].as_str().expect("there is one more");
    let last = alice.get(&format!("/v1/notes?cursor={cursor}")).await.body;
    let texts = [&first, &last].map(|page| page["items"].as_array().expect("a list").iter());
    let texts: Vec<Value> = texts.into_iter().flatten().map(|note| note["text"].clone()).collect();
    let expected: Vec<Value> = (0..=super::PAGE).rev().map(|number| json!(number.to_string())).collect();
    assert_eq!((texts, &last["next_cursor"]), (expected, &Value::Null));
}
