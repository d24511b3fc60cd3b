//! The two ways to ask. In a closed loop the next request follows an answer, as from a fixed number of patient clients;
//! in an open one it begins when it is due, whatever became of those before, as from the world.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::samples::{Ask, Recorder};

/// How often an open loop looks what is due.
const TICK: Duration = Duration::from_millis(2);

/// Where requests come from; called once for each.
pub trait Source: FnMut() -> Ask + Send + 'static {}
impl<F: FnMut() -> Ask + Send + 'static> Source for F {}

/// An open loop that runs until it is stopped.
pub struct Open {
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Open {
    /// Starts so many requests a second.
    pub fn start(recorder: &Arc<Recorder>, rate: f64, next: impl Source) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(recorder), rate, next, stopped));
        Self { stop, task }
    }

    /// Starts no more, and waits for what is under way.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.task.join_next().await.is_some() {}
    }
}

async fn run(recorder: Arc<Recorder>, rate: f64, mut next: impl Source, stopped: watch::Receiver<bool>) {
    let start = Instant::now();
    let mut requests = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut sent, mut due) = (0_u64, start);
    while !*stopped.borrow() {
        ticks.tick().await;
        while due <= Instant::now() {
            let (recorder, ask) = (Arc::clone(&recorder), next());
            requests.spawn(async move { recorder.record(&ask, due).await });
            sent += 1;
            due = start + Duration::from_secs_f64(sent as f64 / rate);
        }
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

/// A closed loop of so many clients.
pub async fn closed(recorder: &Arc<Recorder>, clients: usize, time: Duration, mut next: impl Source) {
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (recorder, ask) = (Arc::clone(recorder), next());
        running.spawn(async move { recorder.record(&ask, Instant::now()).await });
    }
    while running.join_next().await.is_some() {
        if Instant::now() < end {
            let (recorder, ask) = (Arc::clone(recorder), next());
            running.spawn(async move { recorder.record(&ask, Instant::now()).await });
        }
    }
    sleep_until(end).await;
}

/// Watches how late this thread comes to its work. What is late here says nothing of the server.
pub struct Lag {
    worst: watch::Receiver<Duration>,
    _task: JoinSet<()>,
}

impl Lag {
    pub fn watch() -> Self {
        let (worst, seen) = watch::channel(Duration::ZERO);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let due = Instant::now() + TICK;
                sleep_until(due).await;
                worst.send_if_modified(|worst| {
                    let late = due.elapsed();
                    let is_worse = late > *worst;
                    *worst = late.max(*worst);
                    is_worse
                });
            }
        });
        Self { worst: seen, _task: task }
    }

    pub fn worst(&self) -> Duration {
        *self.worst.borrow()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::samples::{Kind, Outcome};

    fn ask() -> Ask {
        Ask { kind: Kind::Anonymous, request: "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".into() }
    }

    #[tokio::test]
    async fn an_open_loop_does_not_wait_for_answers_and_counts_from_when_they_were_due() {
        // Accepts, and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = Recorder::new(address, 100, Duration::from_millis(300));
        let open = Open::start(&recorder, 100.0, ask);
        tokio::time::sleep(Duration::from_millis(500)).await;
        open.stop().await;
        let samples = recorder.samples();
        assert!((40..=60).contains(&samples.len()), "{}", samples.len());
        assert!(samples.iter().all(|sample| sample.outcome == Outcome::Late));
        assert!(samples.iter().all(|sample| sample.took >= Duration::from_millis(300)));
    }

    #[tokio::test]
    async fn a_request_of_an_open_loop_begins_when_it_is_due() {
        let (listener, mut tasks) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), JoinSet::new());
        let recorder = Recorder::new(listener.local_addr().unwrap(), 100, Duration::from_secs(1));
        tasks.spawn(async { axum::serve(listener, axum::Router::new()).await.unwrap() });
        let open = Open::start(&recorder, 10.0, ask);
        tokio::time::sleep(Duration::from_millis(350)).await;
        open.stop().await;
        let samples = recorder.samples();
        assert_eq!(samples.len(), 4);
        assert!(samples.iter().all(|sample| sample.took < Duration::from_millis(50)), "{samples:?}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_from_a_lost_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let recorder = Recorder::new(address, 1, Duration::from_secs(1));
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 100]).await.unwrap();
        });
        assert_eq!(recorder.record(&ask(), Instant::now()).await.outcome, Outcome::Lost);
        while tasks.join_next().await.is_some() {}
        assert_eq!(recorder.record(&ask(), Instant::now()).await.outcome, Outcome::Refused);
    }
}
