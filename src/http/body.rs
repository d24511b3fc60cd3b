//! The request's body: whole, in time and in bounded memory, before anything waits for the request.
//!
//! A client that sends a byte a second holds its own connection by it, and neither a place nor a database connection.
use super::Problem;
use crate::telemetry::{metrics, request};
use axum::{
    body::{Body, HttpBody},
    http::StatusCode,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::time::Duration;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout_at,
};

/// Longest body in bytes.
const LIMIT: usize = 1 << 20;
/// Longest time for a body.
const TIME: Duration = Duration::from_secs(10);
/// Before the request's own deadline, which would call it slowness of ours.
const HEADSTART: Duration = Duration::from_millis(100);
/// What the first bytes of every body may take; hardly one is longer.
const SMALL: usize = 16 << 10;
/// What all that is longer takes together, in bytes: a few hundred clients must not fill the memory.
const LARGE: usize = 64 << 20;

/// The memory for bodies.
pub struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(LARGE))
    }
}

impl Bodies {
    /// The whole body, and its share of the memory.
    ///
    /// # Errors
    /// 413 over 1 MiB, at once when that is declared; 408 after 10 s; 400 when the body breaks off; 503 when too many
    /// others send long ones.
    pub async fn read(&self, body: Body) -> Result<(Body, Option<SemaphorePermit<'_>>), Problem> {
        if body.is_end_stream() {
            return Ok((body, None));
        }
        let deadline = request::deadline(TIME) - HEADSTART;
        let whole = timeout_at(deadline, self.whole(body)).await;
        let (body, memory) = whole.unwrap_or_else(|_| Err(too_slow()))?;
        Ok((Body::from(body), Some(memory)))
    }

    async fn whole(&self, body: Body) -> Result<(Vec<u8>, SemaphorePermit<'_>), Problem> {
        if body.size_hint().lower() > LIMIT as u64 {
            return Err(too_large());
        }
        let (mut whole, mut memory) = (Vec::new(), self.more(0)?);
        let mut body = Limited::new(body, LIMIT);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| if error.is::<LengthLimitError>() { too_large() } else { broken() })?;
            let Ok(data) = frame.into_data() else { continue };
            whole.extend_from_slice(&data);
            memory.merge(self.more(whole.len().saturating_sub(SMALL + memory.num_permits()))?);
        }
        Ok((whole, memory))
    }

    fn more(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Problem> {
        let bytes = u32::try_from(bytes).expect("a body is shorter than its limit");
        self.0.try_acquire_many(bytes).map_err(|_| {
            metrics::rejected("bodies");
            Problem::overloaded()
        })
    }
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "A body has at most 1 MiB.")
}

fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly.")
}

pub fn broken() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "incomplete_body", "The body broke off.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use futures_util::stream;
    use std::{convert::Infallible, iter::repeat_n};

    fn body_of(bytes: usize) -> Body {
        let chunks = repeat_n(Bytes::from_static(&[b'x'; 1 << 10]), bytes >> 10);
        Body::from_stream(stream::iter(chunks.map(Ok::<_, Infallible>)))
    }

    #[tokio::test]
    async fn long_bodies_share_a_bounded_memory_and_give_it_back() {
        let bodies = Bodies::default();
        let each = LIMIT - SMALL;
        let mut held = Vec::new();
        while held.len() < LARGE / each {
            held.push(bodies.whole(body_of(LIMIT)).await.expect("there is room"));
        }
        assert!(bodies.whole(body_of(LIMIT)).await.is_err(), "the memory is spent");
        assert!(bodies.whole(body_of(SMALL)).await.is_ok(), "a short body needs none of it");
        held.pop();
        assert!(bodies.whole(body_of(LIMIT)).await.is_ok(), "what was given back serves the next");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_without_its_length_too() {
        assert!(Bodies::default().whole(body_of(LIMIT)).await.is_ok());
        assert!(Bodies::default().whole(body_of(LIMIT + 1024)).await.is_err());
    }
}
