//! The server on a real socket, with routes of the tests' own: slow ones, streamed ones, ones that panic.
mod drain;
mod http2;
mod listener;
mod panics;
mod timers;
mod workers;

use super::{
    drain::{Conductor, Cut, Phase},
    listener::Listener,
    serve,
};
use crate::{
    config::Shutdown,
    http::{Problem, body::Bodies, extract::Json},
    runtime::workers::Workers,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use futures_util::stream;
use serde_json::Value;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinSet, spawn_blocking},
    time::{Instant, advance, sleep, sleep_until},
};

const TIMELINE: Shutdown = Shutdown {
    budget: Duration::from_secs(25),
    lame_duck: Duration::from_secs(5),
    drain: Duration::from_secs(20),
};

/// The clock's step in [`fast`]; times are told to within a few of them.
const STEP: Duration = Duration::from_millis(250);

/// No test takes longer on that clock.
const LIMIT: Duration = Duration::from_secs(400);

/// Runs `test` on a clock that goes some 200 times as fast as the real one, in a runtime that starts with it paused.
///
/// Tokio's paused clock leaps to the next timer whenever all tasks wait, also when they wait for a socket. It does not
/// while a blocking thread works, so one does; the clock then moves in small steps, with time for the sockets between.
async fn fast<T>(test: impl Future<Output = T>) -> T {
    let (_until_dropped, held) = mpsc::channel::<()>();
    let _working = spawn_blocking(move || held.recv());
    let clock = async {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            spawn_blocking(|| thread::sleep(Duration::from_millis(1))).await.unwrap();
            advance(STEP).await;
        }
    };
    tokio::select! {
        result = test => result,
        () = clock => panic!("not over after {LIMIT:?}"),
    }
}

/// A server under test; it is gone when this is dropped.
struct Served {
    address: SocketAddr,
    conductor: Conductor,
    running: JoinSet<()>,
}

impl Served {
    async fn start(router: Router) -> Self {
        Self::with(Conductor::new(TIMELINE), router, 1000).await
    }

    async fn with(conductor: Conductor, router: Router, max_connections: usize) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (address, mut running) = (listener.local_addr().unwrap(), JoinSet::new());
        running.spawn(serve(listener, router, max_connections, conductor.drain(), Workers::none()));
        Self { address, conductor, running }
    }

    /// A connection that holds little of what it does not read. Takes none of the test's time.
    fn connect(&self) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.connect(&self.address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        // A kernel that waits for more to send waits in real time.
        socket.set_tcp_nodelay(true).unwrap();
        TcpStream::from_std(socket.into()).unwrap()
    }

    /// A connection on which `text` was sent.
    async fn send(&self, text: &str) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(text.as_bytes()).await.unwrap();
        socket
    }

    /// Stops it while `client` is at work: what was cut, how long it took, and what the client saw.
    async fn stop<T>(mut self, client: impl Future<Output = T>) -> (Cut, Duration, T) {
        let start = Instant::now();
        let end = async {
            self.conductor.lead(true, self.running.join_next()).await.unwrap().unwrap();
            start.elapsed()
        };
        let (took, seen) = tokio::join!(end, client);
        (self.conductor.cut(), took, seen)
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn get_of(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// More than two kernels hold of it.
const LARGE: usize = 16 << 20;

/// What the tests ask for.
fn router() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/json", post(async |_: Json<Value>| "read"))
        .layer(from_fn_with_state(Arc::new(Bodies::default()), read))
        .route("/2s", get(async || sleep(Duration::from_secs(2)).await))
        .route("/8s", get(async || sleep(Duration::from_secs(8)).await))
        .route("/60s", get(async || sleep(Duration::from_secs(60)).await))
        .route("/4mb", get(async || vec![b'x'; 4 << 20]))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/stream", get(async || chunks(10, Duration::from_secs(20))))
}

/// As all public routes read theirs.
async fn read(State(bodies): State<Arc<Bodies>>, request: Request, next: Next) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let (body, _memory) = bodies.read(body).await?;
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// A body of `count` letters, with a pause before each.
fn chunks(count: usize, pause: Duration) -> Body {
    Body::from_stream(stream::unfold(count, move |left| async move {
        sleep(pause).await;
        (left > 0).then(|| (Ok::<_, Infallible>(Bytes::from_static(b"x")), left - 1))
    }))
}

/// The next answer's head and body; what came up to the end of the connection when it is none.
async fn answer(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !is_whole(&String::from_utf8_lossy(&bytes)) {
        if !socket.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            break;
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => body.len() >= length.parse().unwrap(),
        None => head.starts_with("HTTP/1.1 100") || body.ends_with("0\r\n\r\n"),
    }
}

/// Waits for the end of the connection: how long it took.
async fn end(socket: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut scrap = [0; 1024];
    while socket.read(&mut scrap).await.is_ok_and(|read| read > 0) {}
    start.elapsed()
}

/// Sends one byte a second, for as long as they are taken.
async fn drip(socket: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) {
    for byte in bytes {
        sleep(Duration::from_secs(1)).await;
        if socket.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

#[track_caller]
fn about(took: Duration, seconds: u64) {
    let wanted = Duration::from_secs(seconds);
    let (least, most) = (wanted.saturating_sub(2 * STEP), wanted + wanted / 50 + 6 * STEP);
    assert!((least..=most).contains(&took), "{took:?}, not {wanted:?}");
}
