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
    telemetry,
};
use std::{process::ExitCode, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

fn main() -> ExitCode {
    commands::run()
}

/// `server serve`: exit code 0 after a clean stop, 1 when something was cut or went wrong.
fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init(&config.telemetry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(live(config));
    // Work on blocking threads must not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = &outcome {
        tracing::error!(fatal = true, err = telemetry::logs::err_json(error), "stopped by a fault");
    }
    let clean = outcome.is_ok_and(|clean| clean);
    tracing::info!(clean, "stopped");
    telemetry.flush(Duration::from_secs(2));
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// From the first socket to the last; `true` when nothing was cut.
async fn live(config: &Config) -> anyhow::Result<bool> {
    let mut signals = commands::Signals::install()?;
    let app = App::connect(config)?;
    let health = Health::default();
    let public =
        TcpListener::bind(config.public_addr()).await.with_context(|| format!("PORT {}", config.port))?;
    let operations = TcpListener::bind(config.ops_addr())
        .await
        .with_context(|| format!("OPS_PORT {}", config.ops_port))?;
    announce(config, &public, &operations)?;

    let (conductor, aside) = (Conductor::new(config.shutdown), Conductor::new(config.shutdown));
    let mut background = JoinSet::new();
    background.spawn(server::serve(
        operations,
        ops::router(health.clone(), app.postgres.clone()),
        100,
        aside.drain(),
    ));
    background.spawn(health.clone().watch(app.clone()));
    let router = api::router(app.clone(), config);
    let serving = tokio::spawn(server::serve(public, router, config.max_connections, conductor.drain()));

    let signal = signals.next().await;
    drain::watchdog(config.shutdown.budget);
    tracing::info!(signal, "stopping");
    health.drain();
    background.spawn(signals.exit_on_next());
    let clean = conductor.lead(async { drop(serving.await) }).await;
    app.postgres.close().await;
    tracing::info!("dependencies released");
    Ok(clean)
}

fn announce(config: &Config, public: &TcpListener, operations: &TcpListener) -> anyhow::Result<()> {
    let settings = serde_json::to_string(
        &config.effective.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    )?;
    let (port, ops_port) = (public.local_addr()?.port(), operations.local_addr()?.port());
    tracing::info!(port, ops_port, worker_threads = config.worker_threads, settings, "listening");
    Ok(())
}
