//! What protects the service and its callers from one another.
use crate::api::actors::{PASSWORD, Service};
use axum::http::Method;
use serde_json::json;
use sqlx::PgPool;

#[tokio::test]
async fn the_root_says_what_this_is() {
    let service = Service::without_postgres(|_| {}).await;
    let root = service.anonymous().get("/").await;
    assert_eq!(root.status, 200);
    let expected =
        json!({"service": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "docs": "/docs"});
    assert_eq!(root.body, expected);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let service = Service::without_postgres(|_| {}).await;
    let anonymous = service.anonymous();
    for path in ["/nothing", "//", "/v1", "/v1/", "/v1/session/", "/docs/nothing", "/docs/..%2fCargo.toml"] {
        anonymous.get(path).await.is_problem(404, "not_found");
    }
    for path in ["/%00", "/v1/sessions/%zz", "/v1/sessions/%ff", "/v1/sessions/%4"] {
        anonymous.get(path).await.is_problem(400, "bad_path");
    }
    let long = "x".repeat(9000);
    anonymous.get(&format!("/{long}")).await.is_problem(414, "uri_too_long");
    let long = [("x-long", &*long); 4];
    anonymous.send(Method::GET, "/", &long, None).await.is_problem(431, "head_too_large");
    for (method, path, allowed) in [
        (Method::PATCH, "/v1/sessions", "GET"),
        (Method::PUT, "/v1/session", "DELETE"),
        (Method::POST, "/", "GET"),
        (Method::POST, "/openapi.json", "GET"),
        (Method::OPTIONS, "/v1/session", "POST"),
        (Method::from_bytes(b"BREW").expect("a method"), "/v1/accounts", "POST"),
    ] {
        let refused = anonymous.send(method, path, &[], None).await;
        refused.is_problem(405, "method_not_allowed");
        assert!(refused.header("allow").contains(allowed), "{path}: {refused:?}");
    }
    anonymous.send(Method::TRACE, "/", &[], None).await.is_problem(405, "method_not_allowed");
}

#[sqlx::test]
async fn a_page_of_another_site_cannot_act_for_its_visitor(pool: PgPool) {
    let service = Service::start(&pool).await;
    let alice = service.sign_up("alice").await;
    let own = format!("http://{}", service.address);
    let credentials = json!({"email": alice.email, "password": PASSWORD});
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "junk")],
        &[("sec-fetch-site", "cross-site"), ("origin", &own)],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1")],
    ] {
        let planted =
            service.anonymous().send(Method::POST, "/v1/session", headers, Some(&credentials)).await;
        planted.is_problem(403, "cross_site");
        alice.send(Method::DELETE, "/v1/session", headers, None).await.is_problem(403, "cross_site");
        let read = alice.send(Method::GET, "/v1/session", headers, None).await;
        assert_eq!(read.status, 200, "reading is safe: {headers:?}");
    }
    for headers in [
        &[][..],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "same-origin"), ("origin", &own)],
        &[("origin", &own)],
    ] {
        let own = alice.send(Method::POST, "/v1/session", headers, Some(&credentials)).await;
        assert_eq!(own.status, 201, "{headers:?}");
    }
}

