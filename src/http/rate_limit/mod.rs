//! How often one client may ask: GCRA on Redis's clock, and by this process alone while Redis is away.
mod local;

use super::Problem;
use crate::{backing::redis::Redis, config::Rate, telemetry::metrics};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use redis::Script;
use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

/// What the limit says of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub allowed: bool,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// Until one request is free again; when allowed, until all are.
    pub wait: Duration,
}

impl Verdict {
    /// `debt` is the time until all requests of `rate` are free again, with this one counted.
    fn of(debt: Duration, rate: Rate) -> Self {
        if let Some(early) = debt.checked_sub(rate.window).filter(|early| !early.is_zero()) {
            return Self { allowed: false, remaining: 0, wait: early };
        }
        // Redis's numbers are exact to a quarter of a microsecond.
        let free = rate.window - debt + Duration::from_nanos(250);
        let remaining = free.as_nanos() * u128::from(rate.count) / rate.window.as_nanos();
        Self { allowed: true, remaining: u32::try_from(remaining).unwrap_or(u32::MAX), wait: debt }
    }
}

/// One limit, counted per key.
#[derive(Clone)]
pub struct Limiter {
    redis: Redis,
    name: &'static str,
    rate: Rate,
    /// The `RateLimit-Policy` header.
    policy: HeaderValue,
    local: Arc<local::Buckets>,
    script: Arc<Script>,
}

/// What scripts that count begin with: `window` and `interval`, the function `gcra`, and `now`. The rate stands in their
/// text, which Redis reads but once.
pub fn gcra(rate: Rate) -> String {
    let (count, window) = (u128::from(rate.count), rate.window.as_micros());
    let settings = format!("local window, interval = {window}, {window} / {count}\n");
    settings + include_str!("gcra.lua")
}

impl Limiter {
    pub fn new(redis: Redis, name: &'static str, rate: Rate) -> Self {
        let policy = header(format_args!("\"{name}\";q={};w={}", rate.count, rate.window.as_secs().max(1)));
        let script = Arc::new(Script::new(&(gcra(rate) + include_str!("check.lua"))));
        Self { redis, name, rate, policy, local: Arc::default(), script }
    }

    /// Counts a request of `who` and refuses one too many.
    ///
    /// # Errors
    /// As [`Limiter::allow`].
    pub async fn admit(&self, who: &str) -> Result<(), Problem> {
        self.allow(self.check(who).await)
    }

    /// # Errors
    /// 429 `rate_limited` when the request is one too many.
    pub fn allow(&self, verdict: Verdict) -> Result<(), Problem> {
        if verdict.allowed {
            return Ok(());
        }
        metrics::rejected("rate_limited");
        let detail = "Too many requests; wait as Retry-After says.";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        Err(problem.retry_after(verdict.wait).headers(self.headers(verdict)))
    }

    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
    pub fn headers(&self, verdict: Verdict) -> [(HeaderName, HeaderValue); 2] {
        // Above a million a second Redis's count is some requests off.
        let remaining = verdict.remaining.min(self.rate.count.saturating_sub(1));
        let seconds = verdict.wait.as_secs() + 1;
        let state = header(format_args!("\"{}\";r={remaining};t={seconds}", self.name));
        [("ratelimit-policy", self.policy.clone()), ("ratelimit", state)]
            .map(|(name, value)| (HeaderName::from_static(name), value))
    }

    /// Counts a request of `who`. While Redis is away this process counts by itself: a limiter must not take the
    /// service down, nor vanish.
    pub async fn check(&self, who: &str) -> Verdict {
        let call = self.script.key(self.redis.key(format_args!("limit:{}:{{{who}}}", self.name)));
        match self.redis.script("rate limit", &call).await {
            Ok(debt) => self.verdict(debt),
            Err(_) => self.check_locally(who),
        }
    }

    /// What follows from the debt, in nanoseconds, that `gcra` returns.
    pub fn verdict(&self, debt: u64) -> Verdict {
        Verdict::of(Duration::from_nanos(debt), self.rate)
    }

    /// Counts without asking Redis.
    pub fn check_locally(&self, who: &str) -> Verdict {
        self.local.check(who, self.rate, std::time::Instant::now())
    }
}

fn header(value: fmt::Arguments<'_>) -> HeaderValue {
    // Room for any: a text that grows is copied each time.
    let mut text = String::with_capacity(64);
    fmt::write(&mut text, value).expect("writing to memory cannot fail");
    HeaderValue::try_from(text).expect("quotes and digits are legal in a header")
}

/// A client's network: its IPv4 address, or the /64 that one IPv6 customer gets whole.
pub fn network(client: IpAddr) -> String {
    match client {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ipv6_customer_is_one_client() {
        let network_of = |address: &str| network(address.parse().unwrap());
        assert_eq!(network_of("2001:db8:1:2:3::4"), network_of("2001:db8:1:2:ffff::1"));
        assert_ne!(network_of("2001:db8:1:2::1"), network_of("2001:db8:1:3::1"));
        assert_eq!(network_of("192.0.2.7"), "192.0.2.7");
    }
}
