//! The log lines: tracing-bunyan-formatter's format, without its faults.
//!
//! The formatter sees events only, never a span, so it prints no START and END lines, no prefixes and no fields of
//! spans. What it makes of an event passes through [`line::Line`] on its way to the [`Sink`].
use super::{
    line,
    writer::{LOG, Sink},
};
use crate::config;
use std::{cell::Cell, collections::HashMap, io};
use tracing::{Event, Subscriber};
use tracing_bunyan_formatter::BunyanFormattingLayer;
use tracing_subscriber::{
    Layer, Registry,
    fmt::MakeWriter,
    layer::{Context, Layered, SubscriberExt},
};

/// Prints each event as one JSON line.
pub struct Lines {
    formatter: Layered<BunyanFormattingLayer<Guard>, Registry>,
}

impl Lines {
    pub fn new(settings: &config::Telemetry) -> Self {
        Self::on(&LOG, settings)
    }

    pub(super) fn on(sink: &'static Sink, settings: &config::Telemetry) -> Self {
        let fields = HashMap::from([
            ("service".to_owned(), settings.service.clone().into()),
            ("region".to_owned(), settings.region.clone().into()),
            ("version".to_owned(), env!("CARGO_PKG_VERSION").into()),
        ]);
        let formatter =
            BunyanFormattingLayer::with_default_fields(settings.service.clone(), Guard(sink), fields)
                .skip_fields(["line", "file"].into_iter())
                .expect("neither is a core field");
        Self { formatter: Registry::default().with(formatter) }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.formatter.event(event);
    }
}

/// Stands between the formatter, which writes each line in one piece, and the sink.
#[derive(Clone, Copy)]
struct Guard(&'static Sink);

thread_local! {
    static SCRATCH: Cell<Option<Box<line::Line>>> = const { Cell::new(None) };
}

impl io::Write for Guard {
    fn write(&mut self, given: &[u8]) -> io::Result<usize> {
        // Taken, not borrowed: what is written may log by itself. Gone while the thread ends.
        let mut line = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default();
        self.0.push(line.rewrite(given));
        line.shrink();
        let _ = SCRATCH.try_with(|scratch| scratch.set(Some(line)));
        Ok(given.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Guard {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        *self
    }
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
