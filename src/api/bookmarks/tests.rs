//! What bookmarks promise, over HTTP.
mod conditions;
mod outages;
mod pages;
mod retries;
mod time_split;

use crate::api::actors::{Actor, Service};
use axum::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// Keeps a bookmark and returns where it is.
async fn keep(actor: &Actor<'_>, body: &Value) -> String {
    let created = actor.post("/v1/bookmarks", body).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.header("location").to_owned()
}

#[sqlx::test]
async fn a_bookmark_is_visible_to_its_owner_only(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let body = json!({"url": "https://example.com/"});
    let path = keep(&alice, &body).await;
    let any = [("if-match", "*")];
    bob.get(&path).await.is_problem(404, "not_found");
    bob.send(Method::PUT, &path, &any, Some(&body)).await.is_problem(404, "not_found");
    bob.send(Method::DELETE, &path, &any, None).await.is_problem(404, "not_found");
    assert_eq!(bob.get("/v1/bookmarks").await.body["items"], json!([]));
    assert_eq!(alice.get(&path).await.body["version"], 1, "untouched");
}

#[sqlx::test]
async fn bookmarks_are_for_people_who_have_signed_in(pool: PgPool) {
    let service = Service::start(&pool).await;
    let anonymous = service.anonymous();
    let path = format!("/v1/bookmarks/{}", Uuid::now_v7());
    for (method, path) in [
        (Method::POST, "/v1/bookmarks"),
        (Method::GET, "/v1/bookmarks"),
        (Method::GET, &path),
        (Method::PUT, &path),
        (Method::DELETE, &path),
        (Method::GET, &format!("{path}/preview")),
    ] {
        anonymous.send(method, path, &[], None).await.is_problem(401, "no_session");
    }
}

#[sqlx::test]
async fn a_new_bookmark_comes_back_as_it_was_sent(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let sent =
        json!({"url": "https://example.com/?q=ä#x", "title": "An \"example\" 🦀", "tags": ["b", "a", "b"]});
    let created = alice.post("/v1/bookmarks", &sent).await;
    assert_eq!(created.status, 201);
    let fields: Vec<&String> = created.body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["created_at", "id", "tags", "title", "updated_at", "url", "version"]);
    for field in ["url", "title", "tags"] {
        assert_eq!(created.body[field], sent[field]);
    }
    assert_eq!(created.body["version"], 1);
    assert_eq!(created.body["created_at"], created.body["updated_at"]);
    let id: Uuid = serde_json::from_value(created.body["id"].clone()).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(created.header("location"), format!("/v1/bookmarks/{id}"));
    assert_eq!(created.header("content-type"), "application/json");

    let read = alice.get(created.header("location")).await;
    assert_eq!(read.status, 200);
    assert_eq!(read.body, created.body);
    assert_eq!(read.header("etag"), created.header("etag"));
}

#[sqlx::test]
async fn title_and_tags_may_be_left_out_and_a_url_may_be_kept_twice(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let first = keep(&alice, &json!({"url": "https://example.com/"})).await;
    let second = keep(&alice, &json!({"url": "https://example.com/"})).await;
    assert_ne!(first, second);
    let bookmark = alice.get(&first).await.body;
    assert_eq!((&bookmark["title"], &bookmark["tags"]), (&json!(""), &json!([])));
}

