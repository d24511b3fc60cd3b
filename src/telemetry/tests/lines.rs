//! What a log line looks like, from the event to the bytes.
use crate::config::{self, LogFormat};
use crate::telemetry::{logs, request::Request, writer::Sink};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use serde_json::Value;
use std::time::{Duration, Instant};
use tracing_subscriber::{Registry, layer::SubscriberExt};

/// Runs `work` with a log of its own. Answers with its lines.
pub fn raw_lines(work: impl FnOnce()) -> Vec<String> {
    let printed = logged(work).taken(&mut logs::Printer::new(&settings()));
    printed.lines().map(ToOwned::to_owned).collect()
}

/// What the same events said, before the guard had it.
pub fn unguarded(work: impl FnOnce()) -> String {
    String::from_utf8(logged(work).take()).unwrap()
}

fn logged(work: impl FnOnce()) -> &'static Sink {
    let sink: &'static Sink = Box::leak(Box::new(Sink::new()));
    tracing::subscriber::with_default(Registry::default().with(logs::Lines(sink)), work);
    sink
}

pub fn settings() -> config::Telemetry {
    config::Telemetry {
        service: "orders".into(),
        region: "eu-1".into(),
        log_level: "trace".into(),
        log_format: LogFormat::Json,
        collector: None,
        span_queue: 2048,
    }
}

