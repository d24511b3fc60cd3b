//! Item 3: every line is sound, and no secret that a client sends comes out anywhere.

use std::{cell::Cell, collections::BTreeSet};

use anyhow::Result;
use tokio::net::TcpStream;

use super::{Finding, Subject};
use crate::{
    client::http1::{Answer, Connection, ask},
    collector::Collector,
    limits, log,
    process::Signal,
    proxy::Mode,
    stop::stage::{PASSWORD, Stage},
};

/// Everything that anyone in the process has to say.
const LEVEL: &str = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace";
const ROUNDS: usize = 100;

/// Hands out secrets, each one only once.
#[derive(Default)]
struct Canaries(Cell<usize>);

impl Canaries {
    fn next(&self) -> String {
        self.0.set(self.0.get() + 1);
        format!("canary{:06}", self.0.get())
    }
}

/// How many different ones are in `text`.
fn count(text: &str) -> usize {
    let found = text.match_indices("canary").filter_map(|(at, _)| text.get(at..at + 12));
    found.collect::<BTreeSet<_>>().len()
}

pub async fn check(subject: &Subject) -> Result<Finding> {
    let collector = Collector::start().await?;
    let env = [
        ("LOG_LEVEL", LEVEL),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url),
        ("TRUSTED_PROXIES", "1"),
        ("SHUTDOWN_LAME_DUCK", "0s"),
    ];
    let stage = Stage::start(&subject.setup, "logs", Mode::Pass, &env).await?;
    stage.server.ready().await?;
    let cookie = stage.sign_up().await?;
    let (canaries, mut refusals, mut odd) = (Canaries::default(), String::new(), 0);
    for round in 0..ROUNDS {
        for (line, headers, body) in requests(&canaries, &cookie, round) {
            let answer = send(&stage, &line, &headers, &body).await?;
            odd += usize::from(!(400..500).contains(&answer.status));
            refusals.push_str(&String::from_utf8_lossy(&answer.body));
        }
    }
    let ops = ([127, 0, 0, 1], stage.server.ops_port()).into();
    let metrics = String::from_utf8(ask(ops, "GET /metrics", "", "").await?.body)?;
    stage.server.signal(Signal::Term)?;
    stage.server.wait().await?;

    let (lines, spans) = (stage.server.lines(), String::from_utf8_lossy(&collector.received()).into_owned());
    let mut finding = Finding::default();
    finding.unless(odd == 0, format!("{odd} made-up requests were not refused as the client's fault"));
    let faults: Vec<String> = lines.iter().filter_map(|line| log::sound(line).err()).collect();
    finding.misses.extend(faults.into_iter().take(3));
    let text = lines.join("\n");
    let told = lines.iter().filter(|line| line.contains("\"msg\":\"request completed\"")).count();
    finding.unless(told >= ROUNDS, format!("{told} lines tell of requests"));
    for (place, text) in
        [("the log", &text), ("spans", &spans), ("metrics", &metrics), ("refusals", &refusals)]
    {
        let leaks = count(text);
        finding.misses.extend(limits::LEAKS.miss(leaks as f64).map(|miss| format!("{place}: {miss}")));
    }
    let token = cookie.trim_end().split_once('=').map_or("", |(_, token)| token);
    finding.unless(
        !text.contains(PASSWORD) && !text.contains(token),
        "the log has a password or a session's token",
    );
    finding.unless(stage.server.stderr().is_empty(), "something was written to stderr");
    finding.evidence = format!(
        "{} secrets in headers, URLs and bodies, at level trace: none in {} lines, {} kB of spans, metrics, refusals; each line is sound",
        canaries.0.get(),
        lines.len(),
        spans.len() / 1000,
    );
    Ok(finding)
}

/// As it stands, also where it is no good.
async fn send(stage: &Stage, line: &str, headers: &str, body: &str) -> Result<Answer> {
    let mut connection = Connection::new(TcpStream::connect(stage.address()).await?);
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    let answer = connection.exchange(request.as_bytes(), || {}).await;
    answer.map_err(|failure| anyhow::anyhow!("{line}: {failure:?}"))
}

/// Requests with secrets wherever a client can put one: line, headers and body.
fn requests(canaries: &Canaries, cookie: &str, round: usize) -> Vec<(String, String, String)> {
    let c = || canaries.next();
    let get = |line: String, headers: String| (line, headers, String::new());
    let json = |line: &str, headers: &str, body: String| {
        (line.to_owned(), format!("content-type: application/json\r\n{headers}"), body)
    };
    let headers = [
        format!("authorization: Bearer {}", c()),
        format!("proxy-authorization: {}", c()),
        format!("cookie: __Host-session={}; other={}", c(), c()),
        format!("x-api-key: {}", c()),
        format!("user-agent: {}", c()),
        format!("referer: https://example.com/?token={}", c()),
        format!("x-forwarded-for: {}", c()),
        format!("traceparent: {}", c()),
        format!("x-request-id: {} {}", c(), c()),
    ];
    let origin = format!("origin: https://{}.example\r\n", c());
    let mut requests = vec![
        get("GET /v1/session".to_owned(), headers.map(|header| header + "\r\n").concat()),
        get(format!("GET /{}/{}?token={}&password={}", c(), c(), c(), c()), String::new()),
        get(format!("{} /", c()), String::new()),
        get(format!("GET /v1/sessions/{}?api_key={}", c(), c()), cookie.to_owned()),
        json("POST /v1/session", "", format!(r#"{{"password":"{}","#, c())),
        json("POST /v1/session", "", format!(r#"{{"email":5,"password":{{"x":"{}"}}}}"#, c())),
        json("POST /v1/session", "", format!(r#"{{"email":"a@b.c","password":"{}"}} {}"#, c(), c())),
        json("POST /v1/session", &origin, format!(r#"{{"email":"a@b.c","password":"{}"}}"#, c())),
        json("POST /v1/accounts", "", format!(r#"{{"email":"{}","password":"{}"}}"#, c(), c())),
        json("POST /v1/accounts", "", format!(r#"{{"email":"a@b.c","password":["{}"]}}"#, c())),
        ("POST /v1/session".to_owned(), format!("content-type: {}\r\n", c()), c()),
    ];
    // A password takes a core for a while to check.
    if round.is_multiple_of(10) {
        let change = format!(r#"{{"current_password":"{}","new_password":"{}"}}"#, c(), c());
        requests.push(json("PUT /v1/account/password", cookie, change));
        requests.push(json(
            "POST /v1/session",
            "",
            format!(r#"{{"email":"a@example.org","password":"{}"}}"#, c()),
        ));
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_is_given_once_and_found_wherever_it_is() {
        let canaries = Canaries::default();
        let given: String = requests(&canaries, "", 0).into_iter().map(|(a, b, c)| a + &b + &c).collect();
        assert_eq!(count(&given), canaries.0.get());
        assert_eq!([count("a canary000001, canary000001"), count("{\"x\":\"canary\"}")], [1, 0]);
    }
}
