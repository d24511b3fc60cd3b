//! A request's trace goes on in the upstream that it calls.
use crate::{
    doctor::{doctor, failed},
    service::{client, server, sign_up},
    traces::{TRACE, attribute, count, hex, trace_of},
};
use drill::{collector::Collector, upstream::Stub};
use serde_json::json;
use sqlx::PgPool;

#[sqlx::test]
async fn the_upstream_is_told_which_span_calls_it(pool: PgPool) {
    let (collector, upstream) = (Collector::start().await.unwrap(), Stub::start().await.unwrap());
    let server = server(&pool, "previews").env("PREVIEW_URL", upstream.url());
    let server = server.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).start().await.unwrap();
    let cookie = sign_up(&server, "alice@example.com").await;
    let bookmark = client().post(server.url("/v1/bookmarks")).header("cookie", &cookie);
    let bookmark = bookmark.json(&json!({ "url": "https://example.com/" })).send().await.unwrap();
    let path = format!("{}/preview", bookmark.headers()["location"].to_str().unwrap());

    let preview = client().get(server.url(&path)).header("cookie", &cookie);
    let (own, calls) = trace_of(preview, server, &collector).await;
    assert_eq!(own.name, "GET /v1/bookmarks/{id}/preview");
    // The session and the limit are one call; the cache is read and filled.
    assert_eq!((count(&calls, "postgresql"), count(&calls, "redis")), (1, 3), "{calls:#?}");
    let outbound = calls.iter().find(|call| attribute(call, "server.address").is_some()).unwrap();
    assert_eq!(upstream.callers(), [format!("00-{TRACE}-{}-01", hex(&outbound.span_id))]);
}

#[sqlx::test]
async fn the_doctor_names_an_upstream_that_is_not_there(pool: PgPool) {
    let upstream = Stub::start().await.unwrap();
    let url = upstream.url();
    let said = doctor(&pool, &[("PREVIEW_URL", &url)]).await;
    assert!(said.stdout.contains("PREVIEW_URL: answers, with 404"), "{}", said.stdout);
    drop(upstream);
    let said = doctor(&pool, &[("PREVIEW_URL", &url)]).await;
    assert_eq!(
        failed(&said),
        ["PREVIEW_URL: nothing listens there: start the server, or correct host and port"]
    );
}
