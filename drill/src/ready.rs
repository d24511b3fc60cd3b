//! `drill ready`: the readiness checklist, each item executed on the built server with its real services.

mod canaries;
mod ci;
mod health;
mod logs;
mod metrics;
pub mod mutants;
mod outbound;
mod project;
mod stop;
mod supervisor;
mod traces;
mod unit;
mod workflows;

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use anyhow::Result;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    limits::{self, Limit},
    report::{Plot, Report, Row, progress},
    stop::stage::Setup,
};

const ABOUT: &str = "What a team asks of a service before it goes live, done to the server as it ships, with a Postgres and a \
    Redis of its own. An item passes when all of it was seen to hold; what could not be measured is unknown, and counts as failed.";
const COLUMNS: &[&str] = &["evidence"];
const WIDTH: usize = 30;
const PLOT: Plot = Plot::Bars { title: "How much of its limit each item used", unit: "%" };
/// Whatever hangs. The first time, cargo-deny is built.
const LONGEST: Duration = Duration::from_mins(6);

const LIMITS: &[&Limit] = &[
    &limits::RESTART_OUTAGE,
    &limits::LAST_LINE,
    &limits::EXIT_FAULT,
    &limits::LEAKS,
    &limits::EXIT_IDLE,
    &limits::EXIT_NO_LAME_DUCK,
    &limits::LOST,
    &limits::REFUSALS,
    &limits::DEGRADED,
    &limits::SERIES,
    &limits::LAG_SEEN,
    &limits::LAG_CALM,
    &limits::LAG_WINDOW,
    &limits::ANSWER_PREVIEW,
    &limits::ANSWER_UNFELT,
    &limits::ACKNOWLEDGED_LOST,
    &limits::WRITTEN_TWICE,
    &limits::IN_TIME,
];

/// What is judged: a binary, its services, and the sources that it was built from.
pub struct Subject {
    pub setup: Setup,
    pub project: PathBuf,
    /// Where cargo has built it.
    pub target: PathBuf,
}

/// What came of an item that could be measured.
#[derive(Debug, Default)]
struct Finding {
    /// What holds, in one line.
    evidence: String,
    misses: Vec<String>,
    /// The highest share of a limit that was used, in percent.
    used: Option<f64>,
}

impl Finding {
    fn hold(&mut self, limit: &Limit, value: f64) {
        // Nobody reads more digits than these.
        let value = (value * 1000.0).round() / 1000.0;
        self.misses.extend(limit.miss(value));
        let used = limit.used(100.0 * value).filter(|used| used.is_finite());
        self.used = self.used.into_iter().chain(used).reduce(f64::max);
    }

    fn unless(&mut self, holds: bool, miss: impl Into<String>) {
        if !holds {
            self.misses.push(miss.into());
        }
    }
}

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<Finding>> + 'a>>;

/// One item of the list. An error means that it could not be measured.
struct Item {
    number: usize,
    title: &'static str,
    looks_at: LooksAt,
    check: for<'a> fn(&'a Subject) -> Outcome<'a>,
}

/// What an item would notice a change of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LooksAt {
    Server,
    Files,
    Both,
}

use LooksAt::{Both, Files, Server};

#[rustfmt::skip]
const ITEMS: [Item; 12] = [
    Item { number: 1, title: "a supervisor restarts it", looks_at: Both, check: |it| Box::pin(supervisor::check(it)) },
    Item { number: 2, title: "last-chance hooks", looks_at: Server, check: |it| Box::pin(stop::last_words(it)) },
    Item { number: 3, title: "structured logs, redacted", looks_at: Server, check: |it| Box::pin(logs::check(it)) },
    Item { number: 4, title: "SIGTERM with a budget", looks_at: Server, check: |it| Box::pin(stop::under_load(it)) },
    Item { number: 5, title: "healthz and readyz", looks_at: Server, check: |it| Box::pin(health::check(it)) },
    Item { number: 6, title: "metrics", looks_at: Server, check: |it| Box::pin(metrics::check(it)) },
    Item { number: 7, title: "request tracing", looks_at: Server, check: |it| Box::pin(traces::check(it)) },
    Item { number: 8, title: "runtime lag as a metric", looks_at: Server, check: |it| Box::pin(metrics::lag(it)) },
    Item { number: 9, title: "outbound calls timeboxed", looks_at: Both, check: |it| Box::pin(outbound::check(it)) },
    Item { number: 10, title: "lockfile", looks_at: Files, check: |it| Box::pin(project::lockfile(it)) },
    Item { number: 11, title: "CI audits and type-checks", looks_at: Files, check: |it| Box::pin(ci::check(it)) },
    Item { number: 12, title: "kill -9 under load", looks_at: Server, check: |it| Box::pin(stop::killed(it)) },
];

