//! The log lines: tracing-bunyan-formatter's format, without its faults.
//!
//! The formatter sees events only, never a span, so it prints no START and END lines, no prefixes and no fields of
//! spans. What it makes of an event goes to the [`Sink`] at once, where no request waits: a [`Guard`] makes it fit to
//! print on the way out.
use super::{line::Guard, request, writer::Sink};
use crate::config;
use opentelemetry::trace::TraceContextExt;
use serde_json::Value;
use std::{
    cell::Cell,
    io::{self, Write},
};
use tracing::{Event, Subscriber};
use tracing_bunyan_formatter::BunyanFormattingLayer;
use tracing_serde::fields::AsMap;
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};

/// Logs each event as one JSON line.
pub struct Lines(Box<dyn Subscriber + Send + Sync>);

impl Lines {
    pub(super) fn new(sink: &'static Sink, settings: &config::Telemetry) -> Self {
        let formatter = BunyanFormattingLayer::new(settings.service.clone(), move || Raw(sink));
        Self(Box::new(Registry::default().with(formatter)))
    }
}

/// What makes such lines fit to print.
pub(super) fn guard(settings: &config::Telemetry) -> Guard {
    let fields = [
        ("service", &*settings.service),
        ("region", &*settings.region),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    Guard::new(&fields.map(|(name, value)| (name, Value::from(value).to_string())))
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let origin = event.metadata();
        match FIELDS.try_with(|given| given.set(fields(event))) {
            Ok(()) => self.0.event(&Event::new(origin, &origin.fields().value_set(&[]))),
            // Gone while the thread ends.
            Err(_) => self.0.event(event),
        }
    }
}

thread_local! {
    /// What the event under way says, as a JSON object. The formatter, which would put it into a map first, makes the
    /// rest of the line: that is half the price.
    static FIELDS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn fields(event: &Event<'_>) -> Vec<u8> {
    // Room for a request's own line.
    let mut json = Vec::with_capacity(512);
    serde_json::to_writer(&mut json, &event.field_map()).expect("writing to memory cannot fail");
    json
}

/// Takes each line from the formatter, which writes it in one piece, and adds what only this thread knows.
struct Raw(&'static Sink);

impl Write for Raw {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let open = line.strip_suffix(b"}\n").unwrap_or(line);
        let fields = FIELDS.try_with(Cell::take).unwrap_or_default();
        self.0.push(open, |out| {
            if let [b'{', fields @ .., b'}'] = &*fields
                && !fields.is_empty()
            {
                out.push(b',');
                out.extend_from_slice(fields);
            }
            request::with_current(|request| add_ids(request, out));
            out.extend_from_slice(b"}\n");
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
