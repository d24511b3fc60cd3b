//! How long a client may be silent or deaf over HTTP/2.
use super::*;
use axum::http::Request;
use h2::client::{self, ResponseFuture, SendRequest};

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

pub type Sender = SendRequest<Bytes>;

/// A client that answers PINGs, as every library's does; and how long its connection lived.
pub async fn connect(
    served: &Served,
    builder: &client::Builder,
) -> (Sender, impl Future<Output = Duration> + use<>) {
    over(served.connect(), builder).await
}

pub async fn over(
    socket: TcpStream,
    builder: &client::Builder,
) -> (Sender, impl Future<Output = Duration> + use<>) {
    let (sender, connection) = builder.handshake(socket).await.unwrap();
    let (mut task, start) = (JoinSet::new(), Instant::now());
    task.spawn(async move {
        connection.await.ok();
        start.elapsed()
    });
    (sender, async move { task.join_next().await.unwrap().unwrap() })
}

pub async fn ask(sender: &mut Sender, path: &str) -> ResponseFuture {
    let request = Request::get(format!("http://a{path}")).body(()).unwrap();
    *sender = sender.clone().ready().await.unwrap();
    sender.send_request(request, true).unwrap().0
}

pub async fn status(sender: &mut Sender, path: &str) -> u16 {
    ask(sender, path).await.await.unwrap().status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_preface_that_does_not_end_is_half_a_head() {
    fast(async {
        let served = Served::start(router()).await;
        about(end(&mut served.send(&PREFACE[..10]).await).await, 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_mute_after_its_preface_is_given_up_after_30_s() {
    fast(async {
        let served = Served::start(router()).await;
        about(end(&mut served.send(PREFACE).await).await, 30);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_given_up_after_30_s() {
    fast(async {
        let served = Served::start(router()).await;
        let mut socket = served.send(PREFACE).await;
        socket.write_all(&SETTINGS).await.unwrap();
        about(end(&mut socket).await, 30);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_answers_pings_lives_75_s_after_its_last_request() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut sender, ended) = connect(&served, &client::Builder::new()).await;
        sleep(Duration::from_secs(50)).await;
        assert_eq!(status(&mut sender, "/").await, 200);
        about(ended.await, 50 + 75);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_preface_in_two_pieces_is_no_reason_to_be_impatient() {
    fast(async {
        let served = Served::start(router()).await;
        let mut socket = served.send(&PREFACE[..2]).await;
        sleep(Duration::from_secs(1)).await;
        socket.write_all(&PREFACE.as_bytes()[2..]).await.unwrap();
        socket.write_all(&SETTINGS).await.unwrap();
        about(end(&mut socket).await, 30);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_long_request_and_a_slow_stream_are_not_cut() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut sender, ended) = connect(&served, &client::Builder::new()).await;
        let slow = ask(&mut sender, "/60s").await;
        let mut body = ask(&mut sender, "/stream").await.await.unwrap().into_body();
        assert_eq!(slow.await.unwrap().status(), 200);
        for _ in 0..10 {
            assert_eq!(body.data().await.unwrap().unwrap(), "x");
        }
        assert!(body.data().await.is_none_or(|end| end.unwrap().is_empty()));
        about(ended.await, 220 + 75);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_told_to_ask_for_100_things_at_once_at_most() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut sender, _ended) = connect(&served, &client::Builder::new()).await;
        assert_eq!(status(&mut sender, "/").await, 200);
        assert_eq!(sender.current_max_send_streams(), 100);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_a_peer_gives_no_room_are_broken_off_after_30_s() {
    fast(async {
        for (path, window) in [("/", 0), ("/large", 65_535)] {
            let served = Served::start(router()).await;
            let (mut sender, ended) =
                connect(&served, client::Builder::new().initial_window_size(window)).await;
            let answer = ask(&mut sender, path).await.await.unwrap();
            about(ended.await, 30);
            drop(answer);
        }
    })
    .await;
}
