//! Requests that are timed one by one: what was asked, when it was due, and what became of it.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::http1::{Answer, Connection, Failure};

/// What a request needs to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No session and no dependency.
    Anonymous,
    /// A session, which is in Redis.
    Session,
    /// Some rows of Postgres.
    Read,
    /// One row of Postgres, where there is the example.
    One,
    /// A new row in Postgres.
    Write,
    /// The upstream.
    Preview,
    /// A password to be checked, which takes a core for a while.
    SignIn,
    /// Nothing: a probe.
    Health,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Ask {
    pub kind: Kind,
    pub request: Arc<str>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered {
        status: u16,
        retry_after: bool,
        sets_cookie: bool,
    },
    /// No connection could be had.
    Refused,
    /// It was sent, and the connection ended without an answer.
    Lost,
    /// No answer in the time that a client has.
    Late,
}

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub kind: Kind,
    pub due: Instant,
    /// From when it was due: a client that comes late to ask has waited too.
    pub took: Duration,
    pub outcome: Outcome,
}

impl Sample {
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Answered { status: 200..400, .. })
    }

    pub fn end(&self) -> Instant {
        self.due + self.took
    }

    /// The status in words, for what was no good.
    pub fn how(&self) -> String {
        match self.outcome {
            Outcome::Answered { status, .. } => status.to_string(),
            Outcome::Refused => "refused".to_owned(),
            Outcome::Lost => "lost".to_owned(),
            Outcome::Late => "no answer".to_owned(),
        }
    }
}

/// The client's side: a stock of idle connections to one address, and everything that was asked through it.
pub struct Recorder {
    address: SocketAddr,
    /// How long a client waits for an answer.
    patience: Duration,
    connections: Semaphore,
    idle: Mutex<Vec<Connection>>,
    samples: Mutex<Vec<Sample>>,
}

impl Recorder {
    /// Asks over at most so many connections at once.
    pub fn new(address: SocketAddr, connections: usize, patience: Duration) -> Arc<Self> {
        let (idle, samples) = Default::default();
        Arc::new(Self { address, patience, connections: Semaphore::new(connections), idle, samples })
    }

    /// Sends the request, and records what became of it.
    pub async fn record(&self, ask: &Ask, due: Instant) -> Sample {
        let outcome = timeout(self.patience, self.exchange(&ask.request)).await.unwrap_or(Outcome::Late);
        let sample = Sample { kind: ask.kind, due, took: due.elapsed(), outcome };
        lock(&self.samples).push(sample);
        sample
    }

    /// Everything so far, in the order of its end.
    pub fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Closes the idle connections.
    pub fn hang_up(&self) {
        lock(&self.idle).clear();
    }

    async fn exchange(&self, request: &str) -> Outcome {
        let Ok(_place) = self.connections.acquire().await else { return Outcome::Refused };
        loop {
            let idle = lock(&self.idle).pop();
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => match connect(self.address).await {
                    Ok(connection) => connection,
                    Err(outcome) => return outcome,
                },
            };
            match connection.exchange(request.as_bytes(), || {}).await {
                Ok(answer) => {
                    if !answer.close {
                        lock(&self.idle).push(connection);
                    }
                    return outcome(&answer);
                }
                // It was closed while nobody asked for anything: the next one may live.
                Err(Failure::ClosedBefore) if was_idle => {}
                Err(_) => return Outcome::Lost,
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<Connection, Outcome> {
    let connected = TcpStream::connect(address).await.and_then(|stream| {
        stream.set_nodelay(true)?;
        Ok(stream)
    });
    connected.map(Connection::new).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        _ => Outcome::Lost,
    })
}

fn outcome(answer: &Answer) -> Outcome {
    Outcome::Answered {
        status: answer.status,
        retry_after: answer.header("retry-after").is_some(),
        sets_cookie: answer.header("set-cookie").is_some(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock can panic")
}

/// The quantile of these times, in milliseconds.
pub fn quantile<'a>(samples: impl IntoIterator<Item = &'a Sample>, part: f64) -> f64 {
    let mut times: Vec<f64> = samples.into_iter().map(|sample| sample.took.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    crate::quantile(&times, part)
}

/// How many of these there were of each outcome, in words: `200 × 503`.
pub fn tally<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    for sample in samples {
        *tally.entry(sample.how()).or_default() += 1;
    }
    tally
}
