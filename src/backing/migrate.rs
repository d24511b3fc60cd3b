//! Brings the schema up to date, from any number of processes at once.
use super::postgres;
use crate::config::Secret;
use anyhow::{Context, anyhow, ensure};
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migration, Migrator},
};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

#[cfg(test)]
mod tests;

static EMBEDDED: Migrator = sqlx::migrate!();

/// Whoever holds this advisory lock of the database migrates it. It is polled for: a session that waited inside the
/// server would hold a snapshot, and block `CREATE INDEX CONCURRENTLY` for ever.
const LOCK: i64 = 0x6d69_6772_6174_6500;
/// What a session may wait for, in Postgres' notation; `lock_timeout` is set for each migration.
const LIMITS: [(&str, &str); 2] = [("statement_timeout", "0"), ("client_min_messages", "warning")];
/// Tries of a migration that finds its tables in use. Each waits 2 s, and keeps later queries waiting behind it.
const TRIES: u32 = 20;
/// Pause between two tries of anything.
const POLL: Duration = Duration::from_millis(250);
/// Pause between two lines about waiting.
const REPORT: Duration = Duration::from_secs(5);
/// Longest time for one connect, and for saying goodbye.
const CONNECT: Duration = Duration::from_secs(2);

/// The migrations in this binary, which needs them all. The newest is not enough: a later release may bring one with a
/// lower number than a service's own, which begin with their date.
pub fn versions() -> Vec<i64> {
    EMBEDDED.iter().map(|migration| migration.version).collect()
}

/// Applies the migrations in this binary that the database has not had. A newer schema is left as it is.
///
/// Waits up to `patience` for the database, and for another process that migrates as long as that one takes. The
/// future may be dropped at any time: the server undoes what is half done, unless the migration opted out of
/// transactions.
///
/// # Errors
/// When there is no database in time, or a migration fails, or is not the one that was applied under its number.
pub async fn migrate(url: &Secret, patience: Duration) -> anyhow::Result<()> {
    let mut connection = connect(url, patience).await?;
    let outcome = apply_missing(&EMBEDDED, &mut connection).await;
    // The lock ends with the connection, whatever has happened on it.
    drop(timeout(CONNECT, connection.close()).await);
    outcome
}

async fn connect(url: &Secret, patience: Duration) -> anyhow::Result<PgConnection> {
    let options = postgres::options(url, LIMITS)?;
    let mut wait = Wait::start("waiting for the database");
    loop {
        let error = match timeout(CONNECT, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => anyhow::Error::new(error),
            Err(_) => anyhow!("no answer"),
        };
        if wait.start.elapsed() + POLL > patience {
            return Err(error.context("the database cannot be reached"));
        }
        wait.a_little(&format!("{error:#}")).await;
    }
}

async fn apply_missing(migrator: &Migrator, connection: &mut PgConnection) -> anyhow::Result<()> {
    // A pooler keeps from the server what a session asks for, and leaves its lock with whoever comes next.
    let level: String = sqlx::query_scalar("SHOW client_min_messages").fetch_one(&mut *connection).await?;
    ensure!(level == "warning", "migrations need an address that leads past the pooler: docs/scaling.md");
    lock(connection).await?;
    connection.ensure_migrations_table(&migrator.table_name).await?;
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    for migration in migrator.iter().filter(|migration| migration.migration_type.is_up_migration()) {
        let Migration { version, description, .. } = migration;
        match applied.iter().find(|applied| applied.version == *version) {
            Some(applied) => ensure!(
                applied.checksum == migration.checksum,
                "migration {version} ({description}) was changed after the database had it"
            ),
            None => {
                let context = || format!("migration {version} ({description})");
                apply(&migrator.table_name, migration, connection).await.with_context(context)?;
                tracing::info!(version, %description, "migration applied");
            }
        }
    }
    Ok(())
}

async fn lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut wait = Wait::start("another process migrates");
    let ask = "SELECT pg_try_advisory_lock($1)";
    while !sqlx::query_scalar(ask).bind(LOCK).fetch_one(&mut *connection).await? {
        wait.a_little("waiting for it").await;
    }
    Ok(())
}

async fn apply(table: &str, migration: &Migration, connection: &mut PgConnection) -> anyhow::Result<()> {
    // Nobody queues behind a migration outside of transactions, such as CREATE INDEX CONCURRENTLY: it may wait.
    let lock_timeout = if migration.no_tx { "0" } else { "2s" };
    let set = sqlx::query("SELECT set_config('lock_timeout', $1, false)").bind(lock_timeout);
    set.execute(&mut *connection).await?;
    let mut wait = Wait::start("a migration finds its tables in use");
    for _ in 1..TRIES {
        match connection.apply(table, migration).await {
            Err(error) if is_lock_timeout(&error) => wait.a_little(&error.to_string()).await,
            other => return Ok(other.map(drop)?),
        }
    }
    Ok(connection.apply(table, migration).await.map(drop)?)
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().and_then(|answer| answer.code()).is_some_and(|code| code == "55P03")
}

/// A wait that says so from time to time.
struct Wait {
    what: &'static str,
    start: Instant,
    reported: Option<Instant>,
}

impl Wait {
    fn start(what: &'static str) -> Self {
        Self { what, start: Instant::now(), reported: None }
    }

    async fn a_little(&mut self, why: &str) {
        if self.reported.is_none_or(|reported| reported.elapsed() >= REPORT) {
            tracing::warn!(waited_ms = self.start.elapsed().as_millis() as u64, why, "{}", self.what);
            self.reported = Some(Instant::now());
        }
        sleep(POLL).await;
    }
}
