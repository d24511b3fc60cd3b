//! A balancer as a Kubernetes Service is one: each new connection goes to the next ready backend, and nothing is tried
//! twice unless that is asked for.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use crate::process;

/// As the readiness probe in deploy/deployment.yaml: so often, and so many failures in a row.
const PERIOD: Duration = Duration::from_secs(2);
const THRESHOLD: u32 = 2;

/// A port of loopback in front of servers that come and go.
pub struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    backends: Mutex<Vec<Backend>>,
    turn: AtomicUsize,
    redispatch: AtomicBool,
}

#[derive(Clone)]
struct Backend {
    port: u16,
    ops_port: u16,
    ready: bool,
    failures: u32,
    open: Arc<AtomicUsize>,
}

impl Balancer {
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, shared) = (listener.local_addr()?, Arc::new(Shared::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        tasks.spawn(watch(Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a backend, and waits until it gets connections.
    ///
    /// # Errors
    ///
    /// When it is not ready within 30 s.
    pub async fn add(&self, port: u16, ops_port: u16) -> Result<()> {
        let backend = Backend { port, ops_port, ready: false, failures: 0, open: Arc::default() };
        self.shared.backends().push(backend);
        let limit = Instant::now() + Duration::from_secs(30);
        while !self.shared.is_ready(port) {
            ensure!(Instant::now() < limit, "the server on port {port} is not ready after 30 s");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Forgets a backend, as when a supervisor tells that its process is gone.
    pub fn remove(&self, port: u16) {
        self.shared.backends().retain(|backend| backend.port != port);
    }

    /// How many connections go to this backend now.
    pub fn open(&self, port: u16) -> usize {
        let backends = self.shared.backends();
        backends.iter().find(|backend| backend.port == port).map_or(0, |backend| backend.open.load(Relaxed))
    }

    /// From now on a connection that one backend refuses goes to the next, as proxies in front of a service do it: a
    /// killed process cannot say beforehand that it goes.
    pub fn redispatch(&self) {
        self.shared.redispatch.store(true, Relaxed);
    }
}

impl Shared {
    fn backends(&self) -> MutexGuard<'_, Vec<Backend>> {
        self.backends.lock().expect("no holder of this lock can panic")
    }

    fn is_ready(&self, port: u16) -> bool {
        self.backends().iter().any(|backend| backend.port == port && backend.ready)
    }

    fn next(&self) -> Option<Backend> {
        let ready: Vec<Backend> = self.backends().iter().filter(|backend| backend.ready).cloned().collect();
        let turn = self.turn.fetch_add(1, Relaxed);
        (!ready.is_empty()).then(|| ready[turn % ready.len()].clone())
    }

    /// A connection to the next ready backend that takes it.
    async fn connect(&self) -> Option<(Backend, TcpStream)> {
        let tries = if self.redispatch.load(Relaxed) { self.backends().len() } else { 1 };
        for _ in 0..tries {
            let backend = self.next()?;
            if let Ok(connection) = TcpStream::connect(("127.0.0.1", backend.port)).await {
                return Some((backend, connection));
            }
        }
        None
    }

    /// One failure is none yet, but one success is enough.
    fn note(&self, port: u16, answers: bool) {
        if let Some(backend) = self.backends().iter_mut().find(|backend| backend.port == port) {
            backend.failures = if answers { 0 } else { backend.failures + 1 };
            backend.ready = answers || (backend.ready && backend.failures < THRESHOLD);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(pass(client, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(mut client: TcpStream, shared: Arc<Shared>) {
    let Some((backend, mut server)) = shared.connect().await else {
        return;
    };
    backend.open.fetch_add(1, Relaxed);
    // Without these a pause of Nagle's would be counted against the service.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    drop(copy_bidirectional(&mut client, &mut server).await);
    backend.open.fetch_sub(1, Relaxed);
}

/// Asks every backend for its readiness, all of them once in each period; one that was never ready more often.
async fn watch(shared: Arc<Shared>) {
    let mut round = 0_u32;
    loop {
        let due = Instant::now() + PERIOD / 20;
        let backends = shared.backends().clone();
        let asked = backends.into_iter().filter(|backend| round.is_multiple_of(20) || !backend.ready);
        for backend in asked {
            let limit = Instant::now() + Duration::from_secs(1);
            let answer = timeout_at(limit, process::status(backend.ops_port, "/readyz")).await;
            shared.note(backend.port, answer.is_ok_and(|status| status.is_ok_and(|status| status == 200)));
        }
        tokio::time::sleep_until(due).await;
        round = round.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(ready: &[bool]) -> Shared {
        let backend = |(port, &ready): (usize, &bool)| Backend {
            port: u16::try_from(port).unwrap(),
            ops_port: 0,
            ready,
            failures: 0,
            open: Arc::default(),
        };
        let shared = Shared::default();
        *shared.backends() = ready.iter().enumerate().map(backend).collect();
        shared
    }

    #[test]
    fn connections_go_to_the_ready_backends_in_turn() {
        let shared = shared(&[true, false, true]);
        let ports: Vec<u16> = (0..4).filter_map(|_| shared.next()).map(|backend| backend.port).collect();
        assert_eq!(ports, [0, 2, 0, 2]);
    }

    #[test]
    fn a_backend_goes_after_two_failures_and_comes_back_after_one_success() {
        let shared = shared(&[true]);
        let after = |answers| {
            shared.note(0, answers);
            shared.is_ready(0)
        };
        assert_eq!([false, true, false, false, true].map(after), [true, true, true, false, true]);
    }
}
