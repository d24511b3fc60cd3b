//! One server with everything it talks to behind proxies of its own, so that cases can run side by side.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    task::JoinSet,
};

use crate::{
    client::http1::{Answer, ask},
    process::{self, Server},
    proxy::{Mode, Proxy},
    upstream::Stub,
};

/// The binary under test, and the services that it may use.
#[derive(Clone, Debug)]
pub struct Setup {
    pub server: PathBuf,
    pub database_url: String,
    pub redis_url: String,
}

impl Setup {
    /// Brings the schema up to date.
    ///
    /// # Errors
    ///
    /// When the server's own command fails.
    pub async fn migrate(&self) -> Result<()> {
        let env = [("DATABASE_URL", self.database_url.as_str()), ("REDIS_URL", self.redis_url.as_str())];
        let output = process::run(&self.server, &["migrate"], &env).await?;
        ensure!(output.code == Some(0), "server migrate: {}{}", output.stdout, output.stderr);
        Ok(())
    }
}

/// A running server and what stands around it. Everything ends when this value is dropped.
pub struct Stage {
    pub server: Server,
    pub postgres: Proxy,
    pub redis: Proxy,
    /// In front of a collector that takes whatever it gets and never answers.
    pub collector: Proxy,
    pub upstream: Stub,
    /// In front of the upstream.
    pub preview: Proxy,
    _collector: JoinSet<()>,
}

/// Of the account that is signed up.
pub const PASSWORD: &str = "correct horse battery staple";

impl Stage {
    /// Starts the server with Postgres and Redis in `services`, and waits for its ports only. `prefix` keeps its keys apart.
    /// A URL whose `…_FILE` is among the settings is written to that file.
    ///
    /// # Errors
    ///
    /// When something cannot be started.
    pub async fn start(setup: &Setup, prefix: &str, services: Mode, env: &[(&str, &str)]) -> Result<Self> {
        let postgres = Proxy::start(address_of(&setup.database_url, 5432).await?).await?;
        let redis = Proxy::start(address_of(&setup.redis_url, 6379).await?).await?;
        let (sink, sink_task) = sink().await?;
        let collector = Proxy::start(sink).await?;
        let upstream = Stub::start().await?;
        let preview = Proxy::start(address_of(&upstream.url(), 80).await?).await?;
        postgres.set(services).await;
        redis.set(services).await;
        let mut server = Server::builder(&setup.server)
            .limit(Duration::from_secs(60))
            .env("REDIS_PREFIX", Self::prefix(prefix))
            .env("PREVIEW_URL", preview.url_for(&upstream.url())?)
            .env("RATE_LIMIT", "1000000/1m")
            .env("LOGIN_RATE_LIMIT", "1000000/1m");
        for (name, url) in [
            ("DATABASE_URL", postgres.url_for(&setup.database_url)?),
            ("REDIS_URL", redis.url_for(&setup.redis_url)?),
        ] {
            let file = format!("{name}_FILE");
            match env.iter().find(|(name, _)| *name == file) {
                Some((_, path)) => std::fs::write(path, url)?,
                None => server = server.env(name, url),
            }
        }
        for (name, value) in env {
            let value = if *value == COLLECTOR {
                format!("http://{}", collector.addr())
            } else {
                (*value).to_owned()
            };
            server = server.env(name, value);
        }
        let server = server.start().await?;
        Ok(Self { server, postgres, redis, collector, upstream, preview, _collector: sink_task })
    }

    /// What the keys of a server begin with.
    pub fn prefix(name: &str) -> String {
        format!("drill:{}:{name}:", std::process::id())
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.server.port()))
    }

    /// A connection to the public port.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn connect(&self) -> Result<TcpStream> {
        TcpStream::connect(self.address()).await.context("connecting to the server")
    }

    /// A new account's cookie, as a header line.
    ///
    /// # Errors
    ///
    /// When there is no 201.
    pub async fn sign_up(&self) -> Result<String> {
        let email = format!("drill-{}-{}@example.org", std::process::id(), self.server.pid());
        let body = format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#);
        let answer = expect(201, ask(self.address(), "POST /v1/accounts", "", &body).await?)?;
        let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next());
        Ok(format!("cookie: {}\r\n", cookie.context("signing up sets a cookie")?))
    }

    /// The path of a bookmark's preview, which nobody has asked for yet; `None` when the example is deleted.
    ///
    /// # Errors
    ///
    /// When there is neither 201 nor 404.
    pub async fn cold_preview(&self, cookie: &str) -> Result<Option<String>> {
        let url = format!("https://example.org/{}-{}", std::process::id(), self.server.pid());
        let body = format!(r#"{{"url":"{url}"}}"#);
        let answer = ask(self.address(), "POST /v1/bookmarks", cookie, &body).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let answer = expect(201, answer)?;
        let location = answer.header("location").context("a new bookmark has a location")?;
        Ok(Some(format!("{location}/preview")))
    }
}

/// In the place of a value: the address of the stage's collector.
pub const COLLECTOR: &str = "the collector";

/// The answer, if it has this status.
fn expect(status: u16, answer: Answer) -> Result<Answer> {
    ensure!(
        answer.status == status,
        "{status} expected: {}{}",
        answer.head,
        String::from_utf8_lossy(&answer.body)
    );
    Ok(answer)
}

/// Reads everything, and never answers.
async fn sink() -> Result<(SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    Ok((address, task))
}

/// Where the service of a URL listens.
async fn address_of(url: &str, default_port: u16) -> Result<SocketAddr> {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
    let host = authority.and_then(|authority| authority.rsplit('@').next()).context("a URL names a host")?;
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:{default_port}") };
    let mut addresses = lookup_host(&host).await.with_context(|| format!("looking up {host}"))?;
    // The proxy's other side is IPv4 loopback whatever this is.
    addresses.next().with_context(|| format!("{host} has no address"))
}
