//! Three replicas as processes behind the balancer, replaced one after the other as a Deployment does it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{Killed, MIX, Watched, balancer::Balancer};
use crate::{
    process::{Server, Signal},
    report::progress,
    stop::stage::Setup,
};

const REPLICAS: usize = 3;
/// How long a supervisor needs to see that a process is gone.
const NOTICE: Duration = Duration::from_secs(1);

pub struct Fleet {
    setup: Setup,
    env: Vec<(&'static str, &'static str)>,
    balancer: Balancer,
    replicas: Vec<Server>,
}

impl Fleet {
    pub async fn start(setup: &Setup, env: &[(&'static str, &'static str)]) -> Result<Self> {
        setup.migrate().await?;
        let (setup, env, balancer) = (setup.clone(), env.to_vec(), Balancer::start().await?);
        let mut fleet = Self { setup, env, balancer, replicas: Vec::new() };
        for _ in 0..REPLICAS {
            let replica = fleet.launch().await?;
            fleet.replicas.push(replica);
        }
        Ok(fleet)
    }

    pub fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// A new replica that gets connections.
    async fn launch(&self) -> Result<Server> {
        let mut server = Server::builder(&self.setup.server)
            .limit(Duration::from_secs(60))
            .env("DATABASE_URL", &self.setup.database_url)
            .env("REDIS_URL", &self.setup.redis_url)
            .env("REDIS_PREFIX", format!("rollout:{}:", std::process::id()))
            .env("RATE_LIMIT", "1000000/1m")
            .env("LOGIN_RATE_LIMIT", "1000000/1m")
            .env("LOG_LEVEL", "warn,app::server=info,server=info");
        for (name, value) in &self.env {
            server = server.env(name, value);
        }
        let server = server.start().await?;
        self.balancer.add(server.port(), server.ops_port()).await?;
        Ok(server)
    }

    /// Replaces every replica: a new one first, then the signal to an old one, which goes when it is done.
    pub async fn roll(&mut self) -> Result<()> {
        for number in 1..=REPLICAS {
            progress(&format!("replica {number} of {REPLICAS}"));
            let new = self.launch().await?;
            let old = self.replicas.remove(0);
            self.replicas.push(new);
            old.signal(Signal::Term)?;
            let exit = old.wait().await?;
            self.balancer.remove(old.port());
            ensure!(exit.code == Some(0), "a replica ended with {exit:?}");
        }
        Ok(())
    }

    /// Kills a replica; its supervisor notices, and starts another.
    pub async fn kill(&mut self, watched: &Watched) -> Result<Killed> {
        let old = self.replicas.remove(0);
        self.balancer.redispatch();
        let in_flight = self.balancer.open(old.port()) * MIX.streams;
        old.signal(Signal::Kill)?;
        old.wait().await?;
        sleep(NOTICE).await;
        self.balancer.remove(old.port());
        sleep(NOTICE).await;
        let killed = Killed { in_flight, failed_soon: watched.failed() };
        let new = self.launch().await?;
        self.replicas.push(new);
        sleep(Duration::from_secs(3)).await;
        Ok(killed)
    }
}
