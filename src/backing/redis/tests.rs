use super::*;
use crate::{backing::proxy::Proxy, telemetry::request::Request};
use redis::{Script, cmd};
use std::net::Ipv4Addr;
use tokio::{net::TcpListener, time::sleep};
use uuid::Uuid;

#[expect(clippy::disallowed_methods, reason = "where the tests' Redis is")]
fn redis_url() -> url::Url {
    let url = std::env::var("REDIS_URL").expect("REDIS_URL: see `make services`");
    url.parse().unwrap()
}

/// A handle with a key space of its own.
fn redis(url: &url::Url) -> Redis {
    Redis::new(&Secret::from(url.to_string()), &format!("test:{}:", Uuid::now_v7()), &Workers::none())
        .unwrap()
}

async fn proxied() -> (Proxy, Redis) {
    let mut url = redis_url();
    let proxy = Proxy::to(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(6379))).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    (proxy, redis(&url))
}

fn occurrences(sent: &[u8], command: &str) -> usize {
    String::from_utf8_lossy(sent).matches(command).count()
}

fn unavailable<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable(_)))
}

/// The server's number of the connection. On a machine that is busy with other tests an answer may come too late once.
async fn connection(redis: &Redis) -> i64 {
    let ask = async || redis.run("CLIENT ID", cmd("CLIENT").arg("ID")).await;
    match ask().await {
        Err(Error::Unavailable(_)) => ask().await.unwrap(),
        answer => answer.unwrap(),
    }
}

