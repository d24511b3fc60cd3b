//! For tests: the real service on a free port with its own database, and the people who use it.
#![expect(
    clippy::disallowed_methods,
    reason = "tests have their own client and find the servers they were given"
)]
use crate::{
    app::App,
    config::Config,
    server::{self, drain::Conductor},
};
use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};
use std::{cell::RefCell, net::SocketAddr};
use tokio::{net::TcpListener, task::JoinSet};
use uuid::Uuid;

/// The service; it stops when this is dropped.
pub struct Service {
    pub address: SocketAddr,
    pub app: App,
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
    service: &'a Service,
    pub email: String,
    pub cookie: RefCell<Option<String>>,
}

pub const PASSWORD: &str = "correct horse battery staple";

impl Service {
    pub async fn start(pool: &PgPool) -> Self {
        Self::start_with(pool, |_| {}).await
    }

    /// Starts with other settings. The database is the test's own, the keys in Redis have a prefix of their own.
    pub async fn start_with(pool: &PgPool, change: impl FnOnce(&mut Config)) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut config =
            Config::from_lookup(|name| Ok(given(name))).expect("scripts/services sets both URLs");
        config.database_url = pool.connect_options().to_url_lossy().to_string().into();
        config.redis_prefix = format!("test:{}:", Uuid::now_v7());
        config.preview_url = None;
        config.login_rate_limit.count = 10_000;
        config.rate_limit.count = 100_000;
        change(&mut config);
        let app = App::connect(&config).expect("nothing is connected yet");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let conductor = Conductor::new(config.shutdown);
        let mut running = JoinSet::new();
        running.spawn(server::serve(
            listener,
            super::router(app.clone(), &config, conductor.drain()),
            1000,
            conductor.drain(),
        ));
        Self { address, app, client: reqwest::Client::new(), _running: running, _conductor: conductor }
    }

    pub fn anonymous(&self) -> Actor<'_> {
        Actor { service: self, email: String::new(), cookie: RefCell::default() }
    }

    /// A new account, signed in.
    pub async fn sign_up(&self, name: &str) -> Actor<'_> {
        let actor = Actor { email: format!("{name}@example.com"), ..self.anonymous() };
        let answer = actor.post("/v1/accounts", &json!({"email": actor.email, "password": PASSWORD})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        actor
    }
}

/// From the environment, else from the `.env` that `make services` writes.
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().or_else(|| {
        let file = std::fs::read_to_string(".env").ok()?;
        file.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    })
}

impl Actor<'_> {
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
}
