//! How many requests, how large, how long.
use super::outages::{address, silence};
use crate::{
    api::actors::{Answer, PASSWORD, Service, eventually},
    config::Config,
};
use axum::http::Method;
use serde_json::json;
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[track_caller]
fn is_limited(answer: &Answer) {
    answer.is_problem(429, "rate_limited");
    assert_eq!(answer.header("ratelimit-policy"), "\"requests\";q=3;w=60");
    assert!(answer.header("ratelimit").starts_with("\"requests\";r=0;t="), "{answer:?}");
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=20).contains(&wait), "one is free after a third of a minute: {wait}");
}

#[tokio::test]
async fn a_network_without_a_session_is_limited_and_told_what_is_left() {
    let service = Service::without_postgres(|config| {
        (config.rate_limit.count, config.trusted_proxies) = (3, 1);
    })
    .await;
    let anonymous = service.anonymous();
    let from = async |network: &str, cookie: &str| {
        let headers = [("x-forwarded-for", network), ("cookie", cookie)];
        anonymous.send(Method::GET, "/v1/session", &headers, None).await
    };
    for (left, cookie) in [(2, ""), (1, "__Host-session=junk"), (0, "a=b")] {
        let answer = from("192.0.2.1", cookie).await;
        answer.is_problem(401, "no_session");
        assert_eq!(answer.header("ratelimit-policy"), "\"requests\";q=3;w=60");
        assert!(answer.header("ratelimit").starts_with(&format!("\"requests\";r={left};t=")), "{answer:?}");
    }
    is_limited(&from("192.0.2.1", "").await);
    is_limited(&from("203.0.113.9, 192.0.2.1", "").await);
    from("192.0.2.2", "").await.is_problem(401, "no_session");
}

#[sqlx::test]
async fn an_account_is_limited_wherever_it_asks_from_and_its_network_is_not(pool: PgPool) {
    let service = Service::start_with(&pool, |config| {
        (config.rate_limit.count, config.trusted_proxies) = (3, 1);
    })
    .await;
    let alice = service.sign_up("alice").await;
    let phone = service.anonymous();
    phone.sign_in(&alice.email, PASSWORD).await;
    for (number, actor) in [&alice, &phone, &alice].into_iter().enumerate() {
        let network = [("x-forwarded-for", &*format!("192.0.2.{number}"))];
        assert_eq!(actor.send(Method::GET, "/v1/session", &network, None).await.status, 200);
    }
    let fresh = [("x-forwarded-for", "192.0.2.77")];
    is_limited(&phone.send(Method::GET, "/v1/session", &fresh, None).await);
    let anonymous = service.anonymous().send(Method::GET, "/v1/session", &fresh, None).await;
    anonymous.is_problem(401, "no_session");
}

#[sqlx::test]
async fn the_limit_outlives_the_sessions(pool: PgPool) {
    let service = Service::start_with(&pool, |config| config.rate_limit.count = 3).await;
    let (alice, bob) = (service.sign_up("alice").await, service.sign_up("bob").await);
    for actor in [&alice, &bob] {
        for _ in 0..2 {
            assert_eq!(actor.get("/v1/session").await.status, 200);
        }
    }
    assert_eq!(alice.delete("/v1/sessions").await.status, 204);
    assert_eq!(alice.sign_in(&alice.email, PASSWORD).await.status, 201);
    is_limited(&alice.get("/v1/session").await);

    let change = json!({"current_password": PASSWORD, "new_password": "another correct horse"});
    assert_eq!(bob.put("/v1/account/password", &change).await.status, 204);
    is_limited(&bob.get("/v1/session").await);
}

#[sqlx::test]
async fn any_rate_is_counted_to_the_last_request(pool: PgPool) {
    for count in [1, 9, 1_000_000_000] {
        let service = Service::start_with(&pool, |config| config.rate_limit.count = count).await;
        let alice = service.sign_up(&format!("alice{count}")).await;
        for used in 1..=count.min(9) {
            let answer = alice.get("/v1/session").await;
            assert_eq!(answer.status, 200);
            let left = answer.header("ratelimit").split(['=', ';']).nth(2).expect("a number").to_owned();
            // One of so many is free again at once.
            assert!(count > 9 || left == (count - used).to_string(), "{left} of {count} after {used}");
            assert!(left.parse::<u32>().expect("a number") < count, "{left} of {count}, and one is taken");
        }
        let status = alice.get("/v1/session").await.status;
        assert_eq!(status, if count > 9 { 200 } else { 429 }, "{count}");
    }
}

