//! Item 5: the probes mean what they say, from an empty database to the stop.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{Finding, Subject};
use crate::{
    client::http1::ask,
    ground::with_path,
    limits::{self, Limit},
    process::Signal,
    proxy::Mode,
    stop::stage::{Setup, Stage},
};

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn check(subject: &Subject) -> Result<Finding> {
    let admin = &subject.setup.database_url;
    let name = format!("drill_{}_ready", std::process::id());
    let mut postgres = PgConnection::connect(admin).await?;
    let mut run =
        async |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut postgres).await.map(drop);
    run(format!("CREATE DATABASE {name}")).await?;
    let fresh = Setup { database_url: with_path(admin, &name)?, ..subject.setup.clone() };
    let finding = life(&fresh).await;
    run(format!("DROP DATABASE {name} WITH (FORCE)")).await?;
    finding
}

/// What was seen of one process.
struct Watch {
    ops: SocketAddr,
    finding: Finding,
}

async fn life(fresh: &Setup) -> Result<Finding> {
    let stage = Stage::start(fresh, "ready", Mode::Refuse, &[("SHUTDOWN_LAME_DUCK", "1s")]).await?;
    let ops = SocketAddr::from(([127, 0, 0, 1], stage.server.ops_port()));
    let mut watch = Watch { ops, finding: Finding::default() };
    watch.sees("with no dependency seen yet", 503, "starting", ["down", "down"]).await;
    stage.postgres.set(Mode::Pass).await;
    stage.redis.set(Mode::Pass).await;
    watch.sees("with an empty database", 503, "starting", ["up", "up"]).await;
    fresh.migrate().await?;
    watch.sees("once migrated", 200, "ready", ["up", "up"]).await;
    stage.postgres.set(Mode::Refuse).await;
    stage.postgres.reset_existing();
    let lost = watch.within(&limits::DEGRADED, "without Postgres", 200, "degraded", ["down", "up"]).await;
    let root = ask(stage.address(), "GET /", "", "").await?.status;
    watch.finding.unless(root == 200, format!("GET / without Postgres: {root}"));
    stage.postgres.set(Mode::Pass).await;
    let back = watch.within(&limits::DEGRADED, "with Postgres again", 200, "ready", ["up", "up"]).await;
    stage.server.signal(Signal::Term)?;
    watch.sees("in the drain", 503, "draining", ["up", "up"]).await;
    let exit = stage.server.wait().await?;
    watch.finding.unless(exit.code == Some(0), format!("exit code 0 expected: {:?}", exit.code));
    watch.finding.evidence = format!(
        "starting without dependencies and without a schema, ready, degraded {lost:.1} s into an outage of Postgres, ready {back:.1} s \
        after it, draining; healthz 200 throughout"
    );
    Ok(watch.finding)
}

impl Watch {
    /// Waits for that answer of `/readyz`, and asks `/healthz`, which must be well whatever the other says.
    async fn sees(&mut self, when: &str, status: u16, word: &str, checks: [&str; 2]) -> f64 {
        let (start, mut last) = (Instant::now(), String::new());
        let came = timeout(PATIENCE, async {
            loop {
                match self.ready().await {
                    Ok((code, body)) if is(&body, word, checks) && code == status => return,
                    Ok((code, body)) => last = format!("{code} {body}"),
                    Err(error) => last = format!("{error:#}"),
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let took = if came.await.is_ok() { start.elapsed().as_secs_f64() } else { f64::NAN };
        let [postgres, redis] = checks;
        self.finding.unless(
            took.is_finite(),
            format!(
                "/readyz {when}: {status} {word} expected, with Postgres {postgres} and Redis {redis}: {last}"
            ),
        );
        let alive =
            ask(self.ops, "GET /healthz", "", "").await.map(|answer| answer.status).unwrap_or_default();
        self.finding.unless(alive == 200, format!("/healthz {when}: {alive}"));
        took
    }

    async fn within(&mut self, limit: &Limit, when: &str, status: u16, word: &str, checks: [&str; 2]) -> f64 {
        let took = self.sees(when, status, word, checks).await;
        self.finding.hold(limit, took);
        took
    }

    async fn ready(&self) -> Result<(u16, Value)> {
        let answer = ask(self.ops, "GET /readyz", "", "").await?;
        Ok((answer.status, serde_json::from_slice(&answer.body).context("/readyz is JSON")?))
    }
}

fn is(body: &Value, word: &str, [postgres, redis]: [&str; 2]) -> bool {
    let check = |name: &str| &body["checks"][name]["status"];
    body["status"] == word && check("postgres") == postgres && check("redis") == redis
}
