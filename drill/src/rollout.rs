//! `drill rollout`: replaces every replica under load, again and again, and counts what fails.

mod balancer;
mod cluster;
mod fleet;

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    client::{Counts, Load, Mix, http1::ask},
    limits::{self, Limit},
    report::{Plot, Report, Row},
    stop::stage::Setup,
};

pub use cluster::Cluster;

/// Clients of every kind; most of them think, so that the load is that of a quiet day and the worst latency tells.
const MIX: Mix =
    Mix { keep_alive: 4, thinking: 120, think: Duration::from_millis(150), fresh: 4, http2: 6, streams: 2 };
/// Asks for a session, which is in Redis, and for its account, which is in Postgres.
const PATH: &str = "/v1/session";
const PASSWORD: &str = "correct horse battery staple";

const COLUMNS: &[&str] = &["requests", "failed", "away", "worst ms", "took s"];
const WIDTH: usize = 34;
const ABOUT: &str = "Clients that keep their connections, clients that think, a connection per request, and HTTP/2, while one \
    replica after the other is replaced. Failed: lost, refused, or answered with an error. Away: HTTP/2 requests that the \
    server named as not begun, so that the client sends them again. Worst: the slowest request.";
const LIMITS: [&Limit; 4] =
    [&limits::ROLLOUT_FAILED, &limits::ROLLOUT_REQUESTS, &limits::KILL_LOST, &limits::KILL_LATE];
const PLOT: Plot = Plot::Bars { title: "The slowest request", unit: "ms" };

/// Rolls three processes behind a balancer, at least `restarts` times and until there were enough requests, then kills
/// one; whether everything was within its limits.
///
/// # Errors
///
/// When the services or the server cannot be used.
pub async fn processes(setup: &Setup, restarts: usize, folder: &Path) -> Result<bool> {
    let mut report =
        Report::new("rollout", "Rolling restarts of three processes", WIDTH, COLUMNS, &LIMITS).about(ABOUT);
    let mut fleet = fleet::Fleet::start(setup, &[]).await?;
    let mut watched = Watched::start(fleet.address()).await?;
    for number in 1.. {
        fleet.roll().await?;
        report.add(watched.row(format!("rolling restart {number}")));
        if number >= restarts && watched.sent() >= limits::ROLLOUT_REQUESTS.value() as u64 {
            break;
        }
    }
    let killed = fleet.kill(&watched).await?;
    report.add(watched.killed("kill -9 of one", &killed));
    report.add(watched.stop().await);
    report.finish(folder, PLOT)
}

/// One rolling restart of processes that do not wait for the balancer: requests must fail.
///
/// # Errors
///
/// As [`processes`].
pub async fn control(setup: &Setup, folder: &Path) -> Result<bool> {
    let mut report =
        Report::new("rollout-mutants", "A stop without a lame duck", WIDTH, COLUMNS, &[&limits::MUTANT_LOST]);
    let mut fleet = fleet::Fleet::start(setup, &[("SHUTDOWN_LAME_DUCK", "0s")]).await?;
    let mut watched = Watched::start(fleet.address()).await?;
    fleet.roll().await?;
    let mut row = watched.row("rolling restart".to_owned());
    row.misses = limits::MUTANT_LOST.miss(watched.failed() as f64).into_iter().collect();
    report.add(row);
    report.finish(folder, PLOT)
}

/// The same in a cluster: rolling restarts, then pods deleted, killed and drained.
///
/// # Errors
///
/// When the cluster cannot be used.
pub async fn in_cluster(cluster: &Cluster, restarts: usize, folder: &Path) -> Result<bool> {
    let title = "Rolling restarts in the cluster of the current kubectl context";
    let mut report = Report::new("rollout-cluster", title, WIDTH, COLUMNS, &LIMITS).about(ABOUT);
    let unlimited = cluster.lift_limits().await?;
    let outcome = under_load(cluster, restarts, &mut report).await;
    unlimited.restore().await?;
    outcome?;
    report.finish(folder, PLOT)
}

async fn under_load(cluster: &Cluster, restarts: usize, report: &mut Report) -> Result<()> {
    let mut watched = Watched::start(cluster.address().await?).await?;
    for number in 1.. {
        cluster.restart().await?;
        report.add(watched.row(format!("rolling restart {number}")));
        if number >= restarts && watched.sent() >= limits::ROLLOUT_REQUESTS.value() as u64 {
            break;
        }
    }
    cluster.delete_pod().await?;
    report.add(watched.row("kubectl delete pod".to_owned()));
    if cluster.drain().await? {
        report.add(watched.row("kubectl drain".to_owned()));
    }
    let killed = cluster.kill(&watched).await?;
    report.add(watched.killed("pod deleted by force", &killed));
    report.add(watched.stop().await);
    Ok(())
}

