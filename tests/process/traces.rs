//! What a collector gets of one request.
use crate::service::{client, server, sign_up};
use drill::{
    collector::Collector,
    process::{Server, Signal},
};
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value::StringValue,
    trace::v1::{Span, span::SpanKind},
};
use reqwest::RequestBuilder;
use serde_json::json;
use sqlx::PgPool;

pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub const CALLER: &str = "b7ad6b7169203331";

pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        StringValue(text) => Some(text),
        _ => None,
    }
}

/// Sends the request as part of a caller's trace, stops the server, and returns the spans of that trace: the request's
/// own, and those of what it called.
pub async fn trace_of(request: RequestBuilder, server: Server, collector: &Collector) -> (Span, Vec<Span>) {
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    assert!(request.send().await.unwrap().status().is_success());
    server.signal(Signal::Term).unwrap();
    assert_eq!(server.wait().await.unwrap().code, Some(0));

    let spans = collector.spans().unwrap().into_iter().filter(|span| hex(&span.trace_id) == TRACE);
    let (mut own, calls): (Vec<_>, Vec<_>) = spans.partition(|span| span.kind() == SpanKind::Server);
    assert_eq!(own.len(), 1, "{own:#?}");
    let own = own.remove(0);
    assert_eq!(hex(&own.parent_span_id), CALLER);
    for call in &calls {
        assert_eq!((call.kind(), &call.parent_span_id), (SpanKind::Client, &own.span_id), "{call:#?}");
        assert!(call.start_time_unix_nano >= own.start_time_unix_nano);
        assert!(call.end_time_unix_nano <= own.end_time_unix_nano);
    }
    (own, calls)
}

pub fn count(calls: &[Span], system: &str) -> usize {
    calls.iter().filter(|call| attribute(call, "db.system.name") == Some(system)).count()
}

#[sqlx::test]
async fn a_request_and_what_it_asks_are_one_trace_below_the_callers(pool: PgPool) {
    let collector = Collector::start().await.unwrap();
    let server = server(&pool, "traces").env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let server = server.start().await.unwrap();
    let cookie = sign_up(&server, "alice@example.com").await;
    let passwords = json!({ "current_password": "correct horse battery", "new_password": "a better one" });
    let change = client().put(server.url("/v1/account/password")).header("cookie", &cookie).json(&passwords);
    let (own, calls) = trace_of(change, server, &collector).await;
    assert_eq!(own.name, "PUT /v1/account/password");
    let asked = (count(&calls, "postgresql"), count(&calls, "redis"));
    assert!(asked.0 > 0 && asked.1 > 0 && asked.0 + asked.1 == calls.len(), "{calls:#?}");
}
