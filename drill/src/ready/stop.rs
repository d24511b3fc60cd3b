//! Items 2, 4 and 12: how the process ends, by its own fault, when asked to, and by force.

use std::{
    ops::Range,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, unix::pipe},
    process::Command,
    time::{Instant, timeout},
};

use super::{Finding, Subject};
use crate::{
    chaos::kill::{self, Pace},
    limits,
    process::{Server, Signal},
    stop::{
        load::{self, CLIENTS},
        stage::Setup,
    },
};

/// No supervisor says 0. It makes the task that feeds the watchdog panic, which is no request's fault.
const FAULT: (&str, &str) = ("WATCHDOG_USEC", "0");

/// A fatal fault, with somebody who reads the log and with nobody.
pub async fn last_words(subject: &Subject) -> Result<Finding> {
    let mut finding = Finding::default();
    let late = told(&subject.setup, &mut finding).await?;
    finding.hold(&limits::LAST_LINE, late);
    let (code, took) = unheard(&subject.setup).await?;
    finding.hold(&limits::EXIT_FAULT, took.as_secs_f64());
    finding.unless(code == Some(1), format!("exit code 1 expected with stdout stuck: {code:?}"));
    finding.evidence = format!(
        "a background task panics: line of level 60 out within {late:.0} ms, exit code 1; with stdout stuck, exit after {:.2} s",
        took.as_secs_f64()
    );
    Ok(finding)
}

/// Milliseconds from the time of the fatal line until it is there.
async fn told(setup: &Setup, finding: &mut Finding) -> Result<f64> {
    let server = Server::builder(&setup.server)
        .env("DATABASE_URL", &setup.database_url)
        .env("REDIS_URL", &setup.redis_url)
        .env("SHUTDOWN_LAME_DUCK", "0s")
        .env(FAULT.0, FAULT.1);
    let server = server.spawn()?;
    let line = server.line(|line| line["msg"] == "panic").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % DAY;
    let exit = server.wait().await?;
    finding.unless(exit.code == Some(1), format!("exit code 1 expected: {:?}", exit.code));
    let Ok(line) = line else {
        finding.misses.push("the panic has no line in the log".to_owned());
        return Ok(f64::NAN);
    };
    finding.unless(line["level"] == 60, format!("level 60 expected: {}", line["level"]));
    finding.unless(line["err"]["stack"].is_string(), "the line has no stack");
    let last = server.lines().pop().and_then(|line| serde_json::from_str::<Value>(&line).ok());
    finding.unless(last.is_some_and(|line| line["msg"] == "stopped"), "the last line is not `stopped`");
    let then = time_of_day(&line).context("a line has a time")?;
    Ok(((now + DAY - then) % DAY) as f64)
}

const DAY: u128 = 24 * 3600 * 1000;

/// In milliseconds.
fn time_of_day(line: &Value) -> Option<u128> {
    let time = line["time"].as_str()?.get(11..23)?;
    let part = |range: Range<usize>| time.get(range)?.parse::<u128>().ok();
    Some(((part(0..2)? * 60 + part(3..5)?) * 60 + part(6..8)?) * 1000 + part(9..12)?)
}

/// The same with a stdout that is full and that nobody reads.
async fn unheard(setup: &Setup) -> Result<(Option<i32>, Duration)> {
    let (full, _unread) = pipe::pipe()?;
    full.writable().await?;
    while full.try_write(&[b'\n'; 512]).is_ok() {}
    while full.try_write(b"\n").is_ok() {}
    let start = Instant::now();
    let mut server = Command::new(&setup.server)
        .arg("serve")
        .env_clear()
        .envs([("DATABASE_URL", &*setup.database_url), ("REDIS_URL", &*setup.redis_url)])
        .envs([("PORT", "0"), ("OPS_PORT", "0"), ("SHUTDOWN_LAME_DUCK", "0s"), FAULT])
        .stdin(Stdio::null())
        .stdout(full.into_blocking_fd()?)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    match timeout(Duration::from_secs(20), server.wait()).await {
        Ok(status) => Ok((status?.code(), start.elapsed())),
        Err(_) => Ok((None, start.elapsed())),
    }
}

