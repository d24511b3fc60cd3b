//! The spans' way out: OTLP over HTTP from a thread of its own, with a bounded queue and a count of what is lost.
use super::metrics;
use opentelemetry::Context;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
        SpanProcessor,
    },
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A collector that is down is a warning this often, not once per batch.
const REMINDER: Duration = Duration::from_secs(60);

/// At most `queue` spans wait for the collector.
pub fn provider(service: &str, queue: usize) -> Result<SdkTracerProvider, ExporterBuildError> {
    // Its HTTP client blocks, and is used on the processor's thread only: there is no runtime on that thread.
    let otlp = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_span_processor(bounded(otlp, queue)).with_resource(resource).build())
}

pub(super) fn bounded(exporter: impl SpanExporter + 'static, queue: usize) -> Bounded {
    let queued = Arc::new(AtomicUsize::new(0));
    let exporter = Counted { exporter, queued: Arc::clone(&queued), warned: Mutex::new(None) };
    let config = BatchConfigBuilder::default().with_max_queue_size(queue).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    Bounded { batches, queue, queued }
}

/// The SDK's batch processor, which drops spans without telling anyone when its queue is full: so it never is.
#[derive(Debug)]
pub(super) struct Bounded {
    batches: BatchSpanProcessor,
    queue: usize,
    queued: Arc<AtomicUsize>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queued.fetch_add(1, Relaxed) < self.queue {
            return self.batches.on_end(span);
        }
        self.queued.fetch_sub(1, Relaxed);
        metrics::spans_dropped(1);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// An exporter that counts what it could not deliver.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    queued: Arc<AtomicUsize>,
    warned: Mutex<Option<Instant>>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queued.fetch_sub(spans, Relaxed);
        let result = self.exporter.export(batch).await;
        if let Err(error) = &result {
            metrics::spans_dropped(spans as u64);
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if warned.is_none_or(|at| at.elapsed() >= REMINDER) {
                *warned = Some(Instant::now());
                tracing::warn!(spans, %error, "spans could not be exported");
            }
        }
        result
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
