//! The cases: which fault, for how long, what each kind of request may come to, and how soon all is well again.

use super::fault::{Fault, Upstream};
use crate::{
    client::samples::Kind,
    limits::{self, Limit},
    traffic::Mix,
};

pub struct Case {
    /// Of the case's database and keys.
    pub id: &'static str,
    pub name: &'static str,
    pub fault: Fault,
    /// Seconds that it lasts; 0 for a blow.
    pub seconds: u64,
    pub fates: Fates,
    /// The slowest answer to a request that the fault meets.
    pub answer: &'static Limit,
    /// From the end of the fault to the first moment since which all is well.
    pub back: &'static Limit,
}

/// What may become of requests while the fault lasts, and until all is well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: they are served as ever.
    Served,
    /// They are refused; that some are shows that the fault is real.
    Refused,
    /// Either.
    Any,
}

/// The fate of each kind.
#[derive(Clone, Copy)]
pub struct Fates {
    pub anonymous: Fate,
    pub session: Fate,
    pub read: Fate,
    pub write: Fate,
    pub preview: Fate,
}

use Fate::{Any, Refused, Served};

const UNFELT: Fates =
    Fates { anonymous: Served, session: Served, read: Served, write: Served, preview: Served };
const NO_POSTGRES: Fates = Fates { read: Refused, write: Refused, ..UNFELT };
const NO_WRITES: Fates = Fates { write: Refused, ..UNFELT };
const NO_REDIS: Fates = Fates { session: Refused, read: Refused, write: Refused, ..UNFELT };
const NO_UPSTREAM: Fates = Fates { preview: Refused, ..UNFELT };
const SHAKEN: Fates = Fates { anonymous: Any, session: Any, read: Any, write: Any, preview: Any };

impl Fates {
    pub fn of(self, kind: Kind) -> Fate {
        match kind {
            Kind::Anonymous | Kind::Health => self.anonymous,
            Kind::Session | Kind::SignIn => self.session,
            Kind::Read | Kind::One => self.read,
            Kind::Write => self.write,
            Kind::Preview => self.preview,
        }
    }
}

impl Case {
    /// Whether the whole of Redis is hit, or the machine is busy (a Postgres that goes on finds all at once who wanted to
    /// connect): no other case may run beside it.
    pub fn is_alone(&self) -> bool {
        use Fault::{Bodies, PostgresStopped, RedisFull, RedisReadOnly, Resets, Stdout};
        matches!(self.fault, RedisReadOnly | RedisFull | Resets | Bodies | PostgresStopped | Stdout)
    }

    /// Whether it is about a route of the example.
    pub fn needs_example(&self) -> bool {
        matches!(self.fault, Fault::Upstream(_))
    }

    /// Requests a second. A password to check takes a core for a while: fewer of those.
    pub fn mix(&self, has_example: bool) -> Mix {
        use Kind::{Anonymous, Preview, Read, Session, Write};
        match (has_example, self.needs_example()) {
            (true, true) => &[(Anonymous, 6), (Session, 6), (Read, 10), (Write, 2), (Preview, 8)],
            (true, false) => &[(Anonymous, 8), (Session, 8), (Read, 16), (Write, 3)],
            (false, _) => &[(Anonymous, 16), (Session, 16), (Read, 2), (Write, 2)],
        }
    }
}

const fn case(
    id: &'static str,
    name: &'static str,
    fault: Fault,
    seconds: u64,
    fates: Fates,
    answer: &'static Limit,
    back: &'static Limit,
) -> Case {
    Case { id, name, fault, seconds, fates, answer, back }
}