/// Stops amid the requests of some hundred clients: once as shipped, and with no lame duck to warn them.
pub async fn under_load(subject: &Subject) -> Result<Finding> {
    let stops = [
        ("5s", 10_000, &limits::EXIT_IDLE),
        ("0s", 5_000, &limits::EXIT_NO_LAME_DUCK),
        ("0s", 5_000, &limits::EXIT_NO_LAME_DUCK),
    ];
    let (mut finding, mut sent, mut lost, mut took) = (Finding::default(), 0, 0, Vec::new());
    for (lame_duck, answers, exit) in stops {
        let run = load::play(&subject.setup, "ready", lame_duck, answers).await?;
        finding.misses.extend(run.misses(exit));
        finding.hold(exit, run.took());
        sent += run.counts.sent;
        lost += run.counts.lost;
        took.push(format!("{:.1}", run.took()));
    }
    finding.misses.dedup();
    let slow = slow(&subject.setup).await?;
    finding.unless(slow == "401", format!("a slow request must get its own answer, 401: {slow}"));
    finding.evidence = format!(
        "{} stops amid {sent} requests ({CLIENTS}): {lost} lost, nor a slow one; exit after {} s of the 25 s allowed",
        stops.len(),
        took.join(", ")
    );
    Ok(finding)
}

/// The status of a sign-in that comes in two parts: one before the signal, one when nobody new is let in any more.
async fn slow(setup: &Setup) -> Result<String> {
    let server = Server::builder(&setup.server)
        .env("DATABASE_URL", &setup.database_url)
        .env("REDIS_URL", &setup.redis_url)
        .env("SHUTDOWN_LAME_DUCK", "1s");
    let server = server.spawn()?;
    server.ready().await?;
    let body = r#"{"email":"nobody@example.org","password":"a long enough one"}"#;
    let head = format!(
        "POST /v1/session HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).await?;
    socket.write_all((head + &body[..9]).as_bytes()).await?;
    server.signal(Signal::Term)?;
    server.line(|line| line["msg"] == "closing").await?;
    // A server that has given up the request may be gone.
    drop(socket.write_all(&body.as_bytes()[9..]).await);
    let mut answer = Vec::new();
    drop(timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await);
    server.wait().await?;
    Ok(String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or("none").to_owned())
}

/// As often as a very bad day has it, with time to serve between.
const PACE: Pace = Pace { kills: 10, apart: Duration::from_secs(2), writers: 4 };
/// Of the objective.
const SOON: Duration = Duration::from_millis(500);

/// Kills amid writes that are retried, each with a key that makes a retry safe.
pub async fn killed(subject: &Subject) -> Result<Finding> {
    let killed = kill::play(&subject.setup, PACE).await?;
    let mut finding = Finding { misses: killed.misses(), ..Finding::default() };
    let all = killed.took.len();
    let soon = killed.took.iter().filter(|took| **took < SOON).count();
    let in_time = 100.0 * soon as f64 / all as f64;
    finding.hold(&limits::IN_TIME, in_time);
    let slowest = killed.took.iter().max().map_or(f64::NAN, Duration::as_secs_f64);
    finding.evidence = format!(
        "{} kills amid {all} writes with retries: {} acknowledged ones lost, {} done twice, {in_time:.2} % within {SOON:?}, slowest {slowest:.2} s",
        PACE.kills, killed.lost, killed.twice
    );
    Ok(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_read_to_the_millisecond() {
        let line = serde_json::json!({ "time": "2026-11-22T01:02:03.045Z" });
        assert_eq!(time_of_day(&line), Some(3_723_045));
        assert_eq!(time_of_day(&serde_json::json!({ "time": "noon" })), None);
    }
}
