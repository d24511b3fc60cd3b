//! Secrets of every kind go in; none comes out in a log line, a span, a metric or a problem.
use crate::{
    logs::assert_sound,
    service::{client, server, sign_up},
};
use drill::{
    collector::Collector,
    process::{Server, Signal, run},
    upstream::Stub,
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::json;
use sqlx::PgPool;
use std::cell::Cell;

/// Everything that anyone in the process has to say.
const LEVEL: &str = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace";

/// Hands out secrets, each one only once.
#[derive(Default)]
struct Canaries(Cell<usize>);

impl Canaries {
    fn next(&self) -> String {
        self.0.set(self.0.get() + 1);
        format!("canary{:06}", self.0.get())
    }
}

/// How many different canaries are in `text`.
fn count(text: &str) -> usize {
    let found = text.match_indices("canary").filter_map(|(at, _)| text.get(at..at + 12));
    found.collect::<std::collections::BTreeSet<_>>().len()
}

async fn text_of(url: &str) -> String {
    client().get(url).send().await.unwrap().text().await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "tests have their own client")]
fn http2_client() -> Client {
    reqwest::Client::builder().http2_prior_knowledge().build().expect("sound settings")
}

#[sqlx::test]
async fn no_secret_leaves_the_process(pool: PgPool) {
    hunt(&pool, 1_000).await;
}

#[sqlx::test]
#[ignore = "ten times the one above, half a minute: scripts/services run -- cargo test --test process ten_thousand -- --ignored"]
async fn none_of_ten_thousand_secrets_leaves_the_process(pool: PgPool) {
    hunt(&pool, 10_000).await;
}

async fn hunt(pool: &PgPool, canaries: usize) {
    let (collector, upstream) = (Collector::start().await.unwrap(), Stub::start().await.unwrap());
    let server = server(pool, "canaries")
        .env("LOG_LEVEL", LEVEL)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("PREVIEW_URL", upstream.url())
        .env("RATE_LIMIT", "1000000/1m")
        .env("LOGIN_RATE_LIMIT", "1000000/1m")
        .env("TRUSTED_PROXIES", "1");
    let server = server.start().await.unwrap();
    let cookie = sign_up(&server, "alice@example.com").await;
    let given = Canaries::default();
    let http2 = http2_client();
    let mut problems = String::new();
    for round in 0.. {
        if given.0.get() >= canaries {
            break;
        }
        let client = if round % 2 == 0 { &client() } else { &http2 };
        for request in requests(client, &server, &cookie, &given) {
            let answer = request.send().await.unwrap();
            problems += &problem(answer).await;
        }
        if round % 10 == 0 {
            problems += &failed_previews(&server, &cookie, &upstream, &given).await;
        }
    }
    let metrics = text_of(&server.ops_url("/metrics")).await;
    server.signal(Signal::Term).unwrap();
    assert_eq!(server.wait().await.unwrap().code, Some(0));
    let (lines, spans) = (server.lines(), String::from_utf8_lossy(&collector.received()).into_owned());
    eprintln!("{} canaries, {} lines, {} bytes of spans", given.0.get(), lines.len(), spans.len());
    assert!(spans.contains("/v1/session") && problems.contains("\"invalid\"") && metrics.contains("http_"));
    for line in &lines {
        assert_sound(line);
    }
    if let Some(leak) = lines.iter().find(|line| line.contains("canary")) {
        eprintln!("the first leak: {leak}");
    }
    let found = [lines.join("\n"), spans, problems, metrics].map(|text| count(&text));
    assert_eq!(found, [0; 4], "canaries in lines, spans, problems, metrics");
}

