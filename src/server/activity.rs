//! What goes on in one connection: known to its socket, its requests and its drain alike.
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Buf, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};
use tokio::sync::Notify;

#[derive(Default)]
pub struct Activity {
    begun: AtomicUsize,
    over: AtomicUsize,
    /// Answers that wait for the peer to take what there is of them.
    untaken: AtomicUsize,
    /// Grows whenever a request begins, an answer goes on, or either ends.
    progress: AtomicUsize,
    /// Grows whenever bytes come or go.
    moves: AtomicUsize,
    http2: AtomicBool,
    http2_seen: Notify,
    closing: AtomicBool,
}

impl Activity {
    /// A request's head was read. It is under way until the result is dropped.
    pub fn begin(self: &Arc<Self>) -> Turn {
        self.begun.fetch_add(1, Relaxed);
        self.progress.fetch_add(1, Relaxed);
        Turn { activity: Arc::clone(self), untaken: AtomicBool::default() }
    }

    /// Requests whose answer is not over yet.
    pub fn under_way(&self) -> usize {
        self.begun.load(Relaxed).saturating_sub(self.over.load(Relaxed))
    }

    pub fn untaken(&self) -> bool {
        self.untaken.load(Relaxed) > 0
    }

    /// Another number than before when requests began, went on or ended since.
    pub fn progress(&self) -> usize {
        self.progress.load(Relaxed)
    }

    pub fn bytes_moved(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    /// Other numbers than before when there was any life on the connection since.
    pub fn signs_of_life(&self) -> (usize, usize) {
        (self.progress(), self.moves.load(Relaxed))
    }

    pub fn is_http2(&self) {
        self.http2.store(true, Relaxed);
        self.http2_seen.notify_one();
    }

    pub fn http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Waits until the connection has turned out to be HTTP/2.
    pub async fn seen_http2(&self) {
        while !self.http2() {
            self.http2_seen.notified().await;
        }
    }

    /// From now on a wait for the next request is the end.
    pub fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    pub fn closing(&self) -> bool {
        self.closing.load(Relaxed)
    }
}

/// One request under way.
pub struct Turn {
    activity: Arc<Activity>,
    untaken: AtomicBool,
}

impl Turn {
    fn untaken(&self, untaken: bool) {
        match (self.untaken.swap(untaken, Relaxed), untaken) {
            (false, true) => drop(self.activity.untaken.fetch_add(1, Relaxed)),
            (true, false) => drop(self.activity.untaken.fetch_sub(1, Relaxed)),
            _ => {}
        }
        self.goes_on();
    }

    fn goes_on(&self) {
        self.activity.progress.fetch_add(1, Relaxed);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.activity.over.fetch_add(1, Relaxed);
        self.untaken(false);
    }
}

/// An answer's body. Its request is under way until the kernel has the last byte: what hyper has is not sent, and over
/// HTTP/2 the peer may have no room for it.
pub struct Answer {
    body: Body,
    turn: Arc<Turn>,
}

impl Answer {
    pub fn new(body: Body, turn: Turn) -> Self {
        // HTTP/2 asks for the first byte of it only once the peer has room for one.
        turn.untaken(true);
        Self { body, turn: Arc::new(turn) }
    }
}

impl HttpBody for Answer {
    type Data = Chunk;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // Whoever asks has passed on what there was before.
        self.turn.untaken(frame.is_ready());
        frame.map_ok(|frame| frame.map_data(|bytes| Chunk { bytes, turn: Some(Arc::clone(&self.turn)) }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer, on their way to the kernel.
pub struct Chunk {
    bytes: Bytes,
    /// Until the last of them: HTTP/2 keeps what it has sent until it has something else to do.
    turn: Option<Arc<Turn>>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(turn) = &self.turn {
            turn.goes_on();
        }
        if self.bytes.is_empty() {
            self.turn = None;
        }
    }
}