fn lines(work: impl FnOnce()) -> Vec<Value> {
    raw_lines(work).iter().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn line(work: impl FnOnce()) -> Value {
    let mut lines = lines(work);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// How often `key` stands in the line, at its first level or deeper.
fn count(line: &str, key: &str) -> usize {
    line.matches(&format!("\"{key}\":")).count()
}

#[test]
fn a_line_has_every_field_that_bunyan_and_pino_readers_want() {
    let line = line(|| tracing::info!(port = 8080, "started"));
    assert_eq!(line["v"], 0);
    assert_eq!(line["name"], "orders");
    assert_eq!(line["service"], "orders");
    assert_eq!(line["region"], "eu-1");
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line["msg"], "started");
    assert_eq!(line["level"], 30);
    assert_eq!(line["port"], 8080);
    assert_eq!(line["pid"], std::process::id());
    assert!(!line["hostname"].as_str().unwrap().is_empty());
    assert_eq!(line["target"], module_path!());
    let time = line["time"].as_str().unwrap();
    assert_eq!((time.len(), &time[19..20], &time[23..]), (24, ".", "Z"), "{time}");
    chrono::DateTime::parse_from_rfc3339(time).unwrap();
    assert_eq!(line.as_object().unwrap().len(), 12, "{line}");
}

#[test]
fn levels_are_bunyans_and_fatal_is_60() {
    let lines = lines(|| {
        tracing::trace!("a");
        tracing::debug!("b");
        tracing::info!("c");
        tracing::warn!("d");
        tracing::error!("e");
        tracing::error!(fatal = true, "f");
        tracing::error!(fatal = true, service = "other", target = "x", "g");
    });
    let levels: Vec<_> = lines.iter().map(|line| line["level"].as_u64().unwrap()).collect();
    assert_eq!(levels, [10, 20, 30, 40, 50, 60, 60]);
    assert!(lines.iter().all(|line| line.get("fatal").is_none()));
}

#[test]
fn no_key_stands_twice_and_the_events_own_value_wins() {
    let lines = raw_lines(|| {
        tracing::info!(service = "event", region = 7, target = "mine", target_ = 1, request_id = "own", "x");
        tracing::info!(version = "event", message_ = 1, "y");
    });
    for key in ["service", "region", "version", "target", "request_id", "msg", "level"] {
        assert!(lines.iter().all(|line| count(line, key) <= 1), "{key}: {lines:?}");
    }
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        (&first["service"], &first["region"], &first["target"]),
        (&"event".into(), &7.into(), &"mine".into())
    );
    assert!(lines[1].contains(r#""version":"event""#));
}

#[test]
fn an_event_keeps_the_fields_that_are_named_like_the_lines_own() {
    let line = line(|| {
        tracing::info!(
            v = 1.5,
            name = "n",
            msg = "m\"",
            level = true,
            hostname = ?Some("h"),
            pid = -1,
            time = 7,
            line = 8,
            file = "f",
            r#type = "t",
            password = "canary",
            "x"
        );
    });
    assert_eq!((&line["msg"], &line["level"], &line["name"]), (&"x".into(), &30.into(), &"orders".into()));
    assert_eq!((&line["event_v"], &line["event_name"]), (&1.5.into(), &"n".into()));
    assert_eq!((&line["event_msg"], &line["event_level"]), (&"m\"".into(), &true.into()));
    assert_eq!((&line["event_hostname"], &line["event_pid"]), (&r#"Some("h")"#.into(), &(-1).into()));
    assert_eq!((&line["event_time"], &line["line"], &line["file"]), (&7.into(), &8.into(), &"f".into()));
    assert_eq!((&line["type"], &line["password"]), (&"t".into(), &"[REDACTED]".into()));
}

#[test]
fn a_record_of_the_log_crate_is_an_event_like_others() {
    let line = line(|| {
        tracing::info!(
            log.target = "redis",
            log.module_path = "redis::aio",
            log.file = "aio.rs",
            log.line = 7,
            "x"
        );
    });
    assert_eq!(line["target"], "redis");
    assert_eq!(line.as_object().unwrap().len(), 11, "{line}");
}

#[test]
fn spans_add_no_lines_no_prefixes_and_no_fields() {
    let line = line(|| {
        let outer = tracing::info_span!("outer", password = "canary", service = "span");
        let _outer = outer.enter();
        let inner = tracing::info_span!("inner", user = 1);
        let _inner = inner.enter();
        tracing::info!("hello");
    });
    assert_eq!((&line["msg"], &line["service"]), (&"hello".into(), &"orders".into()));
    assert!(line.get("user").is_none() && line.get("password").is_none());
}

#[test]
fn no_secret_is_printed_at_any_depth() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "read by its Debug form only")]
    struct Login {
        email: &'static str,
        password: &'static str,
    }
    let login = Login { email: "a@b.c", password: "canary-1" };
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("authorization", "Bearer canary-2".parse().unwrap());
    headers.insert("accept", "text/html; q=\"1\"".parse().unwrap());
    let body = r#"{"user":{"items":[{"API_KEY":"canary-3"}],"Set-Cookie":["canary-4"]}}"#;
    let err = r#"{"type":"X","message":"m","stack":"s","token":{"a":"canary-5"}}"#;
    let lines = raw_lines(|| {
        tracing::info!(password = "canary-6", authorization = "canary-7", user_token = 123_456_789, "a");
        tracing::info!(
            accessToken = "canary-8",
            "x-api-key" = "canary-9",
            Cookie = "canary-10",
            secret = true,
            "b"
        );
        tracing::info!(?login, ?headers, body, err, settings = body, "c");
        tracing::info!(quoted = ?body, cut = &body[..50], list = r#"[1,{"client_secret":"canary-11"}]"#, "d");
        tracing::info!(
            spaced = r#"  {"secret" : "canary-12"}"#,
            twice = r#"{"b":"{\"token\":\"canary-13\"}"}"#,
            "e"
        );
        tracing::info!("{login:?}");
        tracing::info!("{body}");
    });
    assert_eq!(lines.len(), 7);
    for line in &lines {
        assert!(!line.contains("canary") && !line.contains("123456789"), "{line}");
        assert!(line.contains("[REDACTED]"), "{line}");
        serde_json::from_str::<Value>(line).expect(line);
    }
    let third: Value = serde_json::from_str(&lines[2]).unwrap();
    assert_eq!(third["settings"]["user"]["Set-Cookie"], "[REDACTED]");
    assert_eq!(third["body"], r#"{"user":{"items":[{"API_KEY":"[REDACTED]"}],"Set-Cookie":"[REDACTED]"}}"#);
}

#[test]
fn harmless_values_come_out_as_they_went_in() {
    let odd = "a\"b\\c\n\r\t\u{0}\u{1b}\u{7f}\u{2028}é😀 {id} [x] C:\\{ {\"";
    let line = line(|| {
        tracing::info!(
            odd,
            tokenizer = "bpe",
            route = "/v1/sessions/{id}",
            nan = f64::NAN,
            big = u64::MAX,
            "{odd}"
        );
    });
    assert_eq!((&line["odd"], &line["msg"]), (&odd.into(), &odd.into()));
    assert_eq!((&line["tokenizer"], &line["route"]), (&"bpe".into(), &"/v1/sessions/{id}".into()));
    assert_eq!((&line["nan"], &line["big"]), (&Value::Null, &u64::MAX.into()));
}

#[test]
fn err_and_settings_are_objects_when_they_hold_one() {
    let error =
        anyhow::Error::new(std::io::Error::from_raw_os_error(2)).context("reading it").context("starting");
    let line = line(|| {
        tracing::error!(err = logs::err_json(&error), settings = "[1]", "failed");
    });
    assert_eq!(line["err"]["type"], "Os");
    assert_eq!(line["err"]["message"], "starting: reading it: No such file or directory (os error 2)");
    assert!(
        line["err"]["stack"]
            .as_str()
            .unwrap()
            .starts_with("starting\ncaused by: reading it\ncaused by: No such")
    );
    assert_eq!(line["settings"], "[1]");
    assert!(logs::err_json(&anyhow::anyhow!("x")).contains(r#""type":"Error""#));
}

#[tokio::test]
async fn a_line_names_the_request_that_it_belongs_to() {
    let (trace, span) = (TraceId::from(0xabc_u128), SpanId::from(0xdef_u64));
    let ids = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    let otel = opentelemetry::Context::new().with_remote_span_context(ids);
    let deadline = Instant::now() + Duration::from_secs(1);
    let request = Request::new("req-1".into(), [127, 0, 0, 1].into(), deadline, otel);
    let inside = request.scope(async { line(|| tracing::info!("inside")) }).await;
    assert_eq!(inside["request_id"], "req-1");
    assert_eq!(inside["trace_id"], "00000000000000000000000000000abc");
    assert_eq!(inside["span_id"], "0000000000000def");
    let outside = line(|| tracing::info!("outside"));
    assert!(["request_id", "trace_id", "span_id"].iter().all(|key| outside.get(*key).is_none()));

    let untraced =
        Request::new("req-2".into(), [127, 0, 0, 1].into(), deadline, opentelemetry::Context::new());
    let line = untraced.scope(async { line(|| tracing::info!(request_id = "own", "x")) }).await;
    assert_eq!(line["request_id"], "own");
    assert!(line.get("trace_id").is_none());
}

#[test]
fn lines_of_parallel_threads_do_not_mix() {
    let lines = lines(|| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dispatch = &dispatch;
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        (0..500).for_each(|n| tracing::info!(thread, n, text = "x".repeat(n), "m"));
                    });
                });
            }
        });
    });
    assert_eq!(lines.len(), 2000);
    for line in lines {
        assert_eq!(line["text"].as_str().unwrap().len() as u64, line["n"].as_u64().unwrap());
    }
}

#[test]
fn a_value_that_panics_while_it_is_printed_costs_its_line_only() {
    struct Bomb;
    impl std::fmt::Debug for Bomb {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("bomb")
        }
    }
    let lines = lines(|| {
        let result = std::panic::catch_unwind(|| tracing::info!(bomb = ?Bomb, "x"));
        assert!(result.is_err());
        tracing::info!("after");
    });
    assert_eq!(lines.len(), 1);
}
