//! The process as a timeline: settings, telemetry, backing services, listeners, serving, the stop, the exit code.
mod commands;

use anyhow::{Context, anyhow};
use app::{
    api,
    app::App,
    config::Config,
    ops::{self, Health},
    server::{
        self,
        drain::{self, Conductor},
    },
    telemetry::{self, logs},
};
use std::{process::ExitCode, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

fn main() -> ExitCode {
    commands::run()
}

/// `server serve`: exit code 0 after a clean stop, 1 when something was cut or went wrong.
fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init(&config.telemetry)?;
    telemetry::panics::install();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(config.worker_threads).enable_all().build()?;
    let outcome = runtime.block_on(live(config));
    // Work on blocking threads must not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = &outcome {
        tracing::error!(fatal = true, err = logs::err_json(error), "stopped by a fault");
    }
    let clean = outcome.is_ok_and(|clean| clean);
    tracing::info!(clean, "stopped");
    telemetry.flush(Duration::from_secs(2));
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// From the first socket to the last; `true` when nothing was cut and nothing failed.
async fn live(config: &Config) -> anyhow::Result<bool> {
    let mut signals = commands::Signals::install()?;
    let (app, health) = (App::connect(config)?, Health::default());
    let public = TcpListener::bind(config.public_addr()).await.context("cannot listen on PORT")?;
    let operations = TcpListener::bind(config.ops_addr()).await.context("cannot listen on OPS_PORT")?;
    let (port, ops_port) = (public.local_addr()?.port(), operations.local_addr()?.port());
    tracing::info!(
        port,
        ops_port,
        worker_threads = config.worker_threads,
        settings = config.to_json(),
        "listening"
    );

    let (conductor, forever) = (Conductor::new(config.shutdown), Conductor::new(config.shutdown));
    let router = api::router(app.clone(), config, conductor.drain());
    let ops_router = ops::router(health.clone(), app.postgres.clone());
    let (mut serving, mut background) = (JoinSet::new(), JoinSet::new());
    serving.spawn(server::serve(public, router, config.max_connections, conductor.drain()));
    background.spawn(server::serve(operations, ops_router, ops::MAX_CONNECTIONS, forever.drain()));
    background.spawn(health.clone().watch(app.clone()));

    let asked = tokio::select! {
        signal = signals.next() => Ok(signal),
        // None of them ever ends: the process must not go on half alive.
        ended = background.join_next() => Err(anyhow!("a background task ended: {ended:?}")),
    };
    drain::watchdog(config.shutdown.budget);
    match &asked {
        Ok(signal) => tracing::info!(signal, "stop requested"),
        Err(fault) => tracing::error!(fatal = true, err = logs::err_json(fault), "stop forced"),
    }
    health.drain();
    background.spawn(signals.exit_on_next());
    conductor.lead(serving.join_next()).await.context("the accept loop was started")??;
    let cut = conductor.cut();
    if !cut.is_empty() {
        let routes = serde_json::to_string(&cut)?;
        tracing::warn!(requests = cut.values().sum::<usize>(), routes, "requests cut");
    }
    app.postgres.close().await;
    tracing::info!("dependencies released");
    Ok(cut.is_empty() && asked.is_ok())
}
