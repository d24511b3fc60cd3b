//! A TCP proxy that misbehaves on demand: refuses, freezes, swallows, delays, drips or resets what passes through it.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// What happens to connections until the next [`Proxy::set`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass unhindered.
    #[default]
    Pass,
    /// New connections are refused, as by a port that nobody listens on. Existing ones pass.
    Refuse,
    /// No byte and no close passes on any connection; new ones are accepted. What is held back passes afterwards.
    Freeze,
    /// As `Freeze`, and what connects meanwhile never gets an answer, not even afterwards.
    BlackHole,
    /// Each way takes this long, plus a random part of `jitter`. The order of bytes stays.
    Latency { each_way: Duration, jitter: Duration },
    /// Answers come one byte at a time, with this pause after each.
    Drip { pause: Duration },
    /// What would pass resets its connection instead.
    Reset,
}

/// A listener on a free port of loopback in front of one upstream. Dropping it ends its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    applied: watch::Receiver<Mode>,
    _tasks: JoinSet<Result<()>>,
}

struct Shared {
    upstream: SocketAddr,
    /// Connections so far; each one's number is how many came before it.
    accepted: AtomicUsize,
    mode: watch::Sender<Mode>,
    /// Connections with a lower number are frozen for good.
    frozen_below: watch::Sender<usize>,
    /// Connections with a lower number are reset.
    reset_below: watch::Sender<usize>,
}

impl Proxy {
    /// Starts in [`Mode::Pass`].
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            accepted: AtomicUsize::new(0),
            mode: watch::Sender::new(Mode::Pass),
            frozen_below: watch::Sender::new(0),
            reset_below: watch::Sender::new(0),
        });
        let listener = socket.listen(1024)?;
        let (announce, applied) = watch::channel(Mode::Pass);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).serve(listener, announce));
        Ok(Self { address, shared, applied, _tasks: tasks })
    }

    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `url` with the proxy in the place of its host and port.
    ///
    /// # Errors
    ///
    /// When `url` has no `scheme://`.
    pub fn url_for(&self, url: &str) -> Result<String> {
        let (scheme, rest) = url.split_once("://").context("a URL has a scheme")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let user = authority.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        Ok(format!("{scheme}://{user}{}{path}", self.address))
    }

    /// Switches to `mode`, and returns once it is in force.
    pub async fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        // Fails only when the proxy has ended, and then nothing passes anyway.
        drop(self.applied.clone().wait_for(|applied| *applied == mode).await);
    }

    /// Freezes the connections of now for good, as when a peer goes without a farewell; later ones are in the mode in force.
    pub fn freeze_existing(&self) {
        self.shared.frozen_below.send_replace(self.accepted());
    }

    /// Ends the connections of now with a reset, on both sides; later ones are in the mode in force.
    pub fn reset_existing(&self) {
        self.shared.reset_below.send_replace(self.accepted());
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}, {:?}", self.address, self.shared.upstream, *self.shared.mode.borrow())
    }
}

/// A bound socket that does not listen keeps its port, and refuses every connection.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn drip(bytes: &[u8], pause: Duration, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    for &byte in bytes {
        to.write_u8(byte).await?;
        sleep(pause).await;
    }
    Ok(())
}

impl Shared {
    /// Accepts in every mode but `Refuse`; tells through `applied` which one is in force.
    async fn serve(self: Arc<Self>, mut listener: TcpListener, applied: watch::Sender<Mode>) -> Result<()> {
        let address = listener.local_addr()?;
        let mut mode = self.mode.subscribe();
        let mut connections = JoinSet::new();
        loop {
            let now = *mode.borrow_and_update();
            if now == Mode::Refuse {
                drop(listener);
                let closed = bind(address)?;
                applied.send_replace(now);
                mode.wait_for(|mode| *mode != Mode::Refuse).await?;
                listener = closed.listen(1024)?;
                continue;
            }
            applied.send_replace(now);
            tokio::select! {
                changed = mode.changed() => changed?,
                Ok((client, _)) = listener.accept() => {
                    let number = self.accepted.fetch_add(1, SeqCst);
                    connections.spawn(Arc::clone(&self).connection(client, number));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self: Arc<Self>, mut client: TcpStream, number: usize) -> io::Result<()> {
        let mut reset = self.reset_below.subscribe();
        let reset = reset.wait_for(|below| number < *below);
        if *self.mode.borrow() == Mode::BlackHole {
            let mut nowhere = tokio::io::sink();
            let was_reset = tokio::select! {
                _ = reset => true,
                _ = tokio::io::copy(&mut client, &mut nowhere) => false,
            };
            return if was_reset { client.set_zero_linger() } else { Ok(()) };
        }
        let mut server = TcpStream::connect(self.upstream).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let was_reset = tokio::select! {
            _ = reset => true,
            relayed = self.relay(&mut client, &mut server, number) => relayed.is_err(),
        };
        if was_reset {
            client.set_zero_linger()?;
            server.set_zero_linger()?;
        }
        Ok(())
    }

    /// Until both directions have ended, or one has failed.
    async fn relay(&self, client: &mut TcpStream, server: &mut TcpStream, number: usize) -> io::Result<()> {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let up = self.direction(from_client, to_server, number, false);
        let down = self.direction(from_server, to_client, number, true);
        tokio::try_join!(up, down).map(drop)
    }

    /// Reading goes on while earlier bytes wait for their time, so that a delay does not lower the throughput much.
    async fn direction(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        number: usize,
        answers: bool,
    ) -> io::Result<()> {
        let (queue, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(64);
        let read = async move {
            loop {
                let mut bytes = vec![0; 16 * 1024];
                let length = from.read(&mut bytes).await?;
                bytes.truncate(length);
                let due = Instant::now() + self.delay();
                // Nothing read is the end, and is passed on like bytes are.
                if queue.send((due, bytes)).await.is_err() || length == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        let write = async {
            while let Some((due, bytes)) = waiting.recv().await {
                sleep_until(due).await;
                self.thawed(number).await;
                let mode = *self.mode.borrow();
                match mode {
                    Mode::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                    Mode::Drip { pause } if answers => drip(&bytes, pause, &mut to).await?,
                    _ => to.write_all(&bytes).await?,
                }
            }
            to.shutdown().await
        };
        tokio::try_join!(read, write).map(drop)
    }

    fn delay(&self) -> Duration {
        match *self.mode.borrow() {
            Mode::Latency { each_way, jitter } => each_way + jitter.mul_f64(crate::fraction()),
            _ => Duration::ZERO,
        }
    }

    /// Waits until bytes of connection `number` may pass.
    async fn thawed(&self, number: usize) {
        let (mut frozen_below, mut mode) = (self.frozen_below.subscribe(), self.mode.subscribe());
        loop {
            if number < *frozen_below.borrow_and_update() {
                return std::future::pending().await;
            }
            if !matches!(*mode.borrow_and_update(), Mode::Freeze | Mode::BlackHole) {
                return;
            }
            // Both senders live in `self`: neither wait can fail.
            tokio::select! {
                _ = frozen_below.changed() => {}
                _ = mode.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
