//! Code that logs whatever it has at hand: the guard is what keeps its secrets in the process.
use super::lines::{raw_lines, unguarded};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::{cell::Cell, collections::BTreeSet};

const MANY: usize = 10_000;
/// At a time, so that all their lines have room in the buffer.
const SOME: usize = 250;

#[derive(Debug)]
#[expect(dead_code, reason = "read by its Debug form only")]
struct Login {
    email: &'static str,
    password: String,
}

/// Logs headers, cookies, bodies, URLs and errors with some secrets in them, each another one.
fn log_everything(from: usize) {
    let given = Cell::new(from);
    let c = || {
        given.set(given.get() + 1);
        format!("canary{:06}", given.get())
    };
    while given.get() < from + SOME {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "proxy-authorization", "cookie", "x-api-key", "set-cookie"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::try_from(c()).unwrap());
        }
        let login = Login { email: "a@b.c", password: c() };
        let body =
            serde_json::json!({ "email": "a@b.c", "password": c(), "deep": [{ "client_secret": [c()] }] });
        let database = format!("postgres://app:{}@db.internal:5432/app", c());
        let error = anyhow::anyhow!("connecting to {database}").context(format!("session token={}", c()));
        tracing::info!(?headers, ?login, %body, "request");
        tracing::info!(
            cookie = c(),
            password = c(),
            access_token = c(),
            url = format!("/reset?token={}", c()),
            "URL"
        );
        tracing::warn!(database, err = crate::telemetry::logs::err_json(&error), "error");
        tracing::error!("{login:?} {body} {error:#}");
        tracing::debug!(?body, nested = serde_json::json!({ "body": body.to_string() }).to_string(), "again");
    }
}

/// How many different canaries are in `text`.
fn canaries(text: &str) -> usize {
    text.match_indices("canary").map(|(at, _)| &text[at..at + 12]).collect::<BTreeSet<_>>().len()
}

#[test]
fn none_of_ten_thousand_secrets_gets_past_the_guard_and_without_it_all_do() {
    for from in (0..MANY).step_by(SOME) {
        let lines = raw_lines(|| log_everything(from));
        assert_eq!(canaries(&lines.concat()), 0, "{:?}", lines.iter().find(|line| line.contains("canary")));
        for line in &lines {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }
        assert!(canaries(&unguarded(|| log_everything(from))) >= SOME);
    }
}
