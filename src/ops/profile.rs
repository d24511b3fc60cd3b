//! Profiles of the running process: where its time goes, and where its memory is. For `go tool pprof`, and as a flame
//! graph for a browser.
use crate::http::{Problem, extract::Query};
use anyhow::{Context, anyhow};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jemalloc_pprof::{PROF_CTL, StackProfile, WeightedStack};
use pprof::{ProfilerGuard, UnresolvedReport};
use serde::Deserialize;
use std::{collections::HashMap, ffi::c_void, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::spawn_blocking,
};

/// Samples per second of CPU time; no round number, so that it does not keep step with something else.
const FREQUENCY: i32 = 99;
const LONGEST: u64 = 60;
/// The handler, and what the kernel makes it return to.
const SIGNAL_FRAMES: usize = 2;

/// Lets one profile be taken at a time: each costs memory and time to put names to addresses.
#[derive(Clone, Default)]
pub struct Turn(Arc<Mutex<()>>);

impl Turn {
    fn take(self) -> Result<OwnedMutexGuard<()>, Problem> {
        let detail = "Another profile is being taken; ask again when it is done.";
        self.0.try_lock_owned().map_err(|_| Problem::new(StatusCode::CONFLICT, "profile_running", detail))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    #[serde(default = "ten")]
    seconds: u64,
}

fn ten() -> u64 {
    10
}

/// `GET /debug/profile/cpu?seconds=10`: 200 after that time; 409 while another one is taken; 422 for less than 1 or more
/// than 60 seconds.
pub async fn cpu(
    State(turn): State<Turn>,
    Query(Cpu { seconds }): Query<Cpu>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !(1..=LONGEST).contains(&seconds) {
        return Err(Problem::invalid("seconds", format!("must be 1 to {LONGEST}")));
    }
    let turn = turn.take()?;
    find_room();
    let profiler = ProfilerGuard::new(FREQUENCY).map_err(|error| Problem::internal(error.into()))?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let stacks = move || {
        let _turn = turn;
        Ok(cpu_stacks(&profiler.report().build_unresolved()?))
    };
    answer(stacks, ["cpu", "nanoseconds"], &headers).await
}

/// `GET /debug/profile/heap`: 200; 409 while another profile is taken; 501 when this build samples no allocations.
pub async fn heap(State(turn): State<Turn>, headers: HeaderMap) -> Result<Response, Problem> {
    let turn = turn.take()?;
    find_room();
    let Some(jemalloc) = &*PROF_CTL else {
        let detail =
            "This build samples no allocations: it was built without the settings in .cargo/config.toml.";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "heap_profile_off", detail));
    };
    let stacks = move || {
        let _turn = turn;
        jemalloc.blocking_lock().dump_profile()
    };
    answer(stacks, ["inuse_space", "bytes"], &headers).await
}

/// Both profilers write to a temporary file. In a container with a read-only root only its shared memory takes one.
fn find_room() {
    if tempfile::tempfile().is_err() {
        tempfile::env::override_temp_dir(Path::new("/dev/shm")).ok();
    }
}

fn cpu_stacks(report: &UnresolvedReport) -> StackProfile {
    let mut profile = StackProfile::default();
    let period = 1e9 / f64::from(FREQUENCY);
    // Leaf first, and the leaf is the profiler's own signal handler: the same few frames in all of them.
    let own = report.data.keys().find_map(|stack| stack.frames.iter().position(is_handler));
    let own = own.map_or(0, |handler| handler + SIGNAL_FRAMES);
    for (stack, count) in &report.data {
        let frames = stack.frames.iter().skip(own).rev();
        let addrs = frames.map(|frame| frame.ip() as usize).collect();
        profile.push_stack(WeightedStack { addrs, weight: *count as f64 * period }, None);
    }
    profile
}

fn is_handler(frame: &backtrace::Frame) -> bool {
    names(frame.ip() as usize).iter().any(|name| name == "perf_signal_handler")
}

/// The functions that an address in a stack belongs to: more than one where they were inlined, outermost last.
fn names(address: usize) -> Vec<String> {
    let mut names = Vec::new();
    // It is where the call returns to; the call itself comes before.
    backtrace::resolve((address - 1) as *mut c_void, |symbol| {
        names.extend(symbol.name().map(|name| format!("{name:#}")));
    });
    if names.is_empty() {
        names.push(format!("{address:#x}"));
    }
    names
}

/// The page draws what stands in it: first what is measured and in which unit, then each stack with its weight, root
/// first.
fn flame_graph(stacks: &StackProfile, [what, unit]: [&str; 2]) -> Vec<u8> {
    let (mut lines, mut known) = (format!("{what}\t{unit}\n"), HashMap::new());
    for (stack, _) in stacks.iter() {
        lines += &stack.weight.trunc().to_string();
        for address in &stack.addrs {
            for name in known.entry(*address).or_insert_with(|| names(*address)).iter().rev() {
                lines.push('\t');
                lines += name;
            }
        }
        lines.push('\n');
    }
    include_str!("flames.html")
        .replacen("STACKS", &lines.replace('&', "&amp;").replace('<', "&lt;"), 1)
        .into()
}

/// Off the runtime: putting names to addresses takes a while.
async fn answer(
    stacks: impl FnOnce() -> anyhow::Result<StackProfile> + Send + 'static,
    what: [&'static str; 2],
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let browser = accepted.contains("text/html");
    let render = move || {
        let (stacks, sample) = (stacks()?, what.into());
        anyhow::Ok(if browser { flame_graph(&stacks, what) } else { stacks.to_pprof(sample, sample, None) })
    };
    let body = spawn_blocking(render).await.map_err(|error| anyhow!(error)).flatten();
    let body = body.context("taking a profile").map_err(Problem::internal)?;
    let kind = if browser { "text/html; charset=utf-8" } else { "application/octet-stream" };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}
