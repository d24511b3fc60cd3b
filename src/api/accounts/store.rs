//! The SQL of accounts.
use crate::backing::postgres::{Error, Postgres};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, FromRow, ToSchema)]
pub struct Account {
    pub id: Uuid,
    #[schema(format = Email)]
    pub email: String,
    pub created_at: DateTime<Utc>,
}

/// `None` when the address is taken.
pub async fn insert(
    conn: &mut PgConnection,
    email: &str,
    password_hash: &str,
) -> sqlx::Result<Option<Account>> {
    let sql = "INSERT INTO accounts (id, email, password_hash) VALUES ($1, $2, $3) \
               ON CONFLICT DO NOTHING RETURNING id, email, created_at";
    sqlx::query_as(sql).bind(Uuid::now_v7()).bind(email).bind(password_hash).fetch_optional(conn).await
}

/// The account of an address, compared without case, and its password's hash.
pub async fn find_by_email(db: &Postgres, email: &str) -> Result<Option<(Account, String)>, Error> {
    let sql = "SELECT id, email, created_at, password_hash FROM accounts WHERE lower(email) = lower($1)";
    let found: Option<(Uuid, String, DateTime<Utc>, String)> = db
        .read("SELECT accounts", async |conn| sqlx::query_as(sql).bind(email).fetch_optional(conn).await)
        .await?;
    Ok(found.map(|(id, email, created_at, hash)| (Account { id, email, created_at }, hash)))
}

pub async fn password_hash(db: &Postgres, id: Uuid) -> Result<Option<String>, Error> {
    let sql = "SELECT password_hash FROM accounts WHERE id = $1";
    db.read("SELECT accounts", async |conn| sqlx::query_scalar(sql).bind(id).fetch_optional(conn).await).await
}

pub async fn update_password(conn: &mut PgConnection, id: Uuid, password_hash: &str) -> sqlx::Result<()> {
    let sql = "UPDATE accounts SET password_hash = $2 WHERE id = $1";
    sqlx::query(sql).bind(id).bind(password_hash).execute(conn).await.map(drop)
}
