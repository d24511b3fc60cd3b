//! Profiles of the running process: where its time goes, and where its memory is. For `go tool pprof`, and as a flame
//! graph for a browser.
use crate::http::{Problem, extract::Query};
use anyhow::{Context, anyhow};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jemalloc_pprof::{FlamegraphOptions, PROF_CTL, StackProfile, WeightedStack};
use pprof::{ProfilerGuard, UnresolvedReport};
use serde::Deserialize;
use std::{path::Path, sync::Arc, time::Duration};
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
    let mut found = false;
    backtrace::resolve_frame(frame, |symbol| {
        found |= symbol.name().is_some_and(|name| name.as_bytes() == b"perf_signal_handler");
    });
    found
}

/// Off the runtime: names are put to addresses, which takes a while.
async fn answer(
    stacks: impl FnOnce() -> anyhow::Result<StackProfile> + Send + 'static,
    [what, unit]: [&'static str; 2],
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let browser = ["text/html", "image/svg+xml"].iter().any(|kind| accepted.contains(kind));
    let render = move || {
        let stacks = stacks()?;
        if !browser {
            return anyhow::Ok(Some(stacks.to_pprof((what, unit), (what, unit), None)));
        }
        if stacks.stacks.is_empty() {
            return Ok(None);
        }
        let mut options = FlamegraphOptions::default();
        (options.title, options.count_name) = (what.to_owned(), unit.to_owned());
        stacks.to_flamegraph(&mut options).map(Some)
    };
    let body = spawn_blocking(render).await.map_err(|error| anyhow!(error)).flatten();
    let detail = "There was nothing to sample: ask for more seconds, or while the service has work to do.";
    let idle = || Problem::new(StatusCode::NOT_FOUND, "no_samples", detail);
    let body = body.context("taking a profile").map_err(Problem::internal)?.ok_or_else(idle)?;
    let kind = if browser { "image/svg+xml" } else { "application/octet-stream" };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}
