use super::*;
use crate::{backing::proxy::Proxy, telemetry::request::Request};
use axum::{
    Json, Router,
    http::{HeaderMap, Uri},
    response::IntoResponse,
    routing::get,
};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

const USUAL: Duration = Duration::from_millis(500);

fn outbound(address: SocketAddr) -> Outbound {
    // Another test may have been first.
    rustls::crypto::ring::default_provider().install_default().ok();
    Outbound::new(&format!("http://{address}/base/?key=1").into(), USUAL).unwrap()
}

/// A service that answers by path.
async fn upstream() -> (Outbound, JoinSet<()>) {
    let status = |status: u16| get(move || async move { (StatusCode::from_u16(status).unwrap(), Json(1)) });
    let router = Router::new()
        .route("/base/text", get(async || "1"))
        .route("/base/broken", get(async || ([("content-type", "application/json")], "{")))
        .route("/base/problem", get(async || ([("content-type", "Application/Problem+JSON; a=b")], "1")))
        .route("/base/404", status(404))
        .route("/base/429", status(429))
        .route("/base/500", status(500))
        .route("/base/moved", get(async || (StatusCode::FOUND, [("location", "/base/one")]).into_response()))
        .route("/base/slow", get(async || std::future::pending::<()>().await))
        .route("/base/longest", get(async || Json("x".repeat(MAX_BODY - 2))))
        .route("/base/longer", get(async || Json("x".repeat(MAX_BODY - 1))))
        .fallback(async |uri: Uri, headers: HeaderMap| {
            Json([uri.to_string(), headers["user-agent"].to_str().unwrap().to_owned()])
        });
    serve(router).await
}

async fn serve(router: Router) -> (Outbound, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (outbound(address), server)
}

/// A service that starts an answer and goes on with `piece` every `pause`, or closes when that is empty.
async fn dripping(piece: &'static [u8], pause: Duration) -> (Outbound, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        assert_ne!(client.read(&mut [0; 4096]).await.unwrap(), 0);
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10000000000\r\n\r\n";
        client.write_all(head).await.unwrap();
        while !piece.is_empty() && client.write_all(piece).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    (outbound(address), server)
}

async fn ask(outbound: &Outbound, path: &str) -> Result<Value, Error> {
    outbound.get_json(path, &[]).await
}

#[tokio::test]
async fn an_answer_is_fetched_from_below_the_base_url() {
    let (outbound, _server) = upstream().await;
    let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
    let query = [("url", "http://a/?b&c#d")];
    let answer: [String; 2] = outbound.get_json("preview", &query).await.unwrap();
    assert_eq!(answer, ["/base/preview?key=1&url=http%3A%2F%2Fa%2F%3Fb%26c%23d", agent]);
}

#[tokio::test]
async fn no_path_leads_away_from_the_base_url() {
    let (outbound, _server) = upstream().await;
    for path in ["../../etc", "//example.org/x", "http://example.org/", "a?b#c", "%2e%2e/x", "\\\\x"] {
        let answer: [String; 2] = outbound.get_json(path, &[]).await.unwrap();
        assert!(answer[0].starts_with("/base/"), "{path} {answer:?}");
        assert_eq!(outbound.0.url(path, &[]).origin(), outbound.0.base.origin());
    }
    assert!(Outbound::new(&"ftp://a/".to_owned().into(), USUAL).is_err());
    assert!(Outbound::new(&"data:a".to_owned().into(), USUAL).is_err());
}

#[tokio::test]
async fn only_json_of_the_expected_shape_and_length_is_an_answer() {
    let (outbound, _server) = upstream().await;
    assert_eq!(ask(&outbound, "problem").await.unwrap(), 1);
    assert_eq!(ask(&outbound, "longest").await.unwrap().as_str().unwrap().len(), MAX_BODY - 2);
    for path in ["text", "broken", "404", "429", "500", "moved", "longer"] {
        let answer = ask(&outbound, path).await;
        assert!(matches!(answer, Err(Error::BadAnswer(_))), "{path} {answer:?}");
    }
    let answer = outbound.get_json::<u64>("preview", &[]).await;
    assert!(matches!(answer, Err(Error::BadAnswer(_))), "{answer:?}");
}

