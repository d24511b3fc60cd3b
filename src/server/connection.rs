//! One connection, from its first byte to its last.
use super::{
    activity::{Activity, Answer},
    drain::{Drain, Phase},
    socket::Socket,
};
use crate::telemetry::metrics;
use axum::{
    Router,
    body::{Body, HttpBody},
    extract::ConnectInfo,
    http::{HeaderValue, Request, Response, StatusCode, Version, header},
};
use futures_util::FutureExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use socket2::SockRef;
use std::{
    convert::Infallible,
    net::{self, IpAddr},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{net::TcpStream, time};
use tower::Service;

/// Between the listener's end and that of the idle connections: what was on its way gets its answer.
const QUIET: Duration = Duration::from_secs(1);
/// For an HTTP/2 peer to confirm that it asks for nothing more.
const MUTE: Duration = Duration::from_secs(1);
/// For the last answers to leave once the rest was cut.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// Longest head in bytes that is read; `http/security.rs` refuses most of that with a problem.
const HEAD_BUFFER: usize = 80 << 10;
const HTTP2_HEAD: u32 = 32 << 10;
/// What the kernel holds for a peer that does not read; left alone it takes megabytes. It also reports a byte read only
/// once a third of it is free: a client that reads more than that in `socket::UNREAD` must not look deaf.
const SEND_BUFFER: usize = 128 << 10;

/// Serves one connection until its peer goes, or the drain ends it. Returns how many requests were cut off.
pub async fn serve(tcp: net::TcpStream, peer: Peer, router: Router, mut drain: Drain) -> usize {
    let _open = metrics::connection();
    let Ok(tcp) = TcpStream::from_std(tcp) else {
        return 0;
    };
    // A client that is gone already shows when it is read from.
    tcp.set_nodelay(true).ok();
    SockRef::from(&tcp).set_send_buffer_size(SEND_BUFFER).ok();
    let activity = Arc::new(Activity::default());
    let socket = TokioIo::new(Socket::new(tcp, Arc::clone(&activity)));
    let routes = Arc::new(Routes { router, peer, drain: drain.clone() });
    let turns = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let (routes, turn) = (Arc::clone(&routes), turns.begin());
        async move { Ok::<_, Infallible>(routes.answer(request).await.map(|body| Answer::new(body, turn))) }
    });
    let mut connection = pin!(BUILDER.serve_connection(socket, service));

    // One that comes during the lame duck is told with the listener's end: told at once it could not ask for anything.
    let early = drain.phase() == Phase::Serving;
    // A peer that breaks the protocol, or breaks off, is no event of ours.
    tokio::select! {
        _ = connection.as_mut() => return 0,
        () = drain.reached(if early { Phase::LameDuck } else { Phase::Closing }) => {}
    }
    // HTTP/2 has a message that says go elsewhere, HTTP/1 only `Connection: close`.
    tokio::select! {
        _ = connection.as_mut() => return 0,
        () = activity.seen_http2(), if early => connection.as_mut().graceful_shutdown(),
        () = drain.reached(Phase::Closing) => {}
    }
    tokio::select! {
        _ = connection.as_mut() => return 0,
        () = quiet(&mut drain) => activity.close(),
    }
    if activity.http2() {
        connection.as_mut().graceful_shutdown();
    }
    tokio::select! {
        _ = connection.as_mut() => return 0,
        () = mute(&activity) => return 0,
        () = drain.reached(Phase::Cut) => {}
    }
    drop(time::timeout(LAST_WORDS, connection).await);
    activity.under_way()
}

/// Who asks, and how the log writes it: the text is made once for all requests of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: IpAddr,
    pub text: Arc<str>,
}

impl From<IpAddr> for Peer {
    /// An IPv4 address within an IPv6 one becomes itself.
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, text: address.to_string().into() }
    }
}

/// What the requests of one connection share.
struct Routes {
    router: Router,
    peer: Peer,
    drain: Drain,
}

impl Routes {
    /// The router's answer. A panic that no layer has caught costs this request, not the others of the connection.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let http1 = request.version() < Version::HTTP_2;
        let mut request =
            request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        request.extensions_mut().insert(ConnectInfo(self.peer.clone()));
        let routed = AssertUnwindSafe(async { self.router.clone().call(request).await }).catch_unwind();
        let mut answer = match routed.await {
            Ok(Ok(answer)) => answer,
            Err(_) => fault(),
        };
        if http1 && self.drain.phase() > Phase::Serving {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

fn fault() -> Response<Body> {
    let mut answer = Response::new(Body::from(FAULT));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

const FAULT: &str = r#"{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"The service failed; the failure is logged.","code":"internal","request_id":""}"#;

async fn quiet(drain: &mut Drain) {
    drain.reached(Phase::Closing).await;
    drop(time::timeout(QUIET, drain.reached(Phase::Cut)).await);
}

/// An HTTP/2 peer does not confirm that it has understood: its answers are over, and a moment has passed without a sign of
/// life. The end of an answer is one: what was handed to the kernel last is still on its way.
async fn mute(activity: &Activity) {
    activity.seen_http2().await;
    loop {
        let before = activity.signs_of_life();
        time::sleep(MUTE).await;
        if activity.under_way() == 0 && activity.signs_of_life() == before {
            return;
        }
    }
}

static BUILDER: LazyLock<Builder<TokioExecutor>> = LazyLock::new(|| {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The socket has an eye on that, without a timer to set for each request.
        .header_read_timeout(None)
        .max_headers(100)
        .max_buf_size(HEAD_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HTTP2_HEAD)
        .max_concurrent_streams(100)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
});
