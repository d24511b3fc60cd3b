//! What a client can get wrong on the wire, one row each: the answer, and that nobody else notices.
use crate::{
    service::{server, sign_up},
    wire::{Answer, exchange},
};
use sqlx::PgPool;
use std::fmt::Write;

/// What a row gets.
#[derive(Clone, Copy, Debug)]
enum Gets {
    /// One of these, and a problem if it is a refusal.
    Status(&'static [u16]),
    /// The HTTP parser's own refusal, without a body.
    Bare(u16),
}
use Gets::{Bare, Status};

/// A number, what is sent in words, and in bytes.
type Row = (u8, &'static str, Vec<u8>, Gets);

fn row(number: u8, what: &'static str, sent: impl Into<Vec<u8>>, gets: Gets) -> Row {
    (number, what, sent.into(), gets)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn with_header(line: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nhost: a\r\n", line, b"\r\n\r\n"].concat()
}

/// Headers of `bytes` bytes in all, none of them long.
fn head_of(bytes: usize) -> Vec<u8> {
    let mut head = String::from("GET / HTTP/1.1\r\nhost: a\r\n");
    for n in 0..bytes / 1000 {
        write!(head, "x-{n:03}: {}\r\n", "v".repeat(991)).unwrap();
    }
    (head + "\r\n").into()
}

fn hosts_and_versions() -> Vec<Row> {
    vec![
        row(1, "no Host", "GET / HTTP/1.1\r\n\r\n", Status(&[400])),
        row(2, "two Hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", Status(&[400])),
        row(3, "an empty Host", "GET / HTTP/1.1\r\nhost:\r\n\r\n", Status(&[400])),
        row(4, "an odd Host", "GET / HTTP/1.1\r\nhost: a/b c\r\n\r\n", Status(&[400])),
        row(5, "HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", Status(&[200])),
        row(6, "HTTP/0.9", "GET /\r\n\r\n", Bare(400)),
        row(7, "HTTP/3.0", "GET / HTTP/3.0\r\nhost: a\r\n\r\n", Bare(400)),
        row(8, "garbage", (128..=255).cycle().take(1000).collect::<Vec<u8>>(), Bare(400)),
        row(9, "a TLS hello", b"\x16\x03\x01\x00\xfa\x01\x00\x00\xf6\x03\x03".to_vec(), Bare(400)),
    ]
}

fn header_lines() -> Vec<Row> {
    let many: String = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect();
    vec![
        row(10, "NUL in a header", with_header(b"x: a\0b"), Bare(400)),
        row(11, "a bare CR", with_header(b"x: a\rb: c"), Bare(400)),
        // RFC 9112, section 2.2, allows a recipient to take a bare LF for a line's end; the parser does.
        row(12, "bare LF", "GET / HTTP/1.1\nhost: a\n\n", Status(&[200])),
        row(13, "a folded header", with_header(b"x: a\r\n b"), Bare(400)),
        row(14, "a space before the colon", with_header(b"x : a"), Bare(400)),
        row(15, "a header without a name", with_header(b": a"), Bare(400)),
        row(16, "bytes beyond ASCII", with_header(b"x-request-id: \x80\xfe\xff"), Status(&[200])),
        row(17, "101 headers", with_header(format!("{many}y: 1").as_bytes()), Bare(431)),
        // 32 KiB are allowed.
        row(18, "a head of 20 KB", head_of(20_000), Status(&[200])),
        row(18, "a head of 40 KB", head_of(40_000), Status(&[431])),
        row(18, "a head of 90 KB", head_of(90_000), Status(&[431])),
        row(19, "a target of 9 KB", get(&format!("/{}", "a".repeat(9_000))), Status(&[414])),
        row(19, "a target of 70 KB", get(&format!("/{}", "a".repeat(70_000))), Bare(414)),
    ]
}

fn methods_and_targets() -> Vec<Row> {
    let line = |line: &str| format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n");
    vec![
        row(20, "an unknown method", line("FROB /"), Status(&[405])),
        row(21, "TRACE", line("TRACE /"), Status(&[405])),
        row(22, "CONNECT", "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", Status(&[405])),
        row(23, "OPTIONS *", line("OPTIONS *"), Status(&[204, 404])),
        row(24, "another host in the target", get("http://b/"), Status(&[400])),
        row(25, "a target without a slash", get("v1/session"), Bare(400)),
        row(26, "a way up", get("/../../etc/passwd"), Status(&[404])),
        row(27, "two slashes", get("//"), Status(&[404])),
        row(28, "NUL in the path", get("/v1/sessions/%00"), Status(&[400])),
        row(29, "no hexadecimal after %", get("/v1/sessions/%zz"), Status(&[400])),
        row(30, "a path that is no UTF-8", get("/v1/sessions/%ff"), Status(&[400])),
    ]
}

/// Rows 33 to 35 are about queries, which each resource's own tests know.
fn ids(cookie: &str) -> Vec<Row> {
    let end = |id: &str| format!("DELETE /v1/sessions/{id} HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\n\r\n");
    vec![
        row(31, "an id over 64 bits", end("18446744073709551616"), Status(&[404])),
        row(32, "a negative id", end("-1"), Status(&[404])),
    ]
}

/// Sign-ins by nobody: 401 says that the body was read and understood.
fn lengths_and_encodings() -> Vec<Row> {
    let body = r#"{"email":"nobody@example.com","password":"correct horse battery"}"#;
    let (length, hex) = (body.len(), format!("{:x}", body.len()));
    let post = |headers: &str, body: &str| {
        let start = "POST /v1/session HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
        format!("{start}{headers}\r\n\r\n{body}")
    };
    let whole = format!("{hex}\r\n{body}\r\n0\r\n\r\n");
    let chunked = |body: &str| post("transfer-encoding: chunked", body);
    let both = format!("content-length: 4\r\ntransfer-encoding: chunked\r\nx: {length}");
    let (equal, different) = (
        format!("content-length: {length}\r\ncontent-length: {length}"),
        format!("content-length: {length}\r\ncontent-length: 4"),
    );
    let old = post("transfer-encoding: chunked", &whole).replace("HTTP/1.1", "HTTP/1.0");
    vec![
        row(36, "a length and chunks", post(&both, &whole), Status(&[400, 401])),
        row(37, "two equal lengths", post(&equal, body), Status(&[401])),
        row(38, "two lengths", post(&different, body), Bare(400)),
        row(39, "a negative length", post("content-length: -1", body), Bare(400)),
        row(39, "a length with a plus", post("content-length: +2", body), Bare(400)),
        row(40, "an unknown encoding", post("transfer-encoding: xchunked", &whole), Bare(400)),
        row(40, "chunks, then another", post("transfer-encoding: chunked, identity", &whole), Bare(400)),
        row(40, "chunks in HTTP/1.0", old, Bare(400)),
        row(41, "a bad chunk size", chunked("zz\r\n{}\r\n0\r\n\r\n"), Status(&[400])),
        row(42, "a chunk size over 64 bits", chunked("11111111111111111\r\n{}"), Status(&[400])),
        row(0, "whole chunks, as a control", chunked(&whole), Status(&[401])),
    ]
}

#[sqlx::test]
async fn each_bad_request_gets_its_status_and_nobody_else_notices(pool: PgPool) {
    let server = server(&pool, "bad").start().await.unwrap();
    server.ready().await.unwrap();
    let cookie = sign_up(&server, "alice@example.com").await;
    let rows =
        [hosts_and_versions(), header_lines(), methods_and_targets(), ids(&cookie), lengths_and_encodings()];
    let mut wrong = String::new();
    for (number, what, sent, gets) in rows.concat() {
        let answer = exchange(server.port(), &sent).await;
        if !is_right(number, &answer, gets) {
            writeln!(wrong, "{number} {what}: {gets:?}, not {answer:?}").unwrap();
        }
        let next = exchange(server.port(), get("/").as_bytes()).await;
        assert_eq!(next.status, 200, "after {number} {what}: {next:?}");
    }
    assert_eq!(wrong, "");
    let faults = server.lines().iter().filter(|line| line.contains("\"level\":50")).count();
    assert_eq!((faults, server.stderr().as_str()), (0, ""));
}

fn is_right(number: u8, answer: &Answer, gets: Gets) -> bool {
    let right = match gets {
        Bare(status) => answer.status == status && answer.body.is_empty(),
        Status(statuses) => statuses.contains(&answer.status) && (answer.status < 400 || answer.is_problem()),
    };
    let close = answer.header("connection") == Some("close");
    right
        && match number {
            5 => close || answer.head.starts_with("HTTP/1.0"),
            20 | 21 => answer.header("allow").is_some(),
            // What follows on such a connection may be the rest of a smuggled request.
            36 => close,
            _ => true,
        }
}
