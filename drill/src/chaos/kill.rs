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
const KILLS: usize = 200;
const WRITERS: usize = 8;
/// Between two tries of one write.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn row(setup: &Setup) -> Row {
    match play(setup).await {
        Ok(row) => row,
        Err(error) => empty(NAME.to_owned(), vec![format!("broke off: {error:#}")]),
    }
}

/// What the writers share.
struct Writes {
    address: SocketAddr,
    traffic: Traffic,
    stopped: AtomicBool,
    /// What was answered with 201, or found done by a retry.
    acknowledged: Mutex<Vec<String>>,
    /// Every try, and the longest time from a first one to its acknowledgement.
    tries: Mutex<(Vec<Sample>, Duration)>,
}

async fn play(setup: &Setup) -> Result<Row> {
    let mut ground = Ground::start(setup, "kill", &[], None).await?;
    let (port, ops_port) = (restart::free_port().await?, restart::free_port().await?);
    let mut server = start(&ground.setup, port, ops_port)?;
    restart::answers(port, "/").await?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let traffic = Traffic::start(address, "kill").await?;
    let (stopped, acknowledged, tries) = Default::default();
    let writes = Arc::new(Writes { address, traffic, stopped, acknowledged, tries });
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(Arc::clone(&writes).run(writer));
    }
    let start = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let begin = Instant::now();
    for number in 1..=KILLS {
        progress(&format!("kill {number} of {KILLS}"));
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
    Ok(judge(&writes, &found, session.status, [start, begin, end]))
}

fn start(setup: &Setup, port: u16, ops_port: u16) -> Result<Server> {
    restart::server(setup, port, ops_port)
        .env("RATE_LIMIT", "1000000/1m")
        .env("LOGIN_RATE_LIMIT", "1000000/1m")
        .spawn()
}

/// Kills the server at a random moment, and starts the next one as a supervisor does.
async fn restarted(server: Server, setup: &Setup, port: u16, ops_port: u16) -> Result<Server> {
    sleep(Duration::from_millis(100).mul_f64(crate::fraction())).await;
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
        lock(&self.acknowledged).push(name);
        let mut tries = lock(&self.tries);
        tries.1 = tries.1.max(start.elapsed());
        Ok(())
    }

    fn note(&self, due: Instant, status: Option<u16>) {
        let outcome = status.map_or(Outcome::Lost, |status| Outcome::Answered {
            status,
            retry_after: false,
            sets_cookie: false,
        });
        lock(&self.tries).0.push(Sample { kind: Kind::Write, due, took: due.elapsed(), outcome });
    }
}

fn judge(
    writes: &Writes,
    found: &HashMap<String, u64>,
    session: u16,
    [start, begin, end]: [Instant; 3],
) -> Row {
    let acknowledged = lock(&writes.acknowledged);
    let (samples, longest) = &*lock(&writes.tries);
    let lost = acknowledged.iter().filter(|name| !found.contains_key(*name)).count() as f64;
    let twice = found.values().filter(|count| **count > 1).count() as f64;
    let last = samples.iter().filter(|sample| !sample.is_good()).map(|sample| sample.end()).max();
    let back = last.map_or(0.0, |last| last.saturating_duration_since(end).as_secs_f64());
    let good = samples.iter().filter(|sample| sample.is_good()).count();
    let mut misses: Vec<String> = [
        limits::ACKNOWLEDGED_LOST.miss(lost),
        limits::WRITTEN_TWICE.miss(twice),
        limits::KILLS.miss(KILLS as f64),
        limits::BACK_AT_ONCE.miss(back),
    ]
    .into_iter()
    .flatten()
    .collect();
    if session != 200 {
        misses.push(format!("the session did not outlive the processes: {session}"));
    }
    let cells = [
        format!("{:.2}", longest.as_secs_f64()),
        format!("{back:.2}"),
        format!("{:.1}", 100.0 * good as f64 / samples.len().max(1) as f64),
        "-".to_owned(),
        format!("{:.0}", quantile(samples, 0.99)),
        samples.len().to_string(),
    ];
    debug_assert_eq!(cells.len(), COLUMNS.len());
    Row {
        name: format!("{NAME}: {KILLS} times, {} writes", acknowledged.len()),
        cells: cells.into(),
        misses,
        point: Some((back, limits::BACK_AT_ONCE.value())),
        detail: json!({ "kills": KILLS, "acknowledged": acknowledged.len(), "lost": lost, "twice": twice, "tries": tally(samples) }),
        over_time: Some(Timeline::of(NAME, samples, start, (begin, end))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock can panic")
}
