//! Which events are logged, and how that changes while the process runs.
use anyhow::Context;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The log's filter; clones change the same one.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
    given: Arc<Mutex<String>>,
}

impl LogLevel {
    /// # Errors
    /// When `filter` is not a tracing filter, such as `info` or `warn,app=debug`.
    pub(super) fn new(filter: &str) -> anyhow::Result<(reload::Layer<EnvFilter, Registry>, Self)> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        Ok((layer, Self { handle, given: Arc::new(Mutex::new(filter.to_owned())) }))
    }

    /// The filter in force, as it was given.
    pub fn get(&self) -> String {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// When `filter` is not a tracing filter; the old one then stays.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(parse(filter)?).context("changing the log filter")?;
        filter.clone_into(&mut given);
        Ok(())
    }
}

/// Below info the HTTP machinery talks about itself more than about us, and the span exporter would log its own
/// exports; naming one of these in the filter wins.
const NOISY: &str = "h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,opentelemetry=warn";

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let parsed = EnvFilter::try_new(filter).context("not a log filter")?;
    if parsed.max_level_hint().is_some_and(|level| level <= LevelFilter::INFO) {
        return Ok(parsed);
    }
    EnvFilter::try_new(format!("{NOISY},{filter}")).context("not a log filter")
}
