//! The socket under HTTP: gives up peers that are silent, slow to ask or do not read, and reads once more before it ends.
use super::activity::Activity;
use socket2::SockRef;
use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// From the accept to the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// From the first byte of a request's head to its last.
const HEAD: Duration = Duration::from_secs(10);
/// Between two requests; longer than the 60 s of common load balancers, which must be the ones that close.
const IDLE: Duration = Duration::from_secs(75);
/// Without any of an answer being taken.
const UNREAD: Duration = Duration::from_secs(30);

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection's socket and what it waits for.
pub struct Socket {
    tcp: TcpStream,
    activity: Arc<Activity>,
    wait: Wait,
    /// When `wait` began; `None` until somebody wants to know.
    since: Option<Instant>,
    /// The progress of the requests when it was last looked at.
    progress: usize,
    /// Bytes of the HTTP/2 preface that have come.
    preface: usize,
    /// Moved only when it fires too early or would fire too late, so that a busy connection costs no timer work.
    timer: Pin<Box<Sleep>>,
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Wait {
    FirstByte,
    /// Part of a head is here.
    Head,
    /// The next request, or the end of those under way.
    Next,
}

impl Socket {
    pub fn new(tcp: TcpStream, activity: Arc<Activity>) -> Self {
        let (wait, timer) = (Wait::FirstByte, Box::pin(sleep(FIRST_BYTE)));
        Self { tcp, activity, wait, since: None, progress: 0, preface: 0, timer, stalled: None }
    }

    fn heard(&mut self, bytes: &[u8]) {
        if self.preface < PREFACE.len() {
            self.hear_preface(bytes);
        }
        // The frames of an idle HTTP/2 connection are no half head.
        if !bytes.is_empty() && self.wait != Wait::Head && !self.activity.http2() {
            self.wait(Wait::Head);
        }
    }

    /// It may come in pieces. A connection is HTTP/2 only once all of it is there: until then it is half a head.
    fn hear_preface(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.preface..];
        let length = rest.len().min(bytes.len());
        // What is no preface is none for good.
        self.preface = if bytes[..length] == rest[..length] { self.preface + length } else { usize::MAX };
        if self.preface == PREFACE.len() {
            self.activity.is_http2();
            self.wait(Wait::Next);
        }
    }

    fn wait(&mut self, wait: Wait) {
        (self.wait, self.since) = (wait, None);
    }

    fn since(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    /// Each step of a request is followed by a wait that begins then.
    fn follow_requests(&mut self) {
        let progress = self.activity.progress();
        if progress != self.progress {
            self.progress = progress;
            self.wait(Wait::Next);
        }
    }

    /// When the peer is to be given up; `None` while requests are under way that do not wait for the peer: they have
    /// their own limits.
    fn due(&mut self) -> Option<Instant> {
        self.follow_requests();
        if self.activity.under_way() > 0 {
            self.wait = Wait::Next;
            // An HTTP/2 peer says how much of an answer it has room for. One that never does is as deaf as one that
            // does not read, though there is nothing to write to it.
            return self.activity.untaken().then(|| self.since() + UNREAD);
        }
        let patience = match self.wait {
            Wait::FirstByte => FIRST_BYTE,
            Wait::Head => HEAD,
            Wait::Next => IDLE,
        };
        Some(self.since() + patience)
    }

    /// Whether the drain may end an HTTP/1 connection: no request is under way, half here, or about to be read. HTTP/2
    /// has a message for it.
    fn nobody_waits(&mut self) -> bool {
        if !self.activity.closing() || self.activity.http2() {
            return false;
        }
        // Brings `wait` up to date.
        self.due();
        // Tokio knows what it has last heard from the kernel. A request may have come since, so the kernel is asked.
        let came =
            || SockRef::from(&self.tcp).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0);
        self.activity.under_way() == 0 && self.wait != Wait::Head && !came()
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(due) = self.due() else {
            return Poll::Pending;
        };
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(Err(self.give_up()));
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Passes on what a write came to, unless the peer has not taken a byte for too long.
    fn poll_taken<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.activity.bytes_moved();
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(UNREAD)));
        stalled.as_mut().poll(cx).map(|()| Err(self.give_up()))
    }

    /// The error that ends the connection.
    fn give_up(&self) -> io::Error {
        if self.activity.under_way() > 0 {
            // A reset. The kernel would keep for minutes what the peer does not read.
            SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).ok();
        }
        io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.tcp).poll_read(cx, buffer) {
            // To the server this is the end of the stream.
            Poll::Pending if self.nobody_waits() => Poll::Ready(Ok(())),
            Poll::Pending => self.poll_patience(cx),
            ready => {
                self.activity.bytes_moved();
                self.heard(&buffer.filled()[before..]);
                ready
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.poll_taken(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes);
        self.poll_taken(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // With these bytes an answer may be over, and the connection not looked at again but by the timer.
        if let Poll::Ready(given_up) = self.poll_patience(cx) {
            return Poll::Ready(given_up);
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