#[tokio::test]
async fn commands_and_keys_work() {
    let redis = redis(&redis_url());
    let key = redis.key(format_args!("session:{}", 7));
    assert!(key.starts_with("test:") && key.ends_with(":session:7"));
    let () = redis.run("SET", cmd("SET").arg(&key).arg("value").arg("EX").arg(60)).await.unwrap();
    let value: Option<String> = redis.run("GET", cmd("GET").arg(&key)).await.unwrap();
    assert_eq!(value.as_deref(), Some("value"));
    assert_eq!(redis.run::<i64>("DEL", cmd("DEL").arg(&key)).await.unwrap(), 1);
    assert_eq!(redis.run::<Option<String>>("GET", cmd("GET").arg(&key)).await.unwrap(), None);
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_script_is_one_round_trip_once_redis_knows_it() {
    let (proxy, redis) = proxied().await;
    let unknown = Script::new(&format!("return {{ARGV[1], '{}'}}", Uuid::now_v7()));
    let call = async || redis.script::<(i64, String)>("test", unknown.key("k").arg(5)).await.unwrap().0;
    assert_eq!(call().await, 5);
    let sent = proxy.take_sent();
    assert_eq!((occurrences(&sent, "EVALSHA"), occurrences(&sent, "LOAD")), (2, 1));
    assert_eq!(call().await, 5);
    let sent = proxy.take_sent();
    assert_eq!((occurrences(&sent, "EVALSHA"), occurrences(&sent, "LOAD")), (1, 0));
}

#[tokio::test]
async fn unexpected_answers_and_outages_are_told_apart() {
    let redis = redis(&redis_url());
    let key = redis.key("list");
    let () = redis.run("LPUSH", cmd("LPUSH").arg(&key).arg(1)).await.unwrap();
    let before = connection(&redis).await;
    let wrong_type = redis.run::<String>("GET", cmd("GET").arg(&key)).await;
    assert!(matches!(wrong_type, Err(Error::Answer(_))), "{wrong_type:?}");
    let wrong_shape = redis.run::<Vec<u64>>("PING", &cmd("PING")).await;
    assert!(matches!(wrong_shape, Err(Error::Answer(_))), "{wrong_shape:?}");
    for answer in ["LOADING", "OOM", "MISCONF", "READONLY", "MASTERDOWN", "BUSY"] {
        let script = Script::new(&format!("return redis.error_reply('{answer} so it is')"));
        let result = redis.script::<()>("test", &script.prepare_invoke()).await;
        assert!(unavailable(result), "{answer}");
    }
    assert_eq!(connection(&redis).await, before);
    let () = redis.run("DEL", cmd("DEL").arg(&key)).await.unwrap();
}

#[tokio::test]
async fn a_silent_connection_is_replaced_after_three_calls() {
    let (proxy, redis) = proxied().await;
    redis.ping().await.unwrap();
    sleep(link::REPLACE).await;
    proxy.freeze();
    for _ in 0..3 {
        let start = Instant::now();
        assert!(unavailable(redis.ping().await));
        assert!(start.elapsed() < RESPONSE * 6, "{:?}", start.elapsed());
    }
    // On a busy machine an answer, or a connect, may be late.
    let mut tries = 0;
    while tries < 50 && redis.ping().await.is_err() {
        tries += 1;
        sleep(link::PAUSE).await;
    }
    assert!(tries < 50, "the silent connection is still in use");
    assert!(tries > 0 || proxy.accepted() == 2, "{} connections", proxy.accepted());
}

#[tokio::test]
async fn requests_in_a_hurry_do_not_count_as_silence() {
    let (proxy, redis) = proxied().await;
    redis.ping().await.unwrap();
    sleep(link::REPLACE).await;
    proxy.freeze();
    for _ in 0..5 {
        let deadline = std::time::Instant::now() + Duration::from_millis(20);
        let request = Request::new("test".into(), Ipv4Addr::LOCALHOST.into(), deadline, Default::default());
        assert!(unavailable(request.scope(redis.ping()).await));
    }
    assert!(unavailable(redis.ping().await), "still the silent connection");
}

#[tokio::test]
async fn a_replica_is_left_for_whoever_has_the_address_now() {
    let redis = redis(&redis_url());
    let before = connection(&redis).await;
    let script =
        Script::new("return redis.error_reply('READONLY You can not write against a read only replica.')");
    assert!(unavailable(redis.script::<()>("test", &script.prepare_invoke()).await));
    assert_eq!(connection(&redis).await, before, "not at once: the next connection may have the same peer");
    sleep(link::REPLACE).await;
    assert!(unavailable(redis.script::<()>("test", &script.prepare_invoke()).await));
    assert_ne!(connection(&redis).await, before);
}

#[tokio::test]
async fn a_corrected_password_is_accepted_without_restart() {
    let admin = redis(&redis_url());
    let user = Uuid::now_v7().to_string();
    let mut setup = cmd("ACL");
    setup.arg("SETUSER").arg(&user).arg(&["on", "~*", "+@all", ">old"]);
    let () = admin.run("ACL SETUSER", &setup).await.unwrap();
    let mut url = redis_url();
    url.set_username(&user).unwrap();
    url.set_password(Some("new")).unwrap();
    let redis = redis(&url);
    assert!(unavailable(redis.ping().await));
    let () = admin.run("ACL SETUSER", cmd("ACL").arg("SETUSER").arg(&user).arg(">new")).await.unwrap();
    sleep(link::PAUSE).await;
    redis.ping().await.unwrap();

    url.set_password(Some("old")).unwrap();
    let before = connection(&redis).await;
    redis.turn_to(&Secret::from(url.to_string())).await.unwrap();
    assert_ne!(connection(&redis).await, before);
    let () = admin.run("ACL DELUSER", cmd("ACL").arg("DELUSER").arg(&user)).await.unwrap();
    assert!(unavailable(redis.ping().await), "the server has ended its session");
}

#[tokio::test]
async fn a_closed_connection_costs_one_call() {
    let redis = redis(&redis_url());
    let number = connection(&redis).await;
    let other = self::redis(&redis_url());
    let () = other
        .run("CLIENT KILL", cmd("CLIENT").arg("KILL").arg("ID").arg(number))
        .await
        .map(|_: i64| ())
        .unwrap();
    let failed = unavailable(redis.ping().await);
    redis.ping().await.unwrap();
    assert!(failed);
}

#[tokio::test]
async fn a_refused_connection_fails_at_once_and_a_silent_server_within_the_limit() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap()).parse().unwrap();
    let redis = redis(&url);
    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let redis = redis.clone();
        calls.spawn(async move { assert!(unavailable(redis.ping().await)) });
    }
    calls.join_all().await;
    assert!(start.elapsed() < CALL * 6, "{:?}", start.elapsed());
    drop(listener);
    let start = Instant::now();
    for _ in 0..100 {
        assert!(unavailable(redis.ping().await));
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn callers_share_one_connection_from_the_first_call_on() {
    let (proxy, redis) = proxied().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..300 {
        let redis = redis.clone();
        tasks.spawn(async move {
            let echoed: i64 = redis.run("ECHO", cmd("ECHO").arg(number)).await.unwrap();
            assert_eq!(echoed, number);
        });
    }
    tasks.join_all().await;
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn each_worker_has_a_connection_of_its_own() {
    let workers = Workers::start(2).unwrap();
    let prefix = format!("test:{}:", Uuid::now_v7());
    let redis = Redis::new(&Secret::from(redis_url().to_string()), &prefix, &workers).unwrap();
    let mut numbers = vec![connection(&redis).await];
    for answer in workers.each(|| {
        let redis = redis.clone();
        async move { connection(&redis).await }
    }) {
        numbers.push(answer.await.unwrap());
    }
    assert_eq!(numbers.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{numbers:?}");
    assert_eq!(connection(&redis).await, numbers[0]);
}
