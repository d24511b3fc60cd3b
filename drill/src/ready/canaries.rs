//! Secrets of every kind, wherever a client can put one, over both versions of HTTP.

use std::{cell::Cell, collections::BTreeSet, net::SocketAddr};

use anyhow::{Context, Result, anyhow};
use axum::{body::Bytes, http::Request};
use h2::client::{SendRequest, handshake};
use tokio::{net::TcpStream, task::JoinSet};

use crate::client::http1::Connection;

/// Hands out secrets, each one only once.
#[derive(Default)]
pub struct Canaries(Cell<usize>);

impl Canaries {
    /// How many were given.
    pub fn given(&self) -> usize {
        self.0.get()
    }

    fn next(&self) -> String {
        self.0.set(self.0.get() + 1);
        format!("canary{:06}", self.0.get())
    }
}

/// How many different ones are in `text`.
pub fn count(text: &str) -> usize {
    let found = text.match_indices("canary").filter_map(|(at, _)| text.get(at..at + 12));
    found.collect::<BTreeSet<_>>().len()
}

/// Line, headers and body.
type Asked = (String, String, String);

/// A client of both versions.
pub struct Client {
    address: SocketAddr,
    http2: SendRequest<Bytes>,
    _connection: JoinSet<()>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let (http2, connection) = handshake(TcpStream::connect(address).await?).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async { drop(connection.await) });
        Ok(Self { address, http2, _connection: driver })
    }

    /// Status and body of the answer to a request as it stands, also where it is no good.
    pub async fn http1(&self, (line, headers, body): &Asked) -> Result<(u16, Vec<u8>)> {
        let mut connection = Connection::new(TcpStream::connect(self.address).await?);
        let length = body.len();
        let request =
            format!("{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        let answer = connection.exchange(request.as_bytes(), || {}).await;
        let answer = answer.map_err(|failure| anyhow!("{line}: {failure:?}"))?;
        Ok((answer.status, answer.body))
    }

    pub async fn http2(&self, (line, headers, body): &Asked) -> Result<(u16, Vec<u8>)> {
        let (method, path) = line.split_once(' ').context("a request has a path")?;
        let mut request = Request::builder().method(method).uri(format!("http://localhost{path}"));
        for (name, value) in headers.lines().filter_map(|header| header.split_once(": ")) {
            request = request.header(name, value);
        }
        let mut requests = self.http2.clone().ready().await?;
        let (answer, mut out) = requests.send_request(request.body(())?, false)?;
        out.send_data(Bytes::from(body.clone()), true)?;
        let (head, mut stream) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(part) = stream.data().await.transpose()? {
            stream.flow_control().release_capacity(part.len())?;
            body.extend_from_slice(&part);
        }
        Ok((head.status.as_u16(), body))
    }
}

/// Requests with a secret in each place. `cookie` is a session's, as a header line.
pub fn requests(canaries: &Canaries, cookie: &str, round: usize) -> Vec<Asked> {
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
