//! The process as a timeline: settings, telemetry, backing services, listeners, serving, the stop, the exit code.
mod commands;

use anyhow::{Context, anyhow};
use app::{
    api,
    app::App,
    backing::rotation,
    config::Config,
    ops::{self, Health},
    runtime::{lag, level::LogLevel, stalls::Stalls, workers::Workers},
    server::{
        self,
        drain::Conductor,
        signals::Signals,
        systemd::{self, Sockets},
    },
    telemetry::logs,
};
use futures_util::FutureExt;
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    commands::run()
}

/// From the first socket to the last; `true` when nothing was cut and nothing failed.
async fn live(config: &Config, level: LogLevel) -> anyhow::Result<bool> {
    let mut signals = Signals::install(config.shutdown.budget, level.clone())?;
    let workers = Workers::start(config.worker_threads).context("cannot start the workers")?;
    let (app, health) = (App::connect(config, &workers)?, Health::default());
    let mut sockets = Sockets::from_supervisor();
    let public = sockets.listen(config.public_addr()).context("cannot listen on PORT")?;
    let operations = sockets.listen(config.ops_addr()).context("cannot listen on OPS_PORT")?;
    let (port, ops_port) = (public.local_addr()?.port(), operations.local_addr()?.port());
    let settings = config.to_json();
    tracing::info!(port, ops_port, worker_threads = config.worker_threads, settings, "listening");

    let (conductor, forever) = (Conductor::new(config.shutdown), Conductor::new(config.shutdown));
    let router = api::router(app.clone(), config, conductor.drain());
    let ops_router =
        ops::router(health.clone(), app.postgres.clone(), level, Stalls::watch()?, workers.clone());
    let (mut serving, mut background) = (JoinSet::new(), JoinSet::new());
    serving.spawn(server::serve(public, router, config.max_connections, conductor.drain(), workers.clone()));
    let own = Workers::none();
    background.spawn(server::serve(operations, ops_router, ops::MAX_CONNECTIONS, forever.drain(), own));
    background.spawn(health.clone().watch(app.clone()));
    let rotation = rotation::follow(app.postgres.clone(), app.redis.clone(), config.clone());
    background.spawn(rotation.map(|never| match never {}));
    background.spawn(lag::measure(workers.clone()).map(|never| match never {}));
    background.spawn(systemd::keep_alive(workers).map(|never| match never {}));
    systemd::ready();

    let asked = tokio::select! {
        signal = signals.first() => Ok(signal),
        // None of them ever ends: the process must not go on half alive.
        ended = background.join_next() => Err(anyhow!("a background task ended: {ended:?}")),
    };
    signals.begin();
    match &asked {
        Ok(signal) => tracing::info!(signal, "stop requested"),
        Err(fault) => tracing::error!(fatal = true, err = logs::err_json(fault), "stop forced"),
    }
    systemd::stopping();
    let known = health.drain();
    conductor.lead(known, serving.join_next()).await.context("the accept loop was started")??;
    let cut = conductor.cut();
    if !cut.is_empty() {
        let routes = serde_json::to_string(&cut)?;
        tracing::warn!(requests = cut.values().sum::<usize>(), routes, "requests cut");
    }
    app.postgres.close().await;
    tracing::info!("dependencies released");
    Ok(cut.is_empty() && asked.is_ok())
}
