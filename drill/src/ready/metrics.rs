//! Items 6 and 8: the metrics are there, few, and as Prometheus wants them; the runtime's lag is one of them.

use std::{collections::BTreeSet, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    process::Command,
    time::{Instant, sleep},
};

use super::{Finding, Subject};
use crate::{
    client::http1::{Connection, ask},
    ground::metric,
    limits,
    process::Signal,
    proxy::Mode,
    stop::stage::Stage,
};

/// What dashboards and alerts build on. `http_client_request_duration_seconds` is there once something was called.
const NAMES: &str = "http_server_request_duration_seconds http_server_active_requests http_server_connections \
    http_server_rejected_total db_client_connections db_client_connection_wait_seconds \
    db_client_operation_duration_seconds redis_client_operation_duration_seconds dependency_up runtime_lag_p99_seconds \
    runtime_lag_max_seconds runtime_stalls_total panics_total log_lines_dropped_total spans_dropped_total build_info \
    process_cpu_seconds_total process_resident_memory_bytes process_open_fds process_start_time_seconds";
const OUTBOUND: &str = "http_client_request_duration_seconds";
const MADE_UP: usize = 1000;

pub async fn check(subject: &Subject) -> Result<Finding> {
    let stage = Stage::start(&subject.setup, "metrics", Mode::Pass, &[]).await?;
    stage.server.ready().await?;
    let cookie = stage.sign_up().await?;
    let preview = stage.cold_preview(&cookie).await?;
    if let Some(path) = &preview {
        ask(stage.address(), &format!("GET {path}"), &cookie, "").await?;
    }
    let mut finding = Finding::default();
    // The first ones begin the series that all of them share.
    made_up(&stage, 0..50).await?;
    let before = series(&scrape(&stage, &mut finding).await?);
    made_up(&stage, 50..50 + MADE_UP).await?;
    let text = scrape(&stage, &mut finding).await?;
    let added = series(&text).difference(&before).count();
    finding.hold(&limits::SERIES, added as f64);
    let outbound = preview.is_some().then_some(OUTBOUND);
    let names: Vec<&str> = NAMES.split_whitespace().chain(outbound).collect();
    let missing: Vec<&str> = names.iter().copied().filter(|name| !has(&text, name)).collect();
    finding.unless(missing.is_empty(), format!("not there: {}", missing.join(", ")));
    let promtool = promtool(&text).await?;
    if let Some(Err(complaint)) = &promtool {
        finding.misses.push(format!("promtool check metrics: {complaint}"));
    }
    finding.evidence = format!(
        "{} names; {MADE_UP} made-up paths and methods added {added} series to {}; {}",
        names.len(),
        before.len(),
        if promtool.is_some() { "promtool check metrics was asked" } else { "no promtool here to ask" },
    );
    Ok(finding)
}

async fn scrape(stage: &Stage, finding: &mut Finding) -> Result<String> {
    let ops = SocketAddr::from(([127, 0, 0, 1], stage.server.ops_port()));
    let answer = ask(ops, "GET /metrics", "", "").await?;
    let kind = answer.header("content-type").unwrap_or_default();
    let fits = kind.starts_with("text/plain") && kind.contains("version=0.0.4");
    finding.unless(fits, format!("content-type: {kind}"));
    Ok(String::from_utf8(answer.body)?)
}

/// Their names and labels.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

fn has(text: &str, name: &str) -> bool {
    text.lines()
        .any(|line| line.strip_prefix("# TYPE ").and_then(|line| line.split(' ').next()) == Some(name))
}

/// Asks for what nobody else asks for. Every answer must be a refusal.
async fn made_up(stage: &Stage, numbers: std::ops::Range<usize>) -> Result<()> {
    let mut connection = Connection::new(TcpStream::connect(stage.address()).await?);
    for n in numbers {
        let line = match n % 4 {
            0 => format!("M{n} /{n}"),
            1 => format!("DELETE /v1/sessions/{n}?q={n}"),
            2 => format!("GET /v1/{n}/{n}"),
            _ => format!("X{n} /v1/sessions/{n}"),
        };
        let request = format!("{line} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let answer = connection.exchange(request.as_bytes(), || {}).await;
        let answer = answer.map_err(|failure| anyhow!("{line}: {failure:?}"))?;
        ensure!((400..500).contains(&answer.status), "{line}: {}", answer.head);
    }
    Ok(())
}

/// What it says of these metrics; `None` where it is not installed.
async fn promtool(text: &str) -> Result<Option<Result<(), String>>> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.kill_on_drop(true).spawn() else { return Ok(None) };
    let mut input = child.stdin.take().context("stdin is piped")?;
    input.write_all(text.as_bytes()).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok(Some(if output.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }))
}

/// Long enough for a window of 5 s that is nothing else.
const STOPS: usize = 18;
const STOPPED: Duration = Duration::from_millis(300);

/// Stops the process again and again, as an overloaded host does, and reads what it says of its lag.
pub async fn lag(subject: &Subject) -> Result<Finding> {
    let stage = Stage::start(&subject.setup, "lag", Mode::Pass, &[]).await?;
    stage.server.ready().await?;
    let ops = SocketAddr::from(([127, 0, 0, 1], stage.server.ops_port()));
    let p99 = async || metric(ops, "runtime_lag_p99_seconds").await;
    let (mut seen, mut max) = (0.0, 0.0);
    for _ in 0..STOPS {
        stage.server.signal(Signal::Stop)?;
        sleep(STOPPED).await;
        stage.server.signal(Signal::Cont)?;
        sleep(STOPPED).await;
        seen = p99().await?.max(seen);
        max = metric(ops, "runtime_lag_max_seconds").await?.max(max);
    }
    let end = Instant::now();
    let calm = loop {
        let now = p99().await?;
        if now <= limits::LAG_CALM.value() || end.elapsed() > Duration::from_secs(15) {
            break now;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let back = end.elapsed().as_secs_f64();
    let mut finding = Finding::default();
    finding.hold(&limits::LAG_SEEN, seen);
    finding.unless(max >= seen, format!("the longest, {max:.3} s, is less than the p99"));
    finding.hold(&limits::LAG_CALM, calm);
    finding.hold(&limits::LAG_WINDOW, back);
    finding.evidence = format!(
        "stopped for 0.3 s {STOPS} times: p99 {seen:.3} s, longest {max:.3} s; {back:.1} s later p99 {calm:.3} s again"
    );
    Ok(finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_told_apart_by_their_labels_and_names_by_their_type() {
        let text =
            "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1 2\"} 5\na_total{x=\"2\"} 5\nb 1\n";
        assert_eq!(series(text).len(), 3);
        assert_eq!(series(text), series(&text.replace('5', "6")));
        assert!(has(text, "a_total") && !has(text, "a") && !has(text, "b"));
    }
}
