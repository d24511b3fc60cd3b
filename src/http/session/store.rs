//! Sessions in Redis: one hash per account, token hash to session, and in it the account's rate limit, so that each
//! operation is one atomic round trip.
//!
//! A session is when it was created and last seen (each 8 bytes, little-endian, microseconds since 1970 by Redis's
//! clock), its handle (16 bytes), the email, a space and the user agent. Scripts take that apart in much less time than
//! text.
use super::Token;
use crate::{
    backing::redis::{Error, Redis},
    config::Config,
    http::Problem,
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use redis::Script;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};
use uuid::Uuid;

/// A session as Redis has it.
#[derive(Clone, Debug)]
pub struct Session {
    pub account_id: Uuid,
    pub email: String,
    /// Names the session in public; the token cannot be had from it.
    pub handle: Uuid,
    pub user_agent: String,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    /// The end of its life, however busy it is.
    pub expires_at: DateTime<Utc>,
}

/// The sessions of all accounts.
#[derive(Clone)]
pub struct Sessions {
    redis: Redis,
    idle: Duration,
    /// How long a session lives at most.
    pub life: Duration,
    create: Arc<Script>,
    lookup: Arc<Script>,
}

static REVOKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("revoke.lua")));
static END_ALL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("end_all.lua")));

impl Sessions {
    pub fn new(redis: Redis, config: &Config) -> Self {
        let (idle, life) = (config.session_idle, config.session_max);
        // Marking each request would double the writes; a 60th of the idle time is exact enough.
        let times = [idle, life, idle / 60].map(|time| time.as_micros());
        let times = format!("local idle, life, stale = {}, {}, {}\n", times[0], times[1], times[2]);
        let head = times + &super::rate_limit::gcra(config.rate_limit);
        let [create, lookup] = [include_str!("create.lua"), include_str!("lookup.lua")]
            .map(|script| Arc::new(Script::new(&format!("{head}{script}"))));
        Self { redis, idle, life, create, lookup }
    }

    /// Starts a session. With `alone`, every other session of the account ends in the same step.
    pub async fn create(
        &self,
        account_id: Uuid,
        email: &str,
        user_agent: &str,
        alone: bool,
    ) -> Result<(Token, Session), Problem> {
        let token = Token::new(account_id).map_err(Problem::internal)?;
        let user_agent: String = user_agent.chars().take(200).collect();
        let session = [Uuid::now_v7().as_bytes(), format!("{email} {user_agent}").as_bytes()].concat();
        let mut call = self.create.key(self.key(account_id));
        call.arg(&token.hash()).arg(session).arg(u8::from(alone));
        let stored: Vec<u8> = self.redis.script("session create", &call).await?;
        let session = self.parse(account_id, &stored).context("Redis stored no session");
        Ok((token, session.map_err(Problem::internal)?))
    }

    /// The session of a token, if it is alive, and its account's debt, as [`super::Limiter::verdict`] takes it.
    pub async fn find(&self, token: &Token) -> Result<Option<(Session, u64)>, Error> {
        let mut call = self.lookup.key(self.key(token.account()));
        call.arg(&token.hash());
        let found: Option<Vec<u8>> = self.redis.script("session find", &call).await?;
        Ok(found.and_then(|found| {
            let (debt, session) = number(&found)?;
            Some((self.parse(token.account(), session)?, debt.cast_unsigned()))
        }))
    }

    /// The account's sessions, newest first.
    pub async fn list(&self, account_id: Uuid) -> Result<Vec<Session>, Error> {
        let values: Vec<Vec<u8>> =
            self.redis.run("session list", redis::cmd("HVALS").arg(self.key(account_id))).await?;
        let now = Utc::now();
        let alive = |session: &Session| now < session.expires_at && now < session.last_seen_at + self.idle;
        let mut sessions: Vec<_> =
            values.iter().filter_map(|value| self.parse(account_id, value)).filter(alive).collect();
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(sessions)
    }

    /// Ends the session of a token.
    pub async fn end(&self, token: &Token) -> Result<(), Error> {
        self.redis
            .run("session end", redis::cmd("HDEL").arg(self.key(token.account())).arg(&token.hash()))
            .await
    }

    /// Ends one session of the account by its handle; `false` when there is none.
    pub async fn revoke(&self, account_id: Uuid, handle: Uuid) -> Result<bool, Error> {
        let mut call = REVOKE.key(self.key(account_id));
        call.arg(handle.as_bytes());
        self.redis.script("session revoke", &call).await
    }

    /// Ends every session of the account.
    pub async fn end_all(&self, account_id: Uuid) -> Result<(), Error> {
        self.redis.script("session end all", &END_ALL.key(self.key(account_id))).await
    }

    /// Braces make Redis Cluster keep an account's keys together.
    fn key(&self, account_id: Uuid) -> String {
        self.redis.key(format_args!("sessions:{{{account_id}}}"))
    }

    /// `None` for what is no session, as the limit.
    fn parse(&self, account_id: Uuid, value: &[u8]) -> Option<Session> {
        let (created, rest) = number(value)?;
        let (seen, rest) = number(rest)?;
        let (handle, rest) = rest.split_first_chunk()?;
        let (email, user_agent) = str::from_utf8(rest).ok()?.split_once(' ')?;
        let created_at = DateTime::from_timestamp_micros(created)?;
        Some(Session {
            account_id,
            email: email.to_owned(),
            handle: Uuid::from_bytes(*handle),
            user_agent: user_agent.to_owned(),
            created_at,
            last_seen_at: DateTime::from_timestamp_micros(seen)?,
            expires_at: created_at + self.life,
        })
    }
}

/// The number at the start, and what follows it.
fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i64::from_le_bytes(*number), rest))
}
