//! A process of its own (this test binary again) that logs, traces and panics, seen from outside.
use crate::{
    config::{self, LogFormat},
    telemetry::{self, panics, request::Request, traces},
};
use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::{KeyValue, trace::TraceContextExt};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Command, Output},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_millis(1500);

fn settings(format: LogFormat) -> config::Telemetry {
    config::Telemetry {
        service: "orders".into(),
        region: "local".into(),
        log_level: "info".into(),
        log_format: format,
        collector: Some(String::new().into()),
        span_queue: 2048,
    }
}

#[test]
#[ignore = "a process for the other tests"]
fn child_that_serves_one_request() {
    let telemetry = telemetry::init(&settings(LogFormat::Json)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let otel = traces::server_span(&HeaderMap::new(), &Method::GET);
    let span_id = otel.span().span_context().span_id();
    let deadline = Instant::now() + Duration::from_secs(1);
    let request = Request::new("req-1".into(), [127, 0, 0, 1].into(), deadline, otel.clone());
    runtime.block_on(request.scope(async {
        tracing::info!(%span_id, "served");
        let query = || vec![KeyValue::new("db.system.name", "postgresql")];
        drop(traces::ClientSpan::start("db_query", query));
        let mut outbound = traces::ClientSpan::start("outbound", Vec::new);
        outbound.fail("timeout");
        let mut headers = HeaderMap::new();
        outbound.inject(&mut headers);
        let own = tracing::info_span!("own_span");
        let traceparent = headers["traceparent"].to_str().unwrap();
        own.in_scope(|| tracing::info!(traceparent, password = "canary", "instrumented"));
    }));
    traces::end_server_span(&otel, &Method::GET, Some("/v1/things/{id}"), StatusCode::BAD_GATEWAY);
    let start = Instant::now();
    telemetry.export_spans(LIMIT);
    crate::telemetry::flush_lines(LIMIT);
    println!("flushed after {}", start.elapsed().as_millis());
}

#[test]
#[ignore = "a process for the other tests"]
fn child_that_panics() {
    panics::install();
    let panic = |text: &'static str| {
        let thread = thread::Builder::new().name("worker".to_owned()).spawn(move || panic!("{text}"));
        assert!(thread.unwrap().join().is_err());
    };
    panic("before the log");
    let telemetry =
        telemetry::init(&config::Telemetry { collector: None, ..settings(LogFormat::Json) }).unwrap();
    panic("token {\"secret\": 1}");
    let set = |filter| telemetry.filter.set(filter, "a test", None);
    set("off").unwrap();
    panic("while the log is off");
    set("debug").unwrap();
    tracing::debug!("audible");
    assert!(set("a=b=c").is_err());
    telemetry.export_spans(LIMIT);
    crate::telemetry::flush_lines(LIMIT);
}

#[test]
#[ignore = "a process for the other tests"]
fn child_for_people() {
    let telemetry =
        telemetry::init(&config::Telemetry { collector: None, ..settings(LogFormat::Pretty) }).unwrap();
    tracing::info!(port = 8080, "started");
    telemetry.export_spans(LIMIT);
    crate::telemetry::flush_lines(LIMIT);
}

fn run(child: &str, endpoint: &str) -> Output {
    let name = format!("telemetry::tests::process::{child}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact", &name])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=canary-cage")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn flushed_after_ms(output: &Output) -> u128 {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("flushed after ")).unwrap().parse().unwrap()
}

/// A collector that takes one request and hands out its first line and its body.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            while head.last().is_none_or(|line: &String| line != "\r\n") {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                head.push(line.to_lowercase());
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.trim().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            let _ = sender.send((head.remove(0), body));
        }
    });
    (url, requests)
}

#[test]
fn spans_reach_the_collector_on_flush_and_lines_reach_stdout() {
    let (url, requests) = collector();
    let output = run("child_that_serves_one_request", &url);
    let (head, body) = requests.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(head, "post /v1/traces http/1.1\r\n");
    let has = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
    for text in [
        "orders",
        "service.version",
        "canary-cage",
        "GET /v1/things/{id}",
        "http.route",
        "url.scheme",
        "db_query",
        "postgresql",
        "outbound",
        "timeout",
        "own_span",
    ] {
        assert!(has(text.as_bytes()), "{text}");
    }
    assert!(!has(b"instrumented"), "events are for the log, which redacts them");
    let [served, instrumented] = &lines(&output)[..] else { panic!("{output:?}") };
    assert_eq!(served["request_id"], "req-1");
    assert_eq!(instrumented["password"], "[REDACTED]");
    assert_eq!(instrumented["trace_id"], served["trace_id"]);
    assert_ne!(instrumented["span_id"], served["span_id"], "the innermost span's");
    assert!(instrumented["traceparent"].as_str().unwrap().contains(served["trace_id"].as_str().unwrap()));

    // Field 4 of a span is its parent: all three children have the server span as theirs.
    let id = u64::from_str_radix(served["span_id"].as_str().unwrap(), 16).unwrap();
    let parent = [&[0x22, 8], &id.to_be_bytes()[..]].concat();
    assert_eq!(body.windows(parent.len()).filter(|window| *window == parent).count(), 3);
}

#[test]
fn a_dead_collector_does_not_hold_up_the_exit() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), refusing] {
        let output = run("child_that_serves_one_request", &format!("http://{address}"));
        let took = flushed_after_ms(&output);
        assert!(took < LIMIT.as_millis() + 300, "{took} ms");
        let last = &lines(&output).pop().unwrap()["msg"];
        assert!(last.as_str().unwrap().contains("exported"), "{last}");
    }
}

#[test]
fn a_panic_is_one_fatal_line_and_stderr_only_where_there_is_no_log() {
    let output = run("child_that_panics", "");
    let stderr = std::str::from_utf8(&output.stderr).unwrap();
    assert!(stderr.contains("panic in thread 'worker'") && stderr.contains("before the log"), "{stderr}");
    assert!(stderr.contains("while the log is off"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
    let [panic, off, debug, audible] = &lines(&output)[..] else { panic!("{output:?}") };
    assert_eq!(
        (&panic["level"], &panic["msg"], &panic["thread"]),
        (&60.into(), &"panic".into(), &"worker".into())
    );
    assert_eq!(
        (&panic["err"]["type"], &panic["err"]["message"]),
        (&"panic".into(), &"token {\"secret\":[REDACTED]".into())
    );
    assert!(panic["err"]["stack"].as_str().unwrap().contains("child_that_panics"));
    assert!(panic["location"].as_str().unwrap().contains("process.rs:"));
    for (line, filter) in [(off, "off"), (debug, "debug")] {
        assert_eq!(
            (&line["msg"], &line["filter"], &line["by"]),
            (&"log level changed".into(), &filter.into(), &"a test".into())
        );
    }
    assert_eq!(audible["msg"], "audible");
}

#[test]
fn pretty_lines_are_text() {
    let output = run("child_for_people", "");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert!(text.contains(" INFO ") && text.contains("started") && text.contains("port=8080"), "{text}");
}
