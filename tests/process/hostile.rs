//! Clients that mean harm: floods over HTTP/2, and sockets that are held open.
use crate::{
    service::{server, server_with_descriptors},
    wire::{
        answer, connect,
        http2::{self, *},
    },
};
use drill::process::Server;
use sqlx::PgPool;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// What a flood comes to.
#[derive(Debug, Default)]
struct Flooded {
    statuses: Vec<&'static str>,
    refused: usize,
    acknowledged: usize,
    goaway: Option<u8>,
}

/// Sends `frames` on a connection of their own, then a PING; reads up to its answer and `answers` others, or to the end.
async fn flood(server: &Server, frames: Vec<u8>, answers: usize) -> Flooded {
    let (mut read, mut write) = http2::open(server.port()).await.into_split();
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        // The server may have had enough before the end.
        write.write_all(&frames).await.ok();
        write.write_all(&frame(PING, 0, 0, b"the last")).await.ok();
        // Open until the reader is done.
        std::future::pending::<()>().await
    });
    let (mut flooded, mut last) = (Flooded::default(), false);
    while !last || flooded.statuses.len() < answers {
        let Some(frame) = http2::next(&mut read).await else { break };
        match frame.kind {
            PING if frame.payload == b"the last" => last = true,
            PING | SETTINGS => flooded.acknowledged += usize::from(frame.flags),
            RST_STREAM => flooded.refused += usize::from(frame.payload[3] == REFUSED_STREAM),
            GOAWAY => flooded.goaway = frame.payload.get(7).copied(),
            HEADERS => flooded.statuses.push(status(&frame.payload)),
            _ => {}
        }
    }
    flooded
}

/// The first header of an answer is its status.
fn status(block: &[u8]) -> &'static str {
    match block {
        [0x88, ..] => "200",
        // The name of entry 8, and three bytes of Huffman code.
        [0x48, 0x83, 0x69, 0x90, 0xff, ..] => "431",
        _ => "another",
    }
}

fn head_of(bytes: usize) -> Vec<u8> {
    let headers = (0..bytes / 1000).flat_map(|n| header(&format!("x-{n:03}"), &"v".repeat(963)));
    let block: Vec<u8> = GET.into_iter().chain(headers).collect();
    // A frame holds 16 KiB.
    let mut parts = block.chunks(16_000);
    let first = frame(HEADERS, END_STREAM, 1, parts.next().unwrap());
    let rest = parts.flat_map(|part| frame(CONTINUATION, 0, 1, part));
    first.into_iter().chain(rest).chain(frame(CONTINUATION, END_HEADERS, 1, &[])).collect()
}

fn streams(count: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|n| each(2 * n + 1)).collect()
}

/// A request whose body never comes.
fn waiting_post(stream: u32) -> Vec<u8> {
    let path = [&[0x04, 11][..], b"/v1/session"].concat();
    let json = [&[0x0f, 0x10, 16][..], b"application/json"].concat();
    let block = [&[0x83, 0x86], &path[..], &[0x41, 1, b'a'], &json[..]].concat();
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Row 69 of the list of bad inputs.
#[sqlx::test]
async fn http2_floods_are_refused_or_end_their_own_connection(pool: PgPool) {
    let server = server(&pool, "floods").start().await.unwrap();
    server.ready().await.unwrap();

    let open = flood(&server, streams(300, waiting_post), 0).await;
    assert_eq!((open.refused, open.goaway), (200, None), "100 streams are allowed: {open:?}");

    let reset = |stream| {
        let cancel = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, &GET), cancel].concat()
    };
    let rapid = flood(&server, streams(10_000, reset), 0).await;
    assert_eq!(rapid.goaway, Some(ENHANCE_YOUR_CALM), "{rapid:?}");

    let endless = [frame(HEADERS, END_STREAM, 1, &GET), frame(CONTINUATION, 0, 1, &[]).repeat(100_000)];
    let endless = flood(&server, endless.concat(), 0).await;
    assert_eq!(endless.goaway, Some(ENHANCE_YOUR_CALM), "{endless:?}");

    // 32 KiB of head are allowed.
    for (bytes, status) in [(20_000, "200"), (40_000, "431"), (500_000, "431")] {
        let large = flood(&server, head_of(bytes), 1).await;
        assert!(large.statuses == [status] || large.goaway == Some(ENHANCE_YOUR_CALM), "{bytes}: {large:?}");
        assert!(bytes > 32_000 || large.statuses == ["200"], "{bytes}: {large:?}");
    }

    // Each is worth one answer of the same size to h2. They do not make an idle connection live longer.
    let pings = flood(&server, frame(PING, 0, 0, b"one more").repeat(10_000), 0).await;
    let settings = flood(&server, frame(SETTINGS, 0, 0, &[]).repeat(10_000), 0).await;
    assert_eq!((pings.goaway, settings.goaway), (None, None));
    assert!(pings.acknowledged >= 10_000 && settings.acknowledged >= 10_000, "{pings:?} {settings:?}");

    let mut next = connect(server.port()).await;
    assert!(ask(&mut next).await.is_some());
    assert_eq!(server.stderr(), "");
}

/// Asks for the root; how long the answer took, `None` without one.
async fn ask(socket: &mut TcpStream) -> Option<Duration> {
    let start = Instant::now();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
    (answer(socket).await.status == 200).then(|| start.elapsed())
}

