//! `drill stop-matrix`: what a stop takes and loses, with every kind of peer, and under load.

mod cases;
pub mod load;
mod peers;
pub mod stage;
#[cfg(target_os = "linux")]
mod wedge;

use std::{path::Path, sync::Arc};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::{
    limits::{self, Limit},
    report::{Plot, Report, progress},
};
use cases::Case;
use stage::Setup;

/// How much of it to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every case and twenty runs under load.
    Full,
    /// Every case and one run under load.
    Quick,
}

pub const COLUMNS: &[&str] = &["exit s", "code", "requests", "lost", "refused", "away", "last line"];
const NAME_WIDTH: usize = 46;
const ABOUT: &str = "Each row: a server, what it is held up by, SIGTERM. Lost: requests without an answer though the server had \
    taken them. Refused: connections that found nobody, once the listener is closed. Away: HTTP/2 requests that the server named \
    as not begun. Last line: whether the log ends with `stopped`.";

const LIMITS: [&Limit; 11] = [
    &limits::EXIT_IDLE,
    &limits::EXIT,
    &limits::EXIT_NO_LAME_DUCK,
    &limits::EXIT_SECOND_SIGNAL,
    &limits::EXIT_STARTING,
    &limits::SLOW_ANSWER,
    &limits::CUT,
    &limits::LOST,
    &limits::TURNED_AWAY,
    &limits::REFUSALS,
    &limits::STOP_REQUESTS,
];

/// Runs the drill; whether everything was within its limits.
///
/// # Errors
///
/// When the services or the server cannot be used at all. A case that breaks off is a missed limit, not an error.
pub async fn run(setup: Setup, extent: Extent, folder: &Path) -> Result<bool> {
    setup.migrate().await?;
    let mut report = Report::new("stop-matrix", "The stop", NAME_WIDTH, COLUMNS, &LIMITS).about(ABOUT);
    let setup = Arc::new(setup);
    // They mostly wait, and do not disturb each other: each has a server and proxies of its own.
    let mut running = JoinSet::new();
    for &case in Case::ALL {
        let setup = Arc::clone(&setup);
        running.spawn(async move { case.row(&setup).await });
    }
    progress(&format!("{} cases side by side", running.len()));
    while let Some(row) = running.join_next().await {
        report.add(row?);
        progress(&format!("{} cases to go", running.len()));
    }
    load::runs(&setup, extent, &mut report).await;
    report.finish(folder, Plot::Bars { title: "From the signal to the exit", unit: "s" })
}

/// For a server whose stop was spoilt on purpose: runs under load until requests are lost, at most five times.
///
/// # Errors
///
/// As [`run`].
pub async fn control(setup: &Setup, name: &'static str, report: &mut Report) -> Result<()> {
    setup.migrate().await?;
    report.add(load::control(setup, name).await);
    Ok(())
}
