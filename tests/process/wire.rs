//! Bytes as a rude client sends them, and what comes back.
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Far beyond what any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One answer over HTTP/1.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// 0 when the connection was closed without one.
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Whether it is one of ours: the parser's own refusals have no body.
    pub fn is_problem(&self) -> bool {
        self.head.contains("content-type: application/problem+json")
            && self.body.contains(&format!("\"status\":{}", self.status))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Sends `bytes` on a connection of its own, and reads one answer.
pub async fn exchange(port: u16, bytes: &[u8]) -> Answer {
    let mut socket = connect(port).await;
    // The server may have refused by now, and not want the rest.
    socket.write_all(bytes).await.ok();
    answer(&mut socket).await
}

pub async fn answer(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    loop {
        let read = timeout(PATIENCE, socket.read_buf(&mut bytes)).await.expect("an answer, or the end");
        if let Some(answer) = parse(&bytes) {
            return answer;
        }
        if !read.is_ok_and(|read| read > 0) {
            return Answer { body: String::from_utf8_lossy(&bytes).into(), ..Answer::default() };
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let answer = Answer { status, head: format!("{head}\r\n"), body: String::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    (body.len() >= length).then(|| Answer { body: body[..length].to_owned(), ..answer })
}

pub mod http2 {
    //! Frames by hand: a client library would not send what a server must survive.
    use super::{PATIENCE, connect};
    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const REFUSED_STREAM: u8 = 7;
    pub const ENHANCE_YOUR_CALM: u8 = 0xb;

    /// `GET http://a/`, as HPACK.
    pub const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 1, b'a'];

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// A header that is in no table, uncompressed.
    pub fn header(name: &str, value: &str) -> Vec<u8> {
        let long = |text: &str| {
            // Seven bits of the length, then the rest, seven at a time.
            let mut length = text.len() - 127;
            let mut bytes = vec![127];
            while length >= 128 {
                bytes.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            bytes.push(u8::try_from(length).unwrap());
            [&bytes, text.as_bytes()].concat()
        };
        let short = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let text = |text: &str| if text.len() < 127 { short(text) } else { long(text) };
        [vec![0], text(name), text(value)].concat()
    }

    /// A connection after its preface, on which nothing was read yet.
    pub async fn open(port: u16) -> TcpStream {
        let mut socket = connect(port).await;
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
        socket.write_all(&preface).await.unwrap();
        socket
    }

    #[derive(Debug)]
    pub struct Frame {
        pub kind: u8,
        pub flags: u8,
        pub payload: Vec<u8>,
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(socket: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
        let frame = async {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            socket.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind, flags, payload })
        };
        timeout(PATIENCE, frame).await.expect("a frame, or the end")
    }
}
