//! Calls to other services over HTTP: the only maker of HTTP clients.
use super::breaker::Breaker;
use crate::{
    config::Secret,
    telemetry::{
        metrics,
        request::{self, Part, Stopwatch},
        traces::ClientSpan,
    },
};
use anyhow::{Context, anyhow, ensure};
use opentelemetry::KeyValue;
use reqwest::{Client, Method, Response, StatusCode, header, redirect};
use serde::de::DeserializeOwned;
use std::{
    error, fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use url::Url;

const CONNECT: Duration = Duration::from_secs(1);
/// Shorter than what load balancers grant, so that a connection is rarely closed just as it is used.
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 32;
/// A busy connection would live for ever, and the upstream's name never be looked up again.
const LIFE: Duration = Duration::from_mins(5);
/// Longest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A handle on one upstream. Clones share its connections and its breaker.
#[derive(Clone)]
pub struct Outbound(Arc<Upstream>);

struct Upstream {
    client: Mutex<Fresh>,
    base: Url,
    timeout: Duration,
    breaker: Breaker,
}

/// A client and when to replace it.
struct Fresh {
    client: Client,
    expires: Instant,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum Error {
    /// Not called: too many calls have failed lately.
    Open { retry_after: Duration },
    /// Not done in time.
    Timeout,
    /// An error status, no JSON, too long, or not of the expected shape.
    BadAnswer(anyhow::Error),
    /// Refused, broken off, or its name is unknown.
    Unreachable(anyhow::Error),
}

impl Outbound {
    /// For the service at `base`; each call takes at most `timeout`.
    ///
    /// No redirects are followed and no proxy is taken from the environment: nothing leads to another host.
    ///
    /// # Errors
    /// When `base` is not an HTTP URL, or there is no TLS provider or root certificate.
    pub fn new(base: &Secret, timeout: Duration) -> anyhow::Result<Self> {
        let base = Url::parse(base.expose()).ok().context("not a URL")?;
        ensure!(matches!(base.scheme(), "http" | "https") && base.has_host(), "not an HTTP URL");
        let (client, breaker) = (Mutex::new(Fresh::new()?), Breaker::new(Instant::now()));
        Ok(Self(Arc::new(Upstream { client, base, timeout, breaker })))
    }

    /// Whether it has answered well enough lately to be called.
    pub fn is_up(&self) -> bool {
        self.0.breaker.is_closed()
    }

    /// Fetches the JSON at `path` below the base URL. Takes at most this client's time-out, less when the request has
    /// less time left, and reads at most 64 KiB.
    ///
    /// # Errors
    /// As the variants of [`Error`] say. Each one but `Open` counts against the upstream, unless it only declined this
    /// request (4xx) or was given less than its usual time.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Error> {
        let _stopwatch = Stopwatch::start(Part::Outbound);
        let upstream = &*self.0;
        let admitted = upstream.breaker.admit(Instant::now());
        let permit = admitted.map_err(|retry_after| Error::Open { retry_after })?;
        let limit = request::at_most(upstream.timeout);
        let result = timeout(limit, upstream.fetch(path, query)).await.unwrap_or(Err(Error::Timeout));
        match result {
            Err(Error::Timeout) if limit < upstream.timeout => drop(permit),
            Err(_) => permit.failed(Instant::now()),
            Ok(_) => permit.succeeded(Instant::now()),
        }
        result?.map_err(Error::BadAnswer)
    }
}

impl Upstream {
    /// An inner error is about this request only: the upstream is well.
    async fn fetch<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<anyhow::Result<T>, Error> {
        let response = self.send(self.url(path, query)).await?;
        let status = response.status();
        if declines(status) {
            return Ok(Err(anyhow!("status {status}")));
        }
        if !status.is_success() {
            return Err(Error::BadAnswer(anyhow!("status {status}")));
        }
        if !is_json(&response) {
            return Err(Error::BadAnswer(anyhow!("not JSON")));
        }
        let body = read(response).await?;
        serde_json::from_slice(&body).map(Ok).map_err(|error| Error::BadAnswer(misread(&error)))
    }

    /// Sends the request under a span of its own, and counts how it went.
    async fn send(&self, url: Url) -> Result<Response, Error> {
        let host = self.base.host_str().unwrap_or_default();
        let mut span = ClientSpan::start("GET", || {
            vec![
                KeyValue::new("http.request.method", "GET"),
                KeyValue::new("server.address", host.to_owned()),
            ]
        });
        let client = self.client();
        let mut request =
            client.get(url).header(header::ACCEPT, "application/json").build().map_err(Error::of)?;
        span.inject(request.headers_mut());
        let start = Instant::now();
        let result = client.execute(request).await.map_err(Error::of);
        match &result {
            Ok(response) => {
                span.set(|| KeyValue::new("http.response.status_code", i64::from(response.status().as_u16())))
            }
            Err(error) => span.fail(error.kind()),
        }
        let outcome = result.as_ref().map(Response::status).map_err(Error::kind);
        metrics::http_client_request(&Method::GET, host, outcome, start.elapsed());
        result
    }

    fn client(&self) -> Client {
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if current.expires < Instant::now()
            && let Ok(fresh) = Fresh::new()
        {
            *current = fresh;
        }
        current.client.clone()
    }

    /// Never leaves the base: `..` is dropped, and everything else is escaped.
    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an HTTP URL has a path").pop_if_empty().extend(path.split('/'));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

fn declines(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

fn is_json(response: &Response) -> bool {
    let named = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence =
        named.and_then(|name| name.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Where and how, but not what: serde's own words quote the body, and that is not ours to log.
fn misread(error: &serde_json::Error) -> anyhow::Error {
    let (kind, line, column) = (error.classify(), error.line(), error.column());
    anyhow!("{kind:?} error in its JSON at line {line} column {column}")
}

async fn read(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::of)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Error::BadAnswer(anyhow!("longer than {MAX_BODY} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl Fresh {
    #[expect(clippy::disallowed_methods, reason = "the one place that builds an HTTP client")]
    fn new() -> anyhow::Result<Self> {
        // Only the first call of the process sets it; the crate brings no provider of its own.
        rustls::crypto::ring::default_provider().install_default().ok();
        let builder = Client::builder()
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE);
        Ok(Self { client: builder.build()?, expires: Instant::now() + LIFE })
    }
}

impl Error {
    /// For metrics and spans.
    fn kind(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Timeout => "timeout",
            Self::BadAnswer(_) => "bad_answer",
            Self::Unreachable(_) => "unreachable",
        }
    }

    fn of(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        // The URL may hold what a user has typed.
        Self::Unreachable(error.without_url().into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open { .. } => "the upstream has failed too often lately",
            Self::Timeout => "the upstream did not answer in time",
            Self::BadAnswer(_) => "the upstream gave a bad answer",
            Self::Unreachable(_) => "the upstream cannot be reached",
        })
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::BadAnswer(error) | Self::Unreachable(error) => Some(error.as_ref()),
            Self::Open { .. } | Self::Timeout => None,
        }
    }
}

#[cfg(test)]
mod tests;
