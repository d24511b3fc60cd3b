//! Another log level for a while. It goes back by itself: nobody has to remember that the log is at debug.
use crate::telemetry::level::Filter;
use chrono::{DateTime, SecondsFormat, Utc};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout_at};

/// The log's level; clones change the same one.
#[derive(Clone)]
pub struct LogLevel(Arc<State>);

struct State {
    filter: Filter,
    /// The one from the settings.
    usual: String,
    /// Another one, and its end.
    other: Mutex<Option<(String, Instant)>>,
    changed: Notify,
}

impl LogLevel {
    /// `filter` has been set to `usual`, which is the one to come back.
    pub fn new(filter: Filter, usual: &str) -> Self {
        let (usual, other, changed) = (usual.to_owned(), Mutex::default(), Notify::new());
        Self(Arc::new(State { filter, usual, other, changed }))
    }

    /// The filter in force, as it was given, and its end when it is not the usual one.
    pub fn get(&self) -> (String, Option<String>) {
        match &*self.other() {
            Some((filter, end)) => (filter.clone(), Some(rfc3339(*end))),
            None => (self.0.usual.clone(), None),
        }
    }

    /// Puts another filter in force for as long as `ttl`.
    ///
    /// # Errors
    /// When `filter` is not a tracing filter; the old one then stays.
    pub fn change(&self, filter: &str, ttl: Duration, by: &str) -> anyhow::Result<()> {
        let (mut other, end) = (self.other(), Instant::now() + ttl);
        self.0.filter.set(filter, by, Some(&rfc3339(end)))?;
        *other = Some((filter.to_owned(), end));
        self.0.changed.notify_one();
        Ok(())
    }

    /// Waits for the next end of a changed filter's time, or for a change; brings the usual one back at its end.
    pub async fn restore(&self) {
        let end = self.other().as_ref().map(|(_, end)| *end);
        let changed = self.0.changed.notified();
        match end {
            None => changed.await,
            Some(end) => drop(timeout_at(end.into(), changed).await),
        }
        let mut other = self.other();
        if other.take_if(|(_, end)| *end <= Instant::now()).is_some() {
            // Fails only where there is no log any more.
            self.0.filter.set(&self.0.usual, "its time to live", None).ok();
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
