//! `drill load`: finds what the server can do, offers ten times as much, and expects it to go on doing it.

mod scene;

pub use scene::{Scene, WAITING};

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    client::samples::{Kind, Outcome, Sample, quantile, tally},
    ground::{Ground, metric},
    limits::{self, Limit},
    report::{Plot, Report, Row, progress, timeline::Timeline},
    stop::stage::Setup,
    traffic::Traffic,
};
use scene::{COMPUTING, begin, end, goodput};

const ABOUT: &str = "The capacity C is found by a closed loop of as many clients as the server has places. Then an open loop \
    offers a part or a multiple of it, and requests begin when they are due, whatever became of those before. Goodput: answers \
    of 200 to 399 a second, within a second. Probes and a few other clients are there throughout. Limits on sign-ins \
    and requests per client are lifted, since there is one client.";
const COLUMNS: &[&str] = &["offered/s", "good/s", "of C %", "p50 ms", "p99 ms", "refused", "probe ms", "MiB"];
const WIDTH: usize = 46;
const LIMITS: &[&Limit] = &[
    &limits::GOODPUT_NORMAL,
    &limits::GOODPUT_DOUBLE,
    &limits::GOODPUT_TENFOLD,
    &limits::ACCEPTED,
    &limits::ACCEPTED_SIGN_IN,
    &limits::ODD_REFUSALS,
    &limits::NORMAL_AGAIN,
    &limits::HEALTHZ,
    &limits::OFFERED,
    &limits::OTHERS,
];

const PHASE: Duration = Duration::from_secs(8);

/// Runs the drill; whether everything was within its limits.
///
/// # Errors
///
/// When the services or the server cannot be used.
pub async fn run(setup: &Setup, folder: &Path) -> Result<bool> {
    let title = "Load: up to ten times the capacity";
    let mut report = Report::new("load", title, WIDTH, COLUMNS, LIMITS).about(ABOUT);
    play(setup, &WAITING, &mut report).await?;
    play(setup, &COMPUTING, &mut report).await?;
    report.finish(folder, Plot::Bars { title: "Goodput, against what it must be", unit: "requests a second" })
}

/// One phase: so many times C.
struct Phase {
    name: &'static str,
    times: f64,
    /// Of what is offered, or of C when that is less.
    goodput: &'static Limit,
}

const PHASES: [Phase; 4] = [
    Phase { name: "0.8 C", times: 0.8, goodput: &limits::GOODPUT_NORMAL },
    Phase { name: "2 C", times: 2.0, goodput: &limits::GOODPUT_DOUBLE },
    Phase { name: "10 C", times: 10.0, goodput: &limits::GOODPUT_TENFOLD },
    Phase { name: "0.8 C again", times: 0.8, goodput: &limits::GOODPUT_NORMAL },
];

/// What one phase was.
struct Measured {
    from: Instant,
    to: Instant,
    samples: Vec<Sample>,
    others: Vec<Sample>,
    probes: Vec<Sample>,
    memory: f64,
}

async fn play(setup: &Setup, scene: &'static Scene, report: &mut Report) -> Result<()> {
    let env = [("MAX_IN_FLIGHT", scene.places.to_string())];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let ground = Ground::start(setup, scene.id, &env, None).await?;
    let outcome = phases(&ground, scene, report).await;
    ground.clear().await?;
    outcome
}

async fn phases(ground: &Ground, scene: &'static Scene, report: &mut Report) -> Result<()> {
    let traffic = Traffic::start(ground.address(), scene.id).await?;
    let scene = if scene.id == WAITING.id { Scene::waiting(&traffic) } else { scene };
    if scene.mix[0].0 == Kind::SignIn {
        traffic.prepare_accounts(50).await?;
    }
    scene.keep_away(ground).await;
    progress(&format!("{}: what can it do?", scene.name));
    let (capacity, samples) = scene.capacity(ground, &traffic).await?;
    report.add(capacity_row(scene, capacity, &samples));
    let mut measured = Vec::new();
    for phase in &PHASES {
        progress(&format!("{}: {} for {} s", scene.name, phase.name, PHASE.as_secs()));
        measured.push(measure(ground, scene, &traffic, phase.times * capacity).await?);
    }
    judge(scene, capacity, measured, report);
    Ok(())
}

async fn measure(ground: &Ground, scene: &Scene, traffic: &Traffic, rate: f64) -> Result<Measured> {
    let from = Instant::now();
    let load = begin(ground.address(), rate, traffic, scene.mix);
    let [others, probes] = scene.bystanders(ground, traffic);
    sleep(PHASE).await;
    let to = Instant::now();
    let memory = metric(ground.ops_address(), "process_resident_memory_bytes").await? / f64::from(1 << 20);
    // What is under way belongs to this phase, and the next one begins at once.
    let (samples, others, probes) = tokio::join!(end(load), end(others), end(probes));
    Ok(Measured { from, to, samples, others, probes, memory })
}

