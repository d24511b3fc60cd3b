//! The detective among real requests: who is named, and who is not.
use super::stalls::Stalls;
use crate::{
    config::Shutdown,
    http::{admission::Admission, observe::Observe},
    server::drain::Conductor,
};
use axum::{Router, body::Body, extract::Request, routing::get};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::task::JoinSet;
use tower::ServiceExt;

const LIMIT: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(5);

/// What the detective says of `route`: how many stalls, and how long the last one took.
fn stalls_of(route: &str, stalls: &Stalls) -> (usize, u64) {
    let items = serde_json::to_value(stalls.items()).unwrap();
    let of_route: Vec<_> = items.as_array().unwrap().iter().filter(|item| item["route"] == route).collect();
    (of_route.len(), of_route.first().map_or(0, |item| item["duration_ms"].as_u64().unwrap()))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what} within {LIMIT:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_holds_its_worker_is_named_while_it_does() {
    let stalls = Stalls::watch().unwrap();
    let shutdown = Shutdown { budget: LIMIT, lame_duck: LIMIT, drain: LIMIT };
    let conductor = Conductor::new(shutdown);
    let observe = Observe::new(LIMIT, 0, Admission::new(1000, LIMIT), conductor.drain());
    let (wake, asleep) = mpsc::channel::<()>();
    let (asleep, enough) = (Arc::new(Mutex::new(asleep)), Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&enough);
    let router = Router::new()
        .route("/sleeps/{id}", get(async move || asleep.lock().unwrap().recv().unwrap_or_default()))
        .route("/computes/{id}", get(async move || while !stop.load(Relaxed) {}))
        .route("/awaits/{id}", get(async || tokio::time::sleep(Duration::from_millis(400)).await));
    let router = observe.around(router);
    let mut requests = JoinSet::new();
    let mut request = |path: &str| {
        let request = Request::builder().uri(path).header("host", "localhost").body(Body::empty()).unwrap();
        requests.spawn(router.clone().oneshot(request));
    };

    request("/awaits/1");
    request("/sleeps/1");
    until("the sleeper is named", || stalls_of("/sleeps/{id}", &stalls).0 == 1).await;
    let (_, early) = stalls_of("/sleeps/{id}", &stalls);
    assert!(early >= 100, "{early} ms");
    until("the stall grows", || stalls_of("/sleeps/{id}", &stalls).1 > early + 100).await;
    wake.send(()).unwrap();

    request("/computes/1");
    until("the computer is named", || stalls_of("/computes/{id}", &stalls).0 == 1).await;
    enough.store(true, Relaxed);
    while let Some(answer) = requests.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    let over = || ["/sleeps/{id}", "/computes/{id}"].map(|route| stalls_of(route, &stalls));
    until("both are over", || {
        let before = over();
        thread::sleep(MOMENT * 4);
        before == over()
    })
    .await;
    assert_eq!(over().map(|(count, _)| count), [1, 1], "each is told once");
    assert_eq!(stalls_of("/awaits/{id}", &stalls).0, 0, "it holds nobody");
}
