//! A collector of traces that takes all it is sent, and keeps it.
use axum::{Router, body::Bytes, routing::post};
use std::sync::{Arc, Mutex};
use tokio::{net::TcpListener, task::JoinSet};

pub struct Collector {
    pub url: String,
    received: Arc<Mutex<Vec<u8>>>,
    _server: JoinSet<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        let take = post(async move |body: Bytes| kept.lock().unwrap().extend_from_slice(&body));
        let mut server = JoinSet::new();
        let router = Router::new().route("/v1/traces", take);
        server.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, received, _server: server }
    }

    /// The bodies so far, one after the other: protobuf, of which many messages are one.
    pub fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }
}
