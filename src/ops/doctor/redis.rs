//! Whether Redis is one that sessions are safe in.
use super::Report;
use crate::{backing::redis::Redis, config::Config, runtime::workers::Workers};
use redis::{InfoDict, Script, cmd};
use std::time::{Duration, SystemTime};

/// The first with users.
const OLDEST: u32 = 6;
/// What the service does all day: a script that goes by Redis's clock, and writes below the prefix.
const WRITE: &str = "redis.call('SET', KEYS[1], '', 'PX', 1000) return redis.call('TIME')";

pub async fn examine(report: &mut Report, config: &Config) -> anyhow::Result<()> {
    report.resolve(&config.redis_url).await?;
    let redis = Redis::new(&config.redis_url, &config.redis_prefix, &Workers::none())?;
    let write = Script::new(WRITE);
    let now: (u64, u64) = redis.script("doctor", &write.key(redis.key("doctor"))).await?;
    report.good("takes writes");
    report.clock(SystemTime::UNIX_EPOCH + Duration::from_secs(now.0) + Duration::from_micros(now.1));

    // By a script too: a key leads to one server, whether there are more or not.
    let info = Script::new("return redis.call('INFO')");
    let info: InfoDict = redis.script("doctor", &info.key(redis.key("doctor"))).await?;
    let known = |name: &str| info.get::<String>(name).unwrap_or_default();
    report.version(&known("redis_version"), OLDEST);
    let cure = "set maxmemory-policy to noeviction";
    match known("maxmemory_policy").as_str() {
        "noeviction" | "" => report.good("evicts nothing"),
        "volatile-ttl" => report.warning("short of memory, it ends the oldest sessions: volatile-ttl", cure),
        policy => report.fault(format_args!("short of memory, it signs people out: {policy}"), cure),
    }
    // A managed one may keep this to itself.
    let save: Vec<String> =
        redis.run("CONFIG GET", cmd("CONFIG").arg("GET").arg("save")).await.unwrap_or_default();
    if known("aof_enabled") == "0" && save.get(1).is_some_and(String::is_empty) {
        let cure = "set appendonly to yes, unless that may be";
        report.warning("keeps nothing on disk: a restart of it signs everybody out", cure);
    }
    Ok(())
}
