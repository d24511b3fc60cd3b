//! The faults: how each is brought about, and how it ends.

use std::time::Duration;

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use super::{peers, postgres};
use crate::{
    ground::Ground,
    process::Signal,
    proxy::{Mode, Proxy},
    traffic::Traffic,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    PostgresRefused,
    PostgresStopped,
    PostgresFrozen,
    PostgresBlackHole,
    PostgresSessionsEnded,
    PostgresRestart,
    PostgresReadOnly,
    PostgresCrowded,
    PostgresLocked,
    PostgresAbandoned,
    PostgresSlow,
    PostgresSchema,
    PostgresFull,
    RedisRefused,
    RedisBlackHole,
    RedisStopped,
    RedisFrozen,
    RedisPassword,
    RedisRotated,
    RedisFlushed,
    RedisReadOnly,
    RedisFull,
    Upstream(Upstream),
    CollectorRefused,
    CollectorSilent,
    Stdout,
    Descriptors,
    Cpu,
    Resets,
    Bodies,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    Refused,
    Fails,
    Slow,
    Silent,
    Drips,
    Resets,
    Long,
    Garbage,
}

/// What keeps a fault going until it is dropped.
#[derive(Default)]
pub struct Hold {
    pub tasks: JoinSet<Result<()>>,
    pub lock: Option<PgConnection>,
}

/// What a fault may need besides its ground.
pub struct Around<'a> {
    pub collector: &'a Proxy,
    pub traffic: &'a Traffic,
    /// Where the server was told to look for its Redis.
    pub redis_file: &'a std::path::Path,
}

