//! Names the request that holds a worker, while it does: a handler that sleeps or computes where it should await keeps
//! every task of its worker waiting.
//!
//! A thread off the runtime looks again and again at what the workers poll. It needs no clock of theirs: what it still
//! sees after [`LIMIT`] has lasted that long.
use super::polls::{Poll, Poller};
use crate::telemetry::metrics;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Longest poll that is no stall.
const LIMIT: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many stalls are remembered.
const KEPT: usize = 100;

/// The last stalls, newest first; clones share them.
#[derive(Clone, Default)]
pub struct Stalls(Arc<Mutex<VecDeque<Arc<Stall>>>>);

struct Stall {
    at: DateTime<Utc>,
    since: Instant,
    route: &'static str,
    took: OnceLock<Duration>,
}

/// A stall, to be shown.
#[derive(Serialize)]
pub struct Item {
    /// When the poll began, RFC 3339 UTC.
    at: String,
    route: &'static str,
    /// So far, while it lasts.
    duration_ms: u64,
}

impl Stalls {
    /// Starts the thread that watches the workers. Called once per process.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn watch() -> io::Result<Self> {
        let stalls = Self::default();
        let found = stalls.clone();
        thread::Builder::new().name("stalls".to_owned()).spawn(move || found.look_on())?;
        Ok(stalls)
    }

    pub fn items(&self) -> Vec<Item> {
        let stalls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stalls.iter().map(|stall| stall.item()).collect()
    }

    fn look_on(&self) -> ! {
        let mut watches = Vec::new();
        loop {
            thread::sleep(LOOK_EVERY);
            watches
                .extend(Poller::take_new().into_iter().map(|poller| (poller, Watch::new(Poll::default()))));
            for (poller, watch) in &mut watches {
                watch.look(poller, self);
            }
            // A thread that has ended has let go of its share.
            watches.retain(|(poller, _)| Arc::strong_count(poller) > 1);
        }
    }

    fn add(&self, stall: &Arc<Stall>) {
        metrics::runtime_stall();
        tracing::warn!(route = stall.route, duration_ms = stall.millis(), "a handler blocks its worker");
        let mut stalls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stalls.push_front(Arc::clone(stall));
        stalls.truncate(KEPT);
    }
}

impl Stall {
    fn millis(&self) -> u64 {
        self.took.get().copied().unwrap_or_else(|| self.since.elapsed()).as_millis() as u64
    }

    fn item(&self) -> Item {
        let at = self.at.to_rfc3339_opts(SecondsFormat::Millis, true);
        Item { at, route: self.route, duration_ms: self.millis() }
    }
}

/// What is known of the poll that a worker is in.
struct Watch {
    poll: Poll,
    /// The first and the last look at it.
    since: Instant,
    last: Instant,
    /// The worker's CPU time at the last look but the first.
    cpu: Duration,
    held: Duration,
    stall: Option<Arc<Stall>>,
}

impl Watch {
    fn new(poll: Poll) -> Self {
        let now = Instant::now();
        Self { poll, since: now, last: now, cpu: Duration::ZERO, held: Duration::ZERO, stall: None }
    }

    fn look(&mut self, poller: &Poller, stalls: &Stalls) {
        let poll = poller.poll();
        if poll != self.poll {
            self.over();
            *self = Self::new(poll);
        } else if let Some(route) = poll.route() {
            let holding = self.holding(poller);
            self.held += holding;
            if self.held >= LIMIT && self.stall.is_none() {
                let (since, at) = (self.since, Utc::now() - self.since.elapsed());
                let stall = Arc::new(Stall { at, since, route: route.name(), took: OnceLock::new() });
                stalls.add(&stall);
                self.stall = Some(stall);
            }
        }
    }

    /// How long the worker was held since the last look: all the time by a handler that sleeps, and by one that could
    /// run for as long as it did. On a busy machine it may wait long for a CPU, which is not its own doing.
    fn holding(&mut self, poller: &Poller) -> Duration {
        let now = Instant::now();
        // This thread is late itself when the whole process was stopped.
        let passed = now.duration_since(mem::replace(&mut self.last, now)).min(LOOK_EVERY * 2);
        let Some((runnable, cpu)) = poller.cpu() else { return passed };
        let used = cpu.saturating_sub(mem::replace(&mut self.cpu, cpu));
        if runnable { used.min(passed) } else { passed }
    }

    fn over(&self) {
        if let Some(stall) = &self.stall {
            stall.took.get_or_init(|| stall.since.elapsed());
            tracing::warn!(route = stall.route, duration_ms = stall.millis(), "the worker is free again");
        }
    }
}
