//! HTTP/2 by prior knowledge: several requests at once on one connection.

use std::sync::Arc;

use axum::http::Request;
use h2::client::{SendRequest, handshake};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Target,
    written::{Highest, Written},
};

const NAME: &str = "http2";

/// Keeps `streams` requests under way on one connection, and on the next one when the server goes away.
pub(super) async fn client(target: Arc<Target>, streams: usize) {
    while let Some(stream) = target.connect().await {
        let (stream, highest) = Written::new(stream);
        let Ok((requests, connection)) = handshake(stream).await else {
            target.counts().closed_before += 1;
            continue;
        };
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            tasks.spawn(stream_loop(Arc::clone(&target), requests.clone(), highest.clone()));
        }
        drop(requests);
        // Its end comes with the last handle on it, which the loops hold.
        tasks.spawn(async { drop(connection.await) });
        while tasks.join_next().await.is_some() {}
    }
}

/// Until the load is stopped, or the connection takes no more requests.
async fn stream_loop(target: Arc<Target>, mut requests: SendRequest<axum::body::Bytes>, highest: Highest) {
    let uri = format!("http://localhost{}", target.path);
    let mut after = 0;
    while !target.stopped() {
        // The server has gone, or has said that it will: nothing was sent.
        let Ok(ready) = requests.ready().await else { return };
        requests = ready;
        let mut request = Request::get(&uri);
        if let Some(cookie) = &target.cookie {
            request = request.header("cookie", cookie);
        }
        let request = request.body(()).expect("a request to this address is complete");
        let asked = Instant::now();
        let Ok((answer, _)) = requests.send_request(request, true) else { return };
        let stream = answer.stream_id().as_u32();
        target.counts().sent += 1;
        match read(answer).await {
            Ok(status) => target.answered(status, asked),
            Err(error) => return failed(&target, &error, highest.has(stream), after),
        }
        after += 1;
    }
}

/// Counts a request without an answer. One that had not left the client when the connection ended was never sent.
fn failed(target: &Target, error: &h2::Error, written: bool, after: u64) {
    let mut counts = target.counts();
    if !written {
        counts.sent -= 1;
        counts.closed_before += 1;
    } else if is_refusal(error) {
        counts.turned_away += 1;
    } else {
        drop(counts);
        target.lost(NAME, after, error);
    }
}

/// Whether the server has named this request as one that it did not begin.
fn is_refusal(error: &h2::Error) -> bool {
    let goes_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (goes_away || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// The status, once the whole body is there.
async fn read(answer: h2::client::ResponseFuture) -> Result<u16, h2::Error> {
    let answer = answer.await?;
    let (status, mut body) = (answer.status().as_u16(), answer.into_body());
    while let Some(bytes) = body.data().await {
        let length = bytes?.len();
        body.flow_control().release_capacity(length)?;
    }
    Ok(status)
}
