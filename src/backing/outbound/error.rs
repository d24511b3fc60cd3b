//! What can go wrong with a call: its caller, its metrics and its span tell these apart.
use std::{error, fmt, time::Duration};

/// Why a call has no result.
#[derive(Debug)]
pub enum Error {
    /// Not called: too many calls have failed lately.
    Open { retry_after: Duration },
    /// Not done in time.
    Timeout,
    /// An error status, no JSON, too long, or not of the expected shape.
    BadAnswer(anyhow::Error),
    /// Refused, broken off, or its name is unknown.
    Unreachable(anyhow::Error),
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open { .. } => "the upstream has failed too often lately",
            Self::Timeout => "the upstream did not answer in time",
            Self::BadAnswer(_) => "the upstream gave a bad answer",
            Self::Unreachable(_) => "the upstream cannot be reached",
        })
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::BadAnswer(error) | Self::Unreachable(error) => Some(error.as_ref()),
            Self::Open { .. } | Self::Timeout => None,
        }
    }
}
