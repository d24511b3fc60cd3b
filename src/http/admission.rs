//! How many requests run at once, and how long one waits for a place before it is refused.
use super::Problem;
use crate::telemetry::{
    metrics,
    request::{self, Part, Stopwatch},
};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A bounded number of places.
pub struct Admission {
    places: Semaphore,
    longest_wait: Duration,
}

impl Admission {
    pub fn new(places: usize, longest_wait: Duration) -> Self {
        Self { places: Semaphore::new(places.min(Semaphore::MAX_PERMITS)), longest_wait }
    }

    /// A place, within the longest wait and the request's deadline.
    ///
    /// # Errors
    /// 503 `overloaded` when none became free in time. Waiting longer would only serve clients that have given up.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, Problem> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let _queued = Stopwatch::start(Part::Queue);
        let deadline = request::deadline(self.longest_wait);
        match tokio::time::timeout_at(deadline, self.places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => {
                metrics::rejected("overloaded");
                Err(Problem::overloaded())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_place_but_not_for_ever() {
        let admission = Admission::new(1, Duration::from_millis(100));
        let place = admission.enter().await.expect("the first place is free");
        assert!(admission.enter().await.is_err(), "full");

        let (second, ()) = tokio::join!(admission.enter(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(place);
        });
        assert!(second.is_ok(), "a place became free in time");
    }
}
