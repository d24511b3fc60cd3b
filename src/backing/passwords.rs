//! Argon2id off the runtime's threads, and never more at once than the machine can hold.
use anyhow::Context;
use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        phc::{Output, PasswordHash, Salt},
        try_generate_salt,
    },
};
use std::{
    cell::RefCell,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

/// OWASP's floor: 19 MiB, two passes, one lane. About 15 ms on one core.
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
/// How long a thread without work stays, and its memory with it.
const KEEP: Duration = Duration::from_secs(1);

thread_local! {
    /// What the thread hashes in. From the system each time, it would take half as long again to get as to use.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Hashes and checks passwords on threads that step back behind those that serve, and on all cores but one.
///
/// On tokio's blocking threads a flood of sign-ins would take 512 times 19 MiB, and as much of each core as the workers
/// get: every other request would take ten times as long.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    threads: &'static Runtime,
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
        let places = cores.saturating_sub(1).max(1);
        let threads = Builder::new_current_thread()
            .thread_name("password")
            .max_blocking_threads(places)
            .thread_keep_alive(KEEP)
            .on_thread_start(step_back)
            .build()
            .expect("a runtime without I/O needs nothing of the system");
        // A runtime must not be dropped where futures run, and this one is needed until the end.
        Self { turns: Arc::new(Semaphore::new(places)), threads: Box::leak(Box::new(threads)) }
    }

    /// The PHC string of `password`.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        self.run(move |memory| hash(&password, memory)).await
    }

    /// Whether `password` belongs to the PHC string `known`; without one, `false` after the same time.
    pub async fn verify(&self, password: String, known: Option<String>) -> Result<bool, Error> {
        self.run(move |memory| {
            let right = verify(&password, known.as_deref().unwrap_or(DECOY), memory);
            Ok(right.context("stored password hash")? && known.is_some())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Error::Overloaded);
        };
        // The turn goes along: a client that hangs up does not stop the hash, so its place stays taken.
        let done = self.threads.spawn_blocking(move || {
            let done = MEMORY.with_borrow_mut(work);
            drop(turn);
            done
        });
        done.await.context("hashing a password").flatten().map_err(Error::Failed)
    }
}

/// Leaves this thread a tenth of a core that others want as well. Less, and they would wait for the locks that it holds in
/// the kernel. Elsewhere niceness belongs to the whole process.
fn step_back() {
    #[cfg(target_os = "linux")]
    rustix::process::nice(10).ok();
}

fn hash(password: &str, memory: &mut Vec<Block>) -> anyhow::Result<String> {
    let salt = try_generate_salt()?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.into(),
        version: Some(Version::V0x13.into()),
        params: ARGON2.params().try_into()?,
        salt: Some(Salt::new(&salt)?),
        hash: Some(digest(&ARGON2, password, &salt, memory)?),
    };
    Ok(hash.to_string())
}

/// Whether `password` belongs to the PHC string `phc`, which says by which parameters.
fn verify(password: &str, phc: &str, memory: &mut Vec<Block>) -> anyhow::Result<bool> {
    let known = PasswordHash::new(phc)?;
    let algorithm = known.algorithm.as_str().try_into()?;
    let version = known.version.context("no version")?.try_into()?;
    let argon2 = Argon2::new(algorithm, version, (&known).try_into()?);
    let salt = known.salt.context("no salt")?;
    // Compared in constant time.
    Ok(Some(digest(&argon2, password, &salt, memory)?) == known.hash)
}

fn digest(argon2: &Argon2, password: &str, salt: &[u8], memory: &mut Vec<Block>) -> anyhow::Result<Output> {
    memory.resize(argon2.params().block_count(), Block::new());
    let mut digest = vec![0; argon2.params().output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut digest, memory)?;
    Ok(Output::new(&digest)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::{PasswordHasher, PasswordVerifier};

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
    async fn the_hashes_are_the_librarys_and_settings_may_change() {
        let (passwords, word) = (Passwords::new(2), "correct horse".to_owned());
        let hash = passwords.hash(word.clone()).await.unwrap();
        assert!(ARGON2.verify_password(word.as_bytes(), hash.as_str()).is_ok());
        for (memory, passes, lanes, length) in [(64, 3, 2, 16), (20 * 1024, 1, 1, 64)] {
            let params = Params::new(memory, passes, lanes, Some(length)).unwrap();
            for algorithm in [Algorithm::Argon2i, Algorithm::Argon2id] {
                let other = Argon2::new(algorithm, Version::V0x13, params.clone());
                let hash = other.hash_password(word.as_bytes()).unwrap().to_string();
                assert!(passwords.verify(word.clone(), Some(hash.clone())).await.unwrap(), "{hash}");
                assert!(!passwords.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
            }
        }
        for junk in ["", "junk", "$argon2id$v=19$m=64,t=3,p=2", "$argon2id$v=19$m=64,t=3,p=2$c2FsdHNhbHQ"] {
            let outcome = passwords.verify(word.clone(), Some(junk.to_owned())).await;
            assert!(!matches!(outcome, Ok(true) | Err(Error::Overloaded)), "{junk}");
        }
    }

    #[tokio::test]
    async fn a_flood_is_refused_not_queued() {
        let passwords = Passwords::new(1);
        let _turn = passwords.turns.clone().acquire_owned().await.unwrap();
        assert!(matches!(passwords.hash("x".to_owned()).await, Err(Error::Overloaded)));
    }
}