#[sqlx::test]
async fn replicas_count_together(pool: PgPool) {
    let service = Service::start_with(&pool, |config| config.rate_limit.count = 3).await;
    let replica = Service::start_with(&pool, |config| {
        config.rate_limit.count = 3;
        config.redis_prefix.clone_from(&service.config.redis_prefix);
    })
    .await;
    for replica in [&service, &replica, &service] {
        replica.anonymous().get("/v1/session").await.is_problem(401, "no_session");
    }
    is_limited(&replica.anonymous().get("/v1/session").await);
}

#[tokio::test]
async fn a_body_over_1_mib_is_refused_before_it_is_sent() {
    let service = Service::without_postgres(|_| {}).await;
    for length in ["1048577", "10000000000"] {
        let head = format!(
            "POST /v1/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        let start = Instant::now();
        service.raw(head).await.is_problem(413, "body_too_large");
        assert!(start.elapsed() < Duration::from_secs(5), "at once");
    }
    let just = json!({"email": "a@example.com", "password": "x".repeat((1 << 20) - 39)});
    assert_eq!(just.to_string().len(), 1 << 20);
    service.anonymous().post("/v1/session", &just).await.is_invalid("password");
}

#[tokio::test]
async fn a_body_that_does_not_say_its_length_is_cut_off_at_1_mib() {
    let service = Service::without_postgres(|_| {}).await;
    let mut request = b"POST /v1/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n100001\r\n"
        .to_vec();
    request.extend(std::iter::repeat_n(b' ', 0x10_0001));
    service.raw(&request).await.is_problem(413, "body_too_large");
}

/// A service whose Postgres takes connections and says nothing.
async fn with_a_mute_postgres(change: impl FnOnce(&mut Config)) -> (Service, TcpListener) {
    let mute = silence().await;
    let service = Service::without_postgres(|config| {
        config.database_url = format!("postgres://nobody@{}/none", address(&mute)).into();
        change(config);
    });
    (service.await, mute)
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_504() {
    let late = |config: &mut Config| config.request_timeout = Duration::from_millis(200);
    let (service, _mute) = with_a_mute_postgres(late).await;
    let start = Instant::now();
    service.anonymous().sign_in("alice@example.com", PASSWORD).await.is_problem(504, "timeout");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

const HALF: &str = "POST /v1/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 10\r\n\r\n{";

#[tokio::test]
async fn a_body_that_takes_too_long_is_408_however_short_the_time() {
    let service =
        Service::without_postgres(|config| config.request_timeout = Duration::from_millis(200)).await;
    let start = Instant::now();
    service.raw(HALF).await.is_problem(408, "body_timeout");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn one_request_too_many_at_once_is_503() {
    let (service, _mute) = with_a_mute_postgres(|config| {
        (config.max_in_flight, config.queue_wait) = (1, Duration::ZERO);
    })
    .await;
    let (busy, anonymous) = (service.anonymous(), service.anonymous());
    let crowd = async {
        eventually("the place is taken", async || anonymous.get("/").await.status == 503).await;
        anonymous.get("/").await.is_problem(503, "overloaded");
    };
    tokio::join!(busy.sign_in("alice@example.com", PASSWORD), crowd);
    assert_eq!(anonymous.get("/").await.status, 200, "the place is free again");
}

#[tokio::test]
async fn a_client_that_is_slow_to_send_takes_no_place() {
    let service = Service::without_postgres(|config| {
        (config.max_in_flight, config.queue_wait) = (1, Duration::ZERO);
    })
    .await;
    let mut slow = TcpStream::connect(service.address).await.expect("the service listens");
    slow.write_all(HALF.replace("\r\n\r\n{", "\r\nexpect: 100-continue\r\n\r\n").as_bytes())
        .await
        .expect("it reads");
    let mut asked = [0; 12];
    slow.read_exact(&mut asked).await.expect("its body is waited for");
    assert_eq!(&asked, b"HTTP/1.1 100");
    assert_eq!(service.anonymous().get("/").await.status, 200);
}
