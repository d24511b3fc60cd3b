//! kill -9 amid writes, again and again: what was acknowledged must be there, once.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sqlx::Row as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{COLUMNS, empty};
use crate::{
    client::{
        http1::ask,
        samples::{Kind, Outcome, Sample, quantile, tally},
    },
    ground::Ground,
    limits,
    process::{Server, Signal},
    report::{Row, progress, timeline::Timeline},
    restart,
    stop::stage::Setup,
    traffic::Traffic,
};

pub const NAME: &str = "kill -9 amid writes";
/// As fast as it goes: some of so many hit each moment of a write.
const PACE: Pace = Pace { kills: 200, apart: Duration::from_millis(100), writers: 8 };
/// Between two tries of one write.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the server is killed, amid how many writers.
#[derive(Clone, Copy)]
pub struct Pace {
    pub kills: usize,
    /// The longest time between a start and the next kill.
    pub apart: Duration,
    pub writers: usize,
}

/// What came of it.
pub struct Killed {
    pace: Pace,
    /// From the first try of each acknowledged write to its acknowledgement.
    pub took: Vec<Duration>,
    /// Every try.
    tries: Vec<Sample>,
    /// Acknowledged, but not in the database.
    pub lost: usize,
    /// More than once in the database.
    pub twice: usize,
    /// The status of a session that is older than the first kill.
    session: u16,
    /// Of the load, of the first kill, of the last start.
    times: [Instant; 3],
}

pub async fn row(setup: &Setup) -> Row {
    match play(setup, PACE).await {
        Ok(killed) => killed.row(),
        Err(error) => empty(NAME.to_owned(), vec![format!("broke off: {error:#}")]),
    }
}

/// What the writers share.
struct Writes {
    address: SocketAddr,
    traffic: Traffic,
    stopped: AtomicBool,
    /// What was answered with 201, or found done by a retry, and how long that took.
    acknowledged: Mutex<Vec<(String, Duration)>>,
    tries: Mutex<Vec<Sample>>,
}

