//! The connection: made when needed, by one caller for all, and given up when it stops answering.
use super::error;
use crate::config::Secret;
use anyhow::Context;
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, RedisResult, Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Longest time for one connect, TLS and password included.
const CONNECT: Duration = Duration::from_millis(300);
/// After a failed connect, callers get its error for so long, instead of queueing up for one attempt each.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// So many answers in a row that did not come in time mean that the peer is gone, though the connection stands.
const SILENCES: u32 = 3;
/// A connection lives at least so long when it is given up for its peer's sake: the next may have the same peer.
pub(super) const REPLACE: Duration = Duration::from_secs(2);
/// Commands waiting to be written; the rest wait at their callers.
const QUEUE: usize = 256;

pub(super) struct Links {
    target: RwLock<Target>,
    /// Held while connecting. The last failure, and when it came.
    connecting: Mutex<Option<(Instant, RedisError)>>,
}

struct Target {
    client: Client,
    link: Option<Arc<Link>>,
}

pub(super) struct Link {
    connection: MultiplexedConnection,
    made: Instant,
    silences: AtomicU32,
}

impl Link {
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

impl Links {
    pub(super) fn to(url: &Secret) -> anyhow::Result<Self> {
        let target = Target { client: client(url)?, link: None };
        Ok(Self { target: RwLock::new(target), connecting: Mutex::new(None) })
    }

    pub(super) async fn turn_to(&self, url: &Secret) -> anyhow::Result<()> {
        let target = Target { client: client(url)?, link: None };
        let mut failure = self.connecting.lock().await;
        *self.write() = target;
        *failure = None;
        Ok(())
    }

    /// The connection, made anew if there is none.
    pub(super) async fn get(&self) -> RedisResult<Arc<Link>> {
        if let Some(link) = self.present() {
            return Ok(link);
        }
        let mut failure = self.connecting.lock().await;
        if let Some(link) = self.present() {
            return Ok(link);
        }
        if let Some((at, error)) = &*failure
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        let client = self.read().client.clone();
        // Rare and large: each call's future would have room for it.
        match Box::pin(connect(&client)).await {
            Ok(link) => {
                self.write().link = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                *failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Draws the conclusions from what `link` has answered.
    pub(super) fn heard(&self, link: &Arc<Link>, result: &RedisResult<Value>) {
        link.silences.store(0, Relaxed);
        let Err(error) = result else { return };
        if error.is_unrecoverable_error() || error::is_wrong_peer(error) && link.made.elapsed() > REPLACE {
            self.give_up(link);
        }
    }

    /// `link` has not answered in time.
    pub(super) fn missed(&self, link: &Arc<Link>) {
        if link.silences.fetch_add(1, Relaxed) + 1 >= SILENCES && link.made.elapsed() > REPLACE {
            self.give_up(link);
        }
    }

    /// Makes the next caller connect anew, unless another has seen to it.
    fn give_up(&self, link: &Arc<Link>) {
        let mut target = self.write();
        if target.link.as_ref().is_some_and(|present| Arc::ptr_eq(present, link)) {
            target.link = None;
        }
    }

    fn present(&self) -> Option<Arc<Link>> {
        self.read().link.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Target> {
        self.target.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Target> {
        self.target.write().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(client: &Client) -> RedisResult<Arc<Link>> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        // Callers wait for their answers by themselves.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok(Arc::new(Link { connection, made: Instant::now(), silences: AtomicU32::new(0) }))
}

fn client(url: &Secret) -> anyhow::Result<Client> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    // The parser's own message may quote the URL, and with it the password.
    let info = url.expose().into_connection_info().ok().context("not a Redis URL")?;
    Ok(Client::open(info.set_tcp_settings(settings))?)
}
