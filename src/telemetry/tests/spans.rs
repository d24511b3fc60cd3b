//! Trace context in and out while nothing is exported, and what happens to spans that cannot be.
use crate::telemetry::{
    export, metrics,
    request::Request,
    traces::{self, ClientSpan},
};
use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::trace::{Span, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers(traceparent: &str) -> HeaderMap {
    HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())])
}

#[tokio::test]
async fn without_an_exporter_the_callers_ids_travel_on() {
    let otel = traces::server_span(&headers(PARENT), &Method::GET);
    let request = Request::new(
        "id".into(),
        [127, 0, 0, 1].into(),
        Instant::now() + Duration::from_secs(1),
        otel.clone(),
    );
    let mut outbound = HeaderMap::new();
    request.scope(async { ClientSpan::start("call", Vec::new).inject(&mut outbound) }).await;
    assert_eq!(outbound, headers(PARENT));
    traces::end_server_span(&otel, &Method::GET, Some("/x"), StatusCode::OK);

    let mut outside = HeaderMap::new();
    ClientSpan::start("call", Vec::new).inject(&mut outside);
    assert!(outside.is_empty());
    assert!(!traces::server_span(&HeaderMap::new(), &Method::GET).has_active_span());
}

#[test]
fn a_broken_traceparent_counts_as_none() {
    let later = format!("cc{}-more", &PARENT[2..]);
    let mut latin = headers(PARENT);
    latin.insert("traceparent", axum::http::HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    assert!(!traces::server_span(&latin, &Method::GET).has_active_span());
    for good in [PARENT, &later] {
        assert!(traces::server_span(&headers(good), &Method::GET).has_active_span(), "{good}");
    }
    for bad in [
        "",
        "-",
        "00-1-1-01",
        &PARENT.to_uppercase(),
        &PARENT[..54],
        &format!("{PARENT}-more"),
        &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        &PARENT.replacen("00", "ff", 1),
        &PARENT.replace('-', "_"),
        &"x".repeat(9000),
    ] {
        assert!(!traces::server_span(&headers(bad), &Method::GET).has_active_span(), "{bad}");
    }
}

/// Fails each export, once it is let through.
#[derive(Debug)]
struct Broken(Arc<Mutex<()>>);

impl SpanExporter for Broken {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        drop(self.0.lock().unwrap());
        Err(OTelSdkError::InternalFailure("broken".into()))
    }
}

#[test]
fn every_span_that_never_arrives_is_counted() {
    let spans = 10_000;
    let gate = Arc::new(Mutex::new(()));
    let exporter = Broken(Arc::clone(&gate));
    let before = metrics::tests::spans_dropped_so_far();
    let provider = SdkTracerProvider::builder().with_span_processor(export::bounded(exporter, 2048)).build();
    let closed = gate.lock().unwrap();
    let tracer = provider.tracer("test");
    (0..spans).for_each(|_| tracer.start("x").end());
    let full = metrics::tests::spans_dropped_so_far() - before;
    assert!(
        full >= spans - 2048 - 512,
        "one batch is under way, the queue is full, the rest is dropped: {full}"
    );
    drop(closed);
    let _ = provider.shutdown();
    assert_eq!(metrics::tests::spans_dropped_so_far() - before, spans);
}
