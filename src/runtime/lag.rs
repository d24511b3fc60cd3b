//! How late the workers run a task that is due. It grows while one of them is held, or has too much to do.
use super::workers::Workers;
use crate::telemetry::metrics;
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep_until};

const SAMPLE: Duration = Duration::from_millis(20);
const WINDOW: Duration = Duration::from_secs(5);

/// Measures for as long as it is polled. Each figure is that of the latest worker.
pub async fn measure(workers: Workers) -> Infallible {
    loop {
        let (mut p99, mut max) = (Duration::ZERO, Duration::ZERO);
        for worker in workers.each(window) {
            let lags = worker.await.unwrap_or_default();
            (p99, max) = (p99.max(lags.0), max.max(lags.1));
        }
        metrics::runtime(p99, max, workers.tasks());
    }
}

async fn window() -> (Duration, Duration) {
    let (end, mut lags) = (Instant::now() + WINDOW, Vec::with_capacity(256));
    while Instant::now() < end {
        let due = Instant::now() + SAMPLE;
        sleep_until(due).await;
        lags.push(due.elapsed());
    }
    p99_and_max(&mut lags)
}

fn p99_and_max(lags: &mut [Duration]) -> (Duration, Duration) {
    lags.sort_unstable();
    let at = |rank: usize| lags.get(rank.saturating_sub(1)).copied().unwrap_or_default();
    (at((lags.len() * 99).div_ceil(100)), at(lags.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_sample_in_a_hundred_is_in_the_maximum_only() {
        let ms = Duration::from_millis;
        let mut lags: Vec<_> = (0..200).map(|n| ms(if n < 2 { 700 + n } else { 1 })).collect();
        assert_eq!(p99_and_max(&mut lags), (ms(1), ms(701)));
        lags[7] = ms(300);
        assert_eq!(p99_and_max(&mut lags), (ms(300), ms(701)));
        assert_eq!(p99_and_max(&mut [ms(9)]), (ms(9), ms(9)), "the runtime was held for all of the window");
    }
}
