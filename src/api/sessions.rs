//! Sessions: signing in and out, and seeing where one is signed in.
use super::accounts::{Credentials, store};
use crate::{
    app::SignInLimiter,
    backing::{passwords::Passwords, postgres::Postgres},
    http::{
        Problem,
        extract::{Json, Path},
        session::{self, Presented, Session, Sessions, SignedIn, Token},
    },
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<crate::app::App> {
    OpenApiRouter::new()
        .routes(routes!(create, show, delete))
        .routes(routes!(list, delete_all))
        .routes(routes!(revoke))
}

/// The session behind the cookie.
#[derive(Serialize, ToSchema)]
pub struct CurrentSession {
    account: SessionAccount,
    created_at: DateTime<Utc>,
    /// The end of its life, however busy it is; it ends earlier when it is not used.
    expires_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
struct SessionAccount {
    id: Uuid,
    #[schema(format = Email)]
    email: String,
}

impl From<Session> for CurrentSession {
    fn from(session: Session) -> Self {
        let account = SessionAccount { id: session.account_id, email: session.email };
        Self { account, created_at: session.created_at, expires_at: session.expires_at }
    }
}

/// One place where the account is signed in.
#[derive(Serialize, ToSchema)]
pub struct SessionItem {
    /// Public name of the session, for `DELETE /v1/sessions/{id}`.
    id: Uuid,
    created_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    user_agent: String,
    /// Whether it is the one that asks.
    current: bool,
}

#[derive(Serialize, ToSchema)]
pub struct SessionList {
    items: Vec<SessionItem>,
}

/// Signs in.
#[utoipa::path(post, path = "/v1/session", operation_id = "sign_in", tag = "sessions",
    request_body = Credentials, responses(
    (status = 201, description = "Signed in; the session is in the cookie", body = CurrentSession),
    (status = 401, description = "`bad_credentials`: no such account, or not its password"),
    (status = 422, description = "`invalid`"),
    (status = 429, description = "`rate_limited`: too many attempts for this account or from this network"),
))]
pub async fn create(
    State(db): State<Postgres>,
    State(passwords): State<Passwords>,
    State(sessions): State<Sessions>,
    State(SignInLimiter(limiter)): State<SignInLimiter>,
    Presented(old): Presented,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<Response, Problem> {
    let email = credentials.email.as_str();
    limiter.admit(&session::client()).await?;
    limiter.admit(&format!("{:x}", Sha256::digest(email.to_lowercase()))).await?;
    let account = store::find_by_email(&db, email).await?;
    let (account, hash) = account.map_or((None, None), |(account, hash)| (Some(account), Some(hash)));
    let right = passwords.verify(credentials.password.into_inner(), hash).await?;
    let Some(account) = account.filter(|_| right) else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "bad_credentials", "Wrong address or password."));
    };
    let (token, session) = start(&sessions, account.id, &account.email, &headers, false).await?;
    end_presented(&sessions, old).await?;
    Ok((StatusCode::CREATED, cookie(&sessions, &token), axum::Json(CurrentSession::from(session)))
        .into_response())
}

/// The session that asks.
#[utoipa::path(get, path = "/v1/session", operation_id = "show_session", tag = "sessions", responses(
    (status = 200, description = "Signed in", body = CurrentSession),
    (status = 401, description = "`no_session`"),
))]
pub async fn show(SignedIn { session, .. }: SignedIn) -> axum::Json<CurrentSession> {
    axum::Json(session.into())
}

/// Signs out, on every replica at once.
#[utoipa::path(delete, path = "/v1/session", operation_id = "sign_out", tag = "sessions", responses(
    (status = 204, description = "Signed out"),
    (status = 401, description = "`no_session`"),
))]
pub async fn delete(
    State(sessions): State<Sessions>,
    SignedIn { token, .. }: SignedIn,
) -> Result<impl IntoResponse, Problem> {
    sessions.end(&token).await?;
    Ok(SIGNED_OUT)
}

/// Everywhere the account is signed in, newest first.
#[utoipa::path(get, path = "/v1/sessions", operation_id = "list_sessions", tag = "sessions", responses(
    (status = 200, description = "The sessions", body = SessionList),
    (status = 401, description = "`no_session`"),
))]
pub async fn list(
    State(sessions): State<Sessions>,
    SignedIn { session, .. }: SignedIn,
) -> Result<axum::Json<SessionList>, Problem> {
    let all = sessions.list(session.account_id).await?.into_iter();
    let items = all.map(|other| SessionItem {
        current: other.handle == session.handle,
        id: other.handle,
        created_at: other.created_at,
        last_seen_at: other.last_seen_at,
        user_agent: other.user_agent,
    });
    Ok(axum::Json(SessionList { items: items.collect() }))
}

/// Signs out everywhere, here too.
#[utoipa::path(delete, path = "/v1/sessions", operation_id = "sign_out_everywhere", tag = "sessions",
    responses(
    (status = 204, description = "Signed out everywhere"),
    (status = 401, description = "`no_session`"),
))]
pub async fn delete_all(
    State(sessions): State<Sessions>,
    SignedIn { session, .. }: SignedIn,
) -> Result<impl IntoResponse, Problem> {
    sessions.end_all(session.account_id).await?;
    Ok(SIGNED_OUT)
}

/// Signs out in one place.
#[utoipa::path(delete, path = "/v1/sessions/{id}", operation_id = "end_session", tag = "sessions",
    params(("id" = Uuid, Path)), responses(
    (status = 204, description = "That session has ended"),
    (status = 401, description = "`no_session`"),
    (status = 404, description = "`not_found`: the account has no such session"),
))]
pub async fn revoke(
    State(sessions): State<Sessions>,
    SignedIn { session, .. }: SignedIn,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    if !sessions.revoke(session.account_id, id).await? {
        return Err(Problem::not_found());
    }
    Ok(if id == session.handle { SIGNED_OUT.into_response() } else { StatusCode::NO_CONTENT.into_response() })
}

type SignedOut = (StatusCode, [(HeaderName, HeaderValue); 2]);

/// 204 that removes the cookie, and what this origin left in the browser. Not `"cookies"`: that would clear the whole
/// registered domain, other services included.
const SIGNED_OUT: SignedOut = (
    StatusCode::NO_CONTENT,
    [
        (header::SET_COOKIE, session::REMOVE_COOKIE),
        (HeaderName::from_static("clear-site-data"), HeaderValue::from_static("\"cache\", \"storage\"")),
    ],
);

/// Starts a session for the client that sent `headers`.
pub async fn start(
    sessions: &Sessions,
    account_id: Uuid,
    email: &str,
    headers: &HeaderMap,
    alone: bool,
) -> Result<(Token, Session), Problem> {
    let user_agent =
        headers.get(header::USER_AGENT).map_or("".into(), |value| String::from_utf8_lossy(value.as_bytes()));
    sessions.create(account_id, email, &user_agent, alone).await
}

/// A token sent along with a new sign-in dies, so that a planted one is worth nothing.
pub async fn end_presented(sessions: &Sessions, old: Option<Token>) -> Result<(), Problem> {
    match old {
        Some(old) => Ok(sessions.end(&old).await?),
        None => Ok(()),
    }
}

pub fn cookie(sessions: &Sessions, token: &Token) -> AppendHeaders<[(HeaderName, HeaderValue); 1]> {
    AppendHeaders([(header::SET_COOKIE, session::set_cookie(token, sessions.life))])
}

#[cfg(test)]
mod tests;
