//! The operations port: what it shows, and what it changes.
use crate::{
    service::{client, field, server, sign_up},
    wire,
};
use chrono::{DateTime, Utc};
use drill::process::{Server, Signal};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::BTreeSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

async fn get_json(server: &Server, path: &str) -> Value {
    client().get(server.ops_url(path)).send().await.unwrap().json().await.unwrap()
}

/// The line that tells of the filter's change by whoever `by` begins with.
async fn changed(server: &Server, filter: &str, by: &str) -> Value {
    let is = |line: &Value| {
        line["msg"] == "log level changed" && line["filter"] == filter && field(line, "by").starts_with(by)
    };
    server.line(is).await.unwrap()
}

#[sqlx::test]
async fn the_log_level_changes_for_a_while_and_the_log_says_who_wanted_it(pool: PgPool) {
    let server = server(&pool, "level").start().await.unwrap();
    let put = async |body: Value| {
        let answer = client().put(server.ops_url("/log-level")).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(get_json(&server, "/log-level").await, json!({"level": "info"}));
    let loud = json!({"level": "loud"});
    for wrong in [loud, json!({"level": "debug", "ttl": "0s"}), json!({"level": "info", "for": 1})] {
        assert_eq!(put(wrong).await.1["code"], "invalid");
    }

    let (status, now) = put(json!({"level": "error", "ttl": "1500ms"})).await;
    assert_eq!((status, field(&now, "level")), (200, "error"));
    let told = changed(&server, "error", "127.0.0.1").await;
    assert!(field(&told, "until") > field(&told, "time") && !field(&now, "until").is_empty());
    assert_eq!(client().get(server.url("/")).send().await.unwrap().status(), 200);
    changed(&server, "info", "its time to live").await;
    assert_eq!(get_json(&server, "/log-level").await, json!({"level": "info"}));
    assert_eq!(client().get(server.url("/docs")).send().await.unwrap().status(), 200);
    server.line(|line| line["route"] == "/docs").await.expect("info lines again");
    assert!(!server.lines().iter().any(|line| line.contains(r#""route":"/""#)), "it was no error");

    server.signal(Signal::Usr1).unwrap();
    let told = changed(&server, "debug", "SIGUSR1").await;
    let now = get_json(&server, "/log-level").await;
    assert_eq!(field(&now, "level"), "debug");
    let [from, to] =
        [&told["time"], &now["until"]].map(|at| at.as_str().unwrap().parse::<DateTime<Utc>>().unwrap());
    assert_eq!((to - from).num_seconds().clamp(290, 300), (to - from).num_seconds(), "five minutes");
    server.signal(Signal::Term).unwrap();
    assert_eq!(server.wait().await.unwrap().code, Some(0));
}

#[sqlx::test]
async fn profiles_are_taken_one_at_a_time_and_know_the_functions_by_name(pool: PgPool) {
    let server = server(&pool, "profile").env("LOGIN_RATE_LIMIT", "1000/1m").start().await.unwrap();
    let get = async |path: &str, accept: &str| {
        let answer = client().get(server.ops_url(path)).header("accept", accept).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    };
    for wrong in ["?seconds=0", "?seconds=61", "?seconds=x", "?hours=1"] {
        assert_eq!(get(&format!("/debug/profile/cpu{wrong}"), "*/*").await.0, 422, "{wrong}");
    }
    // Hashing passwords is work that a profile must see.
    let work = async {
        for n in 0.. {
            sign_up(&server, &format!("alice-{n}@example.com")).await;
        }
    };
    let cpu = async || get("/debug/profile/cpu?seconds=3", "text/html").await;
    let (one, other) = tokio::select! {
        both = async { tokio::join!(cpu(), cpu()) } => both,
        () = work => unreachable!("it has no end"),
    };
    let (done, refused) = if one.0 == 200 { (one, other) } else { (other, one) };
    assert_eq!((done.0, refused.0), (200, 409));
    let flames = String::from_utf8(done.1.into()).unwrap();
    assert!(flames.starts_with("<!doctype html>") && flames.contains("argon2"), "{flames}");
    assert!(!flames.contains("perf_signal_handler"), "the profiler is no part of the program");

    for path in ["/debug/profile/cpu?seconds=1", "/debug/profile/heap"] {
        let (status, profile) = get(path, "*/*").await;
        assert_eq!((status, &profile[..2]), (200, &[0x1f, 0x8b][..]), "gzip, as pprof has it");
    }
    let (status, flames) = get("/debug/profile/heap", "text/html,*/*").await;
    let flames = String::from_utf8(flames.into()).unwrap();
    assert!(status == 200 && flames.contains("tokio::runtime"), "{flames}");
}

fn made_up(client: usize, n: usize) -> String {
    let id = format!("{client}-{n}");
    let (method, path) = match n % 4 {
        0 => (format!("M{n}"), format!("/{id}")),
        1 => ("DELETE".to_owned(), format!("/v1/sessions/{id}?q={id}")),
        2 => ("GET".to_owned(), format!("/v1/{id}/{id}")),
        _ => (format!("X{client}"), format!("/v1/sessions/{id}")),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[sqlx::test]
async fn ten_thousand_made_up_requests_leave_few_series(pool: PgPool) {
    let server = server(&pool, "series").env("RATE_LIMIT", "1000000/1m").start().await.unwrap();
    let mut clients = JoinSet::new();
    for client in 0..10 {
        let (mut answers, mut requests) = wire::connect(server.port()).await.into_split();
        let made_up: String = (0..1000).map(|n| made_up(client, n)).collect();
        clients.spawn(async move {
            let last = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let mut text = String::new();
            let sent = async { requests.write_all((made_up + last).as_bytes()).await };
            tokio::try_join!(sent, answers.read_to_string(&mut text)).unwrap();
            assert_eq!(text.matches("HTTP/1.1 4").count(), 1000);
        });
    }
    clients.join_all().await;
    let metrics = client().get(server.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
    let series: Vec<_> = metrics.lines().filter(|line| !line.starts_with('#')).collect();
    let served = series.iter().filter_map(|line| {
        line.strip_prefix("http_server_request_duration_seconds_count")?
            .rsplit(' ')
            .next()?
            .parse::<u32>()
            .ok()
    });
    assert_eq!(served.sum::<u32>(), 10_010);
    assert!(series.len() < 300, "{} series", series.len());
}

/// What `promtool check metrics` asks for, of every metric that a running server shows.
#[sqlx::test]
async fn metrics_are_named_and_explained_as_prometheus_wants_them(pool: PgPool) {
    let server = server(&pool, "names").start().await.unwrap();
    sign_up(&server, "alice@example.com").await;
    let metrics = client().get(server.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
    let of = |word: &str| -> BTreeSet<&str> {
        let start = format!("# {word} ");
        metrics.lines().filter_map(|line| line.strip_prefix(&start)).collect()
    };
    let helped: BTreeSet<_> =
        of("HELP").iter().filter_map(|help| help.split_once(' ')).map(|(name, _)| name).collect();
    let typed: Vec<_> = of("TYPE").iter().filter_map(|line| line.split_once(' ')).collect();
    assert!(typed.len() > 20, "{metrics}");
    for (name, kind) in typed {
        assert!(helped.contains(name), "{name} has no help text");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
            "{name}"
        );
        let odd = ["_ms", "_millis", "_milliseconds", "_count", "_sum", "_bucket", "_histogram", "_gauge"];
        assert!(!odd.iter().any(|end| name.ends_with(end)), "{name}");
    }
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"] {
        assert!(helped.contains(&*format!("process_{name}")), "{name}");
    }
}
