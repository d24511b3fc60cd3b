//! Sessions in Redis: one hash per account, token hash to session, and in it the account's rate limit, so that each
//! operation is one atomic round trip.
use super::{Token, rate_limit::Verdict};
use crate::{
    backing::redis::{Error, Redis},
    config::Config,
};
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
    life: Duration,
    create: Arc<Script>,
    lookup: Arc<Script>,
}

static REVOKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("revoke.lua")));
static END_ALL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("end_all.lua")));

impl Sessions {
    /// How long a session lives at most.
    pub fn life(&self) -> Duration {
        self.life
    }

    pub fn new(redis: Redis, config: &Config) -> Self {
        let (idle, life) = (config.session_idle, config.session_max);
        // Marking each request would double the writes; a 60th of the idle time is exact enough.
        let times = [idle, life, idle / 60].map(micros);
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
    ) -> anyhow::Result<Result<(Token, Session), Error>> {
        let token = Token::new(account_id)?;
        let handle = Uuid::now_v7();
        let user_agent: String = user_agent.chars().take(200).collect();
        let mut call = self.create.key(self.key(account_id));
        call.arg(token.hash()).arg(format!("{handle} {email} {user_agent}")).arg(u8::from(alone));
        let created: Result<u64, Error> = self.redis.script("session create", &call).await;
        Ok(created.map(|now| {
            let session = self.session(account_id, now, now, handle, email.to_owned(), user_agent);
            (token, session)
        }))
    }

    /// The session of a token, if it is alive, and the verdict of its account's rate limit.
    pub async fn find(&self, token: &Token) -> Result<Option<(Session, Verdict)>, Error> {
        let mut call = self.lookup.key(self.key(token.account()));
        call.arg(token.hash());
        let found: Option<String> = self.redis.script("session find", &call).await?;
        Ok(found.and_then(|found| {
            let mut parts = found.splitn(3, ' ');
            let verdict = Verdict::of(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some((self.parse(token.account(), parts.next()?)?, verdict))
        }))
    }

    /// The account's sessions, newest first.
    pub async fn list(&self, account_id: Uuid) -> Result<Vec<Session>, Error> {
        let values: Vec<String> =
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
            .run("session end", redis::cmd("HDEL").arg(self.key(token.account())).arg(token.hash()))
            .await
    }

    /// Ends one session of the account by its handle; `false` when there is none.
    pub async fn revoke(&self, account_id: Uuid, handle: Uuid) -> Result<bool, Error> {
        let mut call = REVOKE.key(self.key(account_id));
        call.arg(handle.to_string());
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

    fn parse(&self, account_id: Uuid, value: &str) -> Option<Session> {
        // No part but the last has a space in it.
        let mut parts = value.splitn(5, ' ');
        let (created, seen) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (handle, email) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
        Some(self.session(account_id, created, seen, handle, email, parts.next()?.to_owned()))
    }

    /// `created` and `seen` in microseconds since 1970, by Redis's clock.
    fn session(
        &self,
        account_id: Uuid,
        created: u64,
        seen: u64,
        handle: Uuid,
        email: String,
        user_agent: String,
    ) -> Session {
        let at = |micros: u64| DateTime::from_timestamp_micros(micros.cast_signed()).unwrap_or_default();
        let created_at = at(created);
        let (last_seen_at, expires_at) = (at(seen), created_at + self.life);
        Session { account_id, email, handle, user_agent, created_at, last_seen_at, expires_at }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
