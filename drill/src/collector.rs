//! A collector of traces that takes all it is sent, and keeps it.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinSet};

/// It closes when this value is dropped.
pub struct Collector {
    /// To be given as `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub url: String,
    received: Arc<Mutex<Vec<u8>>>,
    _server: JoinSet<()>,
}

impl Collector {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        let take = post(async move |body: Bytes| lock(&kept).extend_from_slice(&body));
        let mut server = JoinSet::new();
        let router = Router::new().route("/v1/traces", take);
        server.spawn(async { axum::serve(listener, router).await.unwrap_or_default() });
        Ok(Self { url, received, _server: server })
    }

    /// The bodies so far, one after the other: protobuf, of which many messages are one.
    pub fn received(&self) -> Vec<u8> {
        lock(&self.received).clone()
    }

    /// All spans so far.
    ///
    /// # Errors
    ///
    /// When what came is no export of traces.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let all = ExportTraceServiceRequest::decode(&self.received()[..]).context("an export of traces")?;
        let scopes = all.resource_spans.into_iter().flat_map(|ResourceSpans { scope_spans, .. }| scope_spans);
        Ok(scopes.flat_map(|ScopeSpans { spans, .. }| spans).collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock can panic")
}
