//! Clients that behave badly, and what the machine does to the server.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{sys::signal, unistd::Pid};
use sqlx::Row as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, interval, sleep},
};

use crate::{
    client::{
        loops::Open,
        samples::{Kind, Recorder},
    },
    ground::{Ground, metric},
    limits,
    proxy::Proxy,
    traffic::Traffic,
};

/// How many clients reset their connections in all.
const RESETS: usize = 10_000;
/// How long the throttle lets the server run, and how long it does not: what a quota of a tenth does in each period.
const RUNS: Duration = Duration::from_millis(10);
const RESTS: Duration = Duration::from_millis(90);

/// A collector that takes spans and says so.
pub async fn collector() -> Result<(Proxy, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(listener.local_addr()?).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let router = axum::Router::new().fallback(async || "");
        axum::serve(listener, router).await.ok();
    });
    Ok((proxy, tasks))
}

/// So many connections that ask once and then stay.
pub fn crowd(ground: &Ground, tasks: &mut JoinSet<Result<()>>, count: usize) {
    let address = ground.address();
    for _ in 0..count {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
            // The answer, which may not come.
            stream.read_exact(&mut [0; 16]).await.ok();
            std::future::pending().await
        });
    }
}

/// Requests besides the steady load, so that the log fills its buffer soon.
pub fn chatter(ground: &Ground, traffic: &Traffic, tasks: &mut JoinSet<Result<()>>) {
    let recorder = Recorder::new(ground.address(), 100, Duration::from_secs(5));
    let open = Open::start(&recorder, 2500.0, traffic.mixed(&[(Kind::Anonymous, 1)]));
    tasks.spawn(async move {
        let _open = open;
        std::future::pending().await
    });
}

/// Stops the server nine tenths of the time, as the scheduler does to a container that is over its quota.
pub fn throttle(ground: &Ground, tasks: &mut JoinSet<Result<()>>) {
    let pid = Pid::from_raw(ground.stage.server.pid().cast_signed());
    tasks.spawn(async move {
        loop {
            signal::kill(pid, signal::Signal::SIGSTOP)?;
            sleep(RESTS).await;
            signal::kill(pid, signal::Signal::SIGCONT)?;
            sleep(RUNS).await;
        }
    });
}

/// Clients that ask and reset their connection, some at once, some amid the answer.
pub fn resets(ground: &Ground, traffic: &Traffic, tasks: &mut JoinSet<Result<()>>) {
    let (address, traffic) = (ground.address(), traffic.clone());
    tasks.spawn(async move {
        let mut ticks = interval(Duration::from_millis(1));
        let mut running = JoinSet::new();
        for number in 0..RESETS {
            ticks.tick().await;
            let request = traffic.ask(Kind::Session).request;
            running.spawn(async move { reset(address, &request, number % 2 == 0).await });
            while let Some(done) = running.try_join_next() {
                done??;
            }
        }
        Ok(())
    });
}

async fn reset(address: SocketAddr, request: &str, amid: bool) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    if amid {
        stream.read_exact(&mut [0; 16]).await?;
    }
    Ok(stream.set_zero_linger()?)
}

/// Clients that send most of a body of a mebibyte, and then nothing; a hundred more each second.
pub fn bodies(ground: &Ground, tasks: &mut JoinSet<Result<()>>, count: usize) {
    let address = ground.address();
    for number in 0..count {
        tasks.spawn(async move {
            sleep(Duration::from_millis(10) * u32::try_from(number)?).await;
            let mut stream = TcpStream::connect(address).await?;
            let head = "POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1048576\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            let part = [b' '; 1 << 15];
            for _ in 0..31 {
                // The server may refuse, and close.
                if stream.write_all(&part).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        });
    }
}

/// Has five queries run that take far too long, and hangs up. Their places must be free soon, and so must Postgres be.
pub async fn abandon(ground: &mut Ground, traffic: &Traffic) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(ground.address()).await?;
        let request = traffic.ask(Kind::Write).request.replace("example.org", "stuck.tests");
        stream.write_all(request.as_bytes()).await?;
        clients.push(stream);
    }
    let start = Instant::now();
    while stuck(ground).await? < 5 {
        ensure!(start.elapsed() < Duration::from_secs(2), "the queries do not get to Postgres");
        sleep(Duration::from_millis(10)).await;
    }
    drop(clients);
    let gone = Instant::now();
    // The steady load takes a connection or two of the ten.
    while metric(ground.ops_address(), "http_server_active_requests").await? > 4.0 {
        check(&limits::ABANDONED_PLACE, gone)?;
        sleep(Duration::from_millis(5)).await;
    }
    while stuck(ground).await? > 0 {
        check(&limits::ABANDONED_QUERY, gone)?;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn check(limit: &limits::Limit, since: Instant) -> Result<()> {
    let miss = limit.miss(since.elapsed().as_secs_f64());
    miss.map_or(Ok(()), |miss| Err(anyhow::anyhow!("{miss} so far")))
}

/// Queries of the server's that sleep in Postgres.
async fn stuck(ground: &mut Ground) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'";
    let row = sqlx::query(sql).bind(&ground.name).fetch_one(&mut ground.postgres).await;
    row.context("asking for stuck queries")?.try_get(0).map_err(Into::into)
}
