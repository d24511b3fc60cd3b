//! HTTP/1.1 by hand, for a client that knows exactly when a byte was written and how a connection ended.

use std::{io, mem::MaybeUninit, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::Target;

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the headers, as they came.
    pub head: String,
    pub body: Vec<u8>,
    /// The server closes the connection after this answer.
    pub close: bool,
}

impl Answer {
    /// The first header of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The server had closed the connection before a byte was written.
    ClosedBefore,
    /// Something was written, and this is how it ended.
    Lost(io::Error),
}

/// A connection that carries one request after the other.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, received: Vec::with_capacity(4096) }
    }

    /// Sends `request`, which may be incomplete, and waits for an answer without a limit. `sent` is called once a byte
    /// was written.
    ///
    /// # Errors
    ///
    /// As the variants of [`Failure`] say.
    pub async fn exchange(&mut self, request: &[u8], sent: impl FnOnce()) -> Result<Answer, Failure> {
        if self.is_over() {
            return Err(Failure::ClosedBefore);
        }
        let written = self.stream.write(request).await.map_err(|_| Failure::ClosedBefore)?;
        sent();
        self.stream.write_all(&request[written..]).await.map_err(Failure::Lost)?;
        self.answer().await.map_err(Failure::Lost)
    }

    /// Asks the kernel, not the runtime, which may not have heard of the end yet. An unasked answer is an end too.
    fn is_over(&self) -> bool {
        let seen = SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]);
        !seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        self.received.clear();
        let head_end = loop {
            if let Some(at) = self.received.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.received[..head_end]).into_owned();
        let mut answer = parse(head).ok_or_else(|| broken("not an answer of HTTP/1.1 with a length"))?;
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.received.len() < head_end + length {
            self.more().await?;
        }
        answer.body = self.received[head_end..head_end + length].to_vec();
        Ok(answer)
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 if self.received.is_empty() => Err(broken("closed without an answer")),
            0 => Err(broken("closed amid the answer")),
            _ => Ok(()),
        }
    }
}

fn broken(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, how)
}

fn parse(head: String) -> Option<Answer> {
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut answer = Answer { status, head, body: Vec::new(), close: false };
    answer.close = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    answer.header("transfer-encoding").is_none().then_some(answer)
}

/// One request on a connection of its own. `body` is sent as JSON unless it is empty; `headers` end with `\r\n` each.
///
/// # Errors
///
/// When there is no complete answer.
pub async fn ask(address: SocketAddr, line: &str, headers: &str, body: &str) -> Result<Answer> {
    let mut connection = Connection::new(TcpStream::connect(address).await?);
    let json = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\n{json}content-length: {length}\r\n{headers}\r\n{body}"
    );
    match connection.exchange(request.as_bytes(), || {}).await {
        Ok(answer) => Ok(answer),
        Err(Failure::ClosedBefore) => bail!("{line}: closed before the request was sent"),
        Err(Failure::Lost(error)) => bail!("{line}: {error}"),
    }
}

/// Asks again and again on one connection, and on the next when the server has closed it or said that it will.
pub(super) async fn keep_alive(target: Arc<Target>, name: &'static str, think: Duration) {
    let request = get(&target, "");
    while let Some(stream) = target.connect().await {
        let mut connection = Connection::new(stream);
        let mut after = 0;
        while !target.stopped() && one(&target, &mut connection, &request, name, after).await {
            after += 1;
            if !think.is_zero() {
                sleep(think.mul_f64(crate::fraction())).await;
            }
        }
    }
}

fn get(target: &Target, headers: &str) -> String {
    let cookie = target.cookie.as_ref().map(|cookie| format!("cookie: {cookie}\r\n")).unwrap_or_default();
    format!("GET {} HTTP/1.1\r\nhost: localhost\r\n{cookie}{headers}\r\n", target.path)
}

/// Asks once on each connection.
pub(super) async fn fresh(target: Arc<Target>) {
    let request = get(&target, "connection: close\r\n");
    while let Some(stream) = target.connect().await {
        one(&target, &mut Connection::new(stream), &request, "fresh", 0).await;
    }
}

/// Counts one request; tells whether the connection can carry another.
async fn one(
    target: &Target,
    connection: &mut Connection,
    request: &str,
    name: &'static str,
    after: u64,
) -> bool {
    let asked = Instant::now();
    match connection.exchange(request.as_bytes(), || target.counts().sent += 1).await {
        Ok(answer) => {
            target.answered(answer.status, asked);
            !answer.close
        }
        Err(Failure::ClosedBefore) => {
            target.counts().closed_before += 1;
            false
        }
        Err(Failure::Lost(error)) => {
            target.lost(name, after, &error);
            false
        }
    }
}
