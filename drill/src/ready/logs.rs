//! Item 3: every line is sound, and no secret that a client sends comes out anywhere.

use anyhow::Result;

use super::{
    Finding, Subject,
    canaries::{Canaries, Client, count, requests},
};
use crate::{
    client::http1::ask,
    collector::Collector,
    limits, log,
    process::Signal,
    proxy::Mode,
    stop::stage::{PASSWORD, Stage},
};

/// Everything that anyone in the process has to say.
const LEVEL: &str = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace";
const ROUNDS: usize = 100;

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
    let client = Client::connect(stage.address()).await?;
    for round in 0..ROUNDS {
        for request in requests(&canaries, &cookie, round) {
            let (status, body) = match round % 2 {
                0 => client.http1(&request).await?,
                _ => client.http2(&request).await?,
            };
            odd += usize::from(!(400..500).contains(&status));
            refusals.push_str(&String::from_utf8_lossy(&body));
        }
    }
    drop(client);
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
        canaries.given(),
        lines.len(),
        spans.len() / 1000,
    );
    Ok(finding)
}
