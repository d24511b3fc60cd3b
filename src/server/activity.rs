//! What goes on in one connection: known to its socket, its requests and its drain alike.
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
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
    http2: AtomicBool,
    http2_seen: Notify,
    closing: AtomicBool,
}

impl Activity {
    /// A request's head was read. It is under way until the result is dropped.
    pub fn begin(self: &Arc<Self>) -> Turn {
        self.begun.fetch_add(1, Relaxed);
        Turn(Arc::clone(self))
    }

    /// Requests begun so far.
    pub fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }

    /// Requests whose answer is not over yet.
    pub fn under_way(&self) -> usize {
        self.begun().saturating_sub(self.over.load(Relaxed))
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
pub struct Turn(Arc<Activity>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Relaxed);
    }
}

/// An answer's body; its request is under way until the last byte was handed over.
pub struct Answer {
    pub body: Body,
    pub _turn: Turn,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
