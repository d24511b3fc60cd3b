//! For tests: a TCP proxy that can fall silent, and remembers what clients have sent.
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    upstream: String,
    accepted: AtomicUsize,
    sent: Mutex<Vec<u8>>,
    /// Connections accepted earlier than this one are frozen.
    frozen: watch::Sender<usize>,
}

impl Proxy {
    pub(super) async fn to(upstream: impl Into<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, _) = watch::channel(0);
        let (accepted, sent) = Default::default();
        let shared = Arc::new(Shared { upstream: upstream.into(), accepted, sent, frozen });
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.clone().accept(listener));
        Self { address, shared, _tasks: tasks }
    }

    /// Nothing more passes on the present connections, nor are they closed. New ones work.
    pub(super) fn freeze(&self) {
        self.shared.frozen.send_replace(self.accepted());
    }

    pub(super) fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }

    /// What clients have sent since the last call.
    pub(super) fn take_sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.shared.sent.lock().unwrap())
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let number = self.accepted.fetch_add(1, SeqCst);
            tasks.spawn(self.clone().relay(client, number));
        }
    }

    async fn relay(self: Arc<Self>, mut client: TcpStream, number: usize) {
        let mut server = TcpStream::connect(&self.upstream).await.unwrap();
        let mut frozen = self.frozen.subscribe();
        let frozen = async { frozen.wait_for(|frozen| *frozen > number).await.map(drop) };
        tokio::select! {
            biased;
            _ = frozen => std::future::pending().await,
            _ = self.pass(&mut client, &mut server) => {}
        }
    }

    async fn pass(&self, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
        let (mut up, mut down) = ([0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                read = client.read(&mut up) => {
                    let length = read?;
                    self.sent.lock().unwrap().extend_from_slice(&up[..length]);
                    server.write_all(&up[..length]).await?;
                    if length == 0 { return Ok(()) }
                }
                read = server.read(&mut down) => {
                    let length = read?;
                    client.write_all(&down[..length]).await?;
                    if length == 0 { return Ok(()) }
                }
            }
        }
    }
}
