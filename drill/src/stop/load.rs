//! The runs under load: a signal amid the requests of some hundred clients of every kind.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Extent,
    stage::{Setup, Stage},
};
use crate::{
    client::{Counts, Load, Loss, Mix},
    limits::{self, Limit},
    process::{Exit, Signal},
    proxy::Mode,
    report::{Report, Row, progress},
};

/// A hundred connections that are kept, half of the load on HTTP/1.1; and some that are not.
const MIX: Mix =
    Mix { keep_alive: 60, thinking: 20, think: Duration::from_millis(200), fresh: 8, http2: 20, streams: 2 };
/// The clients of one run, for its row.
pub const CLIENTS: &str = "80 h1, 20 h2, 8 fresh";

const RUNS: usize = 20;
/// Answers before the signal. More come during the stop.
const BEFORE: u64 = 25_000;
const BEFORE_QUICK: u64 = 10_000;
/// A spoilt stop loses a request in most runs, not in each: what counts is that many stops are seen, not many answers.
const CONTROLS: usize = 20;
const BEFORE_CONTROL: u64 = 2_000;

/// What came of a run.
pub struct Run {
    pub exit: Exit,
    pub counts: Counts,
    signal: Instant,
    last_line: Option<String>,
}

/// Adds a row for each run, and one for all of them.
pub async fn runs(setup: &Setup, extent: Extent, report: &mut Report) {
    let (runs, before, requests) = match extent {
        Extent::Full => (RUNS, BEFORE, &limits::STOP_REQUESTS),
        Extent::Quick => (1, BEFORE_QUICK, &limits::QUICK_REQUESTS),
    };
    let (mut sent, mut lost) = (0, 0);
    for number in 1..=runs {
        progress(&format!("run {number} of {runs} under load, {sent} requests so far"));
        // With a lame duck clients are told to go elsewhere in time; without it only the quiet window saves them.
        let (lame_duck, exit) = match number % 2 {
            1 => ("5s", &limits::EXIT_IDLE),
            _ => ("0s", &limits::EXIT_NO_LAME_DUCK),
        };
        let name = format!("load {number}: {CLIENTS}, lame duck {lame_duck}");
        match play(setup, &name, lame_duck, before).await {
            Ok(run) => {
                sent += run.counts.sent;
                lost += run.counts.lost;
                report.add(run.row(name, exit));
            }
            Err(error) => report.add(broken(name, &error)),
        }
    }
    let misses = [requests.miss(sent as f64), limits::LOST.miss(lost as f64)];
    report.add(Row {
        name: format!("all {runs} under load"),
        cells: ["", "", &sent.to_string(), &lost.to_string(), "", "", ""].map(str::to_owned).into(),
        misses: misses.into_iter().flatten().collect(),
        point: None,
        detail: json!({ "requests": sent, "lost": lost }),
        ..Row::default()
    });
}

/// Runs until something is lost, which must be within [`CONTROLS`] runs.
pub async fn control(setup: &Setup, name: &str) -> Row {
    let mut last = None;
    for number in 1..=CONTROLS {
        progress(&format!("{name}, run {number}"));
        match play(setup, name, "0s", BEFORE_CONTROL).await {
            Ok(run) if run.counts.lost == 0 => last = Some(run),
            Ok(run) => return run.control(name),
            Err(error) => return broken(name.to_owned(), &error),
        }
    }
    last.map_or_else(Row::default, |run| run.control(name))
}

/// A stop once there were so many answers.
pub async fn play(setup: &Setup, name: &str, lame_duck: &str, before: u64) -> Result<Run> {
    let env = [("SHUTDOWN_LAME_DUCK", lame_duck)];
    let stage = Stage::start(setup, name, Mode::Pass, &env).await?;
    stage.server.ready().await?;
    let load = Load::start(stage.address(), "/", MIX);
    tokio::select! {
        () = load.answers(before) => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => anyhow::bail!("{before} answers take more than 60 s"),
    }
    let signal = Instant::now();
    stage.server.signal(Signal::Term)?;
    let exit = stage.server.wait().await?;
    let counts = load.stop().await;
    Ok(Run { exit, counts, signal, last_line: stage.server.lines().pop() })
}

