//! A socket that knows which HTTP/2 requests were written to it: one still queued in the client was never sent.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEADERS: u8 = 1;

/// The highest stream whose request has begun to leave. A client's streams go up in number.
#[derive(Clone, Default)]
pub struct Highest(Arc<AtomicU32>);

impl Highest {
    pub fn has(&self, stream: u32) -> bool {
        stream <= self.0.load(Relaxed)
    }
}

/// Passes everything on, and reads the heads of the frames that are written.
pub struct Written {
    tcp: TcpStream,
    highest: Highest,
    /// Bytes to pass before the next frame.
    skip: usize,
    /// What there is of the next frame's head.
    head: Vec<u8>,
}

impl Written {
    pub fn new(tcp: TcpStream) -> (Self, Highest) {
        let highest = Highest::default();
        (Self { tcp, highest: highest.clone(), skip: PREFACE, head: Vec::with_capacity(9) }, highest)
    }

    fn note(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let missing = (9 - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if let [a, b, c, kind, _, w, x, y, z] = self.head[..] {
                if kind == HEADERS {
                    self.highest.0.fetch_max(u32::from_be_bytes([w, x, y, z]), Relaxed);
                }
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.head.clear();
            }
        }
    }
}

impl AsyncWrite for Written {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
        self.note(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl AsyncRead for Written {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_request_counts_once_its_frame_has_begun_to_leave_however_it_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut socket, highest) = Written::new(tcp);
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        sent.extend_from_slice(
            b"\0\0\x02\x01\x05\0\0\0\x01ab\0\0\x01\x00\0\0\0\0\x07x\0\0\0\x01\x05\0\0\0\x03",
        );
        let seen: Vec<u32> = sent
            .chunks(1)
            .map(|byte| {
                socket.note(byte);
                (1..=7).rev().find(|&stream| highest.has(stream)).unwrap_or(0)
            })
            .collect();
        let first = PREFACE + 9 + 9 - 1;
        assert_eq!((seen[first - 1], seen[first]), (0, 1));
        assert_eq!((seen[seen.len() - 2], seen[seen.len() - 1]), (1, 3), "no body is a request");
    }
}
