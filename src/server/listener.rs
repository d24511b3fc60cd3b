//! The socket that clients come to, from the first to those who are on their way when it goes.
use socket2::SockRef;
use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted; the kernel may have a lower limit (`net.core.somaxconn`). Beyond it a client
/// tries again after a whole second, and 128, the usual default, is one burst.
const QUEUE: u32 = 4096;
/// After a failed accept (no file descriptors left, mostly): retrying at once would only burn the CPU.
const BACK_OFF: Duration = Duration::from_millis(50);
/// For a handshake that has begun: a round trip to most clients.
const HANDSHAKE: Duration = Duration::from_millis(100);

pub struct Listener {
    tcp: TcpListener,
    /// Somebody else holds it too, and it outlives this process.
    shared: bool,
}

impl Listener {
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart need not wait for the connections of the last process to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { tcp: socket.listen(QUEUE)?, shared: false })
    }

    /// One that was handed over, and that the giver keeps.
    ///
    /// # Errors
    /// When it cannot be used without blocking.
    pub fn shared(tcp: std::net::TcpListener) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        Ok(Self { tcp: TcpListener::from_std(tcp)?, shared: true })
    }

    /// # Errors
    /// Never, in practice.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection, of no runtime yet.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.tcp.accept().await.and_then(|(socket, peer)| Ok((socket.into_std()?, peer))) {
                Ok(accepted) => return accepted,
                // The client was gone before it was served.
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(cause = %error, "cannot accept a connection");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Turns a deaf ear to who begins to connect, and waits for those who have begun: they would be reset if the listener
    /// went between two steps of their handshake. Who is not heard tries again within a second, and finds the next
    /// process, or learns that there is none.
    pub async fn close_door(&self) {
        if !self.shared && drop_openings(&self.tcp).is_ok() {
            tokio::time::sleep(HANDSHAKE).await;
        }
    }

    /// What still waits in the queue: these clients believe that they are connected. Tokio's own accept would stop early,
    /// at what it has heard of the queue, and after 128 in one go.
    pub fn rest(self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        let listener = self.tcp.into_std().ok();
        let next = move || match listener.as_ref()?.accept() {
            Err(error) if is_the_clients(&error) => Some(None),
            accepted => accepted.ok().map(Some),
        };
        let accepted = std::iter::from_fn(next).flatten();
        accepted.filter(|(socket, _)| socket.set_nonblocking(true).is_ok())
    }
}

/// Lets the kernel drop what would open a connection, and nothing else: a program of the classic packet filter, which
/// sees TCP's header first.
#[cfg(target_os = "linux")]
fn drop_openings(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn drop_openings(_: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
