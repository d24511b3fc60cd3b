//! Ground of one's own: a server between proxies, a database and a role of Postgres, a user of Redis. What is done to
//! these is not felt by the cases beside it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::timeout;

use crate::{
    proxy::Mode,
    stop::stage::{Setup, Stage},
};

/// Both of the role and of the user.
const PASSWORD: &str = "drill";

pub struct Ground {
    pub stage: Stage,
    /// In the case's database, with every right.
    pub postgres: PgConnection,
    /// With every right too.
    pub redis: MultiplexedConnection,
    /// Of the case's keys.
    pub prefix: String,
    /// Names the database, the role and the user.
    pub name: String,
    /// What the server was started with.
    pub setup: Setup,
    admin: Setup,
}

impl Ground {
    /// Makes all of it, and starts the server with these settings besides. With `descriptors`, it has that many only.
    pub async fn start(
        admin: &Setup,
        case: &str,
        env: &[(&str, &str)],
        descriptors: Option<usize>,
    ) -> Result<Self> {
        let name = format!("drill_{}_{case}", std::process::id());
        let database_url = with_login(&admin.database_url, &name, Some(&name))?;
        let redis_url = with_login(&admin.redis_url, &name, None)?;
        let mut redis = redis_at(&admin.redis_url).await?;
        let rights = ["reset", "on", "~*", "&*", "+@all"];
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg(&name).arg(&rights).arg(format!(">{PASSWORD}"));
        user.exec_async(&mut redis).await.context("ACL SETUSER: Redis 6 or newer is needed")?;
        let mut first = PgConnection::connect(&admin.database_url).await?;
        let role = format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'");
        for sql in [role, format!("CREATE DATABASE {name} OWNER {name}")] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut first).await?;
        }
        let postgres = PgConnection::connect(&with_path(&admin.database_url, &name)?).await?;
        let setup = Setup { server: admin.server.clone(), database_url, redis_url };
        setup.migrate().await?;
        let started = match descriptors {
            Some(count) => Setup { server: limited(&setup.server, count)?, ..setup.clone() },
            None => setup.clone(),
        };
        let stage = Stage::start(&started, case, Mode::Pass, env).await?;
        stage.server.ready().await?;
        let prefix = Stage::prefix(case);
        Ok(Self { stage, postgres, redis, prefix, name, setup, admin: admin.clone() })
    }

    pub fn address(&self) -> SocketAddr {
        self.stage.address()
    }

    pub fn ops_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.stage.server.ops_port()))
    }

    /// Runs statements in the case's database, as one who may do anything.
    pub async fn sql(&mut self, sql: &str) -> Result<()> {
        let done =
            sqlx::raw_sql(AssertSqlSafe(sql.replace("{me}", &self.name))).execute(&mut self.postgres).await;
        done.map(drop).with_context(|| sql.to_owned())
    }

    /// Ends every session of the server, as a restart of Postgres does.
    pub async fn terminate(&mut self) -> Result<()> {
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{me}'").await
    }

    /// Sends a command to Redis, as one who may do anything.
    pub async fn redis(&mut self, command: &[&str]) -> Result<()> {
        let (name, rest) = command.split_first().context("a command has a name")?;
        let done = redis::cmd(name).arg(rest).exec_async(&mut self.redis).await;
        done.with_context(|| command.join(" "))
    }

    /// Takes it all away again.
    pub async fn clear(self) -> Result<()> {
        let Self { stage, postgres, mut redis, name, admin, .. } = self;
        drop(stage);
        postgres.close().await?;
        redis::cmd("ACL").arg("DELUSER").arg(&name).exec_async(&mut redis).await?;
        let mut last = PgConnection::connect(&admin.database_url).await?;
        for sql in [format!("DROP DATABASE {name} WITH (FORCE)"), format!("DROP ROLE {name}")] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut last).await?;
        }
        Ok(())
    }
}

/// What a counter or gauge of the server says, all its labels together.
pub async fn metric(ops: SocketAddr, name: &str) -> Result<f64> {
    let ask = crate::client::http1::ask(ops, "GET /metrics", "", "");
    let answer = timeout(Duration::from_secs(2), ask).await.context("/metrics gives no answer")??;
    ensure!(answer.status == 200, "/metrics: {}", answer.head);
    let text = String::from_utf8(answer.body)?;
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let ours = lines.filter(|(key, _)| key.split('{').next() == Some(name));
    ours.map(|(_, value)| value.parse::<f64>().context("a metric is a number")).sum()
}

pub async fn redis_at(url: &str) -> Result<MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

/// `url` with this user, who has the password of all of them, and perhaps with this path.
fn with_login(url: &str, user: &str, path: Option<&str>) -> Result<String> {
    let url = path.map_or(Ok(url.to_owned()), |path| with_path(url, path))?;
    let (scheme, rest) = url.split_once("://").context("a URL has a scheme")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    Ok(format!("{scheme}://{user}:{PASSWORD}@{host}{}", &rest[end..]))
}

pub fn with_path(url: &str, path: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("a URL has a scheme")?;
    let (rest, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let authority = rest.split('/').next().unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{path}{query}"))
}

/// A script that starts the server with so few descriptors.
fn limited(server: &std::path::Path, descriptors: usize) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let server = std::fs::canonicalize(server)?;
    let script = std::env::temp_dir().join(format!("drill-{}-limited", std::process::id()));
    std::fs::write(
        &script,
        format!("#!/bin/sh\nulimit -n {descriptors}\nexec '{}' \"$@\"\n", server.display()),
    )?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700))?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_its_host_and_options_and_gets_another_user_and_database() {
        let of = |url| with_login(url, "me", Some("mine")).unwrap();
        assert_eq!(
            of("postgres://a:b@host:1/x?sslmode=disable"),
            "postgres://me:drill@host:1/mine?sslmode=disable"
        );
        assert_eq!(of("postgres://host"), "postgres://me:drill@host/mine");
        assert_eq!(with_login("redis://host:1/2", "me", None).unwrap(), "redis://me:drill@host:1/2");
    }
}