impl Run {
    /// Seconds from the signal to the exit.
    pub fn took(&self) -> f64 {
        (self.exit.took.as_secs_f64() * 1000.0).round() / 1000.0
    }

    pub fn misses(&self, exit: &Limit) -> Vec<String> {
        let counts = &self.counts;
        let misses = [
            exit.miss(self.took()),
            limits::LOST.miss(counts.lost as f64),
            limits::TURNED_AWAY.miss(counts.turned_away as f64),
            limits::REFUSALS.miss(counts.failed() as f64),
            (self.exit.code != Some(0)).then(|| format!("exit code 0 expected: {:?}", self.exit.code)),
            (!stopped(self.last_line.as_ref())).then(|| "the last line is not `stopped`".to_owned()),
        ];
        let mut misses: Vec<String> = misses.into_iter().flatten().collect();
        misses.extend(counts.losses.iter().take(5).map(|loss| self.describe(loss)));
        misses
    }

    fn row(&self, name: String, exit: &Limit) -> Row {
        let took = self.took();
        Row {
            name,
            cells: self.cells(took),
            misses: self.misses(exit),
            point: Some((took, exit.value())),
            detail: self.detail(),
            ..Row::default()
        }
    }

    /// As a negative control: that nothing was lost is the miss.
    fn control(&self, name: &str) -> Row {
        let took = self.exit.took.as_secs_f64();
        let lost = self.counts.lost as f64;
        Row {
            name: name.to_owned(),
            cells: self.cells(took),
            misses: limits::MUTANT_LOST.miss(lost).into_iter().collect(),
            point: Some((lost, limits::MUTANT_LOST.value())),
            detail: self.detail(),
            ..Row::default()
        }
    }

    fn cells(&self, took: f64) -> Vec<String> {
        let code = self.exit.code.map_or("killed".to_owned(), |code| code.to_string());
        let Counts { sent, lost, refused, turned_away, .. } = self.counts;
        let last_line = if stopped(self.last_line.as_ref()) { "yes" } else { "no" };
        vec![
            format!("{took:.2}"),
            code,
            sent.to_string(),
            lost.to_string(),
            refused.to_string(),
            turned_away.to_string(),
            last_line.to_owned(),
        ]
    }

    fn detail(&self) -> Value {
        let Counts {
            sent,
            answered,
            lost,
            connections,
            closed_before,
            refused,
            turned_away,
            unconnected,
            ..
        } = &self.counts;
        let losses: Vec<String> = self.counts.losses.iter().map(|loss| self.describe(loss)).collect();
        json!({
            "sent": sent, "lost": lost, "losses": losses, "connections": connections, "closed_before": closed_before,
            "refused": refused, "turned_away": turned_away, "unconnected": unconnected,
            "answered": answered.iter().map(|(status, count)| (status.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
        })
    }

    fn describe(&self, loss: &Loss) -> String {
        let (signal, Loss { at, client, after, how }) = (self.signal, loss);
        let seconds = at.saturating_duration_since(signal).as_secs_f64()
            - signal.saturating_duration_since(*at).as_secs_f64();
        format!("lost {seconds:+.3} s from the signal: {client}, after {after} answers: {how}")
    }
}

/// Whether this is the line that a process ends with.
pub fn stopped(line: Option<&String>) -> bool {
    line.and_then(|line| serde_json::from_str::<Value>(line).ok())
        .is_some_and(|line| line["msg"] == "stopped")
}

fn broken(name: String, error: &anyhow::Error) -> Row {
    let cells = vec!["-".to_owned(); super::COLUMNS.len()];
    Row { name, cells, misses: vec![format!("broke off: {error:#}")], ..Row::default() }
}
