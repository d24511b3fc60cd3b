//! Sockets and the stop. Knows nothing of routes.
mod activity;
mod connection;
pub mod drain;
pub mod listener;
pub mod signals;
mod socket;
pub mod systemd;
#[cfg(test)]
mod tests;

use axum::Router;
use drain::{Drain, Phase};
use listener::Listener;
use std::{pin::pin, sync::Arc};
use tokio::{sync::Semaphore, task::JoinSet};

/// Serves `router` on `listener`, at most `max_connections` at once, until the drain has ended the last connection.
pub async fn serve(listener: Listener, router: Router, max_connections: usize, drain: Drain) {
    let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let mut closing = drain.clone();
    {
        let mut closed = pin!(async {
            closing.reached(Phase::Closing).await;
            listener.close_door().await;
        });
        let next = async || {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        loop {
            while connections.try_join_next().is_some() {}
            let (place, (socket, peer)) = tokio::select! {
                biased;
                () = &mut closed => break,
                accepted = next() => accepted,
            };
            let (router, drain) = (router.clone(), drain.clone());
            connections.spawn(async move {
                let _place = place;
                connection::serve(socket, peer, router, drain).await
            });
        }
    }
    for (socket, peer) in listener.rest() {
        connections.spawn(connection::serve(socket, peer, router.clone(), drain.clone()));
    }
    tracing::info!(connections = connections.len(), "listener closed");
    while let Some(ended) = connections.join_next().await {
        for _ in 0..ended.unwrap_or_default() {
            drain.cut("<answer broken off>");
        }
    }
}
