//! The stop: its phases, and the clock that drives them.
//!
//! | From the signal | Phase | What happens |
//! |---|---|---|
//! | 0 | lame duck | everything is served, and every answer asks the client to go elsewhere |
//! | lame duck | closing | nobody new is let in, the accept queue is emptied, the listener goes, idle connections after a quiet moment |
//! | drain limit | cut | what still runs is answered with 503, or broken off if its answer has begun |
//! | budget | | a thread outside the runtime ends the process: `signals.rs` |
use crate::config::Shutdown;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};
use tokio::{sync::watch, time::Instant};

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Phase {
    Serving,
    LameDuck,
    Closing,
    Cut,
}

const PHASES: [Phase; 4] = [Phase::Serving, Phase::LameDuck, Phase::Closing, Phase::Cut];

/// What connections and requests listen to.
#[derive(Clone)]
pub struct Drain {
    announced: watch::Receiver<Phase>,
    shared: Arc<Shared>,
}

/// What is read in passing, without the lock that `announced` needs.
#[derive(Default)]
struct Shared {
    phase: AtomicU8,
    cut: Mutex<Cut>,
}

/// Requests cut, by route.
pub type Cut = BTreeMap<String, usize>;

impl Drain {
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.shared.phase.load(Relaxed))]
    }

    /// Waits until the server is in `phase`, or past it.
    pub async fn reached(&mut self, phase: Phase) {
        if self.announced.wait_for(|now| *now >= phase).await.is_err() {
            // Nobody is left to announce anything.
            std::future::pending().await
        }
    }

    /// Counts a request that was cut.
    pub fn cut(&self, route: &str) {
        let mut cut = self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner);
        *cut.entry(route.to_owned()).or_default() += 1;
    }
}

/// What announces the phases.
pub struct Conductor {
    announced: watch::Sender<Phase>,
    shared: Arc<Shared>,
    timeline: Shutdown,
}

impl Conductor {
    pub fn new(timeline: Shutdown) -> Self {
        Self { announced: watch::Sender::new(Phase::Serving), shared: Arc::default(), timeline }
    }

    pub fn drain(&self) -> Drain {
        Drain { announced: self.announced.subscribe(), shared: Arc::clone(&self.shared) }
    }

    /// The requests cut so far.
    pub fn cut(&self) -> Cut {
        self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leads `server` to its end: announces each phase at its time, counted from now. A process that nobody was sent to
    /// yet (`known` is false) has no load balancer to wait for.
    pub async fn lead<T>(&self, known: bool, server: impl Future<Output = T>) -> T {
        let start = Instant::now();
        self.announce(Phase::LameDuck);
        let timeline = async {
            if known {
                tokio::time::sleep_until(start + self.timeline.lame_duck).await;
            }
            self.announce(Phase::Closing);
            tokio::time::sleep_until(start + self.timeline.drain).await;
            self.announce(Phase::Cut);
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            result = server => result,
            never = timeline => match never {},
        }
    }

    fn announce(&self, phase: Phase) {
        match phase {
            Phase::Serving => {}
            Phase::LameDuck => tracing::info!("lame duck"),
            Phase::Closing => tracing::info!("closing"),
            Phase::Cut => tracing::warn!("drain limit reached"),
        }
        self.shared.phase.store(phase as u8, Relaxed);
        self.announced.send_replace(phase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TIMELINE: Shutdown = Shutdown {
        budget: Duration::from_secs(25),
        lame_duck: Duration::from_secs(5),
        drain: Duration::from_secs(20),
    };

    /// A server that ends `work` after it was told to close.
    async fn server(mut drain: Drain, work: Duration) {
        drain.reached(Phase::Closing).await;
        tokio::select! {
            () = tokio::time::sleep(work) => {}
            () = drain.reached(Phase::Cut) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_server_stops_right_after_its_lame_duck_time() {
        let (conductor, start) = (Conductor::new(TIMELINE), Instant::now());
        conductor.lead(true, server(conductor.drain(), Duration::ZERO)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_never_ready_waits_for_nobody() {
        let (conductor, start) = (Conductor::new(TIMELINE), Instant::now());
        conductor.lead(false, server(conductor.drain(), Duration::ZERO)).await;
        assert_eq!(start.elapsed().as_secs(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_still_runs_at_the_drain_limit_is_cut() {
        let (conductor, start) = (Conductor::new(TIMELINE), Instant::now());
        conductor.lead(true, server(conductor.drain(), Duration::from_secs(60))).await;
        assert_eq!(start.elapsed().as_secs(), 20);
        assert_eq!(conductor.drain().phase(), Phase::Cut);
    }
}
