//! Every limit that a drill holds the service to, in one file, each with where its number comes from.

/// A bound on one measured value.
#[derive(Debug)]
pub struct Limit {
    pub name: &'static str,
    pub bound: Bound,
    pub unit: &'static str,
    /// Where the number comes from.
    pub source: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    const fn at_most(value: f64, unit: &'static str, name: &'static str, source: &'static str) -> Self {
        Self { name, bound: Bound::AtMost(value), unit, source }
    }

    const fn at_least(value: f64, unit: &'static str, name: &'static str, source: &'static str) -> Self {
        Self { name, bound: Bound::AtLeast(value), unit, source }
    }

    pub fn value(&self) -> f64 {
        match self.bound {
            Bound::AtMost(value) | Bound::AtLeast(value) => value,
        }
    }

    /// What is wrong with `value`, if it is out of bounds. A value that could not be measured (NaN) is.
    pub fn miss(&self, value: f64) -> Option<String> {
        let (fits, word) = match self.bound {
            Bound::AtMost(most) => (value <= most, "at most"),
            Bound::AtLeast(least) => (value >= least, "at least"),
        };
        let (name, limit, unit) = (self.name, self.value(), self.unit);
        (!fits).then(|| format!("{name}: {value} {unit}, {word} {limit} allowed"))
    }
}

// The stop. Seconds from the signal.

pub const EXIT_IDLE: Limit = Limit::at_most(
    8.0,
    "s",
    "exit, nothing in flight",
    "the lame duck's 5 s, the quiet window's 1 s, and 2 s for the release and a busy machine",
);
pub const EXIT: Limit = Limit::at_most(
    25.0,
    "s",
    "exit",
    "SHUTDOWN_BUDGET: Kubernetes kills after 30 s, and 5 s are kept in hand",
);
pub const EXIT_NO_LAME_DUCK: Limit = Limit::at_most(
    3.0,
    "s",
    "exit without a lame duck",
    "the limit of an idle stop, less the lame duck's 5 s",
);
pub const EXIT_SECOND_SIGNAL: Limit =
    Limit::at_most(1.0, "s", "exit after a second signal", "at once: one second on a busy machine");
pub const EXIT_STARTING: Limit =
    Limit::at_most(1.0, "s", "exit while starting", "nothing was served yet, so nothing has to be drained");
pub const SLOW_ANSWER: Limit =
    Limit::at_most(9.0, "s", "answer to the slow request", "the upstream's 8 s, and one for a busy machine");
pub const CUT: Limit = Limit::at_most(
    21.0,
    "s",
    "end of the stuck request",
    "SHUTDOWN_DRAIN, 20 s: what still runs then is cut; one for a busy machine",
);
pub const LOST: Limit = Limit::at_most(
    0.0,
    "requests",
    "requests without an answer",
    "the promise: no request that a client sent on an open connection goes without an answer",
);
pub const TURNED_AWAY: Limit = Limit::at_most(
    80.0,
    "requests",
    "requests turned away by GOAWAY",
    "20 connections may cross two GOAWAYs, of the lame duck and of the end, with 2 requests each; more is a fault",
);
pub const REFUSALS: Limit =
    Limit::at_most(0.0, "answers", "answers of 500 and above", "a stop is no reason to refuse a request");
pub const STOP_REQUESTS: Limit = Limit::at_least(
    500_000.0,
    "requests",
    "requests in all runs",
    "one loss in ten thousand would show fifty times",
);
pub const QUICK_REQUESTS: Limit = Limit::at_least(
    10_000.0,
    "requests",
    "requests in all runs",
    "enough for a plain graceful stop to lose some",
);

// The start. Milliseconds.

pub const RESTART_READY: Limit = Limit::at_most(
    100.0,
    "ms",
    "from start to ready, p99",
    "with both services up; the list that the template answers calls a start of 4 s a violation",
);
pub const RESTART_OUTAGE: Limit = Limit::at_most(
    4000.0,
    "ms",
    "from kill -9 to the first 200, p99",
    "the list that the template answers: more is a violation",
);
pub const RESTARTS: Limit =
    Limit::at_least(50.0, "restarts", "restarts", "fewer say little about the slowest of a hundred");

// The rollout.

pub const ROLLOUT_FAILED: Limit = Limit::at_most(
    0.0,
    "requests",
    "failed requests",
    "the promise: a rollout, a deleted pod and a drained node lose no request",
);
pub const ROLLOUT_REQUESTS: Limit = Limit::at_least(
    100_000.0,
    "requests",
    "requests in all",
    "one loss in ten thousand would show ten times",
);
pub const KILL_LOST: Limit = Limit::at_most(
    1.0,
    "of those in flight",
    "requests lost by kill -9",
    "nobody can answer what a killed process held, but nothing else may be lost",
);
pub const KILL_LATE: Limit = Limit::at_most(
    0.0,
    "requests",
    "failed requests from 2 s after kill -9",
    "a supervisor sees the end of a process within a second, and the balancer hears of it",
);

// The negative control: what the same load must find in a server whose stop was spoilt.

pub const MUTANT_LOST: Limit =
    Limit::at_least(1.0, "requests", "requests without an answer", "a drill that cannot fail shows nothing");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_bounds_or_not_measured_is_a_miss() {
        assert_eq!(EXIT.miss(25.0), None);
        assert!(EXIT.miss(25.1).is_some_and(|miss| miss.contains("25.1 s, at most 25 allowed")));
        assert_eq!(STOP_REQUESTS.miss(500_000.0), None);
        assert!(STOP_REQUESTS.miss(499_999.0).is_some());
        assert!(EXIT.miss(f64::NAN).is_some() && RESTARTS.miss(f64::NAN).is_some());
    }
}
