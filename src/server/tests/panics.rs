//! What a panic costs: its own request, or its own connection; never another's.
use super::{
    http2::{ask, connect, status},
    *,
};
use crate::{
    http::{admission::Admission, observe::Observe},
    telemetry::{metrics, panics},
};
use axum::middleware::from_fn;
use h2::client;
use std::process::Command;

/// Panics once the answer has begun.
fn broken_stream() -> Body {
    Body::from_stream(stream::unfold(false, |begun| async move {
        assert!(!begun, "in a body");
        Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), true))
    }))
}

/// Panics in every place there is, in layers as the public routes have them.
async fn explosive() -> Served {
    let conductor = Conductor::new(TIMELINE);
    let observe =
        Observe::new(Duration::from_secs(10), 0, Admission::new(1000, Duration::ZERO), conductor.drain());
    let router = router()
        .route("/handler", get(async || -> () { panic!("in a handler") }))
        .route("/stream-breaks", get(async || broken_stream()));
    let outermost = from_fn(async |request: axum::extract::Request, next: axum::middleware::Next| {
        assert!(request.uri().path() != "/middleware", "in the outermost layer");
        next.run(request).await
    });
    let router = observe.around(router).layer(outermost);
    Served::with(conductor, router, 1000).await
}

fn panics_so_far() -> u64 {
    let text = String::from_utf8(metrics::render()).unwrap();
    text.lines().find_map(|line| line.strip_prefix("panics_total ")).unwrap().parse().unwrap()
}

/// Asks for `path` again and again on one connection; how often the answer was a problem of 500.
async fn faults(served: &Served, path: &str, times: usize) -> usize {
    let (mut socket, mut faults) = (served.connect(), 0);
    for _ in 0..times {
        socket.write_all(get_of(path).as_bytes()).await.unwrap();
        let text = answer(&mut socket).await;
        faults += usize::from(
            text.starts_with("HTTP/1.1 500")
                && text.contains("application/problem+json")
                && text.contains("\"code\":\"internal\""),
        );
    }
    socket.write_all(GET.as_bytes()).await.unwrap();
    assert!(answer(&mut socket).await.ends_with("hello"), "the connection lives on");
    faults
}

async fn of_handlers(served: &Served) {
    let (mut sender, _ended) = connect(served, &client::Builder::new()).await;
    let http2 = async {
        for _ in 0..100 {
            assert_eq!(status(&mut sender, "/handler").await, 500);
            assert_eq!(status(&mut sender, "/").await, 200);
        }
    };
    let others = faults(served, "/", 2000);
    let each = || faults(served, "/handler", 300);
    let (a, b, c, others, ()) = tokio::join!(each(), each(), each(), others, http2);
    assert_eq!((a + b + c, others, panics_so_far()), (900, 0, 1000));
}

async fn of_a_middleware(served: &Served) {
    assert_eq!(faults(served, "/middleware", 5).await, 5);
    assert_eq!(panics_so_far(), 1005);
}

async fn of_streams(served: &Served) {
    let mut bystander = served.send(&get_of("/2s")).await;
    let (mut other, _ended) = connect(served, &client::Builder::new()).await;
    let long = ask(&mut other, "/2s").await;

    let mut old = served.send(&get_of("/stream-breaks")).await;
    assert!(!is_whole(&answer(&mut old).await), "HTTP/1: it is broken off");
    let (mut sender, _ended) = connect(served, &client::Builder::new()).await;
    let neighbour = ask(&mut sender, "/2s").await;
    let mut body = ask(&mut sender, "/stream-breaks").await.await.unwrap().into_body();
    while let Some(Ok(_)) = body.data().await {}
    assert_eq!(neighbour.await.unwrap().status(), 200, "HTTP/2: other requests of the connection go on");

    assert!(answer(&mut bystander).await.starts_with("HTTP/1.1 200"));
    assert_eq!(long.await.unwrap().status(), 200);
    assert_eq!(panics_so_far(), 1007);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process for the other test"]
async fn child_in_which_things_panic() {
    panics::install();
    let served = explosive().await;
    of_handlers(&served).await;
    of_a_middleware(&served).await;
    of_streams(&served).await;
}

/// In a process of its own, where all panics are its own and are counted exactly.
#[test]
fn a_panic_is_a_500_or_the_end_of_its_answer_and_nobody_else_notices() {
    let name = "server::tests::panics::child_in_which_things_panic";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact", name])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&child.stderr);
    let first = stderr.lines().find(|line| line.contains("assertion")).unwrap_or_default();
    assert!(child.status.success(), "{first}\n{}", &stderr[stderr.len().saturating_sub(2000)..]);
    for (place, times) in [("in a handler", 1000), ("in the outermost layer", 5), ("in a body", 2)] {
        assert_eq!(stderr.lines().filter(|line| line.ends_with(place)).count(), times, "{place}");
    }
}
