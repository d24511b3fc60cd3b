//! Answers kept under their idempotency key, in the transaction of the effect they answer for.
use super::postgres::{Error, Postgres};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// An answer as it was first given.
#[derive(FromRow)]
pub struct Stored {
    pub status: i16,
    pub location: Option<String>,
    pub etag: Option<String>,
    pub body: Vec<u8>,
}

#[derive(FromRow)]
struct Kept {
    fingerprint: Vec<u8>,
    #[sqlx(flatten)]
    answer: Stored,
}

pub enum Outcome {
    Done(Stored),
    Replayed(Stored),
    /// The key came with another request before.
    Mismatch,
    /// The first request with this key has not ended yet.
    Running,
}

const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))";
const FIND: &str = "SELECT fingerprint, status, location, etag, body FROM idempotency_keys \
    WHERE account_id = $1 AND key = $2 AND created_at > now() - interval '24 hours'";
const FORGET: &str =
    "DELETE FROM idempotency_keys WHERE account_id = $1 AND created_at <= now() - interval '24 hours'";
const KEEP: &str = "INSERT INTO idempotency_keys (account_id, key, fingerprint, status, location, etag, body) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Runs `effect` unless it ran before under this key; both the effect and its answer are committed, or neither.
pub async fn once(
    db: &Postgres,
    account_id: Uuid,
    key: &str,
    fingerprint: &[u8],
    effect: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<Stored>,
) -> Result<Outcome, Error> {
    db.transaction("idempotent create", async |conn| {
        let lock = sqlx::query_scalar(LOCK).bind(format!("{account_id} {key}"));
        if !lock.fetch_one(&mut *conn).await? {
            return Ok(Outcome::Running);
        }
        let find = sqlx::query_as::<_, Kept>(FIND).bind(account_id).bind(key);
        match find.fetch_optional(&mut *conn).await? {
            Some(kept) if kept.fingerprint == fingerprint => Ok(Outcome::Replayed(kept.answer)),
            Some(_) => Ok(Outcome::Mismatch),
            None => {
                let stored = effect(&mut *conn).await?;
                sqlx::query(FORGET).bind(account_id).execute(&mut *conn).await?;
                keep(conn, account_id, key, fingerprint, &stored).await?;
                Ok(Outcome::Done(stored))
            }
        }
    })
    .await
}

async fn keep(
    conn: &mut PgConnection,
    account_id: Uuid,
    key: &str,
    fingerprint: &[u8],
    stored: &Stored,
) -> sqlx::Result<()> {
    let keep = sqlx::query(KEEP).bind(account_id).bind(key).bind(fingerprint).bind(stored.status);
    keep.bind(&stored.location).bind(&stored.etag).bind(&stored.body).execute(conn).await.map(drop)
}
