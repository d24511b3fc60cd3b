//! What is done to Postgres.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::sleep;

use super::{
    fault::{Fault, Hold},
    peers,
};
use crate::{ground::Ground, proxy::Mode, traffic::Traffic};

/// To every statement that adds a row, instead of the row.
fn trigger(body: &str) -> String {
    format!(
        "CREATE FUNCTION drill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN new; END $$;
        DO $$ DECLARE target text; BEGIN
          FOREACH target IN ARRAY ARRAY['accounts', 'bookmarks'] LOOP
            IF to_regclass(target) IS NOT NULL THEN
              EXECUTE format('CREATE TRIGGER drill BEFORE INSERT ON %I FOR EACH ROW EXECUTE FUNCTION drill()', target);
            END IF;
          END LOOP;
        END $$"
    )
}

/// What a Postgres whose disk is full says.
const DISK_FULL: &str = "RAISE EXCEPTION USING ERRCODE = 'disk_full'";
/// Longer than any limit of the server, for the rows of [`peers::abandon`] only.
const STUCK: &str = "IF to_jsonb(new)::text LIKE '%stuck.tests%' THEN PERFORM pg_sleep(20); END IF";
pub const NO_TRIGGER: &str = "DROP FUNCTION IF EXISTS drill() CASCADE";

pub async fn begin(fault: Fault, ground: &mut Ground, traffic: &Traffic, hold: &mut Hold) -> Result<()> {
    match fault {
        Fault::PostgresRefused | Fault::PostgresRestart => {
            ground.stage.postgres.set(Mode::Refuse).await;
            // A server that stops says so to each session.
            ground.terminate().await?;
        }
        Fault::PostgresStopped => ground.stage.postgres.set(Mode::Freeze).await,
        Fault::PostgresFrozen => ground.stage.postgres.freeze_existing(),
        Fault::PostgresBlackHole => ground.stage.postgres.set(Mode::BlackHole).await,
        Fault::PostgresSessionsEnded => {
            for _ in 0..5 {
                ground.terminate().await?;
                sleep(Duration::from_millis(900)).await;
            }
        }
        Fault::PostgresReadOnly => {
            ground.sql("ALTER ROLE {me} SET default_transaction_read_only = on").await?;
            ground.terminate().await?;
        }
        Fault::PostgresCrowded => {
            ground.sql("ALTER ROLE {me} CONNECTION LIMIT 0").await?;
            ground.terminate().await?;
        }
        Fault::PostgresLocked => {
            let mut other = PgConnection::connect(&ground.setup.database_url).await?;
            sqlx::raw_sql("BEGIN; LOCK TABLE accounts IN EXCLUSIVE MODE").execute(&mut other).await?;
            hold.lock = Some(other);
        }
        Fault::PostgresAbandoned => {
            ground.sql(&trigger(STUCK)).await?;
            peers::abandon(ground, traffic).await?;
            ground.sql(NO_TRIGGER).await?;
        }
        Fault::PostgresSlow => {
            let (each_way, jitter) = (Duration::from_millis(95), Duration::from_millis(10));
            ground.stage.postgres.set(Mode::Latency { each_way, jitter }).await;
        }
        Fault::PostgresSchema => {
            let url = ground.setup.database_url.clone();
            hold.tasks.spawn(async move { change_columns(&url).await });
        }
        _ => ground.sql(&trigger(DISK_FULL)).await?,
    }
    Ok(())
}

/// Adds and drops a column of the tables that are read and written.
async fn change_columns(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let change = |verb: &str| {
        format!(
            "SET lock_timeout = '2s'; ALTER TABLE accounts {verb}; ALTER TABLE IF EXISTS bookmarks {verb}"
        )
    };
    loop {
        for verb in ["ADD COLUMN drill text", "DROP COLUMN drill"] {
            let change = sqlx::raw_sql(AssertSqlSafe(change(verb))).execute(&mut connection).await;
            change.context("changing a table")?;
            sleep(Duration::from_millis(500)).await;
        }
    }
}
