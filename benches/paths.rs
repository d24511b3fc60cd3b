//! What one log event and one request cost: per second, in CPU time and in instructions.
//!
//! Each path runs in a process of its own, for a process has one log: this program starts itself.
use app::{
    api,
    app::App,
    config::Config,
    runtime::workers::Workers,
    server::drain::Conductor,
    telemetry::{self, metrics, request},
};
use axum::{body::Body, extract::Request};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use serde::Serialize;
use std::{
    fs::{self, File},
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};
use tikv_jemallocator::Jemalloc;
use tower::ServiceExt;
use tracing_bunyan_formatter::{BunyanFormattingLayer, JsonStorageLayer};
use tracing_subscriber::{Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// As in the server.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const ROUNDS: usize = 5;
/// Name, what it is, how often it runs.
const PATHS: [(&str, &str, u32); 4] = [
    ("formatter", "an event, formatter alone: nothing redacted", 300_000),
    ("log", "the same event, as the service logs it", 300_000),
    ("silent", "GET /, without its line", 100_000),
    ("request", "GET /, with its line", 100_000),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let path = PATHS.iter().find(|(name, ..)| arguments.get(1).is_some_and(|given| given == name));
    match path {
        Some((name, ..)) => run(name, arguments[2].parse().expect("how often")),
        None => report(),
    }
}

fn report() {
    let mut runs = PATHS.map(|_| Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for ((name, _, times), runs) in PATHS.iter().zip(&mut runs) {
            runs.push(figures(name, *times));
        }
    }
    println!(
        "{:45}{:>10}{:>9}{:>14}{:>14}{:>7}",
        "", "per s", "CPU us", "caller CPU us", "instructions", "lost"
    );
    for ((name, title, _), runs) in PATHS.iter().zip(&runs) {
        let [rate, cpu, caller, lost] = [0, 1, 2, 3].map(|figure| median(runs, figure));
        let instructions = instructions(name).map_or("-".to_owned(), |count| count.to_string());
        println!("{title:45}{rate:>10.0}{cpu:>9.2}{caller:>14.2}{instructions:>14}{lost:>7.0}");
    }
}

fn figures(path: &str, times: u32) -> [f64; 4] {
    let program = std::env::current_exe().expect("a program has a path");
    let mut command = Command::new(program);
    let output = command.args([path, &times.to_string()]).stdout(Stdio::null()).output().expect("it ran");
    let text = String::from_utf8(output.stderr).expect("figures");
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().expect(&text)).collect();
    figures.try_into().expect(&text)
}

fn median(runs: &[[f64; 4]], figure: usize) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| run[figure]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Of all threads, by the difference of two runs; `None` without valgrind.
fn instructions(path: &str) -> Option<u64> {
    let count = |times: u32| {
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().ok()?);
        let output = command.args([path, &times.to_string()]).stdout(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        text.split("Collected : ").nth(1)?.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((count(6000)? - count(1000)?) / 5000)
}

/// Logs to stdout, and tells on stderr: times per second, CPU in all and on this thread in microseconds, lines lost.
fn run(path: &str, times: u32) {
    let mut config = Config::from_lookup(|name| Ok(setting(name))).expect("sound settings");
    if path == "formatter" {
        let out = File::options().append(true).open("/dev/null").expect("there is /dev/null");
        let formatter = BunyanFormattingLayer::new("bench".to_owned(), Mutex::new(out));
        Registry::default().with(JsonStorageLayer).with(formatter).init();
    } else {
        let level = if path == "silent" { "off" } else { "info" };
        level.clone_into(&mut config.telemetry.log_level);
        telemetry::init(&config.telemetry).expect("a log to stdout");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match path {
            "formatter" | "log" => as_request(async { measure(times, async |n| event(n)).await }).await,
            _ => requests(&config, times).await,
        }
    });
}

/// Nothing listens at these addresses, and nothing asks for them.
fn setting(name: &str) -> Option<String> {
    let value = match name {
        "DATABASE_URL" => "postgres://127.0.0.1:1/none",
        "REDIS_URL" => "redis://127.0.0.1:1",
        _ => return None,
    };
    Some(value.to_owned())
}

async fn as_request(work: impl Future<Output = ()>) {
    let (trace, span) =
        (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.into(), 0xb7ad_6b71_6920_3331_u64.into());
    let ids = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    let otel = opentelemetry::Context::new().with_remote_span_context(ids);
    let deadline = Instant::now() + Duration::from_mins(10);
    request::Request::new("request".into(), [127, 0, 0, 1].into(), deadline, otel).scope(work).await;
}

async fn requests(config: &Config, times: u32) {
    let app = App::connect(config, &Workers::none()).expect("it connects later");
    let conductor = Conductor::new(config.shutdown);
    let router = api::router(app, config, conductor.drain());
    let ask = async |_| {
        let request = Request::builder().uri("/").header("host", "bench").body(Body::empty()).expect("sound");
        let answer = router.clone().oneshot(request).await.expect("it cannot fail");
        assert!(answer.status().is_success(), "{answer:?}");
    };
    measure(times, ask).await;
}

async fn measure(times: u32, work: impl AsyncFn(u32)) {
    let own_cpu = || cpu_of("/proc/thread-self/schedstat");
    let (start, cpu, own) = (Instant::now(), process_cpu(), own_cpu());
    for n in 0..times {
        work(n).await;
    }
    let own = own_cpu() - own;
    telemetry::flush_lines(Duration::from_mins(1));
    let (wall, cpu) = (start.elapsed(), process_cpu() - cpu);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(times);
    let series = String::from_utf8(metrics::render()).expect("text");
    let lost = series.lines().find_map(|line| line.strip_prefix("log_lines_dropped_total ")).unwrap_or("0");
    eprintln!("{} {} {} {lost}", f64::from(times) / wall.as_secs_f64(), each(cpu), each(own));
}

#[derive(Serialize)]
struct Context {
    ip: &'static str,
    password: &'static str,
    authorization: &'static str,
}

/// What a service may log: some fields, one of them JSON with secrets in it.
fn event(n: u32) {
    let ctx = Context { ip: "10.0.0.7", password: "hunter2", authorization: "Bearer abc.def.ghi" };
    tracing::info!(
        request_id = format_args!("0197b3c0-7c1e-7d52-9a55-{n:012x}"),
        method = "GET",
        route = "/v1/session",
        status = 200,
        latency_ms = 1.5 + f64::from(n % 10),
        user_id = "8f14e45f-ceea-467f-9575-01d2b2d4e5a1",
        ctx = serde_json::to_string(&ctx).expect("text is JSON"),
        "request completed"
    );
}

fn process_cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("Linux").flatten();
    threads.map(|thread| cpu_of(&thread.path().join("schedstat").to_string_lossy())).sum()
}

/// What the scheduler has given to a thread, to the nanosecond.
fn cpu_of(path: &str) -> Duration {
    let text = fs::read_to_string(path).expect("Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds"))
}