/// What is known of a replica that was killed.
pub struct Killed {
    /// Requests that it may have held.
    in_flight: usize,
    /// Failed requests 2 s after.
    failed_soon: u64,
}

/// A load, and what was seen of it before.
pub struct Watched {
    load: Load,
    before: Counts,
    since: std::time::Instant,
}

impl Watched {
    async fn start(address: SocketAddr) -> Result<Self> {
        let cookie = sign_up(address).await?;
        let load = Load::signed_in(address, PATH, Some(&cookie), MIX);
        Ok(Self { load, before: Counts::default(), since: std::time::Instant::now() })
    }

    fn sent(&self) -> u64 {
        self.load.counts().sent
    }

    fn failed(&self) -> u64 {
        failed(&self.load.counts())
    }

    /// What happened since the last row. Nothing may have failed.
    fn row(&mut self, name: String) -> Row {
        let (before, now) = (self.before.clone(), self.load.counts());
        let failures = failed(&now) - failed(&before);
        let mut row = self.measured(name, &before, &now);
        row.misses = limits::ROLLOUT_FAILED.miss(failures as f64).into_iter().collect();
        if failures > 0 {
            row.misses.push(describe(&before, &now));
        }
        row
    }

    /// The same, where a replica was killed: only what it held may have failed.
    fn killed(&mut self, name: &str, killed: &Killed) -> Row {
        let (before, now) = (self.before.clone(), self.load.counts());
        let all = failed(&now) - failed(&before);
        let held = all as f64 / killed.in_flight.max(1) as f64;
        let late = failed(&now) - killed.failed_soon;
        let name = format!("{name}: {} in flight", killed.in_flight);
        let mut row = self.measured(name, &before, &now);
        row.misses = [limits::KILL_LOST.miss(held), limits::KILL_LATE.miss(late as f64)]
            .into_iter()
            .flatten()
            .collect();
        row
    }

    fn measured(&mut self, name: String, before: &Counts, now: &Counts) -> Row {
        let worst = self.load.take_slowest().as_secs_f64() * 1000.0;
        let took = std::mem::replace(&mut self.since, std::time::Instant::now()).elapsed().as_secs_f64();
        self.before = now.clone();
        let (sent, failures) = (now.sent - before.sent, failed(now) - failed(before));
        let away = now.turned_away - before.turned_away;
        let cells = [
            sent.to_string(),
            failures.to_string(),
            away.to_string(),
            format!("{worst:.0}"),
            format!("{took:.0}"),
        ];
        let detail =
            json!({ "sent": sent, "failed": failures, "away": away, "worst_ms": worst, "took_s": took });
        Row { name, cells: cells.into(), point: Some((worst, f64::MAX)), detail, ..Row::default() }
    }

    /// Ends the load. Nothing more may fail by that.
    async fn stop(self) -> Row {
        let Self { load, before, .. } = self;
        let all = load.stop().await;
        let late = failed(&all) - failed(&before);
        let Counts { sent, turned_away, connections, .. } = all;
        let misses = [limits::ROLLOUT_REQUESTS.miss(sent as f64), limits::ROLLOUT_FAILED.miss(late as f64)];
        Row {
            name: format!("all, over {connections} connections"),
            cells: [
                sent.to_string(),
                failed(&all).to_string(),
                turned_away.to_string(),
                String::new(),
                String::new(),
            ]
            .into(),
            misses: misses.into_iter().flatten().collect(),
            detail: json!({ "sent": sent, "failed": failed(&all), "connections": connections }),
            ..Row::default()
        }
    }
}

/// Whatever a client would call a failure. A request that crossed a GOAWAY is none: it was named as not begun.
fn failed(counts: &Counts) -> u64 {
    counts.lost + counts.failed() + counts.refused + counts.unconnected
}

/// What failed in between, by kind, and the first losses in words.
fn describe(before: &Counts, now: &Counts) -> String {
    let mut words = vec![
        format!("{} refused", now.refused - before.refused),
        format!("{} unconnected", now.unconnected - before.unconnected),
        format!("{} lost", now.lost - before.lost),
    ];
    for (status, count) in now.answered.range(500..) {
        words.push(format!("{} answered {status}", count - before.answered.get(status).unwrap_or(&0)));
    }
    let new = now.losses.iter().skip(before.losses.len()).take(5);
    words.extend(new.map(|loss| format!("{}, after {} answers: {}", loss.client, loss.after, loss.how)));
    words.join("; ")
}

/// A new account's cookie.
async fn sign_up(address: SocketAddr) -> Result<String> {
    let email = format!("rollout-{}-{}@example.org", std::process::id(), crate::fraction());
    let body = format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#);
    let answer = ask(address, "POST /v1/accounts", "", &body).await?;
    ensure!(answer.status == 201, "signing up at {address}: {}", answer.head);
    let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    Ok(cookie.context("signing up sets a cookie")?.to_owned())
}
