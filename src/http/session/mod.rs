//! Who sends a request: the session cookie, the session behind it, and the limit on its account.
mod store;
mod token;

pub use store::{Session, Sessions};
pub use token::Token;

use super::{
    Problem,
    rate_limit::{self, Limiter, Verdict},
};
use crate::{backing::redis, telemetry::request};
use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::Route,
};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tower::ServiceExt;

pub const COOKIE: &str = "__Host-session";

/// What the cookie turned out to be.
#[derive(Clone)]
enum Identity {
    Anonymous,
    Account(Box<(Token, Session)>),
    /// Redis could not be asked: neither signed in nor signed out.
    Unknown(Arc<redis::Error>),
}

/// Finds out who asks, and refuses what is over their limit.
pub async fn identify(
    shared: Arc<(Sessions, Limiter)>,
    mut request: Request,
    next: Route,
) -> Result<Response, Infallible> {
    let (sessions, limiter) = &*shared;
    let (identity, verdict) = match cookie(request.headers()) {
        Some(token) => of_token(sessions, limiter, token).await,
        None => (Identity::Anonymous, limiter.check(&client()).await),
    };
    if let Err(refusal) = limiter.allow(verdict) {
        return Ok(refusal.into_response());
    }
    request.extensions_mut().insert(identity);
    let mut response = next.oneshot(request).await?;
    for (name, value) in limiter.headers(verdict) {
        // A tighter limit that refused the request has said so already.
        response.headers_mut().entry(name).or_insert(value);
    }
    Ok(response)
}

async fn of_token(sessions: &Sessions, limiter: &Limiter, token: Token) -> (Identity, Verdict) {
    match sessions.find(&token).await {
        Ok(Some((session, debt))) => {
            request::with_current(|request| request.account.set(session.account_id));
            (Identity::Account(Box::new((token, session))), limiter.verdict(debt))
        }
        Ok(None) => (Identity::Anonymous, limiter.check(&client()).await),
        Err(error) => (Identity::Unknown(Arc::new(error)), limiter.check_locally(&client())),
    }
}

/// The network that the current request comes from.
pub fn client() -> String {
    request::with_current(|request| rate_limit::network(request.client)).unwrap_or_default()
}

/// The session of a request that must have one.
///
/// # Errors
/// 401 `no_session` without a live session, 503 while Redis cannot tell.
pub struct SignedIn {
    pub token: Token,
    pub session: Session,
}

impl<S: Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.extensions.remove::<Identity>() {
            Some(Identity::Account(account)) => {
                let (token, session) = *account;
                Ok(Self { token, session })
            }
            Some(Identity::Unknown(error)) => Err(Problem::unavailable(anyhow::anyhow!(error))),
            Some(Identity::Anonymous) | None => {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "no_session", "Sign in first."))
            }
        }
    }
}

/// The token a request carries, alive or not.
pub struct Presented(pub Option<Token>);

impl<S: Sync> FromRequestParts<S> for Presented {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(cookie(&parts.headers)))
    }
}

/// The one session cookie. Two of them are an attack or a mistake: neither counts.
fn cookie(headers: &HeaderMap) -> Option<Token> {
    let headers = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies =
        headers.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let mut values = cookies.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Token::parse(value),
        _ => None,
    }
}

/// The header that hands a token to the browser for `life`.
pub fn set_cookie(token: &Token, life: Duration) -> HeaderValue {
    let value = token.as_str();
    let cookie =
        format!("{COOKIE}={value}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax", life.as_secs());
    HeaderValue::try_from(cookie).expect("base64url and digits are legal in a header")
}

/// The header that takes it away again.
pub const REMOVE_COOKIE: HeaderValue =
    HeaderValue::from_static("__Host-session=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax");

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn exactly_one_cookie_counts_wherever_it_stands() {
        let token = Token::new(Uuid::now_v7()).unwrap();
        let of = |cookies: &[String]| {
            let values = cookies.iter().map(|c| (header::COOKIE, HeaderValue::try_from(c).unwrap()));
            cookie(&HeaderMap::from_iter(values)).map(|token| token.as_str().to_owned())
        };
        let ours = format!("{COOKIE}={}", token.as_str());
        let found = Some(token.as_str().to_owned());
        assert_eq!(of(&[format!("a=b; {ours};c=d")]), found);
        assert_eq!(of(&["a=b".to_owned(), ours.clone()]), found, "HTTP/2 may split the header");
        assert_eq!(of(&[format!("{ours}; {ours}")]), None);
        assert_eq!(of(&[format!("{COOKIE}=junk")]), None);
        assert_eq!(of(&["x".repeat(8192)]), None);
    }
}
