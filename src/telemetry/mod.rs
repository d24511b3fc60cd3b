//! What the process tells about itself: log lines, metrics, traces.
pub mod call;
mod export;
pub mod level;
mod line;
pub mod logs;
pub mod metrics;
pub mod panics;
mod redact;
pub mod request;
mod series;
#[cfg(test)]
mod tests;
pub mod traces;
mod writer;

use crate::config::{self, LogFormat};
use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tracing_subscriber::{
    Layer, Registry, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};
use writer::LOG;

/// What has to be flushed at the end, and what can be changed until then.
pub struct Telemetry {
    pub filter: level::Filter,
    provider: Option<SdkTracerProvider>,
}

/// Installs the log for the whole process, and the export of spans when the settings ask for it. Called once, before
/// the first line.
///
/// # Errors
/// When the log filter or the exporter's settings are no good, stdout is closed, or a log is installed already.
pub fn init(settings: &config::Telemetry) -> anyhow::Result<Telemetry> {
    let (layer, filter) = level::Filter::new(&settings.log_level)?;
    let json = settings.log_format == LogFormat::Json;
    let provider = settings.collector.as_ref().map(|_| traces::start(&settings.service, settings.span_queue));
    let provider = provider.transpose()?;
    // A fork's own `#[instrument]` spans become children of the request's. Events stay out of them: the log redacts,
    // the exporter does not.
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span()))
    });
    LOG.start(logs::Printer::new(settings)).context("starting the log")?;
    Registry::default()
        .with(layer)
        .with(json.then_some(logs::Lines(&LOG)))
        .with((!json).then(|| fmt::layer().with_writer(|| &LOG)))
        .with(spans)
        .try_init()?;
    Ok(Telemetry { filter, provider })
}

/// Writes the lines that wait; gives up after `limit`. For the end of the process, from any thread.
pub fn flush_lines(limit: Duration) {
    LOG.flush(limit);
}

impl Telemetry {
    /// Exports the spans that wait; what is not done in `limit` is given up. Blocks: not for a thread of the runtime.
    pub fn export_spans(self, limit: Duration) {
        if self.provider.is_some_and(|provider| provider.shutdown_with_timeout(limit).is_err()) {
            tracing::warn!("the last spans were not exported");
        }
    }
}
