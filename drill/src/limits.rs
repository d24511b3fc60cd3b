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

    /// The share of the limit that `value` uses; 1 is all of it. None where a limit has no room, or no end.
    pub fn used(&self, value: f64) -> Option<f64> {
        match self.bound {
            Bound::AtMost(most) if most > 0.0 => Some(value / most),
            _ => None,
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

// The chaos drill. Seconds; a few hundredths in hand for a busy machine.

pub const ANSWER_POSTGRES: Limit = Limit::at_most(
    1.2,
    "s",
    "slowest answer without Postgres",
    "a connection is waited for 1 s at most: 1.1 s is promised, and the machine is shared",
);
pub const ANSWER_STUCK: Limit = Limit::at_most(
    5.0,
    "s",
    "slowest answer of a query that gets none",
    "one query may take 4.5 s, which is less than a request has and than the server lets it run",
);
pub const ANSWER_LOCK: Limit = Limit::at_most(
    2.6,
    "s",
    "slowest answer to a write that finds its row locked",
    "lock_timeout is 2 s: 2.5 s is promised, and the machine is shared",
);
pub const ANSWER_SLOW: Limit = Limit::at_most(
    1.2,
    "s",
    "slowest answer with Postgres 200 ms away",
    "a connect takes three round trips or four, a query one more; nobody has to wait for a connection besides",
);
pub const ANSWER_REDIS_REFUSED: Limit = Limit::at_most(
    0.15,
    "s",
    "slowest answer with Redis refused",
    "a refused connect fails at once: 100 ms is promised, and the machine is shared",
);
pub const ANSWER_REDIS: Limit = Limit::at_most(
    0.6,
    "s",
    "slowest answer without Redis",
    "one call may take 500 ms, a connect included, and the machine is shared",
);
pub const ANSWER_PREVIEW: Limit = Limit::at_most(
    1.3,
    "s",
    "slowest answer without the upstream",
    "PREVIEW_TIMEOUT is 1 s: 0.2 s more is promised, and the machine is shared",
);
pub const ANSWER_UNFELT: Limit = Limit::at_most(
    0.25,
    "s",
    "slowest answer while something fails that no request needs",
    "what an accepted request may take under overload: this is less than that",
);
pub const ANSWER_THROTTLED: Limit = Limit::at_most(
    1.0,
    "s",
    "slowest answer, probes included, with a tenth of a core",
    "a probe's time-out is 1 s",
);
pub const ANSWER_STOPPED: Limit = Limit::at_most(
    4.0,
    "s",
    "slowest answer of a server that was stopped for 3 s",
    "the 3 s, and one to catch up",
);
pub const PROBE: Limit = Limit::at_most(
    1.0,
    "s",
    "slowest /healthz",
    "a probe's time-out is 1 s, and a failed one costs a restart",
);
pub const FELT_BY_OTHERS: Limit = Limit::at_most(
    1.5,
    "times",
    "median during against before",
    "what no request needs slows none down; less than half more is noise of a shared machine",
);
pub const BACK_AT_ONCE: Limit =
    Limit::at_most(1.0, "s", "recovery from what the machine does", "nothing has to be rebuilt");
pub const BACK_POSTGRES: Limit =
    Limit::at_most(2.0, "s", "recovery of Postgres", "the next request connects, and finds out what is dead");
pub const BACK_BLACK_HOLE: Limit = Limit::at_most(
    3.0,
    "s",
    "recovery from a black hole",
    "as from any outage, and a second for a connect that is under way",
);
pub const BACK_FAILOVER: Limit = Limit::at_most(
    10.0,
    "s",
    "recovery from a failover",
    "every connection is dead without saying so; sqlx's own pool never recovers",
);
pub const BACK_REDIS: Limit =
    Limit::at_most(1.0, "s", "recovery of Redis", "a failed connect is tried again after 100 ms");
pub const BACK_REDIS_SILENT: Limit = Limit::at_most(
    2.0,
    "s",
    "recovery of a silent Redis",
    "the connection of the outage must be seen to be dead, and a connect may be under way",
);
pub const BACK_REDIS_FROZEN: Limit = Limit::at_most(
    3.0,
    "s",
    "recovery of Redis after a failover",
    "a connection is replaced every 2 s at most; the crate's own manager never does",
);
pub const BACK_PASSWORD: Limit = Limit::at_most(
    5.0,
    "s",
    "recovery from a password that was wrong for a while",
    "the next connect succeeds; the crate's own manager never tries again",
);
pub const BACK_ROTATED: Limit = Limit::at_most(
    6.0,
    "s",
    "recovery with a new password",
    "its file is looked at every 5 s, and then there is a connect to make",
);
pub const BACK_BREAKER: Limit =
    Limit::at_most(6.0, "s", "recovery of the upstream", "the breaker lets a call through after 5 s");
pub const OUTBOUND: Limit = Limit::at_most(
    1.1,
    "per request",
    "calls of the upstream",
    "retries have a budget of a tenth: an outage must not multiply the load on what is down",
);
pub const ABANDONED_PLACE: Limit = Limit::at_most(
    0.1,
    "s",
    "until the place of an abandoned request is free",
    "a client that has gone needs no place, and there are few connections to Postgres",
);
pub const ABANDONED_QUERY: Limit = Limit::at_most(
    2.0,
    "s",
    "until Postgres has stopped an abandoned query",
    "it is cancelled, or the server notices within a second that its client has gone",
);
pub const BODIES_MEMORY: Limit = Limit::at_most(
    128.0,
    "MiB",
    "memory for 300 long bodies",
    "long bodies share 64 MiB; their buffers may have been grown by doubling",
);
pub const DESCRIPTORS_KEPT: Limit = Limit::at_most(
    10.0,
    "descriptors",
    "descriptors kept by connections that were reset",
    "none; a pool may have grown meanwhile",
);
pub const ACKNOWLEDGED_LOST: Limit = Limit::at_most(
    0.0,
    "writes",
    "acknowledged writes lost",
    "the promise: what was answered with 201 is in the database",
);
pub const WRITTEN_TWICE: Limit =
    Limit::at_most(0.0, "writes", "writes done twice", "the promise: a key makes a retry safe");
pub const KILLS: Limit = Limit::at_least(
    200.0,
    "kills",
    "kills amid writes",
    "a write takes a few milliseconds: some of so many hit each of its moments",
);

// The soak.

pub const UNEXPLAINED: Limit = Limit::at_most(
    0.0,
    "requests",
    "failed without a fault",
    "a fault explains what fails until it is over and the time to recover from it has passed, and no more",
);
pub const STALLS: Limit =
    Limit::at_most(0.0, "stalls", "handlers that blocked", "none does: each stall would be a false alarm");
pub const MEMORY_GROWN: Limit = Limit::at_most(
    3.0,
    "MiB",
    "memory grown",
    "nothing is kept; jemalloc's own ups and downs between two minutes are 1 to 2 MiB",
);
pub const DESCRIPTORS_GROWN: Limit = Limit::at_most(
    2.0,
    "descriptors",
    "descriptors grown",
    "none is kept; a pool may be smaller for a while",
);
pub const TASKS_GROWN: Limit =
    Limit::at_most(3.0, "tasks", "tasks grown", "none is kept; each pooled connection has one or two");

// The load drill.

pub const GOODPUT_NORMAL: Limit = Limit::at_least(
    99.9,
    "% of what is offered",
    "goodput below capacity",
    "there is room for all: one in a thousand may meet a hiccup",
);
pub const GOODPUT_DOUBLE: Limit = Limit::at_least(
    95.0,
    "% of capacity",
    "goodput at twice the capacity",
    "what is too much is refused at little cost",
);
pub const GOODPUT_TENFOLD: Limit = Limit::at_least(
    90.0,
    "% of capacity",
    "goodput at ten times the capacity",
    "a refusal costs a little; a queue without a limit leaves a sixth",
);
pub const ACCEPTED: Limit = Limit::at_most(
    250.0,
    "ms",
    "p99 of what is accepted",
    "QUEUE_WAIT is 100 ms; the rest is for the work itself",
);
pub const ACCEPTED_SIGN_IN: Limit = Limit::at_most(
    250.0,
    "ms",
    "p99 of accepted sign-ins",
    "a password may wait 100 ms for its turn, and takes 15 to 50 ms with every core in use",
);
pub const ODD_REFUSALS: Limit = Limit::at_most(
    0.0,
    "refusals",
    "refusals that are not 503 or 429 with Retry-After",
    "a client must learn that it is not its fault, and when to try again",
);
pub const NORMAL_AGAIN: Limit = Limit::at_most(
    2.0,
    "s",
    "until all is well after the overload",
    "the queue is short: there is nothing to work off",
);
pub const HEALTHZ: Limit = Limit::at_most(
    50.0,
    "ms",
    "p99 of /healthz",
    "the probes have a listener of their own: overload must not look like death",
);
pub const OFFERED: Limit = Limit::at_least(
    95.0,
    "% of what was asked for",
    "load offered",
    "a client that cannot keep up shows nothing",
);
pub const OTHERS: Limit = Limit::at_most(
    2.0,
    "times",
    "p99 of other requests amid a flood of sign-ins",
    "against that without the flood, or 20 ms",
);

// The readiness checklist.

pub const LAST_LINE: Limit = Limit::at_most(
    200.0,
    "ms",
    "until the line of a fatal fault is out",
    "the hook waits so long for the log, and no longer",
);
pub const EXIT_FAULT: Limit = Limit::at_most(
    3.0,
    "s",
    "exit after a fatal fault, with nobody reading the log",
    "the limit of an exit without a lame duck: the waits for the log are 0.7 s in all",
);
pub const LEAKS: Limit = Limit::at_most(
    0.0,
    "secrets",
    "secrets that came out",
    "the promise: no secret in a line, a span, a metric or a refusal",
);
pub const DEGRADED: Limit = Limit::at_most(
    5.0,
    "s",
    "until an outage, or its end, shows in /readyz",
    "the promise; dependencies are asked every 2 s",
);
pub const SERIES: Limit = Limit::at_most(
    50.0,
    "series",
    "series added by made-up requests",
    "three histograms that something else has begun meanwhile; each made-up name would add sixteen",
);
pub const LAG_SEEN: Limit = Limit::at_least(
    0.25,
    "s",
    "p99 lag of a process that is stopped for 300 ms again and again",
    "the 300 ms, less a sample's 20 ms and the time to go on",
);
pub const LAG_CALM: Limit = Limit::at_most(
    0.1,
    "s",
    "p99 lag of an idle process",
    "a timer is a millisecond late, and the machine is shared",
);
pub const LAG_WINDOW: Limit = Limit::at_most(
    11.0,
    "s",
    "until the lag is calm again",
    "the window under way, the next one of 5 s, and a second",
);
pub const IN_TIME: Limit = Limit::at_least(
    99.0,
    "%",
    "writes acknowledged within 0.5 s, tries included",
    "the objective of deploy/monitoring/rules.yaml: 99 % take less than half a second",
);

// The negative control: what the same load must find in a server whose stop was spoilt.

pub const MUTANT_LOST: Limit =
    Limit::at_least(1.0, "requests", "requests without an answer", "a drill that cannot fail shows nothing");

pub const MUTANT_CAUGHT: Limit =
    Limit::at_least(1.0, "misses", "limits missed", "a drill that cannot fail shows nothing");

pub const MUTANT_FOUND: Limit =
    Limit::at_least(1.0, "items", "items that find a fault", "a list that cannot fail shows nothing");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limits_use_is_the_share_of_it() {
        assert_eq!(EXIT.used(5.0), Some(0.2));
        assert_eq!([LOST.used(1.0), STOP_REQUESTS.used(1_000_000.0)], [None; 2]);
    }

    #[test]
    fn a_value_out_of_bounds_or_not_measured_is_a_miss() {
        assert_eq!(EXIT.miss(25.0), None);
        assert!(EXIT.miss(25.1).is_some_and(|miss| miss.contains("25.1 s, at most 25 allowed")));
        assert_eq!(STOP_REQUESTS.miss(500_000.0), None);
        assert!(STOP_REQUESTS.miss(499_999.0).is_some());
        assert!(EXIT.miss(f64::NAN).is_some() && RESTARTS.miss(f64::NAN).is_some());
    }
}