/// Runs the items whose title contains `only`; whether each passed. Called in the project's folder.
///
/// # Errors
///
/// When the report cannot be written, or the services cannot be used at all.
pub async fn run(subject: &Subject, only: Option<&str>, folder: &Path) -> Result<bool> {
    subject.setup.migrate().await?;
    let mut report = Report::new("ready", "Readiness", WIDTH, COLUMNS, LIMITS).about(ABOUT).in_words();
    for item in ITEMS.iter().filter(|item| only.is_none_or(|only| item.title.contains(only))) {
        progress(&format!("{} of {}: {}", item.number, ITEMS.len(), item.title));
        report.add(item.row(subject).await);
    }
    report.finish(folder, PLOT)
}

impl Item {
    async fn row(&self, subject: &Subject) -> Row {
        let start = Instant::now();
        let outcome = timeout(LONGEST, (self.check)(subject)).await;
        let name = format!("{:>2} {}", self.number, self.title);
        let detail = json!({ "item": self.number, "took_s": start.elapsed().as_secs_f64() });
        match outcome {
            Ok(Ok(Finding { evidence, misses, used })) => {
                let point = used.map(|used| (used, 100.0));
                // It says what holds: of an item that failed, the misses tell.
                let evidence = if misses.is_empty() { evidence } else { String::new() };
                Row { name, cells: vec![evidence], misses, point, detail, ..Row::default() }
            }
            Ok(Err(error)) => unknown(name, format!("{error:#}"), detail),
            Err(_) => unknown(name, format!("it has no end after {LONGEST:?}"), detail),
        }
    }
}

fn unknown(name: String, why: String, detail: serde_json::Value) -> Row {
    let cells = vec!["could not be measured".to_owned()];
    Row { name, cells, misses: vec![why], unknown: true, detail, ..Row::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(check: for<'a> fn(&'a Subject) -> Outcome<'a>) -> Item {
        Item { number: 7, title: "a title", looks_at: Server, check }
    }

    fn subject() -> Subject {
        let setup = Setup { server: "server".into(), database_url: String::new(), redis_url: String::new() };
        Subject { setup, project: ".".into(), target: "target".into() }
    }

    #[tokio::test]
    async fn an_item_that_cannot_be_measured_is_unknown_and_one_out_of_bounds_is_not() {
        let broken = item(|_| Box::pin(async { Err(anyhow::anyhow!("no answer")) }));
        let row = broken.row(&subject()).await;
        assert!(row.unknown && row.misses == ["no answer"], "{row:?}");
        let late = item(|_| {
            Box::pin(async {
                let mut finding = Finding::default();
                finding.hold(&limits::DEGRADED, 6.0);
                finding.hold(&limits::LOST, 0.0);
                finding.evidence = "all is well".to_owned();
                Ok(finding)
            })
        });
        let row = late.row(&subject()).await;
        assert!(!row.unknown && row.misses.len() == 1, "{row:?}");
        assert_eq!((row.point, &*row.cells), (Some((120.0, 100.0)), &[String::new()][..]));
    }

    #[test]
    fn the_items_are_numbered_as_the_list_has_them() {
        assert!(ITEMS.iter().map(|item| item.number).eq(1..=12));
    }
}