/// Kills and starts the server at that pace, while every writer retries until its write is acknowledged.
pub async fn play(setup: &Setup, pace: Pace) -> Result<Killed> {
    let mut ground = Ground::start(setup, "kill", &[], None).await?;
    let (port, ops_port) = (restart::free_port().await?, restart::free_port().await?);
    let mut server = start(&ground.setup, port, ops_port)?;
    restart::answers(port, "/").await?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let traffic = Traffic::start(address, "kill").await?;
    let (stopped, acknowledged, tries) = Default::default();
    let writes = Arc::new(Writes { address, traffic, stopped, acknowledged, tries });
    let mut writers = JoinSet::new();
    for writer in 0..pace.writers {
        writers.spawn(Arc::clone(&writes).run(writer));
    }
    let start = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let begin = Instant::now();
    for number in 1..=pace.kills {
        progress(&format!("kill {number} of {}", pace.kills));
        sleep(pace.apart.mul_f64(crate::fraction())).await;
        server = restarted(server, &ground.setup, port, ops_port).await?;
    }
    let end = Instant::now();
    sleep(Duration::from_secs(2)).await;
    writes.stopped.store(true, Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    let session = ask(address, "GET /v1/session", &writes.traffic.cookie_line(), "").await?;
    let table =
        if writes.traffic.has_example() { "SELECT url FROM bookmarks" } else { "SELECT email FROM accounts" };
    let rows = sqlx::query(table).fetch_all(&mut ground.postgres).await?;
    let mut found: HashMap<String, u64> = HashMap::new();
    for row in rows {
        *found.entry(row.try_get::<String, _>(0)?).or_default() += 1;
    }
    drop(server);
    ground.clear().await?;
    Ok(writes.outcome(pace, &found, session.status, [start, begin, end]))
}

fn start(setup: &Setup, port: u16, ops_port: u16) -> Result<Server> {
    restart::server(setup, port, ops_port)
        .env("RATE_LIMIT", "1000000/1m")
        .env("LOGIN_RATE_LIMIT", "1000000/1m")
        .spawn()
}

/// Kills the server, and starts the next one as a supervisor does.
async fn restarted(server: Server, setup: &Setup, port: u16, ops_port: u16) -> Result<Server> {
    server.signal(Signal::Kill)?;
    server.wait().await?;
    let next = start(setup, port, ops_port)?;
    restart::answers(port, "/").await?;
    Ok(next)
}

impl Writes {
    async fn run(self: Arc<Self>, writer: usize) -> Result<()> {
        let mut number = 0;
        while !self.stopped.load(Relaxed) {
            let id = format!("w{writer}-{number}");
            self.write(&id).await.with_context(|| id.clone())?;
            number += 1;
        }
        Ok(())
    }

    /// Tries until it is done.
    async fn write(&self, id: &str) -> Result<()> {
        let start = Instant::now();
        let (line, headers, body, name) = if self.traffic.has_example() {
            let headers = format!("{}idempotency-key: {id}\r\n", self.traffic.cookie_line());
            let url = format!("https://example.org/{id}");
            ("POST /v1/bookmarks", headers, json!({ "url": url }), url)
        } else {
            let email = format!("{id}@example.org");
            (
                "POST /v1/accounts",
                String::new(),
                json!({ "email": email, "password": "correct horse battery" }),
                email,
            )
        };
        let mut is_retry = false;
        loop {
            let due = Instant::now();
            let answer = timeout(PATIENCE, ask(self.address, line, &headers, &body.to_string())).await;
            let status = answer.ok().and_then(Result::ok).map(|answer| answer.status);
            self.note(due, status);
            match status {
                Some(201) => break,
                // Without a key, that is how a retry learns that the first try was done.
                Some(409) if is_retry && !self.traffic.has_example() => break,
                Some(409 | 503 | 504) | None => {}
                Some(other) => bail!("answered {other}"),
            }
            is_retry = true;
            sleep(PAUSE).await;
        }
        lock(&self.acknowledged).push((name, start.elapsed()));
        Ok(())
    }

    fn outcome(&self, pace: Pace, found: &HashMap<String, u64>, session: u16, times: [Instant; 3]) -> Killed {
        let acknowledged = lock(&self.acknowledged);
        Killed {
            pace,
            took: acknowledged.iter().map(|(_, took)| *took).collect(),
            tries: lock(&self.tries).clone(),
            lost: acknowledged.iter().filter(|(name, _)| !found.contains_key(name)).count(),
            twice: found.values().filter(|count| **count > 1).count(),
            session,
            times,
        }
    }

    fn note(&self, due: Instant, status: Option<u16>) {
        let outcome = status.map_or(Outcome::Lost, |status| Outcome::Answered {
            status,
            retry_after: false,
            sets_cookie: false,
        });
        lock(&self.tries).push(Sample { kind: Kind::Write, due, took: due.elapsed(), outcome });
    }
}

impl Killed {
    /// What must hold at any pace.
    pub fn misses(&self) -> Vec<String> {
        let misses =
            [limits::ACKNOWLEDGED_LOST.miss(self.lost as f64), limits::WRITTEN_TWICE.miss(self.twice as f64)];
        let session = (self.session != 200)
            .then(|| format!("the session did not outlive the processes: {}", self.session));
        misses.into_iter().flatten().chain(session).collect()
    }

    fn row(&self) -> Row {
        let Self { pace, took, tries, times: [start, begin, end], .. } = self;
        let last = tries.iter().filter(|sample| !sample.is_good()).map(|sample| sample.end()).max();
        let back = last.map_or(0.0, |last| last.saturating_duration_since(*end).as_secs_f64());
        let good = tries.iter().filter(|sample| sample.is_good()).count();
        let longest = took.iter().max().map_or(f64::NAN, Duration::as_secs_f64);
        let mut misses = self.misses();
        misses.extend(
            [limits::KILLS.miss(pace.kills as f64), limits::BACK_AT_ONCE.miss(back)].into_iter().flatten(),
        );
        let cells = [
            format!("{longest:.2}"),
            format!("{back:.2}"),
            format!("{:.1}", 100.0 * good as f64 / tries.len().max(1) as f64),
            "-".to_owned(),
            format!("{:.0}", quantile(tries, 0.99)),
            tries.len().to_string(),
        ];
        debug_assert_eq!(cells.len(), COLUMNS.len());
        Row {
            name: format!("{NAME}: {} times, {} writes", pace.kills, took.len()),
            cells: cells.into(),
            misses,
            point: Some((back, limits::BACK_AT_ONCE.value())),
            detail: json!({
                "kills": pace.kills, "acknowledged": took.len(), "lost": self.lost, "twice": self.twice,
                "tries": tally(tries),
            }),
            over_time: Some(Timeline::of(NAME, tries, *start, (*begin, *end))),
            ..Row::default()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock can panic")
}
