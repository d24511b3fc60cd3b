//! What to do about a dependency that cannot be used.
use redis::{ErrorKind, RedisError};
use sqlx::error::DatabaseError;
use std::{borrow::Cow, error::Error, io};

/// Said of a host without an address.
pub const UNKNOWN: &str = "is unknown";

pub fn of(error: &anyhow::Error) -> &'static str {
    let text = error.root_cause().to_string();
    if text.contains(UNKNOWN) {
        return "correct the host; from another namespace of a cluster it is NAME.NAMESPACE";
    }
    if text.contains("in time") || text.contains("timed out") {
        return "what is sent is dropped on the way (a firewall, a NetworkPolicy), or the server hangs";
    }
    match error.chain().find_map(code).as_deref().unwrap_or_default() {
        "refused" => "nothing listens there: start the server, or correct host and port",
        "28P01" | "28000" | "AUTH" | "NOAUTH" => "correct user and password",
        "3D000" => "create that database, or correct its name",
        "42501" | "NOPERM" => "grant it to this user",
        "53300" => {
            "all are taken: fewer replicas, a smaller DATABASE_MAX_CONNECTIONS, a larger max_connections"
        }
        "42704" => "it takes Postgres 14 or newer",
        "08P01" => "PgBouncer needs `ignore_startup_parameters`: docs/scaling.md",
        "MOVED" | "CLUSTERDOWN" => "a Redis Cluster: docs/scaling.md",
        "READONLY" => "this is a replica: give the primary's address",
        "OOM" => "it is full: give it a larger maxmemory",
        "MISCONF" => "it cannot write to its disk: see its log",
        _ => "its own log may say more",
    }
}

/// A short name of what is wrong, the server's own where there is one.
fn code<'a>(cause: &'a (dyn Error + 'static)) -> Option<Cow<'a, str>> {
    if let Some(error) = cause.downcast_ref::<sqlx::Error>() {
        return error.as_database_error().and_then(DatabaseError::code);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return (error.kind() == io::ErrorKind::ConnectionRefused).then_some("refused".into());
    }
    let error: &RedisError = cause.downcast_ref()?;
    match error.kind() {
        _ if error.is_connection_refusal() => Some("refused"),
        ErrorKind::AuthenticationFailed => Some("AUTH"),
        _ => error.code(),
    }
    .map(Cow::from)
}
