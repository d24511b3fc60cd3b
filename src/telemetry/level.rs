//! Which events are logged; `runtime/level.rs` changes that while the process runs.
use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The log's filter.
#[derive(Clone)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// # Errors
    /// When `filter` is not a tracing filter, such as `info` or `warn,app=debug`.
    pub(crate) fn new(filter: &str) -> anyhow::Result<(reload::Layer<EnvFilter, Registry>, Self)> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        Ok((layer, Self(handle)))
    }

    /// Puts another filter in force; the log tells who wanted it and how long it stays.
    ///
    /// # Errors
    /// When `filter` is not a tracing filter; the old one then stays.
    pub fn set(&self, filter: &str, by: &str, until: Option<&str>) -> anyhow::Result<()> {
        self.0.reload(parse(filter)?).context("changing the log filter")?;
        tracing::info!(filter, by, until, "log level changed");
        Ok(())
    }
}

/// Below info the HTTP machinery talks about itself more than about us, and the span exporter would log its own
/// exports; naming one of these in the filter wins.
const NOISY: &str = "h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,opentelemetry=warn";
/// Whatever the filter, the log says how it came about.
const SAID: &str = concat!(module_path!(), "=info");

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let parsed = EnvFilter::try_new(filter).context("not a log filter")?;
    let quiet = parsed.max_level_hint().is_some_and(|level| level <= LevelFilter::INFO);
    let noisy = if quiet { "" } else { NOISY };
    EnvFilter::try_new(format!("{noisy},{filter},{SAID}")).context("not a log filter")
}
