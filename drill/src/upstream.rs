//! A stub of the preview upstream: derives a page's preview from its address, or does what a test tells it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// Serves `GET /preview?url=…[&delay_ms=N]` until the task is dropped: `{title, description, image_url}`, or 400
/// when `url` is missing or not http(s).
///
/// # Errors
///
/// Of the listener.
pub async fn serve(listener: TcpListener) -> Result<()> {
    serve_as(listener, Orders::default()).await
}

async fn serve_as(listener: TcpListener, orders: Orders) -> Result<()> {
    let router = Router::new().route("/preview", get(preview)).with_state(orders);
    axum::serve(listener, router).await.context("the stub upstream")
}

/// A stub upstream inside a test; it closes when this value is dropped.
pub struct Stub {
    address: SocketAddr,
    orders: Orders,
    _server: JoinSet<Result<()>>,
}

impl Stub {
    /// Listens on a free port of loopback and answers like [`serve`] until told otherwise.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let orders = Orders::default();
        let mut server = JoinSet::new();
        server.spawn(serve_as(listener, orders.clone()));
        Ok(Self { address, orders, _server: server })
    }

    /// The base URL, to be given as `PREVIEW_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have come in so far, also those still delayed.
    pub fn calls(&self) -> usize {
        self.orders.get().calls
    }

    /// The `traceparent` of each of those that had one.
    pub fn callers(&self) -> Vec<String> {
        self.orders.get().callers.clone()
    }

    /// From now on every answer waits this long.
    pub fn delay(&self, delay: Duration) {
        self.orders.get().delay = delay;
    }

    /// From now on every answer is this one, sent as `application/json` whatever it holds.
    pub fn answer(&self, status: u16, body: impl Into<String>) {
        let status = StatusCode::from_u16(status).expect("an HTTP status is 100 to 999");
        self.orders.get().answer = Some((status, body.into()));
    }

    /// Back to derived answers without delay; the count of calls starts from zero.
    pub fn reset(&self) {
        *self.orders.get() = Order::default();
    }
}

#[derive(Default)]
struct Order {
    calls: usize,
    callers: Vec<String>,
    delay: Duration,
    answer: Option<(StatusCode, String)>,
}

#[derive(Clone, Default)]
struct Orders(Arc<Mutex<Order>>);

impl Orders {
    fn get(&self) -> MutexGuard<'_, Order> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

async fn preview(
    State(orders): State<Orders>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let parameter = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (mut delay, answer) = {
        let mut order = orders.get();
        order.calls += 1;
        let caller = headers.get("traceparent").and_then(|caller| caller.to_str().ok());
        order.callers.extend(caller.map(str::to_owned));
        (order.delay, order.answer.clone())
    };
    if let Some(asked) = parameter("delay_ms").and_then(|value| value.parse().ok()) {
        delay = Duration::from_millis(asked);
    }
    tokio::time::sleep(delay).await;
    if let Some((status, body)) = answer {
        return (status, [(CONTENT_TYPE, "application/json")], body).into_response();
    }
    match parameter("url").and_then(derive) {
        Some(preview) => Json(preview).into_response(),
        None => {
            (StatusCode::BAD_REQUEST, Json(json!({ "error": "url must be http or https" }))).into_response()
        }
    }
}

/// `https://example.org/a/good-read?x=1` becomes "good read", on example.org.
fn derive(url: &str) -> Option<Value> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let rest = rest.split(['?', '#']).next()?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let title = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(host).replace(['-', '_'], " ");
    (!host.is_empty()).then(|| {
        json!({
            "title": title,
            "description": format!("A page on {host}"),
            "image_url": format!("https://{host}/preview.png"),
        })
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    async fn get(stub: &Stub, path: &str) -> String {
        let mut stream = TcpStream::connect(stub.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_preview_is_derived_from_the_url() {
        let stub = Stub::start().await.unwrap();
        let answer = get(&stub, "/preview?url=https%3A%2F%2Fexample.org%2Fa%2Fgood-read%3Fx%3D1").await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(
            body,
            json!({
                "title": "good read",
                "description": "A page on example.org",
                "image_url": "https://example.org/preview.png",
            })
        );
    }

    #[tokio::test]
    async fn an_address_that_is_not_of_the_web_is_refused() {
        let stub = Stub::start().await.unwrap();
        for path in ["/preview", "/preview?url=ftp%3A%2F%2Fexample.org", "/preview?url=https%3A%2F%2F"] {
            assert!(get(&stub, path).await.starts_with("HTTP/1.0 400"), "{path}");
        }
    }

    #[tokio::test]
    async fn the_stub_counts_delays_and_answers_as_told() {
        let stub = Stub::start().await.unwrap();
        stub.delay(Duration::from_millis(200));
        stub.answer(500, "not json");
        let start = Instant::now();
        let answer = get(&stub, "/preview?url=https://example.org").await;
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert!(answer.starts_with("HTTP/1.0 500") && answer.ends_with("not json"), "{answer}");
        assert_eq!(stub.calls(), 1);

        stub.reset();
        assert_eq!(stub.calls(), 0);
        assert!(get(&stub, "/preview?url=https://example.org").await.starts_with("HTTP/1.0 200"));
    }

    #[tokio::test]
    async fn a_dropped_stub_no_longer_listens() {
        let stub = Stub::start().await.unwrap();
        let address = stub.address;
        drop(stub);
        // The task is cancelled at its next turn.
        tokio::task::yield_now().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
