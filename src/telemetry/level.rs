//! Which events are logged, and how that changes for a while.
use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout_at};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The log's filter; clones change the same one.
#[derive(Clone)]
pub struct LogLevel(Arc<State>);

struct State {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The one from the settings.
    usual: String,
    /// Another one, and its end.
    other: Mutex<Option<(String, Instant)>>,
    changed: Notify,
}

impl LogLevel {
    /// # Errors
    /// When `filter` is not a tracing filter, such as `info` or `warn,app=debug`.
    pub(super) fn new(filter: &str) -> anyhow::Result<(reload::Layer<EnvFilter, Registry>, Self)> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        let (usual, other, changed) = (filter.to_owned(), Mutex::default(), Notify::new());
        Ok((layer, Self(Arc::new(State { handle, usual, other, changed }))))
    }

    /// The filter in force, as it was given, and its end when it is not the one from the settings.
    pub fn get(&self) -> (String, Option<String>) {
        match &*self.other() {
            Some((filter, end)) => (filter.clone(), Some(rfc3339(*end))),
            None => (self.0.usual.clone(), None),
        }
    }

    /// Puts another filter in force for as long as `ttl`. The log tells who wanted it.
    ///
    /// # Errors
    /// When `filter` is not a tracing filter; the old one then stays.
    pub fn change(&self, filter: &str, ttl: Duration, by: &str) -> anyhow::Result<()> {
        let (mut other, end) = (self.other(), Instant::now() + ttl);
        self.0.handle.reload(parse(filter)?).context("changing the log filter")?;
        *other = Some((filter.to_owned(), end));
        drop(other);
        tracing::info!(filter, by, until = rfc3339(end), "log level changed");
        self.0.changed.notify_one();
        Ok(())
    }

    /// Brings the filter from the settings back when another one's time is over; once for each that ends.
    pub async fn restore(&self) {
        let end = self.other().as_ref().map(|(_, end)| *end);
        let changed = self.0.changed.notified();
        match end {
            None => changed.await,
            Some(end) => drop(timeout_at(end.into(), changed).await),
        }
        let mut other = self.other();
        if other.take_if(|(_, end)| *end <= Instant::now()).is_some() {
            let usual = parse(&self.0.usual).expect("it was parsed at the start");
            // Fails only when there is no log any more.
            self.0.handle.reload(usual).ok();
            tracing::info!(filter = self.0.usual, by = "its time to live", "log level changed");
        }
    }

    fn other(&self) -> MutexGuard<'_, Option<(String, Instant)>> {
        self.0.other.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rfc3339(at: Instant) -> String {
    let at: DateTime<Utc> = Utc::now() + at.saturating_duration_since(Instant::now());
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Below info the HTTP machinery talks about itself more than about us, and the span exporter would log its own
/// exports; naming one of these in the filter wins.
const NOISY: &str = "h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,opentelemetry=warn";
/// Whatever the level, the log says how it came about.
const SAID: &str = concat!(module_path!(), "=info");

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let parsed = EnvFilter::try_new(filter).context("not a log filter")?;
    if parsed.max_level_hint().is_some_and(|level| level <= LevelFilter::INFO) {
        return EnvFilter::try_new(format!("{filter},{SAID}")).context("not a log filter");
    }
    EnvFilter::try_new(format!("{NOISY},{filter},{SAID}")).context("not a log filter")
}
