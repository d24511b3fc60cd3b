//! Who may do what on the operations port.
use super::*;
use crate::telemetry::level::Filter;
use axum::body::Body;
use std::{net::IpAddr, sync::mpsc};
use tower::ServiceExt;

#[tokio::test]
async fn only_peers_on_this_host_may_change_it_or_look_inside() {
    let postgres =
        Postgres::new(&"postgres://127.0.0.1:1/none".to_owned().into(), 1, &Workers::none()).unwrap();
    let level = LogLevel::new(Filter::new("info").unwrap().1, "info");
    let router = router(Health::default(), postgres, level, Stalls::default(), Workers::none());
    let status = async |method: &str, path: &str, peer: &str| {
        let peer = Peer::from(peer.parse::<IpAddr>().unwrap());
        let request =
            Request::builder().method(method).uri(path).extension(ConnectInfo(peer)).body(Body::empty());
        router.clone().oneshot(request.unwrap()).await.unwrap().status().as_u16()
    };
    let guarded = [
        ("PUT", "/log-level", 415),
        ("GET", "/debug/stalls", 200),
        ("GET", "/debug/profile/cpu?seconds=0", 422),
        ("GET", "/debug/profile/cpu?seconds=61", 422),
    ];
    for (method, path, answer) in guarded {
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(status(method, path, peer).await, answer, "{method} {path} for {peer}");
        }
    }
    for peer in ["10.0.0.7", "fd00::7", "::ffff:10.0.0.7"] {
        for (method, path, _) in guarded.into_iter().chain([("GET", "/debug/profile/heap", 200)]) {
            assert_eq!(status(method, path, peer).await, 403, "{method} {path} for {peer}");
        }
        for path in ["/healthz", "/readyz", "/metrics", "/version", "/log-level"] {
            assert_ne!(status("GET", path, peer).await, 403, "{path} for {peer}");
        }
    }
}

#[tokio::test]
async fn a_held_worker_is_no_health() {
    let postgres =
        Postgres::new(&"postgres://127.0.0.1:1/none".to_owned().into(), 1, &Workers::none()).unwrap();
    let level = LogLevel::new(Filter::new("info").unwrap().1, "info");
    let workers = Workers::start(2).unwrap();
    let router = router(Health::default(), postgres, level, Stalls::default(), workers.clone());
    let health = async || {
        let request = Request::get("/healthz").body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(health().await, 200);
    let (free, held) = mpsc::channel::<()>();
    workers.idlest().runtime.spawn(async move { held.recv() });
    assert_eq!(health().await, 503);
    drop(free);
    assert_eq!(health().await, 200);
}
