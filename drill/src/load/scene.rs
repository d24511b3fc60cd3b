//! What is asked of the server, what limits it in that, and how much of it it can do.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::{
    client::{
        loops::{Open, closed},
        samples::{Kind, Recorder, Sample, tally},
    },
    ground::Ground,
    limits::{self, Limit},
    proxy::Mode,
    traffic::{Mix, Traffic},
};

const WARM_UP: Duration = Duration::from_secs(2);
const CAPACITY: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(12);
/// How long an answer may take to be of use.
const OF_USE: Duration = Duration::from_secs(1);
const PROBES: f64 = 50.0;
const CONNECTIONS: usize = 8_000;

/// What limits the server.
pub struct Scene {
    pub id: &'static str,
    pub name: &'static str,
    pub mix: Mix,
    /// Places, and so clients of the closed loop.
    pub places: usize,
    /// Between the server and its Postgres and Redis, each way.
    distance: Duration,
    pub accepted: &'static Limit,
    /// Requests a second of those who have nothing to do with it.
    pub others: f64,
}

/// Postgres and Redis are 40 ms away, so that ten connections can do 250 queries a second. The machine could do far more,
/// and must: the clients are on it too.
pub const WAITING: Scene = Scene {
    id: "waiting",
    name: "handlers wait",
    mix: &[(Kind::Anonymous, 2), (Kind::Read, 7), (Kind::Write, 1)],
    places: 24,
    distance: Duration::from_millis(20),
    accepted: &limits::ACCEPTED,
    others: 0.0,
};
/// The same without the example: only sessions are left to be read, and places are what is scarce.
const WAITING_FOR_REDIS: Scene = Scene {
    mix: &[(Kind::Anonymous, 1), (Kind::Session, 9)],
    distance: Duration::from_millis(40),
    ..WAITING
};
/// Each password takes a core for 15 to 25 ms.
pub const COMPUTING: Scene = Scene {
    id: "computing",
    name: "sign-ins compute",
    mix: &[(Kind::SignIn, 1)],
    places: 256,
    distance: Duration::ZERO,
    accepted: &limits::ACCEPTED_SIGN_IN,
    others: 50.0,
};

/// An open loop, and what becomes of its requests.
pub type Asking = (Arc<Recorder>, Open);

pub fn begin(address: SocketAddr, rate: f64, traffic: &Traffic, mix: Mix) -> Asking {
    let recorder = Recorder::new(address, CONNECTIONS, PATIENCE);
    let open = Open::start(&recorder, rate, traffic.mixed(mix));
    (recorder, open)
}

pub async fn end((recorder, open): Asking) -> Vec<Sample> {
    open.stop().await;
    recorder.samples()
}

impl Scene {
    /// Those who have nothing to do with it, and the probes. They take their share of the machine in each phase, so also
    /// while the capacity is found.
    pub fn bystanders(&self, ground: &Ground, traffic: &Traffic) -> [Asking; 2] {
        let others = begin(ground.address(), self.others.max(1.0), traffic, &[(Kind::Session, 1)]);
        [others, begin(ground.ops_address(), PROBES, traffic, &[(Kind::Health, 1)])]
    }

    /// [`WAITING`], for what the server has.
    pub fn waiting(traffic: &Traffic) -> &'static Self {
        if traffic.has_example() { &WAITING } else { &WAITING_FOR_REDIS }
    }

    /// Puts Postgres and Redis as far from the server as they are in this scene.
    pub async fn keep_away(&self, ground: &Ground) {
        if !self.distance.is_zero() {
            let mode = Mode::Latency { each_way: self.distance, jitter: Duration::ZERO };
            ground.stage.postgres.set(mode).await;
            ground.stage.redis.set(mode).await;
        }
    }

    /// What the server can do a second, and how it was found.
    ///
    /// # Errors
    ///
    /// When it can do nothing.
    pub async fn capacity(&self, ground: &Ground, traffic: &Traffic) -> Result<(f64, Vec<Sample>)> {
        let recorder = Recorder::new(ground.address(), CONNECTIONS, PATIENCE);
        let clients = if self.others > 0.0 { 8 } else { self.places };
        let bystanders = self.bystanders(ground, traffic);
        let start = Instant::now() + WARM_UP;
        closed(&recorder, clients, WARM_UP + CAPACITY, traffic.mixed(self.mix)).await;
        for asking in bystanders {
            end(asking).await;
        }
        // What was answered in that time: counted by its beginning, the last round would come on top.
        let time = start..start + CAPACITY;
        let samples: Vec<Sample> = recorder
            .samples()
            .into_iter()
            .filter(|sample| time.contains(&(sample.due + sample.took)))
            .collect();
        let capacity = goodput(&samples, CAPACITY);
        ensure!(capacity > 1.0, "no capacity: {:?}", tally(&samples));
        Ok((capacity, samples))
    }
}

/// Good answers a second.
pub fn goodput(samples: &[Sample], time: Duration) -> f64 {
    let of_use = samples.iter().filter(|sample| sample.is_good() && sample.took <= OF_USE);
    of_use.count() as f64 / time.as_secs_f64()
}
