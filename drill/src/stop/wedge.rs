//! Wedged runtimes, made from outside: stops the server's main thread and its workers one by one, as a debugger does, and no
//! other thread.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::{sync::oneshot, task::JoinSet};

/// What the server calls them.
const WORKER: &str = "worker";

/// Stops every thread of the process that has a runtime, for the rest of its life. The process must be a child of this one, or the system
/// may forbid it.
///
/// # Errors
///
/// When there is no worker, or a thread cannot be stopped.
pub async fn wedge(process: u32) -> Result<JoinSet<()>> {
    let (stopped, result) = oneshot::channel();
    let mut keeper = JoinSet::new();
    // A traced thread belongs to the thread that traces it, which also has to see it off.
    keeper.spawn_blocking(move || match stop_runtimes(process) {
        Ok(workers) => {
            stopped.send(Ok(())).ok();
            workers.into_iter().for_each(see_off);
        }
        Err(error) => drop(stopped.send(Err(error))),
    });
    result.await??;
    Ok(keeper)
}

fn stop_runtimes(process: u32) -> Result<Vec<Pid>> {
    let workers = workers(process)?;
    ensure!(!workers.is_empty(), "no thread is called {WORKER}");
    // It has the process's number, and is seen off by whom waits for the process.
    let main = Pid::from_raw(process.try_into()?);
    for &thread in workers.iter().chain([&main]) {
        ptrace::seize(thread, ptrace::Options::empty()).context("tracing a thread")?;
        ptrace::interrupt(thread).context("stopping a thread")?;
        waitpid(thread, Some(WaitPidFlag::__WALL)).context("waiting for a thread to stop")?;
    }
    Ok(workers)
}

fn workers(process: u32) -> Result<Vec<Pid>> {
    let mut workers = Vec::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?;
        if fs::read_to_string(thread.path().join("comm"))?.trim_end() == WORKER {
            let id = thread.file_name().into_string().ok().and_then(|id| id.parse().ok());
            workers.push(Pid::from_raw(id.context("a thread's folder is named by its number")?));
        }
    }
    Ok(workers)
}

/// Waits for the thread's end. Until then it does not run.
fn see_off(worker: Pid) {
    while waitpid(worker, Some(WaitPidFlag::__WALL))
        .is_ok_and(|status| status.pid().is_some() && !ended(&status))
    {}
}

fn ended(status: &nix::sys::wait::WaitStatus) -> bool {
    use nix::sys::wait::WaitStatus::{Exited, Signaled};
    matches!(status, Exited(..) | Signaled(..))
}