#[sqlx::test]
async fn every_field_has_its_limit(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let url = |length: usize| format!("https://example.com/{}", "x".repeat(length - 20));
    let with = |field: &str, value: Value| {
        let mut body = json!({"url": "https://example.com/"});
        body[field] = value;
        body
    };
    for body in [
        with("url", json!(url(2048))),
        with("url", json!("http://x")),
        with("title", json!("ü".repeat(200))),
        with("tags", json!(vec!["ü".repeat(50); 20])),
    ] {
        keep(&alice, &body).await;
    }
    for (field, body) in [
        ("url", with("url", json!(url(2049)))),
        ("url", with("url", json!("x".repeat(1_000_000)))),
        ("url", with("url", json!("example.com"))),
        ("url", with("url", json!("ftp://example.com/"))),
        ("url", with("url", json!("javascript:alert(1)"))),
        ("url", with("url", json!("https://"))),
        ("url", with("url", json!("https://example.com/\0"))),
        ("url", with("url", Value::Null)),
        ("url", json!({"title": "x"})),
        ("title", with("title", json!("x".repeat(201)))),
        ("title", with("title", json!("\0"))),
        ("title", with("title", Value::Null)),
        ("tags", with("tags", json!(vec!["x"; 21]))),
        ("tags", with("tags", json!("x"))),
        ("tags[1]", with("tags", json!(["x", "x".repeat(51)]))),
        ("tags[2]", with("tags", json!(["x", "y", ""]))),
        ("tags[0]", with("tags", json!(["a\0"]))),
        ("tags[0]", with("tags", json!([1]))),
        ("version", with("version", json!(7))),
        ("account_id", with("account_id", json!(Uuid::nil()))),
    ] {
        alice.post("/v1/bookmarks", &body).await.is_invalid(field);
    }
    let kept = alice.get("/v1/bookmarks").await.body["items"].as_array().map(Vec::len);
    assert_eq!(kept, Some(4), "nothing that was refused was kept");
}

#[sqlx::test]
async fn a_replacement_obeys_the_same_limits(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let path = keep(&alice, &json!({"url": "https://example.com/"})).await;
    for (field, body) in [
        ("url", json!({"title": "no url"})),
        ("title", json!({"url": "https://example.com/", "title": "a\0"})),
        ("tags[0]", json!({"url": "https://example.com/", "tags": ["\0"]})),
        ("id", json!({"url": "https://example.com/", "id": Uuid::nil()})),
    ] {
        alice.send(Method::PUT, &path, &[("if-match", "*")], Some(&body)).await.is_invalid(field);
    }
    assert_eq!(alice.get(&path).await.body["version"], 1);
}

#[sqlx::test]
async fn a_malformed_id_is_an_unknown_one(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let unknown = Uuid::now_v7().to_string();
    for id in ["1", "-1", "junk", "%20", "18446744073709551616", &unknown] {
        let path = format!("/v1/bookmarks/{id}");
        alice.get(&path).await.is_problem(404, "not_found");
        alice.get(&format!("{path}/preview")).await.is_problem(404, "not_found");
        let any = [("if-match", "*")];
        alice.send(Method::DELETE, &path, &any, None).await.is_problem(404, "not_found");
        let body = json!({"url": "https://example.com/"});
        alice.send(Method::PUT, &path, &any, Some(&body)).await.is_problem(404, "not_found");
    }
}

#[sqlx::test]
async fn a_body_that_is_not_json_is_told_apart_from_one_that_is_wrong(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let send = async |content_type: &str, body: &[u8]| {
        let request = alice.request(Method::POST, "/v1/bookmarks").header("content-type", content_type);
        alice.answer(request.body(body.to_vec())).await
    };
    let (open, close) = ("[".repeat(200), "]".repeat(200));
    let deep = format!(r#"{{"url":{open}{close}}}"#);
    for broken in [
        "",
        "{",
        r#"{"url":"https://x/"}x"#,
        r#"{"url":NaN}"#,
        "\u{feff}{}",
        r#"{"url":"\ud800"}"#,
        r#"{"url":1e400}"#,
        r#"{"url":"https://x/","url":"https://y/"}"#,
        r#"{"url":["#,
        &deep[..300],
    ] {
        send("application/json", broken.as_bytes()).await.is_problem(400, "invalid_json");
    }
    send("application/json", b"{\"url\":\"https://x/\xff\"}").await.is_problem(400, "invalid_json");
    send("application/json", deep.as_bytes()).await.is_invalid("url");
    let good = br#"{"url":"https://example.com/"}"#;
    for other in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"] {
        send(other, good).await.is_problem(415, "unsupported_media_type");
    }
    assert_eq!(send("Application/JSON; charset=utf-8", good).await.status, 201);
}