fn capacity_row(scene: &Scene, capacity: f64, samples: &[Sample]) -> Row {
    let times = [0.5, 0.99].map(|part| format!("{:.0}", quantile(samples, part)));
    let [p50, p99] = times;
    let cells = ["", &format!("{capacity:.0}"), "100", &p50, &p99, "", "", ""].map(str::to_owned);
    let name = format!("{}: the capacity C", scene.name);
    let detail = json!({ "capacity": capacity, "answers": tally(samples) });
    Row { name, cells: cells.into(), detail, ..Row::default() }
}

fn judge(scene: &Scene, capacity: f64, measured: Vec<Measured>, report: &mut Report) {
    let start = measured[0].from;
    let all: Vec<Sample> = measured.iter().flat_map(|measured| measured.samples.clone()).collect();
    let mut timeline = Timeline::new(scene.name, &all, start);
    for (phase, measured) in PHASES.iter().zip(&measured) {
        timeline = timeline.shade(phase.name, start, (measured.from, measured.to));
    }
    let calm = quantile(&measured[0].others, 0.99);
    for (number, (phase, measured)) in PHASES.iter().zip(&measured).enumerate() {
        let mut row = measured.row(scene, phase, capacity);
        if scene.others > 0.0 {
            let amid = quantile(&measured.others, 0.99);
            row.misses.extend(limits::OTHERS.miss(amid / calm.max(20.0)));
            row.misses.extend(odd(&measured.others));
        }
        if number == PHASES.len() - 1 {
            row.misses.extend(limits::NORMAL_AGAIN.miss(measured.well_after(scene)));
        }
        report.add(row);
    }
    report.add(Row {
        name: format!("{}: over time", scene.name),
        cells: vec![String::new(); COLUMNS.len()],
        over_time: Some(timeline),
        ..Row::default()
    });
}

impl Measured {
    fn row(&self, scene: &Scene, phase: &Phase, capacity: f64) -> Row {
        let seconds = self.to - self.from;
        let offered = self.samples.len() as f64 / seconds.as_secs_f64();
        let good = goodput(&self.samples, seconds);
        let accepted = || self.samples.iter().filter(|sample| sample.is_good());
        let (p50, p99) = (quantile(accepted(), 0.5), quantile(accepted(), 0.99));
        let probe = quantile(&self.probes, 0.99);
        let base = offered.min(capacity);
        let asked_for = 100.0 * offered / (phase.times * capacity);
        let misses = [
            limits::OFFERED.miss(asked_for),
            phase.goodput.miss(100.0 * good / base),
            scene.accepted.miss(p99),
            limits::HEALTHZ.miss(probe),
        ];
        let refused = self.samples.iter().filter(|sample| !sample.is_good());
        let cells = [
            offered,
            good,
            100.0 * good / capacity,
            p50,
            p99,
            refused.clone().count() as f64,
            probe,
            self.memory,
        ];
        Row {
            name: format!("{}: {}", scene.name, phase.name),
            cells: cells.map(|value| format!("{value:.0}")).into(),
            misses: misses.into_iter().flatten().chain(odd(&self.samples)).collect(),
            point: Some((good, phase.goodput.value() / 100.0 * base)),
            detail: json!({
                "asked_for_percent": asked_for, "offered": offered, "good": good, "p50_ms": p50, "p99_ms": p99,
                "refusals_p99_ms": quantile(refused, 0.99), "answers": tally(&self.samples), "probe_p99_ms": probe,
                "memory_mib": self.memory, "others_p99_ms": quantile(&self.others, 0.99), "others": tally(&self.others),
            }),
            ..Row::default()
        }
    }

    /// Seconds until the last request that was refused, or took longer than it may.
    fn well_after(&self, scene: &Scene) -> f64 {
        let longest = Duration::from_secs_f64(scene.accepted.value() / 1000.0);
        let bad = self.samples.iter().filter(|sample| !sample.is_good() || sample.took > longest);
        bad.map(|sample| (sample.due - self.from).as_secs_f64()).fold(0.0, f64::max)
    }
}

/// Refusals that do not say what a client needs to know.
fn odd(samples: &[Sample]) -> Option<String> {
    let is_odd = |sample: &&Sample| {
        !sample.is_good()
            && !matches!(sample.outcome, Outcome::Answered { status: 503 | 429, retry_after: true, .. })
    };
    let odd = || samples.iter().filter(is_odd);
    limits::ODD_REFUSALS.miss(odd().count() as f64).map(|miss| format!("{miss}: {:?}", tally(odd())))
}
