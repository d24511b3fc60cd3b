//! `drill soak`: for as long as it is given at four fifths of what the server can do, with a fault each minute. What
//! the server keeps of a fault, it would keep of a thousand.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    case::{CASES, Case},
    fault::Around,
    judge::is_honest,
    peers,
};
use crate::{
    client::{
        loops::Open,
        samples::{Recorder, Sample, quantile, tally},
    },
    ground::{Ground, metric},
    limits::{self, Limit},
    load::{Scene, WAITING},
    report::{Plot, Report, Row, progress, timeline::Timeline},
    stop::stage::Setup,
    traffic::Traffic,
};

const ABOUT: &str = "Load at 0.8 C, and a fault in each minute. Good: answers of 200 to 399. Unexplained: requests that \
    failed while there was no fault and no recovery from one, or otherwise than they must. Memory, descriptors and tasks are \
    those at the end of the minute, when the clients have hung up.";
const COLUMNS: &[&str] = &["requests", "good %", "unexpl.", "p99 ms", "MiB", "open fds", "tasks", "stalls"];
const WIDTH: usize = 50;
const LIMITS: &[&Limit] = &[
    &limits::UNEXPLAINED,
    &limits::STALLS,
    &limits::MEMORY_GROWN,
    &limits::DESCRIPTORS_GROWN,
    &limits::TASKS_GROWN,
];

/// One for each minute, then again from the first.
const FAULTS: [&str; 20] = [
    "pg_refused",
    "redis_refused",
    "pg_killed",
    "redis_frozen",
    "pg_hole",
    "resets",
    "pg_readonly",
    "redis_freeze",
    "pg_locked",
    "col_silent",
    "pg_frozen",
    "redis_hole",
    "pg_ddl",
    "bodies",
    "pg_crowded",
    "redis_password",
    "pg_freeze",
    "col_refused",
    "pg_full",
    "redis_flushed",
];
const MINUTE: Duration = Duration::from_secs(60);
const BEFORE: Duration = Duration::from_secs(10);
/// Of each minute, for requests under way and for what the server needs to see its clients gone.
const REST: Duration = Duration::from_secs(8);
/// Of the first minutes: pools and buffers reach their size.
const WARM_UP: usize = 3;
/// The lag's window, which the number of tasks is told after, is 5 s.
const SETTLED: Duration = Duration::from_secs(6);

/// What the server keeps when nobody asks.
#[derive(Clone, Copy, Debug)]
struct Kept {
    memory: f64,
    descriptors: f64,
    tasks: f64,
    stalls: f64,
}

impl Kept {
    async fn read(ground: &Ground) -> Result<Self> {
        let of = async |name| metric(ground.ops_address(), name).await;
        Ok(Self {
            memory: of("process_resident_memory_bytes").await? / f64::from(1 << 20),
            descriptors: of("process_open_fds").await?,
            tasks: of("runtime_alive_tasks").await?,
            stalls: of("runtime_stalls_total").await?,
        })
    }
}

/// Runs the drill for so many minutes; whether everything was within its limits.
///
/// # Errors
///
/// When the services or the server cannot be used, or a fault cannot be made.
pub async fn run(setup: &Setup, minutes: usize, folder: &Path) -> Result<bool> {
    let title = "Soak: a fault each minute";
    let mut report = Report::new("soak", title, WIDTH, COLUMNS, LIMITS).about(ABOUT);
    let (collector, _collecting) = peers::collector().await?;
    let endpoint = format!("http://{}", collector.addr());
    let places = WAITING.places.to_string();
    let env = [
        ("MAX_IN_FLIGHT", &*places),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
    ];
    let mut ground = Ground::start(setup, "soak", &env, None).await?;
    let traffic = Traffic::start(ground.address(), "soak").await?;
    let around = Around { collector: &collector, traffic: &traffic, redis_file: Path::new("") };
    let outcome = soak(&mut ground, &around, minutes, &mut report).await;
    ground.clear().await?;
    outcome?;
    report.finish(folder, Plot::Bars { title: "Memory at the end of each minute", unit: "MiB" })
}

async fn soak(ground: &mut Ground, around: &Around<'_>, minutes: usize, report: &mut Report) -> Result<()> {
    let load = Scene::waiting(around.traffic);
    load.keep_away(ground).await;
    progress("what can it do?");
    let (capacity, _) = load.capacity(ground, around.traffic).await?;
    println!("         C is {capacity:.0} requests a second");
    let mut kept = Vec::new();
    for minute in 0..minutes {
        let id = FAULTS[minute % FAULTS.len()];
        let case = CASES.iter().find(|case| case.id == id).context(id)?;
        progress(&format!("minute {} of {minutes}: {}", minute + 1, case.name));
        let (row, now) = play(case, ground, around, load, 0.8 * capacity).await?;
        report.add(row);
        kept.push(now);
    }
    report.add(growth(&kept));
    Ok(())
}

