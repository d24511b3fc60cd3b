//! Accounts: signing up, and changing the password.
mod credentials;
pub mod store;

pub use credentials::{Credentials, Password};

use super::sessions;
use crate::{
    app::SignInLimiter,
    backing::{
        passwords::{self, Passwords},
        postgres::Postgres,
    },
    http::{
        Problem,
        extract::Json,
        session::{self, Presented, Sessions, SignedIn},
    },
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use store::Account;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<crate::app::App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(change_password))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    current_password: Password,
    new_password: Password,
}

/// Signs up: makes an account and signs it in.
#[utoipa::path(post, path = "/v1/accounts", operation_id = "create_account", tag = "accounts",
    request_body = Credentials, responses(
    (status = 201, description = "The account; the session is in the cookie", body = Account),
    (status = 409, description = "`email_taken`"),
    (status = 422, description = "`invalid`: not an address, or a password that is too short or too common"),
))]
pub async fn create(
    State(db): State<Postgres>,
    State(passwords): State<Passwords>,
    State(sessions): State<Sessions>,
    State(SignInLimiter(limiter)): State<SignInLimiter>,
    Presented(old): Presented,
    headers: HeaderMap,
    Json(new): Json<Credentials>,
) -> Result<Response, Problem> {
    limiter.admit(&session::client()).await?;
    let hash = passwords.hash(new.password.chosen("password")?).await?;
    let (account, cookie) = db
        .transaction("INSERT accounts", async |conn| {
            let account = store::insert(conn, new.email.as_str(), &hash).await?.ok_or_else(email_taken)?;
            // Inside the transaction: without a session to show for it, the account must not stay.
            let (token, _) = sessions::start(&sessions, account.id, &account.email, &headers, false).await?;
            Ok::<_, Problem>((account, sessions::cookie(&sessions, &token)))
        })
        .await?;
    sessions::end_presented(&sessions, old).await?;
    Ok((StatusCode::CREATED, cookie, axum::Json(account)).into_response())
}

fn email_taken() -> Problem {
    Problem::new(StatusCode::CONFLICT, "email_taken", "There is an account with this address.")
}

/// Changes the password; every other session ends, and this one gets a new token.
#[utoipa::path(put, path = "/v1/account/password", tag = "accounts", request_body = NewPassword, responses(
    (status = 204, description = "Changed"),
    (status = 401, description = "`no_session`"),
    (status = 403, description = "`bad_credentials`: the current password is wrong"),
    (status = 422, description = "`invalid`: the new password is too short or too common"),
))]
pub async fn change_password(
    State(db): State<Postgres>,
    State(passwords): State<Passwords>,
    State(sessions): State<Sessions>,
    State(SignInLimiter(limiter)): State<SignInLimiter>,
    SignedIn { session, .. }: SignedIn,
    headers: HeaderMap,
    Json(change): Json<NewPassword>,
) -> Result<Response, Problem> {
    let id = session.account_id;
    let chosen = change.new_password.chosen("new_password")?;
    limiter.admit(&id.to_string()).await?;
    let known = store::password_hash(&db, id).await?;
    if !passwords.verify(change.current_password.into_inner(), known).await? {
        return Err(Problem::new(StatusCode::FORBIDDEN, "bad_credentials", "The current password is wrong."));
    }
    let hash = passwords.hash(chosen).await?;
    let cookie = db
        .transaction("UPDATE accounts", async |conn| {
            store::update_password(conn, id, &hash).await?;
            // Inside the transaction: a changed password must not leave old sessions alive.
            let (token, _) = sessions::start(&sessions, id, &session.email, &headers, true).await?;
            Ok::<_, Problem>(sessions::cookie(&sessions, &token))
        })
        .await?;
    Ok((StatusCode::NO_CONTENT, cookie).into_response())
}

impl From<passwords::Error> for Problem {
    fn from(error: passwords::Error) -> Self {
        match error {
            passwords::Error::Overloaded => Self::overloaded(),
            passwords::Error::Failed(source) => Self::internal(source),
        }
    }
}

#[cfg(test)]
mod tests;
