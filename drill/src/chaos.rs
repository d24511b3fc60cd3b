//! `drill chaos`: one fault after the other, each under a steady load: what is refused meanwhile, how soon, and how soon
//! all is well again.

mod case;
mod elsewhere;
mod fault;
mod judge;
pub mod kill;
mod peers;
mod postgres;
pub mod soak;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use serde_json::json;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    client::{
        loops::{Lag, Open, closed},
        samples::{Kind, Recorder},
    },
    ground::Ground,
    limits::{self, Limit},
    report::{Plot, Report, Row, progress},
    stop::stage::Setup,
    traffic::Traffic,
};
use case::{CASES, Case};
use fault::{Around, Fault};
use judge::Seen;

const TITLE: &str = "Chaos: faults under a steady load";
const ABOUT: &str = "Each case has a server of its own under some 35 requests a second of every kind, which begin when \
    they are due whatever became of those before. Slowest: of all answers that the fault met. Back: from the end of the fault \
    until every request is served again, without a restart. Served: the share of requests from the begin of the fault until \
    then. Budget: what the case has cost of the errors that an objective of 99.9 % allows in 30 days.";
const COLUMNS: &[&str] = &["slowest s", "back s", "served %", "budget %", "p99 ms", "requests"];
/// Of the negative control.
pub const CONTROL_COLUMNS: &[&str] =
    &["slowest s", "back s", "served %", "budget %", "p99 ms", "requests", "misses"];
const WIDTH: usize = 50;
const PLOT: Plot = Plot::Bars { title: "From the end of the fault until all is well", unit: "s" };

/// So many cases run side by side: they mostly wait, and each is felt by its own server only.
const LANES: usize = 6;
/// All must be well for so long before a fault.
const BEFORE: Duration = Duration::from_secs(3);
/// And for so long after the time that recovery may take.
const AFTER: Duration = Duration::from_secs(2);
/// How long a client waits for an answer: longer than the server lets a request take.
const PATIENCE: Duration = Duration::from_secs(15);
const PROBES: f64 = 5.0;
/// Connections that are there before the fault.
const OPEN: usize = 3;

const LIMITS: &[&Limit] = &[
    &limits::ANSWER_POSTGRES,
    &limits::ANSWER_STUCK,
    &limits::ANSWER_LOCK,
    &limits::ANSWER_SLOW,
    &limits::ANSWER_REDIS_REFUSED,
    &limits::ANSWER_REDIS,
    &limits::ANSWER_PREVIEW,
    &limits::ANSWER_UNFELT,
    &limits::ANSWER_THROTTLED,
    &limits::ANSWER_STOPPED,
    &limits::PROBE,
    &limits::FELT_BY_OTHERS,
    &limits::BACK_AT_ONCE,
    &limits::BACK_POSTGRES,
    &limits::BACK_BLACK_HOLE,
    &limits::BACK_FAILOVER,
    &limits::BACK_REDIS,
    &limits::BACK_REDIS_SILENT,
    &limits::BACK_REDIS_FROZEN,
    &limits::BACK_PASSWORD,
    &limits::BACK_ROTATED,
    &limits::BACK_BREAKER,
    &limits::OUTBOUND,
    &limits::ABANDONED_PLACE,
    &limits::ABANDONED_QUERY,
    &limits::BODIES_MEMORY,
    &limits::DESCRIPTORS_KEPT,
    &limits::ACKNOWLEDGED_LOST,
    &limits::WRITTEN_TWICE,
    &limits::KILLS,
];

/// Runs the drill, or those of its cases whose name contains `only`; whether everything was within its limits.
///
/// # Errors
///
/// When the services or the server cannot be used at all. A case that breaks off is a missed limit, not an error.
pub async fn run(setup: Setup, only: Option<&str>, folder: &Path) -> Result<bool> {
    let mut report = Report::new("chaos", TITLE, WIDTH, COLUMNS, LIMITS).about(ABOUT);
    cases(&setup, only, |row| report.add(row)).await?;
    if only.is_none() {
        elsewhere::rows(&mut report);
    }
    report.finish(folder, PLOT)
}

/// The case on the server as it is, which passes, and on one that was spoilt on purpose, which must miss a limit.
///
/// # Errors
///
/// As [`run`].
pub async fn control(
    sound: &Setup,
    spoilt: &Setup,
    name: &str,
    case: &str,
    report: &mut Report,
) -> Result<()> {
    for (setup, name, is_spoilt) in [(sound, "as it is", false), (spoilt, name, true)] {
        let mut rows = Vec::new();
        cases(setup, Some(case), |row| rows.push(row)).await?;
        for mut row in rows {
            let misses = row.misses.len();
            row.name = format!("{name}: {}", row.name);
            row.cells.push(misses.to_string());
            if is_spoilt {
                row.point = Some((misses as f64, limits::MUTANT_CAUGHT.value()));
                row.detail = json!({ "missed": row.misses });
                row.misses = limits::MUTANT_CAUGHT.miss(misses as f64).into_iter().collect();
            } else {
                row.point = None;
            }
            report.add(row);
        }
    }
    Ok(())
}

