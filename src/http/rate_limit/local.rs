//! The same count kept by this process alone.
use super::Verdict;
use crate::config::Rate;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Most clients remembered; beyond it the idle ones go first, then all.
const CAPACITY: usize = 10_000;

/// When each client's allowance is full again.
#[derive(Default)]
pub struct Buckets(Mutex<HashMap<String, Instant>>);

impl Buckets {
    pub fn check(&self, who: &str, rate: Rate, now: Instant) -> Verdict {
        // A panic elsewhere cannot leave a map of instants in a state that matters.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CAPACITY {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= CAPACITY {
                buckets.clear();
            }
        }
        let interval = rate.window / rate.count;
        let full_at = buckets.get(who).copied().unwrap_or(now).max(now) + interval;
        let verdict = Verdict::of(full_at - now, rate);
        if verdict.allowed {
            buckets.insert(who.to_owned(), full_at);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_then_one_per_interval() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let rate = Rate { count: 3, window: Duration::from_secs(60) };
        let remaining: Vec<u32> = (0..3).map(|_| buckets.check("a", rate, now).remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = buckets.check("a", rate, now);
        assert_eq!(refused, Verdict { allowed: false, remaining: 0, wait: Duration::from_secs(20) });
        assert!(buckets.check("a", rate, now + Duration::from_secs(20)).allowed);
        assert!(buckets.check("b", rate, now).allowed, "others are not affected");
    }

    #[test]
    fn memory_is_bounded() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let rate = Rate { count: 1, window: Duration::from_secs(60) };
        for client in 0..CAPACITY * 2 {
            buckets.check(&client.to_string(), rate, now);
        }
        assert!(buckets.0.lock().unwrap().len() <= CAPACITY);
    }
}
