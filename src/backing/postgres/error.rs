//! What can go wrong with a query, in the two kinds that a caller must tell apart.
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot answer now: no connection in time, refused, broken off, timed out, out of room, read-only.
    /// Whether a write took place is not known. Worth another try later.
    #[error("the database is unavailable")]
    Unavailable(#[source] anyhow::Error),
    /// The database's answer to this very query, or a row that does not fit the type asked for. Another try fails again.
    #[error("a query failed")]
    Query(#[source] sqlx::Error),
}

impl Error {
    /// The SQLSTATE of the server's answer, such as `23505`.
    pub fn code(&self) -> Option<&str> {
        self.answer().map(PgDatabaseError::code)
    }

    /// The constraint that a write has violated, by name.
    pub fn constraint(&self) -> Option<&str> {
        self.answer().and_then(PgDatabaseError::constraint)
    }

    fn answer(&self) -> Option<&PgDatabaseError> {
        match self {
            Self::Query(error) => server_answer(error),
            Self::Unavailable(_) => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let unavailable = match server_answer(&error) {
            Some(answer) => is_passing(answer),
            None => is_broken(&error),
        };
        if unavailable { Self::Unavailable(error.into()) } else { Self::Query(error) }
    }
}

/// Whether the connection that `error` came from must not be used again.
pub(super) fn spoils_connection(error: &sqlx::Error) -> bool {
    match server_answer(error) {
        // 0A000: a cached plan whose result type has changed; 25006: this server is a replica now.
        Some(answer) => is_fatal(answer) || matches!(answer.code(), "0A000" | "25006"),
        None => is_broken(error),
    }
}

fn server_answer(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error().and_then(|answer| answer.try_downcast_ref())
}

fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_))
}

fn is_fatal(answer: &PgDatabaseError) -> bool {
    matches!(answer.severity(), PgSeverity::Fatal | PgSeverity::Panic)
}

/// Whether the server may answer otherwise later: 08 connection, 40 deadlock, 53 no room, 57 shutdown or time-out,
/// 58 disk, 25006 read-only, 55P03 lock time-out.
fn is_passing(answer: &PgDatabaseError) -> bool {
    let code = answer.code();
    is_fatal(answer)
        || matches!(code.get(..2), Some("08" | "40" | "53" | "57" | "58"))
        || matches!(code, "25006" | "55P03")
}
