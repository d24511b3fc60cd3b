//! Under a supervisor that holds the socket across restarts, as systemd does with the units of deploy/systemd/.
use crate::service::server;
use drill::{
    client::{Load, Mix},
    process::{Server, Signal},
};
use sqlx::PgPool;
use std::{net::TcpListener, time::Duration};
use tokio::time::{sleep, timeout};

const MIX: Mix =
    Mix { keep_alive: 4, thinking: 8, think: Duration::from_millis(50), fresh: 4, http2: 2, streams: 2 };
const RESTARTS: usize = 3;

#[sqlx::test]
async fn a_restart_loses_nothing_while_somebody_holds_the_socket(pool: PgPool) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let start = async || -> Server {
        let server = server(&pool, "held").env("RATE_LIMIT", "1000000/1m").socket(&socket).unwrap();
        server.start().await.unwrap()
    };
    let mut server = start().await;
    let load = Load::start(address, "/", MIX);
    for _ in 0..RESTARTS {
        load.answers(load.counts().answers() + 300).await;
        server.signal(Signal::Term).unwrap();
        assert_eq!(server.wait().await.unwrap().code, Some(0));
        server = start().await;
    }
    load.answers(load.counts().answers() + 300).await;
    let counts = load.stop().await;
    let failures = (counts.lost, counts.refused, counts.unconnected, counts.failed());
    assert_eq!(failures, (0, 0, 0, 0), "{:?}", counts.losses);
}

#[sqlx::test]
async fn between_two_processes_clients_are_refused_while_nobody_holds_it(pool: PgPool) {
    let server = server(&pool, "unheld").env("RATE_LIMIT", "1000000/1m").start().await.unwrap();
    let load = Load::start(([127, 0, 0, 1], server.port()).into(), "/", MIX);
    load.answers(300).await;
    server.signal(Signal::Term).unwrap();
    assert_eq!(server.wait().await.unwrap().code, Some(0));
    let refused = async {
        while load.counts().refused == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), refused).await.is_ok(), "{:?}", load.counts());
}
