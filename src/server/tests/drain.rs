//! The stop, seen by clients of every kind.
use super::{
    http2::{ask, connect, over, status},
    *,
};
use crate::http::{admission::Admission, observe::Observe};
use h2::client;

const CLOSE: &str = "\r\nconnection: close\r\n";

#[tokio::test(start_paused = true)]
async fn a_request_that_is_here_when_an_idle_connection_ends_gets_its_answer() {
    fast(async {
        let served = Served::start(router()).await;
        let mut sockets = Vec::new();
        for _ in 0..20 {
            let mut socket = served.send(GET).await;
            assert!(answer(&mut socket).await.ends_with("hello"));
            sockets.push(socket);
        }
        let mut drain = served.conductor.drain();
        let client = async {
            // The server's own timers fire in the same turn, and its tasks run after this one.
            drain.reached(Phase::Closing).await;
            sleep(Duration::from_secs(1)).await;
            for socket in &sockets {
                socket.try_write(GET.as_bytes()).unwrap();
            }
            for socket in &mut sockets {
                let text = answer(socket).await;
                assert!(text.contains(CLOSE) && text.ends_with("hello"), "{text:?}");
            }
        };
        let (cut, took, ()) = served.stop(client).await;
        assert!(cut.is_empty(), "{cut:?}");
        about(took, 6);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn until_the_quiet_moment_is_over_every_request_is_answered_and_asked_to_be_the_last() {
    fast(async {
        let served = Served::start(router()).await;
        let mut idle = Vec::new();
        for _ in 0..2 {
            let mut socket = served.send(GET).await;
            assert!(!answer(&mut socket).await.contains(CLOSE));
            idle.push(socket);
        }
        let address = served.address;
        let client = async {
            let start = Instant::now();
            sleep_until(start + Duration::from_secs(2)).await;
            idle.push(TcpStream::connect(address).await.unwrap());
            // In the lame duck time, and in the quiet moment after it.
            for (socket, at) in idle.iter_mut().zip([2_000, 5_500, 5_500]) {
                sleep_until(start + Duration::from_millis(at)).await;
                socket.write_all(GET.as_bytes()).await.unwrap();
                let text = answer(socket).await;
                assert!(text.contains(CLOSE) && text.ends_with("hello"), "{text:?}");
                about(end(socket).await, 0);
            }
        };
        let (_, took, ()) = served.stop(client).await;
        about(took, 6);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn silent_and_mute_peers_do_not_hold_up_the_stop() {
    fast(async {
        let served = Served::start(router()).await;
        let silent = served.connect();
        let mut idle = served.send(GET).await;
        assert!(answer(&mut idle).await.ends_with("hello"));
        let mute = served.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let (cut, took, ()) = served.stop(async {}).await;
        assert!(cut.is_empty(), "{cut:?}");
        about(took, 7);
        drop((silent, idle, mute));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn half_a_head_may_become_a_request_but_does_not_count_as_one() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut slow, never) = (served.connect(), served.connect());
        let client = async {
            sleep(Duration::from_secs(4)).await;
            slow.write_all(&GET.as_bytes()[..10]).await.unwrap();
            never.try_write(&GET.as_bytes()[..10]).unwrap();
            sleep(Duration::from_secs(8)).await;
            slow.write_all(&GET.as_bytes()[10..]).await.unwrap();
            assert!(answer(&mut slow).await.ends_with("hello"));
        };
        let (cut, took, ()) = served.stop(client).await;
        assert!(cut.is_empty(), "{cut:?}");
        about(took, 14);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_http2_request_under_way_is_finished_after_the_goaway() {
    fast(async {
        let served = Served::start(router()).await;
        let (mut sender, ended) = connect(&served, &client::Builder::new()).await;
        assert_eq!(status(&mut sender, "/").await, 200);
        let slow = ask(&mut sender, "/8s").await;
        let client = async {
            sleep(Duration::from_secs(2)).await;
            assert!(sender.clone().ready().await.is_err(), "the GOAWAY is here");
            assert_eq!(slow.await.unwrap().status(), 200);
            ended.await
        };
        let (cut, took, lived) = served.stop(client).await;
        assert!(cut.is_empty(), "{cut:?}");
        about(lived, 8);
        about(took, 8);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_of_the_lame_duck_time_is_served_until_the_listener_is_gone() {
    fast(async {
        let served = Served::start(router()).await;
        let (address, builder) = (served.address, client::Builder::new());
        let client = async {
            sleep(Duration::from_secs(2)).await;
            let socket = TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let (mut sender, ended) = over(socket, &builder).await;
            for _ in 0..2 {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(status(&mut sender, "/").await, 200);
            }
            ended.await
        };
        let (cut, took, _) = served.stop(client).await;
        assert!(cut.is_empty(), "{cut:?}");
        about(took, 6);
    })
    .await;
}

/// The routes behind the layer that every public one is behind.
async fn observed() -> Served {
    let conductor = Conductor::new(TIMELINE);
    let observe =
        Observe::new(Duration::from_secs(600), 0, Admission::new(1000, Duration::ZERO), conductor.drain());
    Served::with(conductor, observe.around(router()), 1000).await
}

#[tokio::test(start_paused = true)]
async fn what_still_runs_at_the_limit_is_refused_and_counted_by_route() {
    fast(async {
        let served = observed().await;
        let mut old = served.send(&get_of("/60s")).await;
        let (mut sender, _ended) = connect(&served, &client::Builder::new()).await;
        let new = ask(&mut sender, "/60s").await;
        let client = async {
            let text = answer(&mut old).await;
            assert!(text.starts_with("HTTP/1.1 503") && text.contains(CLOSE), "{text}");
            assert!(text.contains("\r\nretry-after: 1\r\n") && text.contains("\"code\":\"stopping\""));
            assert_eq!(new.await.unwrap().status(), 503);
        };
        let (cut, took, ()) = served.stop(client).await;
        assert_eq!(cut, Cut::from([("/60s".to_owned(), 2)]));
        about(took, 20);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_still_streams_at_the_limit_is_broken_off_and_counted() {
    fast(async {
        let served = observed().await;
        let mut old = served.send(&get_of("/stream")).await;
        let (mut sender, _ended) = connect(&served, &client::Builder::new()).await;
        let new = ask(&mut sender, "/stream").await;
        let client = async {
            assert!(!is_whole(&answer(&mut old).await), "it was sent to its end");
            let mut body = new.await.unwrap().into_body();
            while let Some(chunk) = body.data().await {
                if chunk.is_err() {
                    return;
                }
            }
            panic!("it was sent to its end");
        };
        let (cut, took, ()) = served.stop(client).await;
        assert_eq!(cut.values().sum::<usize>(), 2, "{cut:?}");
        about(took, 20);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_slowly_arrives_whole() {
    fast(async {
        let served = Served::start(router()).await;
        let mut old = served.send(&get_of("/4mb")).await;
        let (mut sender, _ended) = connect(&served, &client::Builder::new()).await;
        let new = ask(&mut sender, "/4mb").await;
        let client = async {
            let mut body = new.await.unwrap().into_body();
            let (mut of_new, mut of_old, mut part) = (0, 0, vec![0; 256 << 10]);
            while let Some(chunk) = body.data().await {
                let length = chunk.unwrap().len();
                body.flow_control().release_capacity(length).unwrap();
                of_new += length;
                // Both have what is left of a second for each 256 KiB: some ten seconds in all.
                if of_new / part.len() > of_old / part.len() {
                    sleep(Duration::from_millis(600)).await;
                    of_old += old.read_exact(&mut part).await.unwrap();
                }
            }
            let mut rest = Vec::new();
            of_old += old.read_to_end(&mut rest).await.unwrap();
            (of_new, of_old > 4 << 20)
        };
        let (cut, took, seen) = served.stop(client).await;
        assert_eq!((cut.len(), seen), (0, (4 << 20, true)), "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_the_accept_queue_when_the_listener_closes_is_served() {
    fast(async {
        let served = Served::with(Conductor::new(TIMELINE), router(), 1).await;
        let holder = served.send(&get_of("/60s")).await;
        let mut waiting = Vec::new();
        // More than one turn of the runtime takes.
        for _ in 0..300 {
            waiting.push(served.send(GET).await);
        }
        let client = async {
            for socket in &mut waiting {
                assert!(answer(socket).await.ends_with("hello"));
            }
        };
        let (cut, ..) = served.stop(client).await;
        assert_eq!(cut.values().sum::<usize>(), 1, "only the holder's: {cut:?}");
        drop(holder);
    })
    .await;
}
