//! The log lines: tracing-bunyan-formatter's format, without its faults.
//!
//! A request pays for what its event says, and for no more: that goes to the [`Sink`] as it is. The writer's thread
//! makes a line of it. The formatter is asked once for each place in the code, with an event without fields; what it
//! says is the [`Frame`] of all lines from there. It sees no span, so it prints no START and END lines, no prefixes and
//! no fields of spans.
use super::{
    line::{Frame, Guard},
    request,
    writer::{Entry, Sink},
};
use crate::config;
use chrono::{DateTime, SecondsFormat, Utc};
use opentelemetry::trace::TraceContextExt;
use std::collections::HashMap;
use tracing::{Event, Subscriber, callsite::Identifier};
use tracing_bunyan_formatter::BunyanFormattingLayer;
use tracing_serde::fields::AsMap;
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

/// Logs each event as one JSON line.
pub struct Lines(pub &'static Sink);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Room for a request's own line.
        let mut fields = Vec::with_capacity(512);
        serde_json::to_writer(&mut fields, &event.field_map()).expect("writing to memory cannot fail");
        self.0.push(Some(event.metadata()), &fields[1..fields.len() - 1], |out| {
            request::with_current(|request| add_ids(request, out));
            out.push(b'}');
        });
    }
}

/// Makes the lines that are printed.
pub struct Printer {
    pub guard: Guard,
    frames: HashMap<Identifier, Frame>,
    formatter: Box<dyn Subscriber + Send + Sync>,
    /// Where the formatter leaves its line.
    formatted: &'static Sink,
    /// The last line's time, in milliseconds and as text.
    time: (i64, String),
}

impl Printer {
    pub fn new(settings: &config::Telemetry) -> Self {
        let formatted: &Sink = Box::leak(Box::new(Sink::new()));
        let fields = [
            ("service", &*settings.service),
            ("region", &*settings.region),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.into()));
        let formatter = BunyanFormattingLayer::with_default_fields(
            settings.service.clone(),
            move || formatted,
            fields.into(),
        );
        Self {
            guard: Guard::default(),
            frames: HashMap::new(),
            formatter: Box::new(Registry::default().with(formatter)),
            formatted,
            time: (i64::MIN, String::new()),
        }
    }

    /// Adds a line to what the guard holds: an event's, or a text as it is.
    pub fn add(&mut self, entry: &Entry, text: &[u8]) {
        let Some(origin) = entry.origin else { return self.guard.out.extend_from_slice(text) };
        let time = DateTime::<Utc>::from(entry.time);
        if self.time.0 != time.timestamp_millis() {
            self.time = (time.timestamp_millis(), time.to_rfc3339_opts(SecondsFormat::Millis, true));
        }
        let frame = || {
            self.formatter.event(&Event::new(origin, &origin.fields().value_set(&[])));
            let names = origin.fields().iter().map(|field| field.name());
            Frame::new(&self.formatted.take(), &names.chain(IDS).collect::<Vec<_>>())
        };
        let frame = self.frames.entry(origin.callsite()).or_insert_with(frame);
        self.guard.line(frame, &self.time.1, text);
    }
}

/// What [`add_ids`] adds.
const IDS: [&str; 3] = ["trace_id", "span_id", "request_id"];

/// Names the request that the caller serves.
fn add_ids(request: &request::Request, out: &mut Vec<u8>) {
    let mut span = |context: &opentelemetry::Context| {
        let span = context.span();
        let ids = span.span_context();
        if ids.is_valid() {
            add_id(br#","trace_id":""#, &ids.trace_id().to_bytes(), out);
            add_id(br#","span_id":""#, &ids.span_id().to_bytes(), out);
        }
        ids.is_valid()
    };
    // The innermost span; without one entered, as in a destructor, the request's own.
    if !opentelemetry::Context::map_current(&mut span) {
        span(&request.otel);
    }
    out.extend_from_slice(br#","request_id":"#);
    serde_json::to_writer(out, &*request.id).expect("writing text to memory cannot fail");
}

fn add_id(name: &[u8], id: &[u8], out: &mut Vec<u8>) {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
    out.extend_from_slice(name);
    out.extend(id.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
    out.push(b'"');
}

/// The `err` field of a log line, as pino writes it: `{"type","message","stack"}` with every cause in it.
pub fn err_json(error: &anyhow::Error) -> String {
    let mut stack = error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\ncaused by: ");
    if error.backtrace().status() == std::backtrace::BacktraceStatus::Captured {
        stack = format!("{stack}\n{}", error.backtrace());
    }
    err_object(&type_name(error), &format!("{error:#}"), &stack)
}

pub(super) fn err_object(kind: &str, message: &str, stack: &str) -> String {
    serde_json::json!({ "type": kind, "message": message, "stack": stack }).to_string()
}

/// What the root cause's `Debug` form starts with: an error's type is not known at run time.
fn type_name(error: &anyhow::Error) -> String {
    let debug = format!("{:?}", error.root_cause());
    let name: String = debug.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    if name.starts_with(|c: char| c.is_ascii_uppercase()) { name } else { "Error".to_owned() }
}
