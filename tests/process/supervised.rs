//! Under a supervisor that holds the socket across restarts, as systemd does with the units of deploy/systemd/.
use crate::service::server;
use drill::{
    client::{Counts, Load, Mix},
    process::{Server, Signal},
};
use sqlx::PgPool;
use std::{net::TcpListener, time::Duration};

const MIX: Mix =
    Mix { keep_alive: 4, thinking: 8, think: Duration::from_millis(50), fresh: 4, http2: 2, streams: 2 };
const RESTARTS: usize = 3;

/// Restarts the server again and again amid a load.
async fn restarted(pool: &PgPool, held: bool) -> Counts {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let kept = held.then_some(socket);
    let start = async || -> Server {
        let server = server(pool, "supervised").env("PORT", address.port()).env("RATE_LIMIT", "1000000/1m");
        let server = match &kept {
            Some(socket) => server.socket(socket).unwrap(),
            None => server,
        };
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
    load.stop().await
}

#[sqlx::test]
async fn a_restart_loses_nothing_while_somebody_holds_the_socket(pool: PgPool) {
    let counts = restarted(&pool, true).await;
    let failures = (counts.lost, counts.refused, counts.unconnected, counts.failed());
    assert_eq!(failures, (0, 0, 0, 0), "{:?}", counts.losses);
}

#[sqlx::test]
async fn a_restart_refuses_connections_while_nobody_does(pool: PgPool) {
    assert!(restarted(&pool, false).await.refused > 0);
}
