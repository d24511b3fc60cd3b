use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const MIX: Mix =
    Mix { keep_alive: 2, thinking: 1, think: Duration::from_millis(2), fresh: 1, http2: 1, streams: 2 };

const ONE: Mix = Mix { keep_alive: 1, thinking: 0, think: Duration::ZERO, fresh: 0, http2: 0, streams: 0 };

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that treats each connection as `serve` does.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> (SocketAddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            connections.spawn(serve(listener.accept().await.unwrap().0));
        }
    });
    (address, tasks)
}

/// Answers `times` requests, the last one with `last` among its headers.
async fn answer(stream: &mut TcpStream, times: usize, last: &str) {
    for time in 1..=times {
        let more = if time == times { last } else { "" };
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{more}\r\nhi");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_sound_server_loses_nothing_whatever_the_client() {
    let (listener, address) = listen().await;
    let mut tasks = JoinSet::new();
    let router = Router::new().route("/here", get(async || "hi"));
    tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
    for (path, status) in [("/here", 200), ("/gone", 404)] {
        let load = Load::start(address, path, MIX);
        load.answers(300).await;
        let counts = load.stop().await;
        assert_eq!((counts.lost, counts.refused, counts.unconnected), (0, 0, 0), "{counts:?}");
        assert_eq!(counts.sent, counts.answers());
        assert_eq!(counts.answered.keys().collect::<Vec<_>>(), [&status]);
    }
}

#[tokio::test]
async fn a_close_that_was_announced_or_came_in_between_loses_nothing() {
    for last in ["connection: close\r\n", ""] {
        let (address, _tasks) =
            server(move |mut stream| async move { answer(&mut stream, 2, last).await }).await;
        let mix = Mix { keep_alive: 0, thinking: 1, think: Duration::from_millis(50), ..ONE };
        let load = Load::start(address, "/", mix);
        load.answers(20).await;
        let counts = load.stop().await;
        assert!(counts.connections >= 10, "{counts:?}");
        // A silent close may still meet the next request, within microseconds.
        assert!(counts.lost <= u64::from(last.is_empty()), "{counts:?}");
        assert_eq!(counts.closed_before == 0, !last.is_empty(), "{counts:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_read_and_not_answered_is_lost() {
    let (address, _tasks) = server(|mut stream| async move {
        answer(&mut stream, 1, "").await;
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
    })
    .await;
    let load = Load::start(address, "/", ONE);
    load.answers(3).await;
    let counts = load.stop().await;
    assert!(counts.lost >= 2, "{counts:?}");
    assert!(counts.losses[0].how.contains("without an answer") && counts.losses[0].after == 1, "{counts:?}");
}

#[tokio::test]
async fn a_request_that_lies_unread_when_the_server_closes_is_lost() {
    let (address, _tasks) = server(|mut stream| async move {
        answer(&mut stream, 1, "").await;
        stream.readable().await.unwrap();
    })
    .await;
    let load = Load::start(address, "/", ONE);
    load.answers(3).await;
    let counts = load.stop().await;
    assert!(counts.lost >= 2 && counts.losses[0].how.contains("reset"), "{counts:?}");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let (address, _tasks) = server(|mut stream| async move {
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi").await.unwrap();
    })
    .await;
    let load = Load::start(address, "/", ONE);
    sleep(Duration::from_millis(50)).await;
    let counts = load.stop().await;
    assert!(counts.answers() == 0 && counts.lost == counts.sent && counts.lost > 0, "{counts:?}");
}

#[tokio::test]
async fn an_http2_server_that_breaks_off_loses_what_was_under_way() {
    let (address, _tasks) = server(|mut stream| async move {
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        sleep(Duration::from_millis(20)).await;
    })
    .await;
    let load = Load::start(address, "/", Mix { keep_alive: 0, http2: 1, streams: 3, ..ONE });
    sleep(Duration::from_millis(200)).await;
    let counts = load.stop().await;
    assert!(counts.answers() == 0 && counts.lost == counts.sent && counts.lost >= 3, "{counts:?}");
}

#[tokio::test]
async fn a_refused_connection_is_not_a_lost_request() {
    let (listener, address) = listen().await;
    drop(listener);
    let load = Load::start(address, "/", MIX);
    sleep(Duration::from_millis(100)).await;
    let counts = load.stop().await;
    assert_eq!((counts.sent, counts.lost), (0, 0));
    assert!(counts.refused >= 5, "{counts:?}");
}
