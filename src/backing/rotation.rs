//! New credentials without a restart: follows the files that the addresses of Postgres and Redis came from.
use super::{postgres::Postgres, redis::Redis};
use crate::config::{Config, Secret};
use std::{convert::Infallible, time::Duration};
use tokio::{task::spawn_blocking, time::sleep};

/// Between two looks at the files. Kubernetes itself takes up to a minute to write a changed secret into a pod.
const LOOK: Duration = Duration::from_secs(5);

/// Follows them for as long as it is polled. A file that cannot be read or holds no address changes nothing.
pub async fn follow(postgres: Postgres, redis: Redis, mut config: Config) -> Infallible {
    loop {
        sleep(LOOK).await;
        if let Some(url) = renewed(&config.database_url).await {
            tell("postgres", postgres.turn_to(&url));
            config.database_url = url;
        }
        if let Some(url) = renewed(&config.redis_url).await {
            tell("redis", redis.turn_to(&url).await);
            config.redis_url = url;
        }
    }
}

async fn renewed(secret: &Secret) -> Option<Secret> {
    let secret = secret.clone();
    // Kubernetes replaces the whole folder: for a moment there may be no file.
    spawn_blocking(move || secret.renewed()).await.ok()?.ok().flatten()
}

fn tell(dependency: &str, turned: anyhow::Result<()>) {
    match turned {
        Ok(()) => tracing::info!(dependency, "credentials renewed"),
        Err(error) => {
            tracing::error!(dependency, %error, "renewed credentials are no good, the old stay in use")
        }
    }
}
