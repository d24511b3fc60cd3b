//! One call to a dependency: when it is over, however it ended, its time is counted and its span ends.
use super::{
    metrics,
    request::{self, Part},
    traces::ClientSpan,
};
use opentelemetry::KeyValue;
use std::time::{Duration, Instant};

/// A call under way.
#[must_use = "the call ends when this is dropped"]
pub struct Call {
    part: Part,
    operation: &'static str,
    start: Instant,
    span: ClientSpan,
}

impl Call {
    /// A query. `operation` is a fixed text such as `SELECT accounts`.
    pub fn postgres(operation: &'static str) -> Self {
        Self::start(Part::Db, operation, "postgresql")
    }

    /// A Redis command or script.
    pub fn redis(operation: &'static str) -> Self {
        Self::start(Part::Redis, operation, "redis")
    }

    fn start(part: Part, operation: &'static str, system: &'static str) -> Self {
        let attributes =
            || vec![KeyValue::new("db.system.name", system), KeyValue::new("db.query.summary", operation)];
        Self { part, operation, start: Instant::now(), span: ClientSpan::start(operation, attributes) }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Marks the call as failed; `kind` is a short fixed word such as `timeout`.
    pub fn fail(&mut self, kind: &'static str) {
        self.span.fail(kind);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        request::with_current(|request| request.spend(self.part, took));
        match self.part {
            Part::Redis => metrics::redis_operation(self.operation, took),
            _ => metrics::db_operation(self.operation, took),
        }
    }
}
