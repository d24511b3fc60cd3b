//! A service's everyday requests, of every kind: signed in, reading, writing, in turn. Finds out at run time whether the
//! example's routes are there; without them an account and a sign-in are the write and the read.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result, ensure};

use crate::client::{
    http1::{Answer, ask},
    samples::{Ask, Kind},
};

const PASSWORD: &str = "correct horse battery staple";

/// How often each kind is asked, relative to the others.
pub type Mix = &'static [(Kind, u64)];

/// One account's requests to one server.
#[derive(Clone)]
pub struct Traffic(Arc<Account>);

struct Account {
    address: SocketAddr,
    email: String,
    cookie: Mutex<String>,
    has_example: bool,
    /// The path of one of its bookmarks, if there are any.
    one: String,
    /// Bookmarks whose previews nobody has asked for yet.
    cold: Mutex<Vec<String>>,
    /// Accounts to sign in to, besides the first.
    others: AtomicU64,
    count: AtomicU64,
}

impl Traffic {
    /// Signs up. `name` keeps the e-mail address apart from others'.
    ///
    /// # Errors
    ///
    /// When there is no 201.
    pub async fn start(address: SocketAddr, name: &str) -> Result<Self> {
        let email = format!("{name}@example.org");
        let answer = ask(address, "POST /v1/accounts", "", &credentials(&email)).await?;
        let cookie = cookie(&answer).context("signing up")?;
        let body = r#"{"url":"https://example.org/"}"#;
        let first = ask(address, "POST /v1/bookmarks", &format!("cookie: {cookie}\r\n"), body).await?;
        let (has_example, cookie) = (first.status == 201, Mutex::new(cookie));
        let one = first.header("location").unwrap_or_default().to_owned();
        let (cold, others, count) = Default::default();
        Ok(Self(Arc::new(Account { address, email, cookie, has_example, one, cold, others, count })))
    }

    pub fn has_example(&self) -> bool {
        self.0.has_example
    }

    /// Requests of these kinds in turn, spread as evenly as their numbers allow.
    pub fn mixed(&self, mix: Mix) -> impl FnMut() -> Ask + Send + 'static {
        let (traffic, mut turns) = (self.clone(), turns(mix).into_iter().cycle());
        move || traffic.ask(turns.next().expect("a mix is not empty"))
    }

    /// The next request of this kind.
    pub fn ask(&self, kind: Kind) -> Ask {
        let account = &*self.0;
        let number = account.count.fetch_add(1, Relaxed);
        let request = match (kind, account.has_example) {
            (Kind::Anonymous, _) => self.request("GET /", false, ""),
            (Kind::Health, _) => self.request("GET /healthz", false, ""),
            (Kind::Session, _) => self.request("GET /v1/session", true, ""),
            (Kind::One, _) => self.request(&format!("GET {}", account.one), true, ""),
            (Kind::Read, true) => self.request("GET /v1/bookmarks?limit=5", true, ""),
            (Kind::Write, true) => {
                let body = format!(r#"{{"url":"https://example.org/{number}"}}"#);
                self.request("POST /v1/bookmarks", true, &body)
            }
            // Without the cookie: a session that is sent along with a sign-in ends.
            (Kind::SignIn, _) | (Kind::Read, false) => {
                let email = match number % (account.others.load(Relaxed) + 1) {
                    0 => account.email.clone(),
                    other => self.other(other),
                };
                self.request("POST /v1/session", false, &credentials(&email))
            }
            (Kind::Write, false) => {
                let body = credentials(&format!("{number}-{}", account.email));
                self.request("POST /v1/accounts", false, &body)
            }
            (Kind::Preview, _) => {
                let cold = account.cold.lock().expect("no holder of this lock can panic").pop();
                self.request(&format!("GET {}", cold.as_deref().unwrap_or("/v1/bookmarks")), true, "")
            }
        };
        Ask { kind, request: request.into() }
    }

    /// Keeps this many bookmarks, for their previews.
    ///
    /// # Errors
    ///
    /// When there is no 201.
    pub async fn prepare_previews(&self, count: usize) -> Result<()> {
        for number in 0..count {
            let body = format!(r#"{{"url":"https://example.org/{}/{number}"}}"#, self.0.email);
            let answer = ask(self.0.address, "POST /v1/bookmarks", &self.cookie_line(), &body).await?;
            let location = answer.header("location").context("a new bookmark has a location")?;
            let path = format!("{location}/preview");
            self.0.cold.lock().expect("no holder of this lock can panic").push(path);
        }
        Ok(())
    }

    /// Makes so many more accounts to sign in to: one with very many sessions is not what a service sees.
    ///
    /// # Errors
    ///
    /// When there is no 201.
    pub async fn prepare_accounts(&self, count: u64) -> Result<()> {
        for number in 1..=count {
            let body = credentials(&self.other(number));
            cookie(&ask(self.0.address, "POST /v1/accounts", "", &body).await?)?;
        }
        self.0.others.store(count, Relaxed);
        Ok(())
    }

    fn other(&self, number: u64) -> String {
        format!("other-{number}-{}", self.0.email)
    }

    /// Signs in again, and asks with the new session from now on.
    ///
    /// # Errors
    ///
    /// When there is no 201.
    pub async fn sign_in(&self) -> Result<()> {
        let answer = ask(self.0.address, "POST /v1/session", "", &credentials(&self.0.email)).await?;
        let new = cookie(&answer).context("signing in")?;
        *self.0.cookie.lock().expect("no holder of this lock can panic") = new;
        Ok(())
    }

    /// The session.
    pub fn cookie(&self) -> String {
        self.0.cookie.lock().expect("no holder of this lock can panic").clone()
    }

    /// The session, as a header line.
    pub fn cookie_line(&self) -> String {
        format!("cookie: {}\r\n", self.cookie())
    }

    fn request(&self, line: &str, signed_in: bool, body: &str) -> String {
        let cookie = if signed_in { self.cookie_line() } else { String::new() };
        let (json, length) = match body.len() {
            0 => ("", String::new()),
            length => ("content-type: application/json\r\n", format!("content-length: {length}\r\n")),
        };
        format!("{line} HTTP/1.1\r\nhost: localhost\r\n{cookie}{json}{length}\r\n{body}")
    }
}

fn credentials(email: &str) -> String {
    format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#)
}

fn cookie(answer: &Answer) -> Result<String> {
    ensure!(answer.status == 201, "201 expected: {}", answer.head);
    let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    Ok(cookie.context("a session comes with a cookie")?.to_owned())
}

/// One round: each kind as often as the mix says, the rarest not in a row.
fn turns(mix: Mix) -> Vec<Kind> {
    let mut turns: Vec<(u64, u64, Kind)> = Vec::new();
    for (place, &(kind, count)) in mix.iter().enumerate() {
        turns.extend((0..count).map(|turn| ((2 * turn + 1) * 1_000_000 / (2 * count), place as u64, kind)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, _, kind)| kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_every_kind_as_often_as_its_mix_says_and_evenly_spread() {
        use Kind::{Anonymous as A, Read as R, Write as W};
        assert_eq!(turns(&[(R, 4), (W, 2), (A, 1)]), [R, W, R, A, R, W, R]);
    }
}
