//! One connection, from its first byte to its last.
use super::drain::{Drain, Phase};
use crate::telemetry::metrics;
use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Request, Version, header},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tower::ServiceExt;

/// Silence on a kept-alive connection before it is closed; longer than the 60 s of common load balancers, which must be
/// the ones that close.
const IDLE: Duration = Duration::from_secs(75);
/// Between "close now" and closing: a request that was already on its way gets its answer.
const QUIET: Duration = Duration::from_secs(1);

/// Serves one connection until its peer goes, or the drain ends it. Returns how many requests that cut.
pub async fn serve(socket: TcpStream, peer: SocketAddr, router: Router, mut drain: Drain) -> usize {
    let _open = metrics::connection();
    // A client that is gone already shows when it is read from.
    drop(socket.set_nodelay(true));
    let (phase, under_way) = (drain.clone(), Arc::new(()));
    let running = Arc::clone(&under_way);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let (http1, phase) = (request.version() < Version::HTTP_2, phase.clone());
        let (answer, running) = (router.clone().oneshot(request), Arc::clone(&running));
        async move {
            let _running = running;
            let mut answer = answer.await?;
            if http1 && phase.phase() > Phase::Serving {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        // A peer that breaks the protocol, or breaks off, is no event of ours.
        _ = connection.as_mut() => return 0,
        () = quiet(&mut drain) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => 0,
        // One share is held here and one by the service; each request holds one more.
        () = drain.reached(Phase::Cut) => Arc::strong_count(&under_way) - 2,
    }
}

async fn quiet(drain: &mut Drain) {
    drain.reached(Phase::Closing).await;
    tokio::select! {
        () = tokio::time::sleep(QUIET) => {}
        () = drain.reached(Phase::Cut) => {}
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
