//! What can go wrong with a call: its caller, its metrics and its span tell these apart.
use std::time::Duration;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not called: too many calls have failed lately.
    #[error("the upstream has failed too often lately")]
    Open { retry_after: Duration },
    /// Not done in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// An error status, no JSON, too long, or not of the expected shape.
    #[error("the upstream gave a bad answer")]
    BadAnswer(#[source] anyhow::Error),
    /// Refused, broken off, or its name is unknown.
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] anyhow::Error),
}

impl Error {
    /// For metrics and spans.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Timeout => "timeout",
            Self::BadAnswer(_) => "bad_answer",
            Self::Unreachable(_) => "unreachable",
        }
    }

    pub(super) fn of(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        // The URL may hold what a user has typed.
        Self::Unreachable(error.without_url().into())
    }
}
