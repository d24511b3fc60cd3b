//! Item 9: a slow upstream costs the request that asks it, for so long and no longer.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::{Finding, Subject};
use crate::{
    client::{
        http1::ask,
        loops::Open,
        samples::{Kind, Recorder, tally},
    },
    limits,
    proxy::Mode,
    stop::stage::Stage,
    traffic::Traffic,
};

/// What clippy must forbid, so that every call goes through the one client that has a time limit.
const CLIENTS: [&str; 3] =
    ["reqwest::Client::new", "reqwest::Client::builder", "reqwest::ClientBuilder::new"];
/// Of the upstream; the time limit is a second.
const DELAY: Duration = Duration::from_secs(5);
const RATE: f64 = 100.0;

pub async fn check(subject: &Subject) -> Result<Finding> {
    let mut finding = Finding::default();
    let open = unforbidden(&subject.project)?;
    finding.unless(open.is_empty(), format!("clippy.toml does not forbid {}", open.join(", ")));
    let called = slow_upstream(subject, &mut finding).await?;
    finding.evidence = format!("{called}; clippy forbids every other HTTP client");
    Ok(finding)
}

fn unforbidden(project: &Path) -> Result<Vec<&'static str>> {
    let rules = std::fs::read_to_string(project.join("clippy.toml")).context("clippy.toml")?;
    let forbids = |client: &&str| {
        let rule = format!("{{ path = \"{client}\",");
        rules.lines().any(|line| line.trim_start().starts_with(&rule))
    };
    Ok(CLIENTS.into_iter().filter(|client| !forbids(client)).collect())
}

async fn slow_upstream(subject: &Subject, finding: &mut Finding) -> Result<String> {
    let stage = Stage::start(&subject.setup, "outbound", Mode::Pass, &[("PREVIEW_TIMEOUT", "1s")]).await?;
    stage.server.ready().await?;
    let cookie = stage.sign_up().await?;
    let Some(path) = stage.cold_preview(&cookie).await? else {
        return Ok("without the example nothing calls out".to_owned());
    };
    let traffic =
        Traffic::start(stage.address(), &format!("outbound-{}-{}", std::process::id(), stage.server.pid()))
            .await?;
    let recorder = Recorder::new(stage.address(), 100, Duration::from_secs(10));
    let others = Open::start(
        &recorder,
        RATE,
        traffic.mixed(&[(Kind::Anonymous, 1), (Kind::Session, 1), (Kind::Read, 1)]),
    );
    stage.upstream.delay(DELAY);
    let start = Instant::now();
    let slow = ask(stage.address(), &format!("GET {path}"), &cookie, "").await?.status;
    let took = start.elapsed().as_secs_f64();
    others.stop().await;
    finding.unless(slow == 504, format!("504 expected of an upstream that takes {DELAY:?}: {slow}"));
    finding.hold(&limits::ANSWER_PREVIEW, took);
    let slowest = unfelt(&recorder, finding);
    stage.upstream.delay(Duration::ZERO);
    let again = ask(stage.address(), &format!("GET {path}"), &cookie, "").await?.status;
    finding.unless(again == 200, format!("200 expected once the upstream is quick again: {again}"));
    Ok(format!(
        "upstream {DELAY:?} slow, limit 1 s: {slow} after {took:.2} s; {} other requests meanwhile, slowest {:.0} ms",
        recorder.samples().len(),
        slowest * 1000.0
    ))
}

/// The slowest of the other requests, none of which may have failed.
fn unfelt(recorder: &Arc<Recorder>, finding: &mut Finding) -> f64 {
    let samples = recorder.samples();
    let slowest = samples.iter().map(|sample| sample.took.as_secs_f64()).fold(0.0, f64::max);
    finding.hold(&limits::ANSWER_UNFELT, slowest);
    let bad = tally(samples.iter().filter(|sample| !sample.is_good()));
    finding.unless(
        bad.is_empty() && !samples.is_empty(),
        format!("other requests: {bad:?} of {}", samples.len()),
    );
    slowest
}
