//! Sockets and the stop. Knows nothing of routes.
mod activity;
pub mod connection;
pub mod drain;
pub mod listener;
pub mod signals;
mod socket;
pub mod systemd;
#[cfg(test)]
mod tests;

use crate::runtime::workers::Workers;
use axum::Router;
use drain::{Drain, Phase};
use listener::Listener;
use std::{pin::pin, sync::Arc};
use tokio::{sync::Semaphore, task::JoinSet};

/// Serves `router` on `listener`, at most `max_connections` at once, each on one of `workers`, until the drain has ended
/// the last connection.
pub async fn serve(
    listener: Listener,
    router: Router,
    max_connections: usize,
    drain: Drain,
    workers: Workers,
) {
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
            let (router, drain, worker) = (router.clone(), drain.clone(), workers.idlest());
            let waiting = worker.waiting();
            let connection = async move {
                drop(waiting);
                let _place = place;
                connection::serve(socket, peer.ip().into(), router, drain).await
            };
            connections.spawn_on(connection, &worker.runtime);
        }
    }
    for (socket, peer) in listener.rest() {
        let connection = connection::serve(socket, peer.ip().into(), router.clone(), drain.clone());
        connections.spawn_on(connection, &workers.idlest().runtime);
    }
    tracing::info!(connections = connections.len(), "listener closed");
    while let Some(ended) = connections.join_next().await {
        for _ in 0..ended.unwrap_or_default() {
            drain.cut("<answer broken off>");
        }
    }
}
