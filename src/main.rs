//! The process as a timeline: settings, telemetry, backing services, listeners, serving, the stop, the exit code.
mod commands;

use anyhow::Context;
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
use futures_util::FutureExt;
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
    let clean = outcome.is_ok_and(|cut| cut == 0);
    tracing::info!(clean, "stopped");
    telemetry.flush(Duration::from_secs(2));
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// From the first socket to the last; returns how many requests were cut.
async fn live(config: &Config) -> anyhow::Result<usize> {
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
    let (router, ops_router) =
        (api::router(app.clone(), config), ops::router(health.clone(), app.postgres.clone()));
    let (mut serving, mut background) = (JoinSet::new(), JoinSet::new());
    serving.spawn(server::serve(public, router, config.max_connections, conductor.drain()));
    background.spawn(server::serve(operations, ops_router, ops::MAX_CONNECTIONS, forever.drain()).map(drop));
    background.spawn(health.clone().watch(app.clone()));

    let signal = signals.next().await;
    drain::watchdog(config.shutdown.budget);
    tracing::info!(signal, "stop requested");
    health.drain();
    background.spawn(signals.exit_on_next());
    let ended = conductor.lead(serving.join_next()).await.context("the accept loop was started")?;
    app.postgres.close().await;
    tracing::info!("dependencies released");
    ended.context("the accept loop")
}
