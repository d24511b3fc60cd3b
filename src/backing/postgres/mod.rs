//! Postgres: a few connections, parted among the workers, shared by all requests.
//!
//! sqlx's own pool asks for a sign of life twice per query, and never gives up a connection whose peer has fallen
//! silent. Here a query is one round trip, and a doubtful connection is closed instead of being handed to the next.
mod error;
mod link;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use link::options;

use crate::{
    config::Secret,
    runtime::workers::{self, Workers},
    telemetry::{call::Call, metrics, request},
};
use anyhow::{Context, anyhow};
use deadpool::managed::{Pool, PoolError, QueueMode};
use link::{Lease, Links};
use sqlx::{Connection, PgConnection};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// Longest wait for a connection: the queue, a ping and a connect together.
const ACQUIRE: Duration = Duration::from_secs(1);
/// Longest time for one [`Postgres::run`], the wait for a connection included. Less than the server's own limit, which
/// ends what is given up here.
const WORK: Duration = Duration::from_millis(4500);
/// Longest time for [`Postgres::migrations`].
const CHECK: Duration = Duration::from_secs(1);
/// Longest time to say goodbye to the server.
const GOODBYE: Duration = Duration::from_secs(1);

/// A handle on the database. Clones share its connections.
#[derive(Clone)]
pub struct Postgres {
    /// One per worker, as long as there are connections enough.
    pools: Arc<[Pool<Links>]>,
}

impl Postgres {
    /// Connects when first used, so it can be had while the database is down. At most `max_connections` at a time, parted
    /// among `workers`; each may use what another has to spare.
    ///
    /// # Errors
    /// When `url` is no Postgres URL.
    pub fn new(url: &Secret, max_connections: usize, workers: &Workers) -> anyhow::Result<Self> {
        let links = Links::to(url, workers.runtimes().take(max_connections))?;
        let (count, rest) = (max_connections / links.len(), max_connections % links.len());
        let pool = |(number, links)| {
            let size = count + usize::from(number < rest);
            // Last in, first out: what was used a moment ago needs no ping.
            Ok(Pool::builder(links).max_size(size).queue_mode(QueueMode::Lifo).build()?)
        };
        Ok(Self { pools: links.into_iter().enumerate().map(pool).collect::<anyhow::Result<_>>()? })
    }

    /// Runs one or several statements on one connection, each a transaction by itself. `operation` names them in
    /// metrics and spans: `"SELECT accounts"`, from a fixed set.
    ///
    /// Waits at most 1 s for a connection and takes at most 4.5 s in all, both less when the request has less time left.
    /// When the returned future is dropped, the connection is closed and its place is free at once.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no answer in these times, else what the database said.
    pub async fn run<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, Error> {
        let outcome = self.attempt(operation, request::deadline(WORK), work).await;
        outcome.map_err(Error::Unavailable)?.map_err(Error::from)
    }

