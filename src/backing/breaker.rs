//! A circuit breaker: stops calling an upstream that keeps failing, and tries again with one call at a time.
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// It opens when, of so many calls or more ...
const CALLS: u32 = 20;
/// ... in the last so many seconds, half have failed.
const WINDOW: u64 = 10;
/// How long it stays open before a probe.
const OPEN: Duration = Duration::from_secs(5);
/// What callers are told to wait while a probe is under way.
const PROBE: Duration = Duration::from_secs(1);

/// Counts calls to one upstream. Every method takes the time, so that tests need not wait.
pub struct Breaker {
    start: Instant,
    state: Mutex<State>,
}

enum State {
    Closed(Window),
    /// Until then.
    Open(Instant),
    /// One call has been let through, and its outcome decides.
    Probing,
}

/// Calls by second: the slot of second `n` is `n % WINDOW`.
#[derive(Default)]
struct Window([Slot; WINDOW as usize]);

#[derive(Clone, Copy, Default)]
struct Slot {
    second: u64,
    calls: u32,
    failed: u32,
}

/// Leave to make one call. Dropped without an outcome, as when its request is cancelled, it counts for nothing.
#[must_use]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub fn new(now: Instant) -> Self {
        Self { start: now, state: Mutex::new(State::Closed(Window::default())) }
    }

    /// Asks for leave to make one call.
    ///
    /// # Errors
    /// When it is open: how long to wait before it makes sense to ask again.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut state = self.state();
        match *state {
            State::Closed(_) => Ok(Permit { breaker: self, probe: false }),
            State::Open(until) if now >= until => {
                *state = State::Probing;
                Ok(Permit { breaker: self, probe: true })
            }
            State::Open(until) => Err(until - now),
            State::Probing => Err(PROBE),
        }
    }

    /// Whether calls are let through.
    pub fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed(_))
    }

    fn settle(&self, probe: bool, failed: bool, now: Instant) {
        let mut state = self.state();
        match &mut *state {
            State::Closed(window) => {
                if window.add((now - self.start).as_secs(), failed) {
                    *state = State::Open(now + OPEN);
                }
            }
            State::Probing if probe => {
                *state = if failed { State::Open(now + OPEN) } else { State::Closed(Window::default()) };
            }
            // A call from before it opened.
            State::Open(_) | State::Probing => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Counts one call that ended in `second`, and tells whether too many have failed.
    fn add(&mut self, second: u64, failed: bool) -> bool {
        let slot = &mut self.0[(second % WINDOW) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.calls += 1;
        slot.failed += u32::from(failed);
        let recent = self.0.iter().filter(|slot| slot.second + WINDOW > second);
        let (calls, failures) = recent.fold((0, 0), |sum, slot| (sum.0 + slot.calls, sum.1 + slot.failed));
        calls >= CALLS && failures * 2 >= calls
    }
}

impl Permit<'_> {
    pub fn succeeded(self, now: Instant) {
        self.settle(false, now);
    }

    pub fn failed(self, now: Instant) {
        self.settle(true, now);
    }

    fn settle(mut self, failed: bool, now: Instant) {
        self.breaker.settle(std::mem::take(&mut self.probe), failed, now);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            // The probe told nothing: the next call is one.
            *self.breaker.state() = State::Open(self.breaker.start);
        }
    }
}

#[cfg(test)]
mod tests;
