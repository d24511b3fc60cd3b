//! Sockets and the stop. Knows nothing of routes.
mod activity;
mod connection;
pub mod drain;
pub mod signals;
mod socket;
pub mod systemd;
#[cfg(test)]
mod tests;

use axum::Router;
use drain::{Drain, Phase};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// After a failed accept (no file descriptors left, mostly): retrying at once would only burn the CPU.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Serves `router` on `listener`, at most `max_connections` at once, until the drain has ended the last connection.
pub async fn serve(listener: TcpListener, router: Router, max_connections: usize, drain: Drain) {
    let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let mut closing = drain.clone();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = closing.reached(Phase::Closing) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (socket, peer, place) = accepted;
        let (router, drain) = (router.clone(), drain.clone());
        connections.spawn(async move {
            let _place = place;
            connection::serve(socket, peer, router, drain).await
        });
    }
    // Clients in the accept queue believe they are connected: the listener must not go before they are served.
    // Tokio's own accept would stop early: at what it has heard of the queue, and after 128 in one go.
    if let Ok(listener) = listener.into_std() {
        while let Ok((socket, peer)) = listener.accept() {
            let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
            if let Ok(socket) = socket {
                connections.spawn(connection::serve(socket, peer, router.clone(), drain.clone()));
            }
        }
    }
    tracing::info!(connections = connections.len(), "listener closed");
    while let Some(ended) = connections.join_next().await {
        for _ in 0..ended.unwrap_or_default() {
            drain.cut("<answer broken off>");
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Place) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => return (socket, peer, place),
            // The client was gone before it was served.
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(cause = %error, "cannot accept a connection");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