/// The longest first: they run side by side.
#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("pg_freeze", "Postgres stopped", Fault::PostgresStopped, 10, NO_POSTGRES, &limits::ANSWER_STUCK, &limits::BACK_POSTGRES),
    case("pg_refused", "Postgres refused", Fault::PostgresRefused, 8, NO_POSTGRES, &limits::ANSWER_POSTGRES, &limits::BACK_POSTGRES),
    case("pg_frozen", "Postgres: open connections freeze, new ones work", Fault::PostgresFrozen, 0, Fates { read: Any, write: Any, ..UNFELT }, &limits::ANSWER_STUCK, &limits::BACK_FAILOVER),
    case("pg_hole", "Postgres: black hole", Fault::PostgresBlackHole, 8, NO_POSTGRES, &limits::ANSWER_STUCK, &limits::BACK_BLACK_HOLE),
    case("pg_killed", "Postgres ends all sessions, five times", Fault::PostgresSessionsEnded, 5, Fates { write: Any, ..UNFELT }, &limits::ANSWER_POSTGRES, &limits::BACK_POSTGRES),
    case("pg_restart", "Postgres: fast restart, 3 s", Fault::PostgresRestart, 3, NO_POSTGRES, &limits::ANSWER_POSTGRES, &limits::BACK_POSTGRES),
    case("pg_readonly", "Postgres turns read-only", Fault::PostgresReadOnly, 6, Fates { read: Any, ..NO_WRITES }, &limits::ANSWER_POSTGRES, &limits::BACK_FAILOVER),
    case("pg_crowded", "Postgres: too many connections", Fault::PostgresCrowded, 6, NO_POSTGRES, &limits::ANSWER_POSTGRES, &limits::BACK_POSTGRES),
    case("pg_locked", "Postgres: rows locked", Fault::PostgresLocked, 6, NO_WRITES, &limits::ANSWER_LOCK, &limits::BACK_POSTGRES),
    case("pg_abandoned", "Postgres: 20 s queries whose clients have gone", Fault::PostgresAbandoned, 4, UNFELT, &limits::ANSWER_POSTGRES, &limits::BACK_POSTGRES),
    case("pg_slow", "Postgres: 200 ms away", Fault::PostgresSlow, 8, UNFELT, &limits::ANSWER_SLOW, &limits::BACK_POSTGRES),
    case("pg_ddl", "Postgres: columns come and go", Fault::PostgresSchema, 6, UNFELT, &limits::ANSWER_POSTGRES, &limits::BACK_POSTGRES),
    case("pg_full", "Postgres: disk full", Fault::PostgresFull, 6, NO_WRITES, &limits::ANSWER_POSTGRES, &limits::BACK_POSTGRES),
    case("redis_refused", "Redis refused", Fault::RedisRefused, 8, NO_REDIS, &limits::ANSWER_REDIS_REFUSED, &limits::BACK_REDIS),
    case("redis_hole", "Redis accepts and never answers", Fault::RedisBlackHole, 8, NO_REDIS, &limits::ANSWER_REDIS, &limits::BACK_REDIS_SILENT),
    case("redis_freeze", "Redis stopped, 5 s", Fault::RedisStopped, 5, NO_REDIS, &limits::ANSWER_REDIS, &limits::BACK_REDIS),
    case("redis_frozen", "Redis: open connection freezes, new ones work", Fault::RedisFrozen, 0, Fates { session: Any, read: Any, write: Any, ..UNFELT }, &limits::ANSWER_REDIS, &limits::BACK_REDIS_FROZEN),
    case("redis_password", "Redis: another password, then the old one again", Fault::RedisPassword, 6, NO_REDIS, &limits::ANSWER_REDIS, &limits::BACK_PASSWORD),
    case("redis_rotated", "Redis: another password, then given to the server", Fault::RedisRotated, 6, NO_REDIS, &limits::ANSWER_REDIS, &limits::BACK_ROTATED),
    case("redis_flushed", "Redis: every key lost; clients sign in again", Fault::RedisFlushed, 2, NO_REDIS, &limits::ANSWER_REDIS, &limits::BACK_REDIS),
    case("up_refused", "upstream refused", Fault::Upstream(Upstream::Refused), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("up_500", "upstream answers 500", Fault::Upstream(Upstream::Fails), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("up_slow", "upstream takes 5 s", Fault::Upstream(Upstream::Slow), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("up_silent", "upstream accepts and never answers", Fault::Upstream(Upstream::Silent), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("up_drip", "upstream answers a byte at a time", Fault::Upstream(Upstream::Drips), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("up_reset", "upstream resets its connections", Fault::Upstream(Upstream::Resets), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("up_long", "upstream answers 1 MB, of which 64 KB are read", Fault::Upstream(Upstream::Long), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("up_garbage", "upstream answers no JSON", Fault::Upstream(Upstream::Garbage), 8, NO_UPSTREAM, &limits::ANSWER_PREVIEW, &limits::BACK_BREAKER),
    case("col_refused", "collector refused", Fault::CollectorRefused, 10, UNFELT, &limits::ANSWER_UNFELT, &limits::BACK_AT_ONCE),
    case("col_silent", "collector silent", Fault::CollectorSilent, 10, UNFELT, &limits::ANSWER_UNFELT, &limits::BACK_AT_ONCE),
    case("stdout", "stdout is not read", Fault::Stdout, 8, UNFELT, &limits::ANSWER_UNFELT, &limits::BACK_AT_ONCE),
    case("descriptors", "no file descriptor left", Fault::Descriptors, 6, Fates { read: Any, write: Any, ..UNFELT }, &limits::ANSWER_POSTGRES, &limits::BACK_AT_ONCE),
    case("cpu", "CPU throttled to a tenth of a core", Fault::Cpu, 8, SHAKEN, &limits::ANSWER_THROTTLED, &limits::BACK_AT_ONCE),
    case("resets", "10,000 clients reset their connections", Fault::Resets, 10, UNFELT, &limits::ANSWER_UNFELT, &limits::BACK_AT_ONCE),
    case("bodies", "300 clients with long bodies", Fault::Bodies, 6, Fates { write: Any, ..UNFELT }, &limits::ANSWER_UNFELT, &limits::BACK_AT_ONCE),
    case("stopped", "server stopped for 3 s", Fault::Stopped, 3, SHAKEN, &limits::ANSWER_STOPPED, &limits::BACK_AT_ONCE),
    case("redis_readonly", "Redis turns replica", Fault::RedisReadOnly, 6, NO_REDIS, &limits::ANSWER_REDIS, &limits::BACK_REDIS_FROZEN),
    case("redis_full", "Redis out of memory", Fault::RedisFull, 6, NO_REDIS, &limits::ANSWER_REDIS, &limits::BACK_REDIS),
];
