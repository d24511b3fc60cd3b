//! Calls to other services over HTTP: the only maker of HTTP clients.
mod error;

pub use error::Error;

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
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout, timeout_at};
use tower::retry::budget::{Budget, TpsBudget};
use url::Url;

const CONNECT: Duration = Duration::from_secs(1);
/// Shorter than what load balancers grant, so that a connection is rarely closed just as it is used.
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 32;
/// A busy connection would live for ever, and the upstream's name never be looked up again.
const LIFE: Duration = Duration::from_mins(5);
/// Longest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A call that failed for no fault of its own is made again after a random part of these, so that callers who failed
/// together do not come back together.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(100)];
/// Such further attempts per call, over the last 10 s: an upstream that is down gets hardly more to do.
const RETRIES: f32 = 0.1;

/// A handle on one upstream. Clones share its connections and its breaker.
#[derive(Clone)]
pub struct Outbound(Arc<Upstream>);

struct Upstream {
    client: Mutex<Fresh>,
    base: Url,
    timeout: Duration,
    breaker: Breaker,
    retries: TpsBudget,
}

/// A client and when to replace it.
struct Fresh {
    client: Client,
    expires: Instant,
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
        let retries = TpsBudget::new(Duration::from_secs(10), 0, RETRIES);
        Ok(Self(Arc::new(Upstream { client, base, timeout, breaker, retries })))
    }

    /// Whether it has answered well enough lately to be called.
    pub fn is_up(&self) -> bool {
        self.0.breaker.is_closed()
    }

    /// Asks for the base URL once, with an eye to the answer's status alone.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn probe(&self) -> Result<StatusCode, Error> {
        let asked = timeout(self.0.timeout, self.0.send(self.0.base.clone())).await;
        asked.unwrap_or(Err(Error::Timeout)).map(|response| response.status())
    }

    /// Fetches the JSON at `path` below the base URL. Takes at most this client's time-out, less when the request has
    /// less time left, reads at most 64 KiB, and tries again within that when there is no answer or only a gateway's.
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
        let usual = tokio::time::Instant::now() + upstream.timeout;
        let deadline = request::deadline(upstream.timeout);
        let result = timeout_at(deadline, upstream.fetch(path, query)).await.unwrap_or(Err(Error::Timeout));
        match result {
            Err(Error::Timeout) if deadline < usual => drop(permit),
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
        let response = self.send_or_retry(self.url(path, query)).await?;
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

    /// Makes up to three attempts, as far as the budget of retries goes.
    async fn send_or_retry(&self, url: Url) -> Result<Response, Error> {
        self.retries.deposit();
        for longest in PAUSES {
            let result = self.send(url.clone()).await;
            if !is_passing(&result) || !self.retries.withdraw() {
                return result;
            }
            sleep(longest.mul_f64(rand::random())).await;
        }
        self.send(url).await
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
        metrics::outbound(&Method::GET, host, outcome, start.elapsed());
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

fn is_passing(result: &Result<Response, Error>) -> bool {
    match result {
        Ok(response) => matches!(response.status().as_u16(), 502..=504),
        Err(error) => matches!(error, Error::Unreachable(_)),
    }
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

#[cfg(test)]
mod tests;
