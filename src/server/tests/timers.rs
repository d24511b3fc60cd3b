//! How long a client may be silent, slow or deaf over HTTP/1.
use super::*;

#[tokio::test(start_paused = true)]
async fn a_socket_without_a_first_byte_is_closed_after_5_s() {
    fast(async {
        let served = Served::start(router()).await;
        about(end(&mut served.connect()).await, 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_in_is_given_up_after_10_s() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut read, mut write) = served.send("G").await.into_split();
        let start = Instant::now();
        let long = format!("ET / HTTP/1.1\r\nx: {}", "x".repeat(100));
        let mut scrap = [0; 100];
        tokio::select! {
            _ = read.read(&mut scrap) => about(start.elapsed(), 10),
            () = drip(&mut write, long.as_bytes()) => panic!("all of it was taken"),
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn half_a_head_after_a_served_request_is_given_up_after_10_s() {
    fast(async {
        let served = Served::start(router()).await;
        let mut socket = served.send(GET).await;
        assert!(answer(&mut socket).await.ends_with("hello"));
        sleep(Duration::from_secs(30)).await;
        socket.write_all(b"GET / HT").await.unwrap();
        about(end(&mut socket).await, 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_75_s() {
    fast(async {
        let served = Served::start(router()).await;
        let mut socket = served.send(GET).await;
        assert!(answer(&mut socket).await.ends_with("hello"));
        sleep(Duration::from_secs(70)).await;
        socket.write_all(GET.as_bytes()).await.unwrap();
        assert!(answer(&mut socket).await.ends_with("hello"));
        about(end(&mut socket).await, 75);
    })
    .await;
}

const POST: &str =
    "POST /json HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n";

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_in_is_refused_after_10_s() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut read, mut write) = served.send(&format!("{POST}\r\n")).await.into_split();
        let start = Instant::now();
        let mut bytes = [0; 12];
        tokio::select! {
            read = read.read_exact(&mut bytes) => assert_eq!(read.unwrap(), 12),
            () = drip(&mut write, &[b' '; 100]) => panic!("all of it was taken"),
        }
        assert_eq!(&bytes, b"HTTP/1.1 408");
        about(start.elapsed(), 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_asked_for_and_never_comes_is_refused_after_10_s() {
    fast(async {
        let served = Served::start(router()).await;
        let mut socket = served.send(&format!("{POST}expect: 100-continue\r\n\r\n")).await;
        let start = Instant::now();
        assert!(answer(&mut socket).await.starts_with("HTTP/1.1 100"));
        let refusal = answer(&mut socket).await;
        assert!(refusal.starts_with("HTTP/1.1 408"), "{refusal}");
        about(start.elapsed(), 10);
        about(end(&mut socket).await, 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_broken_off_after_30_s() {
    fast(async {
        let served = Served::start(router()).await;
        let read_after = async |wait| {
            let mut socket = served.send(&get_of("/large")).await;
            sleep(Duration::from_secs(wait)).await;
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await.map_or(0, |_| all.len())
        };
        let (in_time, late) = tokio::join!(read_after(25), read_after(35));
        assert!(in_time > LARGE, "{in_time}");
        assert_eq!(late, 0, "a reset: the kernel keeps nothing for it either");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_10_kb_a_second_gets_all_of_an_answer() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut socket, mut part) = (served.send(&get_of("/large")).await, vec![0; 40 << 10]);
        for _ in 0..30 {
            sleep(Duration::from_secs(4)).await;
            socket.read_exact(&mut part).await.unwrap();
        }
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert!(30 * part.len() + rest.len() > LARGE, "{}", rest.len());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_long_request_is_not_cut_nor_the_idle_time_after_it_shortened() {
    fast(async {
        let served = Served::start(router()).await;
        let mut socket = served.send(&get_of("/60s")).await;
        let start = Instant::now();
        assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200"));
        about(start.elapsed(), 60);
        about(end(&mut socket).await, 75);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_stream_that_is_read_is_not_cut() {
    fast(async {
        let served = Served::start(router()).await;
        let mut socket = served.send(&get_of("/stream")).await;
        let start = Instant::now();
        let text = answer(&mut socket).await;
        assert_eq!(text.matches("\r\nx\r\n").count(), 10, "{text}");
        about(start.elapsed(), 220);
        about(end(&mut socket).await, 75);
    })
    .await;
}
