//! Panics, as log lines: one each, whatever thread they happen on.
use super::{logs, metrics, request, writer::LOG};
use std::{
    backtrace::Backtrace,
    io::{self, Write},
    panic::PanicHookInfo,
    time::Duration,
};

/// The last line may be the most important one: it is waited for, but never longer than this.
const FLUSH: Duration = Duration::from_millis(200);

/// Reports every panic from now on: one line of level 60 and a count; on stderr only while there is no log to take it.
pub fn install() {
    std::panic::set_hook(Box::new(report));
}

fn report(info: &PanicHookInfo<'_>) {
    metrics::panics();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("<unnamed>");
    let message = info.payload_as_str().unwrap_or("<not text>");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let stack = Backtrace::force_capture();
    if !tracing::enabled!(tracing::Level::ERROR) {
        // Not `eprintln`: it panics when stderr is closed, and a panic in here would abort.
        let _ = writeln!(io::stderr(), "panic in thread '{thread}' at {location}: {message}\n{stack}");
        return;
    }
    let err = logs::err_object("panic", message, &stack.to_string());
    tracing::error!(fatal = true, err, thread, location, "panic");
    // A handler's panic is survived: its worker has other requests, and must not wait for stdout.
    if request::with_current(|_| ()).is_none() {
        LOG.flush(FLUSH);
    }
}
