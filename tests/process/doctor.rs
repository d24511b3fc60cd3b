//! `server doctor`: every broken set-up has a name and a cure, and a sound one has neither.
use crate::service::{BIN, redis_command, redis_url, server};
use drill::{
    collector::Collector,
    process::{Output, run},
    proxy::{Mode, Proxy},
};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgPool, postgres::types::Oid};
use std::time::{Duration, Instant};
use tokio::sync::RwLock;

/// Held by whoever changes the Redis that all tests share.
static REDIS: RwLock<()> = RwLock::const_new(());

/// What it says with these settings beside, or in place of, sound ones.
pub async fn doctor(pool: &PgPool, changes: &[(&str, &str)]) -> Output {
    let _as_it_is = REDIS.read().await;
    examine(pool, changes).await
}

async fn examine(pool: &PgPool, changes: &[(&str, &str)]) -> Output {
    let (database, redis) = (database_url(pool), redis_url());
    let prefix = format!("test:doctor:{}:", std::process::id());
    let mut settings =
        vec![("DATABASE_URL", database.as_str()), ("REDIS_URL", &redis), ("REDIS_PREFIX", &prefix)];
    settings.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    settings.extend(changes);
    let said = run(BIN, &["doctor"], &settings).await.unwrap();
    assert_eq!(said.stderr, "");
    assert!(!said.stdout.contains("canary"), "{}", said.stdout);
    said
}

/// Each fault as `SETTING: cure`.
pub fn failed(said: &Output) -> Vec<String> {
    let lines: Vec<&str> = said.stdout.lines().collect();
    let faults = lines.windows(2).filter(|pair| pair[0].starts_with("FAIL"));
    let faults = faults.map(|pair| {
        let setting = pair[0].split_whitespace().nth(3).unwrap();
        format!("{setting} {}", pair[1].trim())
    });
    let faults: Vec<String> = faults.collect();
    assert_eq!(said.code, Some(i32::from(!faults.is_empty())), "{}", said.stdout);
    faults
}

fn database_url(pool: &PgPool) -> String {
    pool.connect_options().to_url_lossy().to_string()
}

/// `url` with another user and password.
fn signed_in(url: &str, user: &str, password: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_username(user).unwrap();
    url.set_password(Some(password)).unwrap();
    url.to_string()
}

#[sqlx::test]
async fn a_sound_set_up_has_no_fault(pool: PgPool) {
    let collector = Collector::start().await.unwrap();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    let said = doctor(&pool, &[endpoint]).await;
    assert_eq!(failed(&said), [""; 0], "{}", said.stdout);
    for sound in [
        "DATABASE_URL: 127.0.0.1 is 127.0.0.1",
        "DATABASE_URL: version ",
        "DATABASE_URL: all ",
        "REDIS_URL: takes writes",
        "REDIS_URL: evicts nothing",
        "OTEL_EXPORTER_OTLP_ENDPOINT: answers, with 405",
    ] {
        assert!(said.stdout.lines().any(|line| line.starts_with("ok") && line.contains(sound)), "{said:#?}");
    }
}

#[sqlx::test]
async fn a_redis_that_evicts_sessions(pool: PgPool) {
    let _changed = REDIS.write().await;
    redis_command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let said = examine(&pool, &[]).await;
    redis_command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    assert_eq!(failed(&said), ["REDIS_URL: set maxmemory-policy to noeviction"], "{}", said.stdout);
}

#[sqlx::test]
async fn a_host_that_does_not_resolve(pool: PgPool) {
    let said = doctor(&pool, &[("DATABASE_URL", "postgres://u:canary@no-such-host.invalid/db")]).await;
    assert_eq!(
        failed(&said),
        ["DATABASE_URL: correct the host; from another namespace of a cluster it is NAME.NAMESPACE"],
        "{}",
        said.stdout
    );
    let said = doctor(&pool, &[("REDIS_URL", "redis://:canary@no-such-host.invalid")]).await;
    assert_eq!(
        failed(&said),
        ["REDIS_URL: correct the host; from another namespace of a cluster it is NAME.NAMESPACE"],
        "{}",
        said.stdout
    );
}

#[sqlx::test]
async fn a_port_that_nothing_listens_on(pool: PgPool) {
    let all = [
        ("DATABASE_URL", "postgres://u:canary@127.0.0.1:1/db"),
        ("REDIS_URL", "redis://:canary@127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:canary@127.0.0.1:1"),
    ];
    let said = doctor(&pool, &all).await;
    let cured =
        |setting| format!("{setting}: nothing listens there: start the server, or correct host and port");
    assert_eq!(failed(&said), all.map(|(setting, _)| cured(setting)), "{}", said.stdout);
}

/// Replaces the server's own file of who may sign in how.
async fn set_rules(pool: &PgPool, file: &str, rules: &str) {
    let object = sqlx::query_scalar("SELECT lo_from_bytea(0, $1)").bind(rules.as_bytes());
    let object: Oid = object.fetch_one(pool).await.unwrap();
    let write = sqlx::query("SELECT lo_export($1, $2), pg_reload_conf()").bind(object).bind(file);
    write.execute(pool).await.unwrap();
}