#[tokio::test]
async fn a_slow_answer_is_given_up_in_time() {
    let (outbound, _server) = upstream().await;
    let start = Instant::now();
    assert!(matches!(ask(&outbound, "slow").await, Err(Error::Timeout)));
    assert!(start.elapsed() >= USUAL && start.elapsed() < USUAL * 10, "{:?}", start.elapsed());
    let start = Instant::now();
    let (outbound, _server) = dripping(b" ", USUAL / 10).await;
    assert!(matches!(ask(&outbound, "drip").await, Err(Error::Timeout)));
    assert!(start.elapsed() >= USUAL && start.elapsed() < USUAL * 10, "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_the_end() {
    let (outbound, _server) = dripping(&[b' '; 16 * 1024], Duration::ZERO).await;
    let start = Instant::now();
    assert!(matches!(ask(&outbound, "endless").await, Err(Error::BadAnswer(_))));
    assert!(start.elapsed() < USUAL * 10, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_lost_upstream_is_told_from_a_bad_answer_and_its_url_from_the_error() {
    let (outbound, _server) = dripping(b"", Duration::ZERO).await;
    assert!(matches!(ask(&outbound, "cut").await, Err(Error::Unreachable(_))));
    let Err(Error::Unreachable(error)) = ask(&outbound, "secret").await else { panic!("refused by now") };
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

async fn ask_often(outbound: &Outbound, path: &str) -> Result<Value, Error> {
    for _ in 0..20 {
        ask(outbound, path).await.ok();
    }
    ask(outbound, "one").await
}

#[tokio::test]
async fn failures_open_the_breaker() {
    for path in ["500", "429", "text", "broken", "moved", "longer"] {
        let (outbound, _server) = upstream().await;
        let answer = ask_often(&outbound, path).await;
        assert!(matches!(answer, Err(Error::Open { .. })), "{path} {answer:?}");
    }
    let (outbound, mut server) = upstream().await;
    server.shutdown().await;
    assert!(matches!(ask_often(&outbound, "one").await, Err(Error::Open { .. })));
}

#[tokio::test]
async fn a_failed_call_is_made_again_within_a_tenth_of_all() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (count, calls) = (Arc::clone(&calls), || calls.load(Relaxed));
    // Every second answer is a gateway's.
    let flaky = get(async move || match count.fetch_add(1, Relaxed) % 2 {
        0 => Err(StatusCode::SERVICE_UNAVAILABLE),
        _ => Ok(Json(1)),
    });
    let (outbound, _server) = serve(Router::new().route("/base/flaky", flaky)).await;
    // The breaker must not open: nine calls leave too little for a retry.
    for _ in 0..9 {
        ask(&outbound, "flaky").await.ok();
    }
    assert_eq!(calls(), 9);
    assert!(ask(&outbound, "flaky").await.is_ok());
    assert_eq!(calls(), 10, "the tenth call was well");
    assert!(ask(&outbound, "flaky").await.is_ok());
    assert_eq!(calls(), 12, "and the eleventh made again");
    assert!(ask(&outbound, "flaky").await.is_err());
    assert_eq!(calls(), 13, "for the next there is nothing left");
}

#[tokio::test]
async fn a_declined_or_hurried_request_does_not_speak_against_the_upstream() {
    let (outbound, _server) = upstream().await;
    ask_often(&outbound, "404").await.unwrap();
    let (outbound, _server) = upstream().await;
    for _ in 0..20 {
        let deadline = Instant::now() + Duration::from_millis(5);
        let request = Request::new("test".into(), Ipv4Addr::LOCALHOST.into(), deadline, Default::default());
        assert!(matches!(request.scope(ask(&outbound, "slow")).await, Err(Error::Timeout)));
    }
    ask(&outbound, "one").await.unwrap();
}

#[tokio::test]
async fn connections_are_kept_for_the_next_call_but_not_for_ever() {
    let (direct, _server) = upstream().await;
    let proxy = Proxy::to(direct.0.base.authority()).await;
    let outbound = outbound(proxy.address);
    for _ in 0..10 {
        ask(&outbound, "one").await.unwrap();
    }
    assert_eq!(proxy.accepted(), 1);
    outbound.0.client.lock().unwrap().expires = Instant::now();
    ask(&outbound, "one").await.unwrap();
    assert_eq!(proxy.accepted(), 2);
}
