//! The listener's last moments.
use crate::server::listener::Listener;
use futures_util::FutureExt;
use std::{net, pin::pin};
use tokio::net::TcpStream;

#[tokio::test]
async fn who_begins_to_connect_while_the_listener_closes_finds_the_next_process() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    // In the heap, so that it can go before the listener does.
    let mut closed = Box::pin(listener.close_door());
    assert!(closed.as_mut().now_or_never().is_none(), "those who have begun are waited for");
    let mut client = pin!(TcpStream::connect(address));
    assert!(client.as_mut().now_or_never().is_none());
    closed.as_mut().await;
    drop(closed);
    assert_eq!(listener.rest().count(), 0, "it was not heard");
    let next = Listener::bind(address).unwrap();
    let (client, (_, peer)) = tokio::join!(client, next.accept());
    assert_eq!(client.unwrap().local_addr().unwrap(), peer);
}

#[tokio::test]
async fn a_listener_that_somebody_else_holds_too_goes_on_for_them() {
    let held = net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let listener = Listener::shared(held.try_clone().unwrap()).unwrap();
    listener.close_door().now_or_never().unwrap();
    drop(listener);
    let client = TcpStream::connect(held.local_addr().unwrap()).await.unwrap();
    held.set_nonblocking(false).unwrap();
    assert_eq!(held.accept().unwrap().1, client.local_addr().unwrap());
}
