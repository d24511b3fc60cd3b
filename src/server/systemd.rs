//! What systemd gives and wants, when it started the process; else nothing of this does anything.
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::{convert::Infallible, io, net::SocketAddr};
use tokio::net::{TcpListener, TcpSocket};

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
    pub async fn listen(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        let given = self.given.take_tcp_listener(self.next)?;
        self.next += 1;
        let Some(listener) = given else {
            return bind(address);
        };
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }
}

/// Connections that may wait to be accepted; the kernel may have a lower limit (`net.core.somaxconn`). Beyond it a client
/// tries again after a whole second, and 128, the usual default, is one burst.
const QUEUE: u32 = 4096;

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait for the connections of the last process to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// The process serves.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// The stop has begun.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Tells the watchdog, twice in its time, that the runtime still runs tasks.
pub async fn keep_alive() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut due = tokio::time::interval(limit / 2);
    loop {
        due.tick().await;
        tell(NotifyState::Watchdog);
    }
}

fn tell(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(cause = %error, "systemd does not listen");
    }
}
