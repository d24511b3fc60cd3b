//! What runs the built service from outside, and stands in for what it talks to. Knows it as a binary and a contract only.
//!
//! - [`log`]: what every line of its log must be
//! - [`process`]: starts the binary, reads its log, signals it and waits for its end
//! - [`proxy`]: stands between two processes and misbehaves on demand
//! - [`client`]: asks over many connections, and knows of each request whether it was answered
//! - [`limits`]: what the drills hold the service to
//! - [`ground`]: a server with a database of its own, between proxies
//! - [`traffic`]: a service's everyday requests, of every kind
//! - [`report`]: how they say what they found
//! - [`ready`], [`chaos`], [`load`], [`stop`], [`restart`], [`rollout`], [`mutants`]: the drills
//! - [`train`]: traffic for a server that counts what it does
//! - [`upstream`], [`collector`]: a stub of the preview upstream, obedient to tests, and one of a collector of traces

pub mod chaos;
pub mod client;
pub mod collector;
pub mod ground;
pub mod limits;
pub mod load;
pub mod log;
pub mod mutants;
pub mod process;
pub mod proxy;
pub mod ready;
pub mod report;
pub mod restart;
pub mod rollout;
pub mod stop;
pub mod traffic;
pub mod train;
pub mod upstream;

/// From 0 to 1, about evenly spread: hash maps are seeded at random.
fn fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

/// The smallest of `sorted` that this part of them does not exceed; NaN when there is none.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}
