//! Profiles of the running process: where its time goes, and where its memory is. For `go tool pprof`, and as a flame
//! graph for a browser.
use crate::{
    http::{Problem, extract::Query},
    telemetry::logs,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jemalloc_pprof::{PROF_CTL, StackProfile, WeightedStack};
use nix::sys::signal::{Signal, raise};
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
    seconds: Option<u64>,
}

/// `GET /debug/profile/cpu?seconds=10`: 200 after that time; 409 while another one is taken; 422 for less than 1 or more
/// than 60 seconds.
pub async fn cpu(
    State(turn): State<Turn>,
    Query(Cpu { seconds }): Query<Cpu>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seconds = seconds.unwrap_or(10);
    if !(1..=LONGEST).contains(&seconds) {
        return Err(Problem::invalid("seconds", format!("must be 1 to {LONGEST}")));
    }
    let turn = turn.take()?;
    let profiler = blocking(|| {
        find_room();
        prepare_unwinder()?;
        Ok(ProfilerGuard::new(FREQUENCY)?)
    });
    let profiler = profiler.await?;
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
    let Some(jemalloc) = &*PROF_CTL else {
        let detail =
            "This build samples no allocations: it was built without the settings in .cargo/config.toml.";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "heap_profile_off", detail));
    };
    let stacks = move || {
        let _turn = turn;
        find_room();
        Ok(without_allocator(jemalloc.blocking_lock().dump_profile()?))
    };
    answer(stacks, ["inuse_space", "bytes"], &headers).await
}

/// Both profilers write to a temporary file. In a container with a read-only root only its shared memory takes one.
fn find_room() {
    if tempfile::tempfile().is_err() {
        tempfile::env::override_temp_dir(Path::new("/dev/shm")).ok();
    }
}

/// The unwinder reads the program's tables in its first signal, and allocates then: that one must not interrupt an
/// allocation. So it is sent to this thread, before the clock that sends the others ticks for the first time.
fn prepare_unwinder() -> anyhow::Result<()> {
    let _once_per_second = ProfilerGuard::new(1)?;
    Ok(raise(Signal::SIGPROF)?)
}

fn cpu_stacks(report: &UnresolvedReport) -> StackProfile {
    let mut profile = StackProfile::default();
    let period = 1e9 / f64::from(FREQUENCY);
    for (stack, count) in &report.data {
        // Root first; a walk may have ended at address 0.
        let addrs = stack.frames.iter().rev().map(|frame| frame.ip);
        let addrs = addrs.filter(|address| *address > 0).collect();
        profile.push_stack(WeightedStack { addrs, weight: *count as f64 * period }, None);
    }
    profile
}

/// Ends each stack where the allocator begins.
fn without_allocator(mut profile: StackProfile) -> StackProfile {
    let mut names = Names::default();
    for (stack, _) in &mut profile.stacks {
        let own = |address: &usize| names.of(*address).iter().any(|name| name.starts_with("_rjem_"));
        let end = stack.addrs.iter().position(own);
        stack.addrs.truncate(end.unwrap_or(stack.addrs.len()));
    }
    profile
}

/// The functions that an address in a stack belongs to: more than one where they were inlined, outermost last.
#[derive(Default)]
struct Names(HashMap<usize, Vec<String>>);

impl Names {
    fn of(&mut self, address: usize) -> &[String] {
        self.0.entry(address).or_insert_with(|| {
            let mut names = Vec::new();
            // It is where the call returns to; the call itself comes before.
            backtrace::resolve(address.saturating_sub(1) as *mut c_void, |symbol| {
                names.extend(symbol.name().map(|name| format!("{name:#}")));
            });
            if names.is_empty() {
                names.push(format!("{address:#x}"));
            }
            names
        })
    }
}

/// The page draws what stands in it: first what is measured and in which unit, then each stack with its weight.
fn flame_graph(profile: &StackProfile, [what, unit]: [&str; 2]) -> Vec<u8> {
    let (mut lines, mut names) = (format!("{what}\t{unit}"), Names::default());
    for (stack, _) in profile.iter() {
        lines += &format!("\n{:.0}", stack.weight);
        for address in &stack.addrs {
            for name in names.of(*address).iter().rev() {
                lines.push('\t');
                lines += name;
            }
        }
    }
    include_str!("flames.html")
        .replacen("STACKS", &lines.replace('&', "&amp;").replace('<', "&lt;"), 1)
        .into()
}

async fn answer(
    stacks: impl FnOnce() -> anyhow::Result<StackProfile> + Send + 'static,
    what: [&'static str; 2],
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let browser = accepted.contains("text/html");
    let body = blocking(move || {
        let (profile, sample) = (stacks()?, what.into());
        Ok(if browser { flame_graph(&profile, what) } else { profile.to_pprof(sample, sample, None) })
    });
    let kind = if browser { "text/html; charset=utf-8" } else { "application/octet-stream" };
    Ok(([(header::CONTENT_TYPE, kind)], body.await?).into_response())
}

/// Off the runtime: putting names to addresses takes a while.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = spawn_blocking(work).await.map_err(anyhow::Error::new).flatten();
    done.map_err(|error| {
        // This port has no line per request that would tell.
        tracing::error!(err = logs::err_json(&error), "profile failed");
        Problem::internal(error)
    })
}
