//! Spans, made with the OpenTelemetry interface itself: what a `tracing` span costs, each of these saves.
//!
//! The current span is `opentelemetry::Context::current()`: a request's scope puts the server span there.
use super::export;
use anyhow::Context as _;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use opentelemetry::{
    Context, KeyValue, global,
    propagation::TextMapPropagator,
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider, Span},
};
use std::sync::OnceLock;

/// As a text it would be parsed for each request.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Set when spans are exported, never otherwise.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Starts exporting; at most `queue` spans wait. Endpoint, headers, sampler, resource attributes and batching come from
/// the standard variables, which the SDK reads by itself; the sampler's default follows the caller and else samples
/// everything.
///
/// # Errors
/// When the exporter cannot be built, by a header or endpoint that makes no sense.
pub(super) fn start(service: &str, queue: usize) -> anyhow::Result<SdkTracerProvider> {
    // The exporter's HTTP client has no TLS provider of its own. An error says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let provider = export::provider(service, queue).context("building the span exporter")?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(provider.clone());
    let _ = TRACER.set(provider.tracer(env!("CARGO_PKG_NAME")));
    Ok(provider)
}

/// The context that a request runs in: a server span below the caller's when spans are exported, else the caller's
/// own, so that its ids show in our log and travel on. A `traceparent` that breaks the W3C format counts as none.
pub fn server_span(headers: &HeaderMap, method: &Method) -> Context {
    let parent = match headers.get(&TRACEPARENT) {
        Some(value) if is_traceparent(value.as_bytes()) => {
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
        }
        _ => Context::new(),
    };
    let Some(tracer) = TRACER.get() else { return parent };
    let span = SpanBuilder::from_name(span_name(method)).with_kind(SpanKind::Server);
    parent.with_span(tracer.build_with_context(span, &parent))
}

/// Ends the span that [`server_span`] started, if it is recorded. `route` is the template, `None` where none matched.
pub fn end_server_span(context: &Context, method: &Method, route: Option<&str>, status: StatusCode) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    span.set_attributes([
        KeyValue::new("http.request.method", method_label(method)),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
        KeyValue::new("url.scheme", "http"),
    ]);
    if let Some(route) = route {
        span.update_name(format!("{} {route}", span_name(method)));
        span.set_attribute(KeyValue::new("http.route", route.to_owned()));
    }
    if status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
        span.set_status(Status::error(""));
    }
    span.end();
}

/// A call to something else, from its start until it is dropped, so that an abandoned call shows too.
#[must_use = "the span ends when this is dropped"]
pub struct ClientSpan(Option<Span>);

impl ClientSpan {
    /// Starts a child of the current span; `attributes` is asked only when the request is sampled.
    pub fn start(name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) -> Self {
        let start = |tracer: &SdkTracer| {
            Context::map_current(|parent| {
                parent.span().span_context().is_sampled().then(|| {
                    let span = SpanBuilder::from_name(name).with_kind(SpanKind::Client);
                    tracer.build_with_context(span.with_attributes(attributes()), parent)
                })
            })
        };
        Self(TRACER.get().and_then(start))
    }

    /// Adds what was not known at the start, such as a status code.
    pub fn set(&mut self, attribute: impl FnOnce() -> KeyValue) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(attribute());
        }
    }

    /// Marks the call as failed; `kind` is a short fixed word such as `timeout`.
    pub fn fail(&mut self, kind: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(kind));
        }
    }

    /// Tells the other side that this span is its parent, or without one the current span, as `traceparent` and
    /// `tracestate`.
    pub fn inject(&self, headers: &mut HeaderMap) {
        let Some(span) = &self.0 else { return Context::map_current(|current| inject(current, headers)) };
        inject(&Context::new().with_remote_span_context(span.span_context().clone()), headers);
    }
}

fn inject(context: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
    // Empty it says nothing.
    if headers.get("tracestate").is_some_and(HeaderValue::is_empty) {
        headers.remove("tracestate");
    }
}

/// The method as the semantic conventions want it: one of a fixed set, so that callers cannot invent series.
pub fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

fn span_name(method: &Method) -> &'static str {
    Some(method_label(method)).filter(|label| *label != "_OTHER").unwrap_or("HTTP")
}

/// `00-<32 lower hex>-<16 lower hex>-<2 lower hex>`; a later version may append more. The SDK's own parser lets
/// shorter fields pass.
fn is_traceparent(value: &[u8]) -> bool {
    let shape = |(at, byte): (usize, &u8)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    match value.split_at_checked(55) {
        Some((known, more)) => {
            known.iter().enumerate().all(shape)
                && (more.is_empty() || more.starts_with(b"-") && !known.starts_with(b"00"))
        }
        None => false,
    }
}
