//! Lists.
use super::keep;
use crate::api::actors::{Actor, Service};
use axum::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

fn urls(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a list");
    items.iter().map(|item| item["url"].as_str().expect("a URL").to_owned()).collect()
}

async fn keep_numbered(actor: &Actor<'_>, numbers: std::ops::Range<usize>) -> Vec<String> {
    for number in numbers.clone() {
        keep(actor, &json!({"url": format!("https://example.com/{number}")})).await;
    }
    numbers.rev().map(|number| format!("https://example.com/{number}")).collect()
}

#[sqlx::test]
async fn pages_have_neither_gaps_nor_repeats_while_the_list_changes(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    let expected = keep_numbered(&alice, 0..23).await;
    keep_numbered(&bob, 100..102).await;

    let (mut seen, mut path) = (Vec::new(), "/v1/bookmarks?limit=5".to_owned());
    for page_number in 0.. {
        let page = alice.get(&path).await;
        assert_eq!(page.status, 200);
        seen.extend(urls(&page.body));
        let Some(cursor) = page.body["next_cursor"].as_str() else {
            assert_eq!(page_number, 4, "23 by 5");
            break;
        };
        assert_eq!(urls(&page.body).len(), 5);
        path = format!("/v1/bookmarks?limit=5&cursor={cursor}");
        keep_numbered(&alice, 50 + page_number..51 + page_number).await;
        if page_number % 2 == 1 {
            // The one that the cursor points at goes; its place in the list stays.
            let any = [("if-match", "*")];
            alice.send(Method::DELETE, &format!("/v1/bookmarks/{cursor}"), &any, None).await;
        }
    }
    assert_eq!(seen, expected);
}

#[sqlx::test]
async fn a_last_page_that_is_full_has_no_next(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let expected = keep_numbered(&alice, 0..21).await;
    let all = alice.get("/v1/bookmarks?limit=21").await.body;
    assert_eq!((urls(&all), &all["next_cursor"]), (expected.clone(), &Value::Null));
    let default = alice.get("/v1/bookmarks").await.body;
    assert_eq!(urls(&default), expected[..20], "20 unless told otherwise");
    let rest = format!("/v1/bookmarks?cursor={}", default["next_cursor"].as_str().expect("one is left"));
    assert_eq!(urls(&alice.get(&rest).await.body), expected[20..]);
    let beyond = alice.get(&format!("/v1/bookmarks?cursor={}", Uuid::nil())).await.body;
    assert_eq!(beyond, json!({"items": [], "next_cursor": null}));
}

#[sqlx::test]
async fn a_tag_filters_the_list(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    for (number, tags) in
        [json!(["a", "b"]), json!(["b"]), json!([]), json!(["ab", "ä ö&="])].iter().enumerate()
    {
        keep(&alice, &json!({"url": format!("https://example.com/{number}"), "tags": tags})).await;
    }
    for (tag, expected) in
        [("a", vec![0]), ("b", vec![1, 0]), ("A", vec![]), ("none", vec![]), ("%C3%A4+%C3%B6%26%3D", vec![3])]
    {
        let page = alice.get(&format!("/v1/bookmarks?tag={tag}")).await.body;
        let expected: Vec<_> = expected.iter().map(|n| format!("https://example.com/{n}")).collect();
        assert_eq!(urls(&page), expected, "{tag}");
    }
    let first = alice.get("/v1/bookmarks?tag=b&limit=1").await.body;
    let cursor = first["next_cursor"].as_str().expect("another");
    let second = alice.get(&format!("/v1/bookmarks?tag=b&limit=1&cursor={cursor}")).await.body;
    assert_eq!(
        (urls(&second), &second["next_cursor"]),
        (vec!["https://example.com/0".to_owned()], &Value::Null)
    );
}

#[sqlx::test]
async fn a_query_out_of_range_names_its_parameter(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let long = format!("tag={}", "x".repeat(51));
    for (field, query) in [
        ("limit", "limit=0"),
        ("limit", "limit=101"),
        ("limit", "limit=-1"),
        ("limit", "limit=ten"),
        ("limit", "limit="),
        ("limit", "limit=9223372036854775808"),
        ("limit", "limit=1&limit=2"),
        ("cursor", "cursor=junk"),
        ("cursor", "cursor="),
        ("cursor", "cursor=300000-01-01"),
        ("tag", "tag="),
        ("tag", "tag=a%00"),
        ("tag", &long),
        ("offset", "offset=1"),
    ] {
        let refused = alice.get(&format!("/v1/bookmarks?{query}")).await;
        refused.is_invalid(field);
        for rust in ["u16", "Uuid", "UUID", "serde", "struct"] {
            assert!(!refused.text.contains(rust), "{query}: {refused:?}");
        }
    }
    alice.get("/v1/bookmarks?tag=%ff").await.is_problem(400, "bad_query");
    for query in ["limit=1", "limit=100"] {
        assert_eq!(alice.get(&format!("/v1/bookmarks?{query}")).await.status, 200, "{query}");
    }
}
