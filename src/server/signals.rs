//! SIGTERM and SIGINT, and the clock that starts with them; SIGUSR1, and the end of a changed log level: on a thread of
//! its own, so that a runtime whose workers are all blocked can neither miss a signal nor stretch the stop.
use crate::{runtime::level::LogLevel, telemetry};
use anyhow::Context;
use std::{process, sync::mpsc, thread, time::Duration};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::sleep,
};

/// What SIGUSR1 asks for: to be told more, and not for ever.
const DEBUG: (&str, Duration) = ("debug", Duration::from_mins(5));
/// Kept back from the budget for the last line.
const LAST_LINE: Duration = Duration::from_millis(200);

/// What the process is told from outside.
pub struct Signals {
    first: oneshot::Receiver<&'static str>,
    begin: Option<oneshot::Sender<&'static str>>,
}

impl Signals {
    /// To be called before anything else: a process with PID 1 ignores what it has no handler for.
    ///
    /// From the first signal to stop on the process has `budget` to end; then, or at a second one, it is ended with
    /// code 1.
    ///
    /// # Errors
    /// When there is no thread or no handler to be had.
    pub fn install(budget: Duration, level: LogLevel) -> anyhow::Result<Self> {
        let (begin, begun) = oneshot::channel();
        let (tell, first) = oneshot::channel();
        let (installed, result) = mpsc::channel();
        let watch = move || {
            let clock = match Clock::new(level) {
                Ok(clock) => clock,
                Err(error) => return drop(installed.send(Err(error))),
            };
            drop(installed.send(Ok(())));
            clock.run(begun, tell, budget);
        };
        thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
        result.recv().context("the signal thread")??;
        Ok(Self { first, begin: Some(begin) })
    }

    /// The name of the first signal to stop.
    pub async fn first(&mut self) -> &'static str {
        (&mut self.first).await.unwrap_or("the end of the signal thread")
    }

    /// Starts the clock without a signal, for a stop that the process decides on itself.
    pub fn begin(&mut self) {
        if let Some(begin) = self.begin.take() {
            // Too late when a signal has come in the meantime: the clock runs.
            begin.send("a fault").ok();
        }
    }
}

struct Clock {
    runtime: runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    user: Signal,
    level: LogLevel,
}

impl Clock {
    fn new(level: LogLevel) -> std::io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let user = signal(SignalKind::user_defined1())?;
        drop(inside);
        Ok(Self { runtime, terminate, interrupt, user, level })
    }

    fn run(
        mut self,
        begun: oneshot::Receiver<&'static str>,
        tell: oneshot::Sender<&'static str>,
        budget: Duration,
    ) {
        let (level, (debug, ttl)) = (self.level, DEBUG);
        let mut next = async || loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.user.recv() => level.change(debug, ttl, "SIGUSR1").unwrap_or_default(),
                () = level.restore() => {}
            }
        };
        self.runtime.block_on(async {
            let first = tokio::select! {
                signal = next() => signal,
                Ok(fault) = begun => fault,
            };
            tell.send(first).ok();
            tokio::select! {
                signal = next() => tracing::warn!(signal, "second signal: stopped at once"),
                () = sleep(budget.saturating_sub(LAST_LINE)) => {
                    tracing::error!(fatal = true, "shutdown budget used up");
                }
            }
        });
        telemetry::flush_lines(LAST_LINE);
        process::exit(1);
    }
}
