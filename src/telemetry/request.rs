//! The request being served: who it is, when it must be done, and where its time goes.
//!
//! One value per request, reachable from everything that runs inside it, so that a query knows the time left and a log
//! line knows its request without either being passed along.
use opentelemetry::context::FutureExt;
use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use uuid::Uuid;

tokio::task_local! {
    static CURRENT: Arc<Request>;
}

/// What is known of one request.
pub struct Request {
    /// The caller's `x-request-id` if it was sound, else our own.
    pub id: Box<str>,
    pub client: IpAddr,
    pub deadline: Instant,
    /// The trace it belongs to; its span is the parent of every span made inside.
    pub otel: opentelemetry::Context,
    /// Set once the session is known.
    pub account: OnceLock<Uuid>,
    spent: [AtomicU32; 4],
}

/// Where a request's time can go.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    Queue,
    Db,
    Redis,
    Outbound,
}

impl Request {
    pub fn new(id: Box<str>, client: IpAddr, deadline: Instant, otel: opentelemetry::Context) -> Arc<Self> {
        Arc::new(Self { id, client, deadline, otel, account: OnceLock::new(), spent: Default::default() })
    }

    /// Adds to the time spent in `part`; calls that overlap add up.
    pub fn spend(&self, part: Part, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.spent[part as usize].fetch_add(micros, Relaxed);
    }

    /// Milliseconds spent in `part` so far.
    pub fn spent_ms(&self, part: Part) -> f64 {
        f64::from(self.spent[part as usize].load(Relaxed)) / 1000.0
    }

    /// Runs `work` as this request, with its span as the current one.
    pub async fn scope<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        let otel = self.otel.clone();
        CURRENT.scope(self, work.with_context(otel)).await
    }
}

/// The request that the calling task serves, if it serves one.
pub fn current() -> Option<Arc<Request>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Asks the current request without taking a share in it.
pub fn with_current<T>(ask: impl FnOnce(&Request) -> T) -> Option<T> {
    CURRENT.try_with(|request| ask(request)).ok()
}

/// Whether the current request's deadline has passed.
pub fn is_late() -> bool {
    with_current(|request| request.deadline <= Instant::now()).unwrap_or(false)
}

/// When a call must be done that begins now and may take `own`: sooner when the current request must be.
pub fn deadline(own: Duration) -> tokio::time::Instant {
    let own = tokio::time::Instant::now() + own;
    with_current(|request| own.min(request.deadline.into())).unwrap_or(own)
}

/// Adds the time until it is dropped to `part` of the request that started it, so that an abandoned call is counted too,
/// and a shared one where it began.
pub struct Stopwatch {
    part: Part,
    start: Instant,
    request: Option<Arc<Request>>,
}

impl Stopwatch {
    pub fn start(part: Part) -> Self {
        Self { part, start: Instant::now(), request: current() }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            request.spend(self.part, self.start.elapsed());
        }
    }
}
