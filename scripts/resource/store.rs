//! The SQL of notes, one function per query. Every query names the account: others' notes do not exist.
use crate::backing::postgres::{Error, Postgres};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(FromRow, Serialize, ToSchema)]
pub struct Note {
    pub id: Uuid,
    pub text: String,
    pub created_at: DateTime<Utc>,
}

const INSERT: &str =
    "INSERT INTO notes (id, account_id, text) VALUES ($1, $2, $3) RETURNING id, text, created_at";

pub async fn insert(db: &Postgres, account: Uuid, text: &str) -> Result<Note, Error> {
    let insert = sqlx::query_as(INSERT).bind(Uuid::now_v7()).bind(account).bind(text);
    db.run("INSERT notes", async |conn| insert.fetch_one(conn).await).await
}

const FIND: &str = "SELECT id, text, created_at FROM notes WHERE id = $1 AND account_id = $2";

pub async fn find(db: &Postgres, account: Uuid, id: Uuid) -> Result<Option<Note>, Error> {
    db.read("SELECT notes", async |conn| {
        sqlx::query_as(FIND).bind(id).bind(account).fetch_optional(conn).await
    })
    .await
}

const LIST: &str = "SELECT id, text, created_at FROM notes \
    WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";

/// Newest first (an id begins with its time), from below `cursor` on.
pub async fn list(
    db: &Postgres,
    account: Uuid,
    limit: usize,
    cursor: Option<Uuid>,
) -> Result<Vec<Note>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.read("SELECT notes", async |conn| {
        sqlx::query_as(LIST).bind(account).bind(cursor).bind(limit).fetch_all(conn).await
    })
    .await
}

/// `false` when there was none.
pub async fn delete(db: &Postgres, account: Uuid, id: Uuid) -> Result<bool, Error> {
    let delete = sqlx::query("DELETE FROM notes WHERE id = $1 AND account_id = $2").bind(id).bind(account);
    Ok(db.run("DELETE notes", async |conn| delete.execute(conn).await).await?.rows_affected() == 1)
}