/// Requests with secrets wherever a client can put one.
fn requests(client: &Client, server: &Server, cookie: &str, canaries: &Canaries) -> Vec<RequestBuilder> {
    let c = || canaries.next();
    let ask = |method: Method, path: &str| client.request(method, server.url(path));
    let signed_in = |method: Method, path: &str| ask(method, path).header("cookie", cookie);
    let json =
        |request: RequestBuilder, body: String| request.header("content-type", "application/json").body(body);
    vec![
        ask(Method::GET, "/v1/session")
            .header("authorization", format!("Bearer {}", c()))
            .header("proxy-authorization", c())
            .header("cookie", format!("__Host-session={}; other={}", c(), c()))
            .header("x-api-key", c())
            .header("user-agent", c())
            .header("referer", format!("https://example.com/?token={}", c()))
            .header("x-forwarded-for", c())
            .header("traceparent", c())
            .header("x-request-id", format!("{} {}", c(), c())),
        ask(Method::GET, &format!("/{}/{}?token={}&password={}", c(), c(), c(), c())),
        ask(Method::from_bytes(c().as_bytes()).unwrap(), "/"),
        signed_in(Method::GET, &format!("/v1/bookmarks/{}?token={}", c(), c())),
        signed_in(Method::GET, &format!("/v1/bookmarks?limit={}&cursor={}&tag={}", c(), c(), c())),
        signed_in(Method::GET, &format!("/v1/bookmarks?limit=1&cursor={}", c())),
        json(ask(Method::POST, "/v1/session"), format!(r#"{{"password":"{}","#, c())),
        json(ask(Method::POST, "/v1/session"), format!(r#"{{"email":5,"password":{{"x":"{}"}}}}"#, c())),
        json(
            ask(Method::POST, "/v1/session"),
            format!(r#"{{"email":"a@b.c","password":"{}"}} {}"#, c(), c()),
        ),
        json(ask(Method::POST, "/v1/accounts"), format!(r#"{{"email":"{}","password":"{}"}}"#, c(), c())),
        json(ask(Method::POST, "/v1/accounts"), format!(r#"{{"email":"a@b.c","password":["{}"]}}"#, c())),
        json(signed_in(Method::POST, "/v1/bookmarks"), format!(r#"{{"url":"{}","tags":"{}"}}"#, c(), c()))
            .header("idempotency-key", c()),
        json(
            signed_in(Method::POST, "/v1/bookmarks"),
            format!(r#"{{"url":"ftp://u:{}@h/?token={}"}}"#, c(), c()),
        ),
        json(
            signed_in(Method::PUT, &format!("/v1/bookmarks/{}", uuid::Uuid::now_v7()))
                .header("if-match", c()),
            format!(r#"{{"url":"https://h/?token={}","title":"{}"}}"#, c(), c()),
        ),
        ask(Method::POST, "/v1/bookmarks").header("content-type", c()).body(c()),
        ask(Method::POST, "/v1/session").header("origin", format!("https://{}.example", c())).body(c()),
    ]
}

/// What an upstream says when it fails, and passwords that are wrong.
async fn failed_previews(server: &Server, cookie: &str, upstream: &Stub, canaries: &Canaries) -> String {
    let c = || canaries.next();
    let post = |path: &str, body: serde_json::Value| {
        client().post(server.url(path)).header("cookie", cookie).json(&body)
    };
    let mut problems = String::new();
    let wrong = json!({ "email": "alice@example.com", "password": c() });
    problems += &problem(post("/v1/session", wrong).send().await.unwrap()).await;
    let change = json!({ "current_password": c(), "new_password": c() });
    let change = client().put(server.url("/v1/account/password")).header("cookie", cookie).json(&change);
    problems += &problem(change.send().await.unwrap()).await;
    for (status, body) in [
        (500, format!("token {}", c())),
        (200, format!(r#"{{"title":["{}"]}}"#, c())),
        (200, format!(r#"{{"password":"{}"#, c())),
        (200, format!(r#""{}""#, c())),
        (404, c()),
    ] {
        upstream.answer(status, body);
        let bookmark = json!({ "url": format!("https://example.com/?token={}", c()), "title": c() });
        let kept = post("/v1/bookmarks", bookmark).send().await.unwrap();
        assert_eq!(kept.status(), 201);
        let path = format!("{}/preview", kept.headers()["location"].to_str().unwrap());
        problems +=
            &problem(client().get(server.url(&path)).header("cookie", cookie).send().await.unwrap()).await;
    }
    problems
}

/// The body of a refusal; what is no refusal may tell clients what they have said.
async fn problem(answer: Response) -> String {
    let is_problem =
        answer.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
    assert_eq!(is_problem, answer.status().is_client_error() || answer.status().is_server_error());
    if is_problem { answer.text().await.unwrap() } else { String::new() }
}

#[tokio::test]
async fn no_password_of_a_setting_is_told_to_anyone() {
    let canaries = Canaries::default();
    let url = |scheme: &str| format!("{scheme}://someone:{}@127.0.0.1:1", canaries.next());
    let (database, redis, preview) = (url("postgres"), url("redis"), url("http"));
    let settings = [("DATABASE_URL", &*database), ("REDIS_URL", &*redis), ("PREVIEW_URL", &*preview)];
    let shown = run(crate::service::BIN, &["check-config"], &settings).await.unwrap();
    let broken = settings.map(|(name, url)| (name, url.replace("127.0.0.1:1", "127.0.0.1:x")));
    let broken: Vec<(&str, &str)> = broken.iter().map(|(name, url)| (*name, &**url)).collect();
    let refused = run(crate::service::BIN, &["serve"], &broken).await.unwrap();
    assert_eq!((shown.code, refused.code), (Some(0), Some(78)));

    let server = Server::builder(crate::service::BIN).env("LOG_LEVEL", LEVEL).env("SHUTDOWN_LAME_DUCK", "0s");
    let server =
        settings.iter().fold(server, |server, (name, url)| server.env(name, url)).start().await.unwrap();
    let sign_in = json!({ "email": "a@example.com", "password": canaries.next() });
    let answer = client().post(server.url("/v1/session")).json(&sign_in).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let told = [problem(answer).await, text_of(&server.ops_url("/readyz")).await];
    server.signal(Signal::Term).unwrap();
    server.wait().await.unwrap();
    for line in &server.lines() {
        assert_sound(line);
    }
    for text in
        [&told[0], &told[1], &shown.stdout, &refused.stderr, &server.lines().join("\n"), &server.stderr()]
    {
        assert!(!text.contains("canary"), "{text}");
    }
}
