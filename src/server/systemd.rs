//! What systemd gives and wants, when it started the process; else nothing of this does anything.
use super::listener::Listener;
use crate::runtime::workers::Workers;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::{convert::Infallible, io, net::SocketAddr};

/// Sockets that the supervisor holds across restarts, so that none of them loses a connection.
pub struct Sockets {
    given: ListenFd,
    next: usize,
}

impl Sockets {
    pub fn from_supervisor() -> Self {
        Self { given: ListenFd::from_env(), next: 0 }
    }

    /// The next socket handed over (the public one comes first in the unit), else a new one on `address`.
    ///
    /// # Errors
    /// When the address cannot be bound, or what was handed over is no TCP listener.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<Listener> {
        let given = self.given.take_tcp_listener(self.next)?;
        self.next += 1;
        given.map_or_else(|| Listener::bind(address), Listener::shared)
    }
}

/// The process serves.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// The stop has begun.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Tells the watchdog, twice in its time, that every worker still runs tasks.
pub async fn keep_alive(workers: Workers) -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut due = tokio::time::interval(limit / 2);
    loop {
        due.tick().await;
        workers.answer().await;
        tell(NotifyState::Watchdog);
    }
}

fn tell(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(cause = %error, "systemd does not listen");
    }
}
