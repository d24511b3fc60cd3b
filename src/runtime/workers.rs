//! The threads that serve. Each runs its connections on a runtime of its own, from the first byte to the last: a request
//! never waits until another core is awake, and what it touches stays in its core's caches.
//!
//! The price: a handler that blocks holds up the other connections of its worker, and no other takes them over. So new
//! ones go to the others while it does, `/healthz` fails if it takes a second, and `/debug/stalls` names it.
use std::{cell::Cell, io, sync::Arc, thread};
use tokio::{
    runtime::{Builder, Handle},
    task::JoinHandle,
};

/// Clones are the same threads. They end with the process.
#[derive(Clone)]
pub struct Workers(Arc<[Worker]>);

pub struct Worker {
    pub runtime: Handle,
    /// Shared by what this worker was given and has not begun.
    waiting: Arc<()>,
}

thread_local! {
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which worker this thread is, counted from 0; `None` for all other threads.
pub fn here() -> Option<usize> {
    WORKER.get()
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count).map(Worker::start).collect::<io::Result<_>>().map(Self)
    }

    /// None but the caller's own runtime.
    pub fn none() -> Self {
        Self([Worker::on(Handle::current())].into())
    }

    pub fn runtimes(&self) -> impl ExactSizeIterator<Item = Handle> {
        self.0.iter().map(|worker| worker.runtime.clone())
    }

    /// The one with the least to do. Who has not even begun with the last it was given comes last.
    pub fn idlest(&self) -> &Worker {
        self.0.iter().min_by_key(|worker| worker.load()).expect("there is always one")
    }

    /// Runs a task on each.
    pub fn each<F>(&self, task: impl Fn() -> F) -> Vec<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.iter().map(|worker| worker.runtime.spawn(task())).collect()
    }

    /// Waits until each has shown that it still runs tasks.
    pub async fn answer(&self) {
        for answer in self.each(async || ()) {
            answer.await.ok();
        }
    }

    /// How many tasks have begun and not ended.
    pub fn tasks(&self) -> usize {
        self.0.iter().map(Worker::tasks).sum()
    }
}

impl Worker {
    fn on(runtime: Handle) -> Self {
        Self { runtime, waiting: Arc::default() }
    }

    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let worker = Self::on(runtime.handle().clone());
        thread::Builder::new().name("worker".to_owned()).spawn(move || {
            WORKER.set(Some(number));
            runtime.block_on(std::future::pending::<()>());
        })?;
        Ok(worker)
    }

    /// For a task that this worker is to get: to be dropped as its first step.
    pub fn waiting(&self) -> Arc<()> {
        Arc::clone(&self.waiting)
    }

    fn load(&self) -> (usize, usize) {
        (Arc::strong_count(&self.waiting), self.tasks())
    }

    fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, sync::mpsc, time::Duration};
    use tokio::{sync::oneshot, time::timeout};

    /// Gives what stays to the idlest worker, and waits until it has begun; which one that was.
    async fn give(workers: &Workers) -> Option<usize> {
        let (worker, (begun, begin)) = (workers.idlest(), oneshot::channel());
        let waiting = worker.waiting();
        worker.runtime.spawn(async move {
            drop(waiting);
            begun.send(here()).unwrap();
            pending::<()>().await
        });
        timeout(Duration::from_secs(10), begin).await.expect("it begins").unwrap()
    }

    #[tokio::test]
    async fn work_is_spread_evenly() {
        let workers = Workers::start(3).unwrap();
        let mut given = [0; 3];
        for _ in 0..30 {
            given[give(&workers).await.unwrap()] += 1;
        }
        assert_eq!(given, [10; 3]);
        assert_eq!(workers.tasks(), 30);
        assert_eq!(here(), None, "this thread is none of them");
    }

    #[tokio::test]
    async fn a_worker_that_is_held_does_not_answer_and_gets_no_more() {
        let workers = Workers::start(2).unwrap();
        let (free, (hold, held)) = (mpsc::channel::<()>(), oneshot::channel());
        workers.idlest().runtime.spawn(async move {
            hold.send(here()).unwrap();
            free.1.recv()
        });
        let held = held.await.unwrap();
        assert!(timeout(Duration::from_millis(100), workers.answer()).await.is_err());
        let waiting = workers.0[held.unwrap()].waiting();
        for _ in 0..10 {
            assert_ne!(give(&workers).await, held, "it has not begun with the last it was given");
        }
        drop((waiting, free.0));
        workers.answer().await;
        assert_eq!(give(&workers).await, held, "it is free again, and idle");
    }
}
