//! `drill restart`: kills the server, starts it again at once, and measures how long nobody answers.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::{
    limits,
    process::{Builder, Server, Signal},
    quantile,
    report::{Plot, Report, Row, progress},
    stop::stage::Setup,
};

const COLUMNS: &[&str] = &["p50 ms", "p99 ms", "max ms"];
const ABOUT: &str = "The server is killed while a client asks all the time, and started again at once, as a supervisor would.";
/// Between two questions to a server that does not answer yet.
const POLL: Duration = Duration::from_millis(1);

/// One restart, in milliseconds.
struct Restart {
    /// From the start of the process to the first 200 of `/readyz`.
    ready: f64,
    /// From kill -9 to the first 200 of `/`.
    outage: f64,
}

/// Restarts the server `count` times; whether everything was within its limits.
///
/// # Errors
///
/// When the services or the server cannot be used.
pub async fn run(setup: &Setup, count: usize, folder: &Path) -> Result<bool> {
    setup.migrate().await?;
    let limits = [&limits::RESTART_READY, &limits::RESTART_OUTAGE, &limits::RESTARTS];
    let mut report = Report::new("restart", "Restart after kill -9", 36, COLUMNS, &limits).about(ABOUT);
    let (port, ops_port) = (free_port().await?, free_port().await?);
    let mut server = start(setup, port, ops_port)?;
    answers(ops_port, "/readyz").await?;
    let mut restarts = Vec::with_capacity(count);
    for number in 1..=count {
        progress(&format!("restart {number} of {count}"));
        let (next, restart) = restart(server, setup, port, ops_port).await?;
        server = next;
        restarts.push(restart);
    }
    summarize(&restarts, &mut report);
    for (number, restart) in restarts.iter().enumerate() {
        let cells = vec![format!("{:.1}", restart.ready), String::new(), String::new()];
        let point = Some((restart.ready, limits::RESTART_READY.value()));
        let detail = json!({ "ready_ms": restart.ready, "outage_ms": restart.outage });
        report.note(Row { name: format!("restart {}", number + 1), cells, point, detail, ..Row::default() });
    }
    report.finish(folder, Plot::Dots { title: "From the start of the process to ready", unit: "ms" })
}

fn start(setup: &Setup, port: u16, ops_port: u16) -> Result<Server> {
    server(setup, port, ops_port).spawn()
}

/// A server for these ports, with a key prefix of the drill's.
pub fn server(setup: &Setup, port: u16, ops_port: u16) -> Builder {
    Server::builder(&setup.server)
        .env("DATABASE_URL", &setup.database_url)
        .env("REDIS_URL", &setup.redis_url)
        .env("REDIS_PREFIX", format!("drill:{}:", std::process::id()))
        .env("PORT", port)
        .env("OPS_PORT", ops_port)
}

/// Does what a supervisor does: waits for the end, and starts the next one.
async fn restart(server: Server, setup: &Setup, port: u16, ops_port: u16) -> Result<(Server, Restart)> {
    let killed = Instant::now();
    server.signal(Signal::Kill)?;
    server.wait().await?;
    let started = Instant::now();
    let next = start(setup, port, ops_port)?;
    let (ready, served) = tokio::try_join!(answers(ops_port, "/readyz"), answers(port, "/"))
        .with_context(|| format!("after a restart; the log:\n{}", next.lines().join("\n")))?;
    let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1000.0;
    Ok((next, Restart { ready: ms(started, ready), outage: ms(killed, served) }))
}

/// When `path` first answered 200. Asks until it does, for at most 10 seconds.
pub async fn answers(port: u16, path: &str) -> Result<Instant> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let ask = async || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        (head == *b"HTTP/1.1 200").then(Instant::now)
    };
    let poll = async {
        loop {
            if let Some(at) = ask().await {
                return at;
            }
            sleep(POLL).await;
        }
    };
    timeout(Duration::from_secs(10), poll).await.with_context(|| format!("{path} gives no 200 within 10 s"))
}

/// A port that was free a moment ago. It must be the same one across restarts.
pub async fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

fn summarize(restarts: &[Restart], report: &mut Report) {
    let measures = [
        ("start of the process to ready", &limits::RESTART_READY, restarts.iter().map(|r| r.ready).collect()),
        (
            "kill -9 to the first 200 of /",
            &limits::RESTART_OUTAGE,
            restarts.iter().map(|r| r.outage).collect(),
        ),
    ];
    for (name, limit, values) in measures {
        let mut values: Vec<f64> = values;
        values.sort_by(f64::total_cmp);
        let (p50, p99, max) = (quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0));
        let misses = limit.miss(p99).into_iter().chain(limits::RESTARTS.miss(values.len() as f64));
        report.add(Row {
            name: name.to_owned(),
            cells: [p50, p99, max].map(|value| format!("{value:.1}")).into(),
            misses: misses.collect(),
            point: None,
            detail: json!({ "p50_ms": p50, "p99_ms": p99, "max_ms": max, "n": values.len() }),
            ..Row::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_measured_value() {
        let values: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|part| quantile(&values, part)), [25.0, 50.0, 50.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[tokio::test]
    async fn only_a_200_counts_as_an_answer() {
        use axum::{Router, http::StatusCode, routing::get};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = Instant::now();
        let ready = async move || match start.elapsed() > Duration::from_millis(100) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let router = Router::new().route("/readyz", get(ready));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        assert!(answers(port, "/readyz").await.unwrap() - start >= Duration::from_millis(100));
    }
}