/// Plays those of the cases that are wanted; `done` gets each row as it comes.
async fn cases(setup: &Setup, only: Option<&str>, mut done: impl FnMut(Row)) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let (setup, lanes) = (Arc::new(setup.clone()), Arc::new(Semaphore::new(LANES)));
    let mut running = JoinSet::new();
    for case in CASES.iter().filter(|case| !case.is_alone() && wanted(case.name)) {
        let (setup, lanes) = (Arc::clone(&setup), Arc::clone(&lanes));
        running.spawn(async move {
            let _lane = lanes.acquire_owned().await;
            row(case, &setup).await
        });
    }
    if wanted(kill::NAME) {
        let setup = Arc::clone(&setup);
        running.spawn(async move { kill::row(&setup).await });
    }
    while !running.is_empty() {
        progress(&format!("{} cases to go, {LANES} side by side", running.len()));
        if let Some(row) = running.join_next().await {
            done(row?);
        }
    }
    for case in CASES.iter().filter(|case| case.is_alone() && wanted(case.name)) {
        progress(&format!("{}, alone", case.name));
        done(row(case, &setup).await);
    }
    Ok(())
}

/// Plays the case, and holds what came of it against what must.
async fn row(case: &'static Case, setup: &Setup) -> Row {
    match play(case, setup).await {
        Ok(Some(seen)) => judge::row(case, &seen),
        Ok(None) => empty(format!("{}: left out, for want of the example", case.name), Vec::new()),
        Err(error) => empty(case.name.to_owned(), vec![format!("broke off: {error:#}")]),
    }
}

fn empty(name: String, misses: Vec<String>) -> Row {
    Row { name, cells: vec!["-".to_owned(); COLUMNS.len()], misses, ..Row::default() }
}

/// `None` when the server has not the routes that it is about.
async fn play(case: &'static Case, setup: &Setup) -> Result<Option<Seen>> {
    let (collector, _collecting) = peers::collector().await?;
    let endpoint = format!("http://{}", collector.addr());
    let redis_file = std::env::temp_dir().join(format!("drill-{}-{}", std::process::id(), case.id));
    let file = redis_file.display().to_string();
    let env = case.fault.env(&endpoint, &file);
    let mut ground = Ground::start(setup, case.id, &env, case.fault.descriptors()).await?;
    let traffic = Traffic::start(ground.address(), case.id).await?;
    let outcome = if case.needs_example() && !traffic.has_example() {
        Ok(None)
    } else {
        let around = Around { collector: &collector, traffic: &traffic, redis_file: &redis_file };
        under_load(case, &mut ground, &around).await.map(Some)
    };
    ground.clear().await?;
    std::fs::remove_file(redis_file).ok();
    outcome
}

async fn under_load(case: &'static Case, ground: &mut Ground, around: &Around<'_>) -> Result<Seen> {
    let mix = case.mix(around.traffic.has_example());
    let rate: f64 = mix.iter().map(|(_, count)| *count as f64).sum();
    let watched = BEFORE + Duration::from_secs_f64(case.seconds as f64 + case.back.value()) + AFTER;
    if case.needs_example() {
        around.traffic.prepare_previews(watched.as_secs() as usize * 10).await?;
    }
    // Few connections, where there are few descriptors: those that are open are to be used.
    let connections = if case.fault.descriptors().is_some() { OPEN } else { 10_000 };
    let recorder = Recorder::new(ground.address(), connections, PATIENCE);
    let prober = Recorder::new(ground.ops_address(), connections, PATIENCE);
    let warm_up = Open::start(&recorder, rate, around.traffic.mixed(mix));
    sleep(Duration::from_secs(1)).await;
    warm_up.stop().await;
    closed(&recorder, OPEN, Duration::from_millis(100), around.traffic.mixed(&[(Kind::Anonymous, 1)])).await;
    let (start, lag) = (Instant::now(), Lag::watch());
    let load = Open::start(&recorder, rate, around.traffic.mixed(mix));
    let probes = Open::start(&prober, PROBES, around.traffic.mixed(&[(Kind::Health, 1)]));
    sleep(BEFORE).await;
    let before = judge::Gauges::read(ground).await?;
    let begin = Instant::now();
    let hold = case.fault.begin(ground, around).await?;
    sleep_until(begin + Duration::from_secs(case.seconds)).await;
    let during = match case.fault {
        // A server that is stopped has nothing to say, and the fault must not wait for it.
        Fault::Stopped => None,
        _ => judge::Gauges::read(ground).await.ok(),
    };
    let calls = ground.stage.upstream.calls();
    case.fault.end(ground, around, hold).await?;
    let end = Instant::now();
    sleep(Duration::from_secs_f64(case.back.value()) + AFTER).await;
    let stop = Instant::now();
    tokio::join!(load.stop(), probes.stop());
    recorder.hang_up();
    sleep(Duration::from_millis(500)).await;
    let after = judge::Gauges::read(ground).await?;
    let mut samples = recorder.samples();
    samples.retain(|sample| sample.due >= start);
    let (calls, probes) = ((calls, ground.stage.upstream.calls()), prober.samples());
    Ok(Seen {
        rate,
        start,
        begin,
        end,
        stop,
        samples,
        probes,
        before,
        during,
        after,
        calls,
        lag: lag.worst(),
    })
}
