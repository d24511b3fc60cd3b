//! The SQL of bookmarks, one function per query. Every query names the account: others' bookmarks do not exist.
use super::input::NewBookmark;
use crate::backing::postgres::{Error, Postgres};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
pub struct Bookmark {
    pub id: Uuid,
    pub url: String,
    pub title: String,
    pub tags: Vec<String>,
    /// Counts the changes, from 1.
    pub version: i32,
    #[serde(serialize_with = "rfc3339")]
    pub created_at: DateTime<Utc>,
    #[serde(serialize_with = "rfc3339")]
    pub updated_at: DateTime<Utc>,
}

/// In one piece; by itself a time is written a character at a time, which costs four times as much.
fn rfc3339<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

impl Bookmark {
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }
}

const INSERT: &str = "INSERT INTO bookmarks (id, account_id, url, title, tags) VALUES ($1, $2, $3, $4, $5) \
    RETURNING id, url, title, tags, version, created_at, updated_at";

pub async fn insert(conn: &mut PgConnection, account: Uuid, new: &NewBookmark) -> sqlx::Result<Bookmark> {
    let insert = sqlx::query_as(INSERT).bind(Uuid::now_v7()).bind(account);
    insert.bind(&new.url.0).bind(&*new.title).bind(&new.tags.0).fetch_one(conn).await
}

const FIND: &str = "SELECT id, url, title, tags, version, created_at, updated_at FROM bookmarks \
    WHERE id = $1 AND account_id = $2";

pub async fn find(db: &Postgres, account: Uuid, id: Uuid) -> Result<Option<Bookmark>, Error> {
    db.read("SELECT bookmarks", async |conn| {
        sqlx::query_as(FIND).bind(id).bind(account).fetch_optional(conn).await
    })
    .await
}

const LIST: &str = "SELECT id, url, title, tags, version, created_at, updated_at FROM bookmarks \
    WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR $3 = ANY (tags)) \
    ORDER BY id DESC LIMIT $4";

/// Newest first (an id begins with its time), from below `cursor` on.
pub async fn list(
    db: &Postgres,
    account: Uuid,
    limit: usize,
    cursor: Option<Uuid>,
    tag: Option<&str>,
) -> Result<Vec<Bookmark>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.read("SELECT bookmarks", async |conn| {
        sqlx::query_as(LIST).bind(account).bind(cursor).bind(tag).bind(limit).fetch_all(conn).await
    })
    .await
}

const REPLACE: &str = "UPDATE bookmarks SET url = $4, title = $5, tags = $6, version = version + 1, updated_at = now() \
    WHERE id = $1 AND account_id = $2 AND version = $3 \
    RETURNING id, url, title, tags, version, created_at, updated_at";

/// `None` when the version is not the current one.
pub async fn replace(
    db: &Postgres,
    account: Uuid,
    id: Uuid,
    version: i32,
    new: &NewBookmark,
) -> Result<Option<Bookmark>, Error> {
    let replace = sqlx::query_as(REPLACE).bind(id).bind(account).bind(version);
    let replace = replace.bind(&new.url.0).bind(&*new.title).bind(&new.tags.0);
    db.run("UPDATE bookmarks", async |conn| replace.fetch_optional(conn).await).await
}

/// `false` when the version is not the current one.
pub async fn delete(db: &Postgres, account: Uuid, id: Uuid, version: i32) -> Result<bool, Error> {
    let sql = "DELETE FROM bookmarks WHERE id = $1 AND account_id = $2 AND version = $3";
    let delete = sqlx::query(sql).bind(id).bind(account).bind(version);
    Ok(db.run("DELETE bookmarks", async |conn| delete.execute(conn).await).await?.rows_affected() == 1)
}
