//! Redis: one connection shared by all requests, replaced as soon as it is doubtful.
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

/// A handle on Redis. Clones share its connection.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

struct Shared {
    links: Links,
    prefix: String,
}

impl Redis {
    /// Connects when first used, so it can be had while Redis is down. Every key should come from [`Redis::key`], which
    /// begins it with `prefix`.
    ///
    /// # Errors
    /// When `url` is no Redis URL.
    pub fn new(url: &Secret, prefix: &str) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Shared { links: Links::to(url)?, prefix: prefix.to_owned() })))
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
    /// Takes at most 500 ms, less when the request has less time left. No blocking commands: all requests share the
    /// connection, and wait for one another's answers.
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

    /// Uses `url` from now on, as after a change of password. Calls under way go on. May wait 300 ms for a connect.
    ///
    /// # Errors
    /// When `url` is no Redis URL; nothing changes then.
    pub async fn turn_to(&self, url: &Secret) -> anyhow::Result<()> {
        self.0.links.turn_to(url).await
    }

    /// Every call to Redis goes through here.
    async fn call<T: FromRedisValue>(
        &self,
        operation: &'static str,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<Value>,
    ) -> Result<T, Error> {
        let mut call = Call::redis(operation);
        let deadline = request::deadline(CALL);
        let link = match timeout_at(deadline, self.0.links.get()).await {
            Ok(link) => link.map_err(|error| {
                call.fail("no_connection");
                Error::unavailable(operation, error)
            })?,
            Err(_) => {
                call.fail("no_connection");
                return Err(Error::late(operation));
            }
        };
        let patience = deadline.min(Instant::now() + RESPONSE);
        let Ok(result) = timeout_at(patience, ask(&mut link.connection())).await else {
            // A request in a hurry proves nothing about Redis.
            if patience < deadline {
                self.0.links.missed(&link);
            }
            call.fail("timeout");
            return Err(Error::late(operation));
        };
        self.0.links.heard(&link, &result);
        let value = result.map_err(|error| {
            call.fail("answer");
            Error::of(operation, error)
        })?;
        redis::from_redis_value(value).map_err(|error| Error::Answer(error.into()))
    }
}