    /// As [`Postgres::run`], for what changes nothing: when the connection turns out to be dead, or to hold a plan from
    /// before a migration, `work` is done once more on another one.
    pub async fn read<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T> + Clone,
    ) -> Result<T, Error> {
        let deadline = request::deadline(WORK);
        let mut outcome = self.attempt(operation, deadline, work.clone()).await;
        if matches!(&outcome, Ok(Err(error)) if error::spoils_connection(error)) {
            outcome = self.attempt(operation, deadline, work).await;
        }
        outcome.map_err(Error::Unavailable)?.map_err(Error::from)
    }

    /// Runs `work` in one transaction: kept when it returns `Ok`, undone when it returns `Err` or is dropped half way.
    /// Times and errors as for [`Postgres::run`].
    ///
    /// `work` must pass on the error of a statement: after one, the server undoes everything, even on `Ok`.
    pub async fn transaction<T, E: From<Error>>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let outcome = self.run(operation, async |connection| {
            let mut transaction = connection.begin().await?;
            let result = work(&mut transaction).await;
            match result {
                Ok(_) => transaction.commit().await?,
                // When this fails, the connection is closed, which undoes as well.
                Err(_) => transaction.rollback().await?,
            }
            Ok(result)
        });
        outcome.await?
    }

    /// The migrations that the database has had. Tells whether it answers, within 1 s.
    ///
    /// # Errors
    /// As for [`Postgres::run`].
    pub async fn migrations(&self) -> Result<Vec<i64>, Error> {
        const SQL: &str = "SELECT coalesce(array_agg(version), '{}') FROM _sqlx_migrations WHERE success";
        let ask =
            self.read("SELECT _sqlx_migrations", async |conn| sqlx::query_scalar(SQL).fetch_one(conn).await);
        match timeout(CHECK, ask).await {
            Err(_) => {
                Err(Error::Unavailable(anyhow!("no answer in time").context("SELECT _sqlx_migrations")))
            }
            // There is no such table yet.
            Ok(Err(error)) if error.code() == Some("42P01") => Ok(Vec::new()),
            Ok(answer) => answer,
        }
    }

    /// How many connections the server has for all that sign in with this role.
    ///
    /// # Errors
    /// As for [`Postgres::run`].
    pub async fn most_connections(&self) -> Result<i64, Error> {
        const SQL: &str = "SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1), \
                current_setting('max_connections')::int \
                - current_setting('superuser_reserved_connections')::int \
                - coalesce(current_setting('reserved_connections', true)::int, 0))::bigint \
            FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()";
        self.read("SELECT pg_roles", async |conn| sqlx::query_scalar(SQL).fetch_one(conn).await).await
    }

    /// Warns when this process alone may want more connections than there are.
    pub async fn check_most_connections(&self) {
        let wanted = self.pools.iter().map(|pool| pool.status().max_size).sum::<usize>() as i64;
        if let Ok(most) = self.most_connections().await
            && most < wanted
        {
            tracing::warn!(wanted, most, "DATABASE_MAX_CONNECTIONS is more than Postgres has for this role");
        }
    }

    /// How many connections are in use, and how many are open and idle.
    pub fn connections(&self) -> (usize, usize) {
        self.pools
            .iter()
            .map(Pool::status)
            .fold((0, 0), |(used, idle), pool| (used + pool.size - pool.available, idle + pool.available))
    }

    /// Makes every further connection with `url`, as after a change of password. Queries under way go on.
    ///
    /// # Errors
    /// When `url` is no Postgres URL; nothing changes then.
    pub fn turn_to(&self, url: &Secret) -> anyhow::Result<()> {
        // They go by the same policy.
        self.pools[0].manager().turn_to(url)
    }

    /// Ends the idle connections, within 1 s, and each busy one after its query. Every further query fails.
    pub async fn close(&self) {
        let idle: Vec<_> = self.pools.iter().flat_map(|pool| pool.retain(|_, _| false).removed).collect();
        self.pools.iter().for_each(Pool::close);
        let goodbye = async {
            for link in idle {
                // Else the server logs a lost client.
                link.connection.close().await.ok();
            }
        };
        drop(timeout(GOODBYE, goodbye).await);
    }

    /// What `work` returned, or why it had no connection or no time to return.
    async fn attempt<T>(
        &self,
        operation: &'static str,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> anyhow::Result<sqlx::Result<T>> {
        let mut call = Call::postgres(operation);
        let lease = self.acquire().await;
        metrics::db_wait(call.elapsed());
        let mut lease = lease.inspect_err(|_| call.fail("no_connection")).context(operation)?;
        let Ok(result) = timeout_at(deadline, work(lease.connection())).await else {
            call.fail("timeout");
            return Err(anyhow!("no answer in time").context(operation));
        };
        lease.settle(&result);
        if result.is_err() {
            call.fail("query");
        }
        Ok(result)
    }

    /// That of this worker, or another one while only that has a connection to spare.
    fn pool(&self) -> &Pool<Links> {
        let own = workers::here().unwrap_or_default() % self.pools.len();
        let (before, from_own) = self.pools.split_at(own);
        let has_one_to_spare = |pool: &&Pool<Links>| {
            let status = pool.status();
            status.available > 0 || status.size + status.waiting < status.max_size
        };
        from_own.iter().chain(before).find(has_one_to_spare).unwrap_or(&self.pools[own])
    }

    async fn acquire(&self) -> anyhow::Result<Lease> {
        match timeout_at(request::deadline(ACQUIRE), self.pool().get()).await {
            Ok(Ok(link)) => Ok(Lease::new(link)),
            Ok(Err(PoolError::Backend(error))) => Err(anyhow::Error::new(error).context("cannot connect")),
            Ok(Err(other)) => Err(other.into()),
            Err(_) => Err(anyhow!("no connection in time")),
        }
    }
}
