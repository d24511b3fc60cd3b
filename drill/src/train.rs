//! `drill train`: a day of a service in half a minute, for a server that counts what it does while it serves. Such a build
//! writes down its counts when it ends, and the compiler then knows which paths are worth the most (`scripts/pgo`).

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::{
    client::{
        Load, Mix as Clients,
        http1::ask,
        loops::{Open, closed},
        samples::{Ask, Kind, Outcome, Recorder, Sample, tally},
    },
    collector::Collector,
    process::Signal,
    report::progress,
    restart,
    stop::stage::Setup,
    traffic::{Mix, Traffic},
};

/// No sign-ins: passwords step back behind other work, and the one at the start has all that is in them.
const EVERYDAY: Mix =
    &[(Kind::Anonymous, 5), (Kind::Session, 5), (Kind::One, 5), (Kind::Read, 2), (Kind::Write, 3)];
/// The same without the example, whose reads and writes would be passwords.
const WITHOUT_EXAMPLE: Mix = &[(Kind::Anonymous, 1), (Kind::Session, 2)];
/// No session, and no such page.
const REFUSED: [&str; 2] = ["GET /v1/session", "GET /nothing"];
/// Clients come and go, and some speak HTTP/2.
const CLIENTS: Clients =
    Clients { keep_alive: 4, fresh: 4, http2: 4, streams: 8, thinking: 0, think: Duration::ZERO };

const BUSY: Duration = Duration::from_secs(12);
const CALM: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_secs(4);
const CALM_RATE: f64 = 1_000.0;
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the traffic, and ends the server.
///
/// # Errors
///
/// When the server cannot be used, answers anything but what it must, or does not end well.
pub async fn run(setup: &Setup) -> Result<bool> {
    setup.migrate().await?;
    let collector = Collector::start().await?;
    let server = restart::server(setup, 0, 0)
        .env("RATE_LIMIT", "1000000/1m")
        .env("LOGIN_RATE_LIMIT", "1000000/1m")
        .env("SHUTDOWN_LAME_DUCK", "0s")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .env("OTEL_TRACES_SAMPLER_ARG", "0.1")
        .start()
        .await?;
    server.ready().await?;
    let [address, ops] =
        [server.port(), server.ops_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let requests = day(address).await?;
    ask(ops, "GET /metrics", "", "").await?;
    server.signal(Signal::Term)?;
    let exit = server.wait().await?;
    ensure!(exit.code == Some(0), "the server ended with {:?}: {}", exit.code, server.stderr());
    println!("trained with {requests} requests");
    Ok(true)
}

/// How many requests it had.
async fn day(address: SocketAddr) -> Result<u64> {
    let traffic = Traffic::start(address, "train").await?;
    let mix = if traffic.has_example() { EVERYDAY } else { WITHOUT_EXAMPLE };
    let everyday = Recorder::new(address, 64, PATIENCE);
    progress("training: many clients at once");
    closed(&everyday, 32, BUSY, traffic.mixed(mix)).await;
    progress("training: a calm hour");
    let open = Open::start(&everyday, CALM_RATE, traffic.mixed(mix));
    sleep(CALM).await;
    open.stop().await;
    let everyday = everyday.samples();
    ensure!(everyday.iter().all(Sample::is_good), "not all was answered well: {:?}", tally(&everyday));

    progress("training: what is refused");
    let refused = Recorder::new(address, 64, PATIENCE);
    let mut lines = REFUSED.iter().cycle();
    let next = move || {
        let line = lines.next().expect("a cycle has no end");
        Ask { kind: Kind::Anonymous, request: format!("{line} HTTP/1.1\r\nhost: localhost\r\n\r\n").into() }
    };
    closed(&refused, 8, SHORT, next).await;
    let refused = refused.samples();
    let is_refusal = |sample: &Sample| matches!(sample.outcome, Outcome::Answered { status: 400..500, .. });
    ensure!(refused.iter().all(is_refusal), "not all was refused: {:?}", tally(&refused));

    progress("training: HTTP/2, and clients that come and go");
    let load = Load::signed_in(address, "/v1/session", Some(&traffic.cookie()), CLIENTS);
    sleep(SHORT).await;
    let counts = load.stop().await;
    ensure!(counts.lost == 0 && counts.answered.keys().eq(&[200]), "not all was answered well: {counts:?}");
    Ok((everyday.len() + refused.len()) as u64 + counts.answers())
}
