//! Argon2id off the runtime's threads, and never more at once than the machine can hold.
use anyhow::Context;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use std::{
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot};

/// OWASP's floor: 19 MiB, two passes, one lane. About 25 ms on one core.
static ARGON2: LazyLock<Argon2> = LazyLock::new(|| {
    let params =
        Params::new(19 * 1024, 2, 1, None).expect("the parameters are constants within the allowed range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
});

/// What an unknown account's password is checked against, so that the answer takes as long as for a known one. The hash
/// of 32 random bytes that were thrown away.
const DECOY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$046sgMlW5aNVRAQq4vJiOg$cS79tuNNfB+DpzrNtai5vRSiVOqwYO+IUGZgQtZ0B28";

/// How long a sign-in waits for its turn before it is refused.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Hashes and checks passwords on threads that step back behind those that serve, and on all cores but one.
///
/// On tokio's blocking threads a flood of sign-ins would take 512 times 19 MiB, and as much of each core as the workers
/// get: every other request would take ten times as long.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
pub enum Error {
    /// Too many others wait.
    Overloaded,
    Failed(anyhow::Error),
}

impl Passwords {
    /// For a process that has so many cores.
    pub fn new(cores: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))) }
    }

    /// The PHC string of `password`.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        self.run(move || hash(&password)).await
    }

    /// Whether `password` belongs to the PHC string `known`; without one, `false` after the same time.
    pub async fn verify(&self, password: String, known: Option<String>) -> Result<bool, Error> {
        self.run(move || {
            let phc = known.as_deref().unwrap_or(DECOY);
            let parsed =
                PasswordHash::new(phc).map_err(|error| anyhow::anyhow!("stored password hash: {error}"))?;
            Ok(ARGON2.verify_password(password.as_bytes(), &parsed).is_ok() && known.is_some())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Error::Overloaded);
        };
        let (tell, told) = oneshot::channel();
        // The turn goes along: a client that hangs up does not stop the hash, so its place stays taken.
        let work = move || {
            // A tenth of a core that others want as well. Less, and they would wait for the locks that this thread holds in
            // the kernel. Elsewhere niceness belongs to the whole process.
            #[cfg(target_os = "linux")]
            rustix::process::nice(10).ok();
            let done = work();
            // Before the news, for whoever hears it may want the next turn while this thread still waits for a core.
            drop(turn);
            tell.send(done).ok();
        };
        thread::Builder::new().name("password".to_owned()).spawn(work).map_err(|_| Error::Overloaded)?;
        told.await.context("hashing a password").flatten().map_err(Error::Failed)
    }
}

fn hash(password: &str) -> anyhow::Result<String> {
    let hash = ARGON2.hash_password(password.as_bytes());
    Ok(hash.map_err(|error| anyhow::anyhow!("hashing a password: {error}"))?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let passwords = Passwords::new(2);
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("anything".to_owned(), None).await.unwrap(), "the decoy opens nothing");
        assert!(PasswordHash::new(DECOY).is_ok(), "the decoy costs as much as a real check");
    }

    #[tokio::test]
    async fn a_flood_is_refused_not_queued() {
        let passwords = Passwords::new(1);
        let _turn = passwords.turns.clone().acquire_owned().await.unwrap();
        assert!(matches!(passwords.hash("x".to_owned()).await, Err(Error::Overloaded)));
    }
}