#[tokio::test]
async fn a_request_has_exactly_one_sound_host() {
    let service = Service::without_postgres(|_| {}).await;
    let get = async |version: &str, hosts: &str| {
        service.raw(format!("GET / HTTP/{version}\r\n{hosts}connection: close\r\n\r\n")).await
    };
    for odd in [
        "",
        "host:\r\n",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a/b c\r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: user@a\r\n",
        "host: a:port\r\n",
        "host: a:99999\r\n",
        "host: a:+80\r\n",
        "host: [a]\r\n",
        "host: ::1\r\n",
        "host: :80\r\n",
        "host: a?b\r\n",
        "host: \u{e9}\r\n",
    ] {
        let refused = get("1.1", odd).await;
        assert_eq!(refused.status, 400, "{odd:?}: {refused:?}");
        refused.is_problem(400, "bad_host");
    }
    for sound in ["a", "A_b.example:8080", "xn--bcher-kva.example", "127.0.0.1", "[::1]", "[::1]:80"] {
        assert_eq!(get("1.1", &format!("host: {sound}\r\n")).await.status, 200, "{sound:?}");
    }
    assert_eq!(get("1.0", "").await.status, 200, "HTTP/1.0 had none");
    let foreign = service.raw("GET http://b/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    foreign.is_problem(400, "bad_host");
    assert_eq!(
        service.raw("GET http://a/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.status,
        200
    );
}

#[tokio::test]
async fn http_2_is_spoken_without_an_upgrade() {
    let service = Service::without_postgres(|_| {}).await;
    let client = reqwest_h2();
    let answer = client.get(format!("http://{}/", service.address)).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, axum::http::Version::HTTP_2));
    let answer =
        client.get(format!("http://{}/v1/session", service.address)).send().await.expect("an answer");
    assert_eq!(answer.status(), 401);
}

#[expect(clippy::disallowed_methods, reason = "a client of the tests'")]
fn reqwest_h2() -> reqwest::Client {
    reqwest::Client::builder().http2_prior_knowledge().build().expect("a client")
}

#[tokio::test]
async fn a_callers_request_id_is_kept_when_it_is_sound() {
    let service = Service::without_postgres(|_| {}).await;
    let send = async |path: &str, id: &str| {
        service.anonymous().send(Method::GET, path, &[("x-request-id", id)], None).await
    };
    let longest = "x".repeat(64);
    for sound in ["a", "A.b-9_", &longest] {
        assert_eq!(send("/", sound).await.header("x-request-id"), sound);
        let refused = send("/nothing", sound).await;
        refused.is_problem(404, "not_found");
        assert_eq!(refused.body["request_id"], *sound);
    }
    for odd in ["", "a b", "a;b", "<script>", "é", &"x".repeat(65), &"x".repeat(10_000)] {
        let id = send("/nothing", odd).await.header("x-request-id").to_owned();
        assert!(uuid::Uuid::parse_str(&id).is_ok(), "{odd:?} became {id:?}");
    }
    let (one, other) = (service.anonymous().get("/").await, service.anonymous().get("/").await);
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
}

#[sqlx::test]
async fn every_answer_has_the_headers_that_protect_it(pool: PgPool) {
    let service = Service::start_with(&pool, |config| config.rate_limit.count = 8).await;
    let alice = service.sign_up("alice").await;
    let cross_site = [("sec-fetch-site", "cross-site")];
    let anonymous = service.anonymous();
    for (status, answer) in [
        (201, alice.sign_in(&alice.email, PASSWORD).await),
        (200, anonymous.get("/").await),
        (200, anonymous.get("/openapi.json").await),
        (404, anonymous.get("/nothing").await),
        (405, anonymous.put("/", &json!({})).await),
        (401, anonymous.get("/v1/session").await),
        (422, anonymous.post("/v1/session", &json!({})).await),
        (403, anonymous.send(Method::POST, "/v1/session", &cross_site, None).await),
        (400, service.raw("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await),
        (204, alice.delete("/v1/session").await),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        answer.is_protected();
    }
    let limited = loop {
        let answer = anonymous.get("/v1/session").await;
        if answer.status != 401 {
            break answer;
        }
    };
    limited.is_problem(429, "rate_limited");
    limited.is_protected();
}

#[tokio::test]
async fn the_page_of_documentation_loads_nothing_from_elsewhere() {
    let service = Service::without_postgres(|_| {}).await;
    let anonymous = service.anonymous();
    let page = anonymous.get("/docs/").await;
    assert_eq!(page.text, anonymous.get("/docs").await.text);
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert!(!policy.contains("http"), "{policy}");
    assert!(!page.text.contains("://"), "{}", page.text);
    let files: Vec<&str> = page.text.split('"').filter(|text| text.starts_with("/docs/")).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let answer = anonymous.get(file).await;
        assert_eq!(answer.status, 200, "{file}");
        assert_ne!(answer.header("content-type"), "", "{file}");
    }
}
