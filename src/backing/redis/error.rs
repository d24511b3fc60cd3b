//! What can go wrong with a call, in the two kinds that a caller must tell apart.
use anyhow::anyhow;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis cannot answer now: refused, broken off, timed out, loading, out of memory, read-only, another password.
    /// Whether a write took place is not known. Worth another try later.
    #[error("Redis is unavailable")]
    Unavailable(#[source] anyhow::Error),
    /// An answer that the caller did not expect, such as `WRONGTYPE`: a bug. Another try fails again.
    #[error("Redis gave an unexpected answer")]
    Answer(#[source] RedisError),
}

impl Error {
    pub(super) fn of(operation: &'static str, error: RedisError) -> Self {
        if is_passing(&error) { Self::unavailable(operation, error) } else { Self::Answer(error) }
    }

    pub(super) fn unavailable(operation: &'static str, error: RedisError) -> Self {
        Self::Unavailable(anyhow::Error::new(error).context(operation))
    }

    pub(super) fn late(operation: &'static str) -> Self {
        Self::Unavailable(anyhow!("no answer in time").context(operation))
    }
}

/// Whether the peer is alive but not the one to talk to: a replica, or one with another password.
pub(super) fn is_wrong_peer(error: &RedisError) -> bool {
    use ServerErrorKind::{MasterDown, ReadOnly};
    matches!(error.kind(), ErrorKind::Server(MasterDown | ReadOnly)) || error.code() == Some("NOAUTH")
}

fn is_passing(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, TryAgain};
    let passing = match error.kind() {
        ErrorKind::Io | ErrorKind::Parse => true,
        ErrorKind::Server(kind) => matches!(kind, BusyLoading | ClusterDown | TryAgain),
        _ => matches!(error.code(), Some("BUSY" | "MISCONF" | "NOREPLICAS" | "OOM")),
    };
    passing || is_wrong_peer(error)
}
