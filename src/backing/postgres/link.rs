//! One connection: how it is made, when it is trusted, and that a doubtful one never returns to the pool.
use super::error;
use crate::config::{self, Secret};
use anyhow::Context;
use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    io,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, task::JoinSet, time::timeout};

/// A connection is asked whether it is alive only after so long without use.
pub(super) const TRUSTED: Duration = Duration::from_secs(1);
/// Longest wait for its answer.
const PING: Duration = Duration::from_millis(300);
/// Minutes after which a connection is replaced, so that load spreads over the servers behind one address. Drawn anew
/// for each, so that those made together do not end together.
const LIFE: std::ops::RangeInclusive<u64> = 25..=30;
/// The server's copies of our limits; and so often it looks whether its client is still there, and stops what nobody
/// waits for.
const LIMITS: [(&str, &str); 4] = [
    ("statement_timeout", "5s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("client_connection_check_interval", "1s"),
];

/// Makes the connections of one pool, and judges whether one may be used again.
pub(super) struct Links {
    policy: Arc<Mutex<Policy>>,
    /// Which hears first when an answer has come.
    runtime: Handle,
}

struct Policy {
    options: PgConnectOptions,
    /// A connection not taken since then is not to be trusted.
    doubted: Option<Instant>,
}

pub(super) struct Link {
    pub(super) connection: PgConnection,
    expires: Instant,
}

impl Links {
    /// One of these for each runtime; they share what they know of the server.
    pub(super) fn to(url: &Secret, runtimes: impl Iterator<Item = Handle>) -> anyhow::Result<Vec<Self>> {
        let policy = Arc::new(Mutex::new(Policy { options: options(url, LIMITS)?, doubted: None }));
        Ok(runtimes.map(|runtime| Self { policy: Arc::clone(&policy), runtime }).collect())
    }

    /// Makes every further connection with `url`, and gives up the present ones before their next use.
    pub(super) fn turn_to(&self, url: &Secret) -> anyhow::Result<()> {
        *self.policy() = Policy { options: options(url, LIMITS)?, doubted: Some(Instant::now()) };
        Ok(())
    }

    /// A link has turned out dead. So have, most likely, all that were last taken at `since` or earlier: after a
    /// failover one failure is enough.
    fn doubt(&self, since: Instant) {
        let mut policy = self.policy();
        policy.doubted = policy.doubted.max(Some(since));
    }

    fn policy(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How to connect to `url`, with these settings of the server's for the session.
pub fn options<const N: usize>(url: &Secret, limits: [(&str, &str); N]) -> anyhow::Result<PgConnectOptions> {
    // The parser's own message may quote the URL, and with it the password.
    let options = PgConnectOptions::from_str(url.expose()).ok().context("not a Postgres URL")?;
    Ok(options.application_name(config::PACKAGE).options(limits).disable_statement_logging())
}

impl Manager for Links {
    type Type = Link;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Link> {
        let options = self.policy().options.clone();
        // Of the pool's runtime, whoever asks; given up with its caller.
        let mut connecting = JoinSet::new();
        let connect = async move { PgConnection::connect_with(&options).await };
        connecting.spawn_on(connect, &self.runtime);
        let connected = connecting.join_next().await.expect("one was spawned");
        let connection = connected.map_err(io::Error::from)??;
        Ok(Link { connection, expires: Instant::now() + Duration::from_mins(rand::random_range(LIFE)) })
    }

    async fn recycle(&self, link: &mut Link, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        let taken = last_taken(metrics);
        let now = Instant::now();
        if self.policy().doubted >= Some(taken) || link.expires < now {
            return Err(RecycleError::message("not to be used again"));
        }
        if now - taken < TRUSTED {
            return Ok(());
        }
        match timeout(PING, Box::pin(link.connection.ping())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.doubt(now - TRUSTED);
                Err(RecycleError::message("does not answer"))
            }
        }
    }
}

/// Not later than when it was given back, so the idle time is never taken for shorter than it is.
fn last_taken(metrics: &Metrics) -> Instant {
    metrics.recycled.unwrap_or(metrics.created)
}

/// A connection on loan. It is closed when dropped: its request was cancelled, and an answer may still be on its way.
pub(super) struct Lease(Option<Object<Links>>);

impl Lease {
    pub(super) fn new(link: Object<Links>) -> Self {
        Self(Some(link))
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0.as_mut().expect("only `settle` and `drop` take it").connection
    }

    /// Ends the loan after `result`: back to the pool, unless the error says that the connection is no good.
    pub(super) fn settle<T>(mut self, result: &sqlx::Result<T>) {
        if !result.as_ref().is_err_and(error::spoils_connection) {
            drop(self.0.take());
        } else if let Some(link) = &self.0
            && let Some(pool) = Object::pool(link)
        {
            pool.manager().doubt(last_taken(Object::metrics(link)));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            drop(Object::take(link));
        }
    }
}