#[sqlx::test]
async fn a_password_that_is_wrong(pool: PgPool) {
    let user = format!("checked_{}", std::process::id());
    pool.execute(AssertSqlSafe(format!("CREATE ROLE {user} LOGIN PASSWORD 'right'"))).await.unwrap();
    let rules = "SELECT file, pg_read_file(file) FROM current_setting('hba_file') AS file";
    let (file, rules): (String, String) = sqlx::query_as(rules).fetch_one(&pool).await.unwrap();
    // The test servers trust everybody else.
    set_rules(&pool, &file, &format!("host all {user} all scram-sha-256\n{rules}")).await;
    let wrong = signed_in(&database_url(&pool), &user, "canary");
    let mut said = doctor(&pool, &[("DATABASE_URL", &wrong)]).await;
    for _ in 0..20 {
        if said.stdout.contains("password authentication failed") {
            break;
        }
        // It reads the file a moment later.
        said = doctor(&pool, &[("DATABASE_URL", &wrong)]).await;
    }
    set_rules(&pool, &file, &rules).await;
    pool.execute(AssertSqlSafe(format!("DROP ROLE {user}"))).await.unwrap();
    assert_eq!(failed(&said), ["DATABASE_URL: correct user and password"], "{}", said.stdout);

    redis_command(&["ACL", "SETUSER", &user, "on", ">right", "~*", "&*", "+@all"]).await;
    let said = doctor(&pool, &[("REDIS_URL", &signed_in(&redis_url(), &user, "canary"))]).await;
    redis_command(&["ACL", "DELUSER", &user]).await;
    assert_eq!(failed(&said), ["REDIS_URL: correct user and password"], "{}", said.stdout);
}

#[sqlx::test]
async fn a_database_that_is_not_there(pool: PgPool) {
    let mut url = url::Url::parse(&database_url(&pool)).unwrap();
    url.set_path("/no_such_database");
    let said = doctor(&pool, &[("DATABASE_URL", url.as_str())]).await;
    let cure = "DATABASE_URL: create that database, or correct its name";
    assert_eq!(failed(&said), [cure], "{}", said.stdout);
}

#[sqlx::test(migrations = false)]
async fn a_schema_that_is_missing_behind_or_newer(pool: PgPool) {
    let said = doctor(&pool, &[]).await;
    assert_eq!(failed(&said), ["DATABASE_URL: run `server migrate`"], "{}", said.stdout);
    let settings = [("DATABASE_URL", database_url(&pool)), ("REDIS_URL", redis_url())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(run(BIN, &["migrate"], &settings).await.unwrap().code, Some(0));
    assert_eq!(failed(&doctor(&pool, &[]).await), [""; 0]);
    // As a newer release leaves it that is rolled back.
    let renumber = "UPDATE _sqlx_migrations SET version = 9 WHERE version = 2";
    pool.execute(renumber).await.unwrap();
    let said = doctor(&pool, &[]).await;
    assert_eq!(failed(&said), ["DATABASE_URL: run `server migrate`"], "{}", said.stdout);
    assert!(said.stdout.contains("migrations are missing: [2]"), "{}", said.stdout);
    pool.execute(
        "INSERT INTO _sqlx_migrations SELECT 2, description, installed_on, success, checksum, \
        execution_time FROM _sqlx_migrations WHERE version = 9",
    )
    .await
    .unwrap();
    let said = doctor(&pool, &[]).await;
    assert_eq!(failed(&said), [""; 0]);
    assert!(said.stdout.contains("1 newer"), "{}", said.stdout);
}

#[sqlx::test]
async fn a_postgres_with_too_few_connections(pool: PgPool) {
    let said = doctor(&pool, &[("DATABASE_MAX_CONNECTIONS", "100000")]).await;
    let cure = "DATABASE_URL: lower DATABASE_MAX_CONNECTIONS, or raise max_connections (or the role's, or the database's limit)";
    assert_eq!(failed(&said), [cure], "{}", said.stdout);

    let server = server(&pool, "too-few").env("DATABASE_MAX_CONNECTIONS", 100_000).start().await.unwrap();
    let line = server.line(|line| line["wanted"] == 100_000).await.unwrap();
    assert_eq!(line["level"], 40);
}

/// Accepts everything and answers nothing, as behind a firewall that drops what it does not like.
#[sqlx::test]
async fn a_black_hole_is_named_within_seconds(pool: PgPool) {
    let collector = Collector::start().await.unwrap();
    let mut urls = [database_url(&pool), redis_url(), collector.url.clone()];
    let mut proxies = Vec::new();
    for url in &mut urls {
        let parsed = url::Url::parse(url).unwrap();
        let address = (parsed.host_str().unwrap(), parsed.port().unwrap());
        let proxy =
            Proxy::start(tokio::net::lookup_host(address).await.unwrap().next().unwrap()).await.unwrap();
        *url = proxy.url_for(url).unwrap();
        proxies.push(proxy);
    }
    let names = ["DATABASE_URL", "REDIS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let settings: Vec<_> = names.into_iter().zip(urls.iter().map(String::as_str)).collect();
    assert_eq!(failed(&doctor(&pool, &settings).await), [""; 0]);
    for proxy in &proxies {
        proxy.set(Mode::BlackHole).await;
    }
    let start = Instant::now();
    let said = doctor(&pool, &settings).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let cured = |setting| {
        format!(
            "{setting}: what is sent is dropped on the way (a firewall, a NetworkPolicy), or \
        the server hangs"
        )
    };
    assert_eq!(failed(&said), names.map(cured), "{}", said.stdout);
}
