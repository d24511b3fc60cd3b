//! Which worker serves whom.
use super::*;
use crate::runtime::workers::here;
use std::sync::Mutex;
use tokio::time::timeout;

async fn who(address: SocketAddr) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(get_of("/who").as_bytes()).await.unwrap();
    let answer = answer(&mut socket).await;
    (socket, answer.rsplit("\r\n").next().unwrap().to_owned())
}

#[tokio::test]
async fn connections_are_spread_and_a_held_worker_costs_one_at_most() {
    let (workers, (free, held)) = (Workers::start(2).unwrap(), mpsc::channel::<()>());
    let held = Arc::new(Mutex::new(held));
    let router = Router::new()
        .route("/who", get(async || format!("{:?}", here())))
        .route("/hold", get(async move || held.lock().unwrap().recv().unwrap_or_default()));
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (address, conductor) = (listener.local_addr().unwrap(), Conductor::new(TIMELINE));
    let mut running = JoinSet::new();
    running.spawn(serve(listener, router, 1000, conductor.drain(), workers.clone()));

    let mut first = Vec::new();
    for _ in 0..10 {
        first.push(who(address).await);
    }
    for worker in ["Some(0)", "Some(1)"] {
        assert_eq!(first.iter().filter(|(_, answer)| answer == worker).count(), 5, "{worker} of {first:?}");
    }

    let (holder, name) = &mut first[0];
    holder.write_all(get_of("/hold").as_bytes()).await.unwrap();
    while timeout(Duration::from_millis(100), workers.answer()).await.is_ok() {}
    let (mut more, mut served) = (JoinSet::new(), Vec::new());
    for _ in 0..10 {
        more.spawn(who(address));
        while more.len() > 1 {
            let next = timeout(Duration::from_secs(10), more.join_next()).await;
            served.push(next.expect("the other worker serves it").unwrap().unwrap());
        }
    }
    assert!(served.iter().all(|(_, answer)| answer != name), "{name} is held: {served:?}");
    drop(free);
    more.join_next().await.unwrap().unwrap();
}
