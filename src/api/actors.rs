//! For tests: the real service on a free port with its own database, and the people who use it.
#![expect(
    clippy::disallowed_methods,
    reason = "tests have their own client and find the servers they were given"
)]
use crate::{
    app::App,
    config::Config,
    runtime::workers::Workers,
    server::{self, drain::Conductor, listener::Listener},
};
use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};
use std::{
    cell::RefCell,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use uuid::Uuid;

/// The service; it stops when this is dropped.
pub struct Service {
    pub address: SocketAddr,
    pub app: App,
    pub config: Config,
    client: reqwest::Client,
    _running: JoinSet<()>,
    _conductor: Conductor,
}

/// What was answered. `body` is null when it is not JSON.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

/// Somebody with a cookie jar for one cookie.
pub struct Actor<'a> {
    pub service: &'a Service,
    pub email: String,
    pub cookie: RefCell<Option<String>>,
}

pub const PASSWORD: &str = "correct horse battery staple";
/// Nothing listens there, and only root could change that.
pub const NOWHERE: &str = "127.0.0.1:1";

impl Service {
    pub async fn start(pool: &PgPool) -> Self {
        Self::start_with(pool, |_| {}).await
    }

    /// Starts with a database that refuses connections.
    pub async fn without_postgres(change: impl FnOnce(&mut Config)) -> Self {
        let nowhere =
            PgPool::connect_lazy(&format!("postgres://nobody@{NOWHERE}/none")).expect("a sound URL");
        Self::start_with(&nowhere, change).await
    }

    /// Starts with other settings. The database is the test's own, the keys in Redis have a prefix of their own.
    pub async fn start_with(pool: &PgPool, change: impl FnOnce(&mut Config)) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        // A test that fails shows why an answer was a 500.
        let errors = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::ERROR);
        drop(errors.try_init());
        let mut config =
            Config::from_lookup(|name| Ok(given(name))).expect("scripts/services sets both URLs");
        config.database_url = pool.connect_options().to_url_lossy().to_string().into();
        config.redis_prefix = format!("test:{}:", Uuid::now_v7());
        config.login_rate_limit.count = 10_000;
        config.rate_limit.count = 100_000;
        change(&mut config);
        let app = App::connect(&config, &Workers::none()).expect("nothing is connected yet");
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let conductor = Conductor::new(config.shutdown);
        let mut running = JoinSet::new();
        let router = super::router(app.clone(), &config, conductor.drain());
        running.spawn(server::serve(listener, router, 1000, conductor.drain(), Workers::none()));
        let client = reqwest::Client::new();
        Self { address, app, config, client, _running: running, _conductor: conductor }
    }

    pub fn anonymous(&self) -> Actor<'_> {
        Actor { service: self, email: String::new(), cookie: RefCell::default() }
    }

    /// Sends bytes and reads until the service closes; the request should ask for that.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.expect("the service listens");
        let (mut reading, mut writing) = socket.split();
        let mut bytes = Vec::new();
        // The service may answer, and close, before it has read everything.
        let (_, read) = tokio::join!(writing.write_all(request.as_ref()), reading.read_to_end(&mut bytes));
        drop(read);
        Answer::parse(&String::from_utf8_lossy(&bytes))
    }

    /// A new account, signed in.
    pub async fn sign_up(&self, name: &str) -> Actor<'_> {
        let actor = Actor { email: format!("{name}@example.com"), ..self.anonymous() };
        let answer = actor.post("/v1/accounts", &json!({"email": actor.email, "password": PASSWORD})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        actor
    }
}

/// Where the services are: from the environment, else from the `.env` that `make services` writes. Of all other
/// settings tests take the default.
fn given(name: &str) -> Option<String> {
    if !["DATABASE_URL", "REDIS_URL"].contains(&name) {
        return None;
    }
    std::env::var(name).ok().or_else(|| {
        let file = std::fs::read_to_string(".env").ok()?;
        file.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    })
}

/// Waits until `condition` holds; fails after ten seconds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(10), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Actor<'_> {
    /// The same person, cookie included, as a client of another replica.
    pub fn at<'a>(&self, service: &'a Service) -> Actor<'a> {
        Actor { service, email: self.email.clone(), cookie: self.cookie.clone() }
    }

    pub async fn sign_in(&self, email: &str, password: &str) -> Answer {
        self.post("/v1/session", &json!({"email": email, "password": password})).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[], Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// Sends JSON, or nothing, with more headers; keeps the session cookie of the answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer(request).await
    }

    /// A request with the actor's cookie, to be changed and given to [`Actor::answer`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.service.client.request(method, format!("http://{}{path}", self.service.address));
        match &*self.cookie.borrow() {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    pub async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the service answers");
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(cookie) = headers.get("set-cookie").and_then(|value| value.to_str().ok()) {
            let pair = cookie.split(';').next().unwrap_or_default();
            self.cookie.replace((!pair.ends_with('=')).then(|| pair.to_owned()));
        }
        let text = response.text().await.expect("the body arrives");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, text, body }
    }
}

impl Answer {
    fn parse(response: &str) -> Self {
        let (head, text) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer but {response:?}"));
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let body = serde_json::from_str(text).unwrap_or_default();
        Self { status, headers: headers.collect(), text: text.to_owned(), body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Checks that this is a whole problem with this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], "about:blank");
        assert_eq!(self.body["request_id"], self.header("x-request-id"));
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{self:?}");
        let waits = matches!(status, 429 | 503);
        assert_eq!(self.headers.contains_key("retry-after"), waits, "{self:?}");
    }

    /// Checks the headers that each answer has.
    #[track_caller]
    pub fn is_protected(&self) {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("strict-transport-security", "max-age=63072000; includeSubDomains"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(self.header(name), value, "{name} of {self:?}");
            assert_eq!(self.headers.get_all(name).iter().count(), 1, "{name}");
        }
        assert_ne!(self.header("x-request-id"), "");
        assert_eq!(self.header("server"), "");
    }

    /// Checks that this is a 422 that names exactly this field.
    #[track_caller]
    pub fn is_invalid(&self, field: &str) {
        self.is_problem(422, "invalid");
        let errors = self.body["errors"].as_array().expect("a list of fields");
        assert_eq!((errors.len(), &errors[0]["field"]), (1, &json!(field)), "{self:?}");
        assert!(errors[0]["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
    }
}
