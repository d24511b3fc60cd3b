//! Redis: one connection per worker, shared by its requests, replaced as soon as it is doubtful.
//!
//! The crate's own `ConnectionManager` waits many seconds for a lost server, keeps a connection whose peer has fallen
//! silent, and never gets over a wrong password. Here a call answers or fails within half a second.
mod error;
mod link;
#[cfg(test)]
mod tests;

pub use error::Error;

use crate::{
    config::Secret,
    runtime::workers::{self, Workers},
    telemetry::{call::Call, request},
};
use link::Links;
use redis::{Cmd, FromRedisValue, RedisResult, ScriptInvocation, Value, aio::MultiplexedConnection};
use std::{
    fmt::{Display, Write},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Longest time for one call, a connect included.
const CALL: Duration = Duration::from_millis(500);
/// Longest wait for an answer once connected.
const RESPONSE: Duration = Duration::from_millis(250);

/// A handle on Redis. Clones share its connections.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

struct Shared {
    /// The first is for whom is no worker.
    links: Box<[Links]>,
    prefix: String,
}

impl Redis {
    /// Connects when first used, so it can be had while Redis is down: at most once for each of `workers`, and once for
    /// the rest of the process. Every key should come from [`Redis::key`], which begins it with `prefix`.
    ///
    /// # Errors
    /// When `url` is no Redis URL.
    pub fn new(url: &Secret, prefix: &str, workers: &Workers) -> anyhow::Result<Self> {
        let links = (0..=workers.runtimes().len()).map(|_| Links::to(url)).collect::<anyhow::Result<_>>()?;
        Ok(Self(Arc::new(Shared { links, prefix: prefix.to_owned() })))
    }

    /// The key called `name`, in this service's part of the key space: `redis.key(format_args!("session:{id}"))`.
    pub fn key(&self, name: impl Display) -> String {
        // Room for any of ours: a text that grows is copied each time.
        let mut key = String::with_capacity(128);
        write!(key, "{}{name}", self.0.prefix).expect("writing to memory cannot fail");
        key
    }

    /// Sends one command. `operation` names it in metrics and spans: `"GET session"`, from a fixed set.
    ///
    /// Takes at most 500 ms, less when the request has less time left. No blocking commands: the requests of a worker share
    /// a connection, and wait for one another's answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no answer in that time, [`Error::Answer`] when it is not the expected one.
    pub async fn run<T: FromRedisValue>(&self, operation: &'static str, command: &Cmd) -> Result<T, Error> {
        self.call(operation, async |link| command.query_async(link).await).await
    }

    /// Runs a script: `redis.script("limit", SCRIPT.key(key).arg(1))`. One round trip, three when Redis does not know the
    /// script yet. Else as [`Redis::run`].
    pub async fn script<T: FromRedisValue>(
        &self,
        operation: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Error> {
        self.call(operation, async |link| script.invoke_async(link).await).await
    }

    /// Asks for a sign of life, within 500 ms.
    ///
    /// # Errors
    /// As for [`Redis::run`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.run("PING", &redis::cmd("PING")).await
    }

    /// Uses `url` from now on, as after a change of password. Calls under way go on. May wait 300 ms for each connect.
    ///
    /// # Errors
    /// When `url` is no Redis URL; nothing changes then.
    pub async fn turn_to(&self, url: &Secret) -> anyhow::Result<()> {
        for links in &self.0.links {
            links.turn_to(url).await?;
        }
        Ok(())
    }

    /// Every call to Redis goes through here.
    async fn call<T: FromRedisValue>(
        &self,
        operation: &'static str,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<Value>,
    ) -> Result<T, Error> {
        let mut call = Call::redis(operation);
        let deadline = request::deadline(CALL);
        let links = &self.0.links[workers::here().map_or(0, |worker| worker + 1)];
        let link = match timeout_at(deadline, links.get()).await {
            Ok(connected) => connected.map_err(|error| Error::unavailable(operation, error)),
            Err(_) => Err(Error::late(operation)),
        };
        let link = link.inspect_err(|_| call.fail("no_connection"))?;
        let patience = deadline.min(Instant::now() + RESPONSE);
        let Ok(result) = timeout_at(patience, ask(&mut link.connection())).await else {
            // A request in a hurry proves nothing about Redis.
            if patience < deadline {
                links.missed(&link);
            }
            call.fail("timeout");
            return Err(Error::late(operation));
        };
        links.heard(&link, &result);
        let value = result.map_err(|error| {
            call.fail("answer");
            Error::of(operation, error)
        })?;
        redis::from_redis_value(value).map_err(|error| Error::Answer(error.into()))
    }
}
