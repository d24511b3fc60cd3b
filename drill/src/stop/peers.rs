//! What clients hold open across a signal, and what comes of it.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::Instant};

use super::stage::Stage;
use crate::{
    client::http1::{Answer, Connection, Failure},
    process::Exit,
};

/// What clients hold open across the signal.
#[derive(Default)]
pub struct Peers {
    held: Vec<TcpStream>,
    idle: Vec<Connection>,
    asked: JoinSet<(Instant, Result<Answer, Failure>)>,
    /// Keeps the server's workers stopped.
    keeper: JoinSet<()>,
}

/// How a request ended. `after` counts seconds from the signal.
pub struct End {
    pub after: f64,
    pub status: Option<u16>,
    pub how: String,
}

impl Peers {
    /// Sends these bytes and then nothing more; never reads.
    pub async fn hold(&mut self, stage: &Stage, bytes: &[u8]) -> Result<()> {
        let mut stream = stage.connect().await?;
        stream.write_all(bytes).await?;
        self.held.push(stream);
        Ok(())
    }

    /// One complete exchange, after which the connection stays open.
    pub async fn keep_alive(&mut self, stage: &Stage) -> Result<()> {
        let mut connection = Connection::new(stage.connect().await?);
        let exchange = connection.exchange(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", || {}).await;
        exchange.ok().context("no answer before the signal")?;
        self.idle.push(connection);
        Ok(())
    }

    /// Sends a request whose answer is waited for later. `headers` end with `\r\n` each.
    pub async fn ask(&mut self, stage: &Stage, line: &str, headers: &str, body: &str) -> Result<()> {
        let request = format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}");
        let mut connection = Connection::new(stage.connect().await?);
        self.asked.spawn(async move {
            let answer = connection.exchange(request.as_bytes(), || {}).await;
            (Instant::now(), answer)
        });
        Ok(())
    }

    /// Stops every worker of the server.
    #[cfg(target_os = "linux")]
    pub async fn wedge(&mut self, stage: &Stage) -> Result<()> {
        self.keeper = super::wedge::wedge(stage.server.pid()).await?;
        Ok(())
    }

    /// Once the process has ended: what came of each request.
    pub async fn ends(mut self, signal: Instant) -> Result<Vec<End>> {
        let mut ends = Vec::new();
        while let Some(end) = self.asked.join_next().await {
            let (at, answer) = end?;
            let after = seconds(at.saturating_duration_since(signal));
            ends.push(match answer {
                Ok(answer) => {
                    let how = answer.head.lines().next().unwrap_or_default().to_owned();
                    End { after, status: Some(answer.status), how }
                }
                Err(Failure::Lost(error)) => End { after, status: None, how: error.to_string() },
                Err(Failure::ClosedBefore) => End { after, status: None, how: "closed at once".to_owned() },
            });
        }
        Ok(ends)
    }
}

/// What came of a case.
pub struct Played {
    pub exit: Exit,
    pub lines: Vec<String>,
    pub ends: Vec<End>,
}

impl Played {
    pub fn stopped(&self) -> bool {
        super::load::stopped(self.lines.last())
    }

    /// Whether a line of level warning or above speaks of `route`.
    pub fn names(&self, route: &str) -> bool {
        self.lines.iter().any(|line| {
            let level =
                serde_json::from_str::<serde_json::Value>(line).ok().and_then(|line| line["level"].as_u64());
            level >= Some(40) && line.contains(route)
        })
    }
}

pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
