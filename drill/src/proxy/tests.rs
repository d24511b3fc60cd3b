use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(200);

/// Sends back what it gets, and closes when its peer does.
struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let (mut read, mut write) = peer.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    Echo { address, _tasks: tasks }
}

async fn start() -> (Echo, Proxy) {
    let echo = echo().await;
    let proxy = Proxy::start(echo.address).await.unwrap();
    (echo, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).await.unwrap()
}

/// Whether a word comes back within `limit`.
async fn answers(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.write_all(b"word").await.unwrap();
    let mut word = [0; 4];
    matches!(timeout(limit, stream.read_exact(&mut word)).await, Ok(Ok(_)) if word == *b"word")
}

#[tokio::test]
async fn bytes_pass_until_told_otherwise_and_so_does_a_close() {
    let (_echo, proxy) = start().await;
    let mut stream = connect(&proxy).await;
    assert!(answers(&mut stream, SOON).await);
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn refusing_closes_the_port_for_new_connections_only() {
    let (_echo, proxy) = start().await;
    let mut old = connect(&proxy).await;
    assert!(answers(&mut old, SOON).await);
    for _ in 0..20 {
        proxy.set(Mode::Refuse).await;
        let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        proxy.set(Mode::Pass).await;
        assert!(answers(&mut connect(&proxy).await, SOON).await, "the same port, open again");
    }
    assert!(answers(&mut old, SOON).await);
}

#[tokio::test]
async fn existing_connections_freeze_for_good_while_new_ones_pass() {
    let (_echo, proxy) = start().await;
    let mut old = connect(&proxy).await;
    assert!(answers(&mut old, SOON).await);
    proxy.freeze_existing();
    assert!(!answers(&mut old, NEVER).await);
    assert!(answers(&mut connect(&proxy).await, SOON).await);
    proxy.set(Mode::Pass).await;
    assert!(!answers(&mut old, NEVER).await, "frozen for good");
}

#[tokio::test]
async fn what_is_frozen_passes_after_the_thaw_and_closes_do_too() {
    let (_echo, proxy) = start().await;
    let mut old = connect(&proxy).await;
    assert!(answers(&mut old, SOON).await);
    proxy.set(Mode::Freeze).await;
    let mut new = connect(&proxy).await;
    assert!(!answers(&mut old, NEVER).await && !answers(&mut new, NEVER).await);
    proxy.set(Mode::Pass).await;
    for stream in [&mut old, &mut new] {
        timeout(SOON, stream.read_exact(&mut [0; 4])).await.unwrap().unwrap();
        assert!(answers(stream, SOON).await);
    }
}

#[tokio::test]
async fn a_black_hole_accepts_and_never_answers_even_afterwards() {
    let (_echo, proxy) = start().await;
    let mut old = connect(&proxy).await;
    assert!(answers(&mut old, SOON).await);
    proxy.set(Mode::BlackHole).await;
    let mut lost = connect(&proxy).await;
    assert!(!answers(&mut lost, NEVER).await && !answers(&mut old, NEVER).await);
    proxy.set(Mode::Pass).await;
    assert!(!answers(&mut lost, NEVER).await);
    assert!(answers(&mut connect(&proxy).await, SOON).await);
}

#[tokio::test]
async fn latency_is_added_each_way_and_goes_away() {
    let (_echo, proxy) = start().await;
    let mut stream = connect(&proxy).await;
    let took = async |stream: &mut TcpStream| {
        let start = Instant::now();
        assert!(answers(stream, SOON).await);
        start.elapsed()
    };
    let each_way = Duration::from_millis(100);
    assert!(took(&mut stream).await < each_way);
    proxy.set(Mode::Latency { each_way, jitter: Duration::from_millis(20) }).await;
    let slow = took(&mut stream).await;
    assert!(slow >= 2 * each_way && slow < 4 * each_way, "{slow:?}");
    proxy.set(Mode::Pass).await;
    assert!(took(&mut stream).await < each_way);
}

#[tokio::test]
async fn latency_delays_a_stream_of_bytes_once_and_keeps_their_order() {
    let (_echo, proxy) = start().await;
    let (each_way, jitter) = (Duration::from_millis(50), Duration::from_millis(50));
    proxy.set(Mode::Latency { each_way, jitter }).await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = connect(&proxy).await.into_split();
    let start = Instant::now();
    let mut got = vec![0; sent.len()];
    let (written, read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
    assert!(written.is_ok() && read.is_ok() && got == sent);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_reset_ends_existing_connections_only() {
    let (_echo, proxy) = start().await;
    let mut old = connect(&proxy).await;
    assert!(answers(&mut old, SOON).await);
    proxy.reset_existing();
    let error = timeout(SOON, old.read(&mut [0; 8])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(answers(&mut connect(&proxy).await, SOON).await);
}

#[tokio::test]
async fn a_url_keeps_everything_but_its_host_and_port() {
    let (_echo, proxy) = start().await;
    let address = proxy.addr();
    for (url, expected) in [
        (
            "postgres://u:p%40w@db:5432/x?sslmode=disable",
            format!("postgres://u:p%40w@{address}/x?sslmode=disable"),
        ),
        ("redis://cache", format!("redis://{address}")),
        ("http://h/a@b", format!("http://{address}/a@b")),
    ] {
        assert_eq!(proxy.url_for(url).unwrap(), expected);
    }
    assert!(proxy.url_for("db:5432").is_err());
}

#[tokio::test]
async fn a_drip_is_one_byte_at_a_time() {
    let (_echo, proxy) = start().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Mode::Drip { pause: NEVER }).await;
    assert!(!answers(&mut stream, NEVER.mul_f64(2.5)).await);
    proxy.set(Mode::Pass).await;
    assert!(answers(&mut connect(&proxy).await, SOON).await);
}

#[tokio::test]
async fn what_would_pass_resets_its_connection_when_told_so() {
    let (_echo, proxy) = start().await;
    let mut stream = connect(&proxy).await;
    assert!(answers(&mut stream, SOON).await);
    proxy.set(Mode::Reset).await;
    stream.write_all(b"word").await.unwrap();
    let error = timeout(SOON, stream.read(&mut [0; 8])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    proxy.set(Mode::Pass).await;
    assert!(answers(&mut connect(&proxy).await, SOON).await);
}