/// How a socket is held.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hold {
    Silent,
    /// One byte a second.
    Head,
    Body,
    /// Reads nothing of a large answer.
    Deaf,
}

impl Hold {
    fn begin(self) -> Vec<u8> {
        match self {
            Self::Silent => Vec::new(),
            Self::Head => b"G".to_vec(),
            Self::Body => b"POST /v1/session HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 1000\r\n\r\n"
                .to_vec(),
            // More than the two kernels hold for a connection.
            Self::Deaf => b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: a\r\n\r\n".repeat(10),
        }
    }

    /// When the server is to have closed it.
    fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Silent => 5,
            Self::Head | Self::Body => 10,
            Self::Deaf => 30,
        })
    }
}

/// Holds a socket in its way; how long the server let it, and what it said.
async fn hold(port: u16, hold: Hold) -> (Hold, Duration, String) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut socket = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    let start = Instant::now();
    socket.write_all(&hold.begin()).await.ok();
    let (mut read, mut write) = socket.into_split();
    let drip = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            if matches!(hold, Hold::Head | Hold::Body) {
                write.write_all(b"x").await.ok();
            }
        }
    };
    let mut said = Vec::new();
    let ended = async {
        if hold == Hold::Deaf {
            // What is read would make it a client that reads: only an error tells.
            return while !read.as_ref().take_error().is_ok_and(|error| error.is_some()) {
                sleep(Duration::from_millis(100)).await;
            };
        }
        read.read_to_end(&mut said).await.ok();
    };
    tokio::select! {
        () = ended => {}
        never = drip => never,
    }
    (hold, start.elapsed(), String::from_utf8_lossy(&said).chars().take(12).collect())
}

/// Four clients that ask again and again until `end`; the times of their answers, sorted.
async fn normal_traffic(port: u16, end: Instant) -> Vec<Duration> {
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(async move {
            let (mut socket, mut times) = (connect(port).await, Vec::new());
            while Instant::now() < end {
                times.push(ask(&mut socket).await.expect("normal traffic is answered"));
                sleep(Duration::from_millis(5)).await;
            }
            times
        });
    }
    let mut times = clients.join_all().await.concat();
    times.sort();
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Of each kind; more than twice the places for requests.
const SOCKETS: usize = 50;

/// Deaf peers are held here too, but their 30 s are waited for in `src/server/tests`, on a faster clock.
#[sqlx::test]
async fn held_sockets_are_closed_in_time_and_normal_traffic_goes_on(pool: PgPool) {
    let server = server(&pool, "held").env("MAX_IN_FLIGHT", 20).start().await.unwrap();
    server.ready().await.unwrap();
    let port = server.port();
    let before = normal_traffic(port, Instant::now() + Duration::from_secs(1)).await;

    let mut held = JoinSet::new();
    let (mut deaf, start) = (JoinSet::new(), Instant::now());
    for _ in 0..SOCKETS {
        for kind in [Hold::Silent, Hold::Head, Hold::Body] {
            held.spawn(hold(port, kind));
        }
        deaf.spawn(hold(port, Hold::Deaf));
    }
    let during = normal_traffic(port, start + Duration::from_secs(9)).await;
    for (kind, took, said) in held.join_all().await {
        assert_eq!(said, if kind == Hold::Body { "HTTP/1.1 408" } else { "" });
        let limits = kind.limit() - Duration::from_millis(500)..kind.limit() + Duration::from_secs(3);
        assert!(limits.contains(&took), "{kind:?} was held for {took:?}");
    }
    println!("p99 {:?} before, {:?} under {SOCKETS} of each kind", p99(&before), p99(&during));
    assert!(p99(&during) < 10 * p99(&before) + Duration::from_millis(100));
    assert_eq!(server.stderr(), "");
}

#[sqlx::test]
async fn no_more_connections_are_open_than_allowed(pool: PgPool) {
    let server = server(&pool, "cap").env("MAX_CONNECTIONS", 10).start().await.unwrap();
    server.ready().await.unwrap();
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut socket = connect(server.port()).await;
        assert!(ask(&mut socket).await.is_some());
        open.push(socket);
    }
    let (mut waiting, start) = (connect(server.port()).await, Instant::now());
    let free_one = async {
        sleep_until(start + Duration::from_millis(500)).await;
        open.pop();
    };
    let (answered, ()) = tokio::join!(ask(&mut waiting), free_one);
    assert!(answered.expect("a place became free") >= Duration::from_millis(450));
    for socket in &mut open {
        assert!(ask(socket).await.is_some(), "the others are served");
    }
}

#[sqlx::test]
async fn without_file_descriptors_the_open_connections_go_on_and_new_ones_come_as_soon_as_they_can(
    pool: PgPool,
) {
    let server = server_with_descriptors(60, &pool, "descriptors").start().await.unwrap();
    server.ready().await.unwrap();
    let mut old = connect(server.port()).await;
    assert!(ask(&mut old).await.is_some());
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(connect(server.port()).await);
    }
    server.line(|line| line["msg"] == "cannot accept a connection").await.unwrap();
    for _ in 0..10 {
        assert!(ask(&mut old).await.expect("it was there before") < Duration::from_secs(5));
    }
    drop(crowd);
    let (mut new, start) = (connect(server.port()).await, Instant::now());
    assert!(ask(&mut new).await.is_some());
    println!("the first new connection was served after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
}
