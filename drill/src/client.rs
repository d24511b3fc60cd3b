//! Clients that keep count: closed loops over HTTP/1.1 and HTTP/2 that know of every request whether it got its answer.

pub mod http1;
mod http2;
pub mod loops;
pub mod samples;
mod written;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// A client that cannot connect tries again this much later.
const RETRY: Duration = Duration::from_millis(20);
/// How long an answer may still take when the load ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Lost requests that are described one by one; the rest is only counted.
const DESCRIBED: usize = 50;

/// How many clients of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mix {
    /// HTTP/1.1, one request after the other on a connection that is kept as long as the server keeps it.
    pub keep_alive: usize,
    /// As `keep_alive`, with a pause between answer and next request: up to `think`, evenly spread.
    pub thinking: usize,
    pub think: Duration,
    /// HTTP/1.1 with a connection for each request.
    pub fresh: usize,
    /// Connections of HTTP/2, by prior knowledge.
    pub http2: usize,
    /// Requests under way at once on each of those.
    pub streams: usize,
}

impl Mix {
    /// How many requests can be under way at once.
    pub fn at_once(&self) -> usize {
        self.keep_alive + self.thinking + self.fresh + self.http2 * self.streams
    }
}

/// What became of the requests so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// A byte of the request was written.
    pub sent: u64,
    /// Complete answers, by status.
    pub answered: BTreeMap<u16, u64>,
    /// The longest that a request took to its complete answer.
    pub slowest: Duration,
    /// Requests sent on an open connection that got no complete answer.
    pub lost: u64,
    /// The first of those.
    pub losses: Vec<Loss>,
    /// Requests that crossed a GOAWAY: the server has said that it did not begin them, so they can be sent again elsewhere.
    pub turned_away: u64,
    pub connections: u64,
    /// Requests that were not sent after all, since the server had closed the connection: nothing is lost with them.
    pub closed_before: u64,
    pub refused: u64,
    /// Connections that failed in another way, so mostly on the side of the client.
    pub unconnected: u64,
}

/// A request without an answer.
#[derive(Clone, Debug)]
pub struct Loss {
    pub at: Instant,
    pub client: &'static str,
    /// Requests answered on the same connection before.
    pub after: u64,
    pub how: String,
}

impl Counts {
    pub fn answers(&self) -> u64 {
        self.answered.values().sum()
    }

    /// Answers with a status of 500 or more.
    pub fn failed(&self) -> u64 {
        self.answered.range(500..).map(|(_, count)| count).sum()
    }

    fn lose(&mut self, loss: Loss) {
        self.lost += 1;
        if self.losses.len() < DESCRIBED {
            self.losses.push(loss);
        }
    }
}

/// A load that runs until it is stopped; dropping it breaks its connections off.
pub struct Load {
    target: Arc<Target>,
    clients: JoinSet<()>,
}

/// What every client of a load shares.
struct Target {
    address: SocketAddr,
    path: String,
    cookie: Option<String>,
    counts: Mutex<Counts>,
    stopped: AtomicBool,
}

impl Load {
    /// Starts all clients of `mix`, which ask for `path` at `address`.
    pub fn start(address: SocketAddr, path: &str, mix: Mix) -> Self {
        Self::signed_in(address, path, None, mix)
    }

    /// The same, with a session's cookie.
    pub fn signed_in(address: SocketAddr, path: &str, cookie: Option<&str>, mix: Mix) -> Self {
        let (counts, stopped) = (Mutex::default(), AtomicBool::new(false));
        let (path, cookie) = (path.to_owned(), cookie.map(str::to_owned));
        let target = Arc::new(Target { address, path, cookie, counts, stopped });
        let mut clients = JoinSet::new();
        for _ in 0..mix.keep_alive {
            clients.spawn(http1::keep_alive(Arc::clone(&target), "keep-alive", Duration::ZERO));
        }
        for _ in 0..mix.thinking {
            clients.spawn(http1::keep_alive(Arc::clone(&target), "thinking", mix.think));
        }
        for _ in 0..mix.fresh {
            clients.spawn(http1::fresh(Arc::clone(&target)));
        }
        for _ in 0..mix.http2 {
            clients.spawn(http2::client(Arc::clone(&target), mix.streams));
        }
        Self { target, clients }
    }

    pub fn counts(&self) -> Counts {
        self.target.counts().clone()
    }

    /// The longest that a request took since this was asked last.
    pub fn take_slowest(&self) -> Duration {
        std::mem::take(&mut self.target.counts().slowest)
    }

    /// Waits until this many answers have come in all.
    pub async fn answers(&self, count: u64) {
        while self.target.counts().answers() < count {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets every client finish the request it is at. One that has no answer 5 seconds later is lost.
    pub async fn stop(mut self) -> Counts {
        self.target.stopped.store(true, Relaxed);
        timeout(LAST_ANSWERS, async { while self.clients.join_next().await.is_some() {} }).await.ok();
        self.clients.shutdown().await;
        let mut counts = self.counts();
        for _ in counts.answers() + counts.lost + counts.turned_away..counts.sent {
            let how = "no answer, and no end of the connection".to_owned();
            counts.lose(Loss { at: Instant::now(), client: "any", after: 0, how });
        }
        counts
    }
}

impl Target {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder of this lock can panic")
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    fn answered(&self, status: u16, asked: Instant) {
        let mut counts = self.counts();
        *counts.answered.entry(status).or_default() += 1;
        counts.slowest = counts.slowest.max(asked.elapsed());
    }

    fn lost(&self, client: &'static str, after: u64, how: &dyn std::fmt::Display) {
        self.counts().lose(Loss { at: Instant::now(), client, after, how: how.to_string() });
    }

    /// A connection, as soon as one can be had; `None` once the load is stopped.
    async fn connect(&self) -> Option<TcpStream> {
        while !self.stopped() {
            let connected = TcpStream::connect(self.address).await.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            match connected {
                Ok(stream) => {
                    self.counts().connections += 1;
                    return Some(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.counts().refused += 1,
                Err(_) => self.counts().unconnected += 1,
            }
            sleep(RETRY).await;
        }
        None
    }
}

#[cfg(test)]
mod tests;