impl Fault {
    /// Settings that the server needs to feel it.
    pub fn env<'a>(self, collector: &'a str, redis_file: &'a str) -> Vec<(&'static str, &'a str)> {
        match self {
            // Spans are sent soon, and given up soon.
            Self::CollectorRefused | Self::CollectorSilent => vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
                ("OTEL_BSP_SCHEDULE_DELAY", "500"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ],
            // A busy log fills its buffer soon.
            Self::Stdout => vec![("LOG_LEVEL", "trace,hyper=trace")],
            Self::RedisRotated => vec![("REDIS_URL_FILE", redis_file)],
            _ => Vec::new(),
        }
    }

    /// How many file descriptors the server has, if they are few.
    pub fn descriptors(self) -> Option<usize> {
        (self == Self::Descriptors).then_some(70)
    }

    pub async fn begin(self, ground: &mut Ground, around: &Around<'_>) -> Result<Hold> {
        let mut hold = Hold::default();
        match self {
            Self::Upstream(how) => how.begin(ground).await,
            Self::CollectorRefused => {
                around.collector.set(Mode::Refuse).await;
                around.collector.reset_existing();
            }
            Self::CollectorSilent => around.collector.set(Mode::BlackHole).await,
            Self::Stdout => {
                ground.stage.server.hold_stdout(true);
                peers::chatter(ground, around.traffic, &mut hold.tasks);
            }
            Self::Descriptors => peers::crowd(ground, &mut hold.tasks, 100),
            Self::Cpu => peers::throttle(ground, &mut hold.tasks),
            Self::Resets => peers::resets(ground, around.traffic, &mut hold.tasks),
            Self::Bodies => peers::bodies(ground, &mut hold.tasks, 300),
            Self::Stopped => ground.stage.server.signal(Signal::Stop)?,
            Self::RedisRefused | Self::RedisBlackHole | Self::RedisStopped | Self::RedisFrozen => {
                self.cut_redis(&ground.stage.redis).await;
            }
            Self::RedisPassword
            | Self::RedisRotated
            | Self::RedisFlushed
            | Self::RedisReadOnly
            | Self::RedisFull => {
                self.spoil_redis(ground).await?;
            }
            _ => postgres::begin(self, ground, around.traffic, &mut hold).await?,
        }
        Ok(hold)
    }

    async fn cut_redis(self, proxy: &Proxy) {
        match self {
            Self::RedisRefused => {
                proxy.set(Mode::Refuse).await;
                proxy.reset_existing();
            }
            Self::RedisBlackHole => proxy.set(Mode::BlackHole).await,
            Self::RedisStopped => proxy.set(Mode::Freeze).await,
            _ => proxy.freeze_existing(),
        }
    }

    async fn spoil_redis(self, ground: &mut Ground) -> Result<()> {
        let user = ground.name.clone();
        match self {
            Self::RedisPassword | Self::RedisRotated => {
                ground.redis(&["ACL", "SETUSER", &user, "resetpass", ">another"]).await?;
                ground.redis(&["CLIENT", "KILL", "USER", &user]).await
            }
            Self::RedisFlushed => {
                let keys = format!("{}*", ground.prefix);
                let script =
                    "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
                ground.redis(&["EVAL", script, "0", &keys]).await
            }
            Self::RedisReadOnly => ground.redis(&["REPLICAOF", "127.0.0.1", "1"]).await,
            _ => {
                ground.redis(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
                ground.redis(&["CONFIG", "SET", "maxmemory", "1"]).await
            }
        }
    }

    pub async fn end(self, ground: &mut Ground, around: &Around<'_>, mut hold: Hold) -> Result<()> {
        let user = ground.name.clone();
        match self {
            Self::Upstream(_) => {
                ground.stage.upstream.reset();
                ground.stage.preview.set(Mode::Pass).await;
            }
            Self::CollectorRefused | Self::CollectorSilent => around.collector.set(Mode::Pass).await,
            Self::Stdout => ground.stage.server.hold_stdout(false),
            Self::Stopped => ground.stage.server.signal(Signal::Cont)?,
            Self::RedisRefused | Self::RedisBlackHole | Self::RedisStopped => {
                ground.stage.redis.set(Mode::Pass).await;
            }
            Self::RedisPassword => ground.redis(&["ACL", "SETUSER", &user, "resetpass", ">drill"]).await?,
            Self::RedisRotated => {
                let url = tokio::fs::read_to_string(around.redis_file).await?;
                tokio::fs::write(around.redis_file, url.replace(":drill@", ":another@")).await?;
            }
            Self::RedisFlushed => around.traffic.sign_in().await?,
            Self::RedisReadOnly => ground.redis(&["REPLICAOF", "NO", "ONE"]).await?,
            Self::RedisFull => ground.redis(&["CONFIG", "SET", "maxmemory", "0"]).await?,
            Self::PostgresReadOnly => {
                ground.sql("ALTER ROLE {me} RESET default_transaction_read_only").await?
            }
            Self::PostgresCrowded => ground.sql("ALTER ROLE {me} CONNECTION LIMIT -1").await?,
            Self::PostgresFull => ground.sql(postgres::NO_TRIGGER).await?,
            Self::PostgresRefused
            | Self::PostgresRestart
            | Self::PostgresStopped
            | Self::PostgresBlackHole
            | Self::PostgresSlow => {
                ground.stage.postgres.set(Mode::Pass).await;
            }
            _ => {}
        }
        if let Some(lock) = hold.lock {
            lock.close().await?;
        }
        while self == Self::Resets
            && let Some(task) = hold.tasks.join_next().await
        {
            task??;
        }
        // What has failed by itself says so; the rest is ended.
        while let Some(task) = hold.tasks.try_join_next() {
            task??;
        }
        hold.tasks.shutdown().await;
        if self == Self::Cpu {
            ground.stage.server.signal(Signal::Cont)?;
        }
        Ok(())
    }
}

impl Upstream {
    async fn begin(self, ground: &Ground) {
        let (upstream, preview) = (&ground.stage.upstream, &ground.stage.preview);
        match self {
            Self::Refused => {
                preview.set(Mode::Refuse).await;
                preview.reset_existing();
            }
            Self::Fails => upstream.answer(500, "{}"),
            Self::Slow => upstream.delay(Duration::from_secs(5)),
            Self::Silent => preview.set(Mode::BlackHole).await,
            Self::Drips => preview.set(Mode::Drip { pause: Duration::from_millis(50) }).await,
            Self::Resets => preview.set(Mode::Reset).await,
            Self::Long => upstream.answer(200, format!("\"{}\"", "x".repeat(1 << 20))),
            Self::Garbage => upstream.answer(200, "<html>"),
        }
    }
}