async fn play(
    case: &'static Case,
    ground: &mut Ground,
    around: &Around<'_>,
    load: &Scene,
    rate: f64,
) -> Result<(Row, Kept)> {
    let start = Instant::now();
    let recorder = Recorder::new(ground.address(), 10_000, REST);
    let running = Open::start(&recorder, rate, around.traffic.mixed(load.mix));
    sleep(BEFORE).await;
    let begin = Instant::now();
    let hold = case.fault.begin(ground, around).await?;
    sleep_until(begin + Duration::from_secs(case.seconds)).await;
    case.fault.end(ground, around, hold).await?;
    load.keep_away(ground).await;
    let end = Instant::now();
    sleep_until((start + MINUTE - REST).max(end)).await;
    running.stop().await;
    recorder.hang_up();
    sleep_until(start + MINUTE).await;
    sleep(SETTLED.saturating_sub(REST)).await;
    let kept = Kept::read(ground).await?;
    let samples = recorder.samples();
    let well = end + Duration::from_secs_f64(case.back.value());
    let is_explained = |sample: &&Sample| {
        sample.is_good() || sample.end() >= begin && sample.due <= well && is_honest(case, sample)
    };
    let unexplained = || samples.iter().filter(|sample| !is_explained(sample));
    let (count, good) = (samples.len(), samples.iter().filter(|sample| sample.is_good()).count());
    let mut misses: Vec<String> = limits::STALLS.miss(kept.stalls).into_iter().collect();
    let bad = unexplained().count() as f64;
    misses.extend(limits::UNEXPLAINED.miss(bad).map(|miss| format!("{miss}: {:?}", tally(unexplained()))));
    let cells = [
        count as f64,
        100.0 * good as f64 / count as f64,
        bad,
        quantile(&samples, 0.99),
        kept.memory,
        kept.descriptors,
        kept.tasks,
        kept.stalls,
    ];
    let row = Row {
        name: case.name.to_owned(),
        cells: cells.map(|cell| format!("{}", (cell * 10.0).round() / 10.0)).into(),
        misses,
        point: Some((kept.memory, f64::NAN)),
        detail: json!({ "answers": tally(&samples), "kept": format!("{kept:?}") }),
        over_time: Some(Timeline::of(case.name, &samples, start, (begin, end))),
        ..Row::default()
    };
    Ok((row, kept))
}

/// From the first third of the minutes to the last.
fn growth(kept: &[Kept]) -> Row {
    let settled = kept.get(WARM_UP..).unwrap_or_default();
    let third = settled.len().div_ceil(3);
    let mean = |of: fn(&Kept) -> f64, part: &[Kept]| part.iter().map(of).sum::<f64>() / part.len() as f64;
    let grown =
        |of: fn(&Kept) -> f64| mean(of, &settled[settled.len() - third..]) - mean(of, &settled[..third]);
    let (memory, descriptors, tasks) = (grown(|k| k.memory), grown(|k| k.descriptors), grown(|k| k.tasks));
    let misses = [
        limits::MEMORY_GROWN.miss(memory),
        limits::DESCRIPTORS_GROWN.miss(descriptors),
        limits::TASKS_GROWN.miss(tasks),
    ];
    let empty = || "-".to_owned();
    let figures = [memory, descriptors, tasks].map(|figure| format!("{figure:+.1}"));
    let [memory, descriptors, tasks] = figures;
    Row {
        name: "grown, from the first third of the time to the last".to_owned(),
        cells: vec![empty(), empty(), empty(), empty(), memory, descriptors, tasks, empty()],
        misses: misses.into_iter().flatten().collect(),
        ..Row::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misses(grow: impl Fn(f64) -> Kept) -> Vec<String> {
        let kept: Vec<Kept> = (0..20).map(|minute| grow(f64::from(minute))).collect();
        growth(&kept).misses
    }

    const CALM: Kept = Kept { memory: 30.0, descriptors: 60.0, tasks: 20.0, stalls: 0.0 };

    #[test]
    fn what_grows_with_the_minutes_is_a_miss_and_what_wavers_is_none() {
        let wavers =
            |minute: f64| Kept { memory: 30.0 + minute % 3.0, descriptors: 60.0 + minute % 5.0, ..CALM };
        assert_eq!(misses(wavers), Vec::<String>::new());
        assert_eq!(misses(|minute| Kept { memory: 30.0 + minute, ..CALM }).len(), 1);
        assert_eq!(misses(|minute| Kept { descriptors: 60.0 + minute, ..CALM }).len(), 1);
        assert_eq!(misses(|minute| Kept { tasks: 20.0 + minute, ..CALM }).len(), 1);
    }

    #[test]
    fn too_short_a_time_says_nothing() {
        assert!(!growth(&[CALM; 3]).misses.is_empty());
    }

    #[test]
    fn every_fault_is_one_of_the_cases() {
        assert!(FAULTS.iter().all(|id| CASES.iter().any(|case| case.id == *id)));
    }
}
