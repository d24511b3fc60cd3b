//! `Idempotency-Key`: the same request sent twice has one effect and one answer.
use super::Problem;
use crate::backing::{
    idempotency::{self, Outcome, Stored},
    postgres::Postgres,
};
use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The request's key, if it has one.
///
/// # Errors
/// 422 unless it is 1 to 255 printable ASCII characters.
pub struct IdempotencyKey(Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        if values.next().is_some() {
            return Err(Problem::invalid(HEADER, "is given more than once"));
        }
        let sound =
            |key: &&str| (1..=255).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b));
        match value.to_str().ok().filter(sound) {
            Some(key) => Ok(Self(Some(key.to_owned()))),
            None => Err(Problem::invalid(HEADER, "must have 1 to 255 printable ASCII characters")),
        }
    }
}

/// Runs `effect` in a transaction that also keeps its answer under the key, so that neither can happen without the
/// other. A request without a key just runs.
///
/// # Errors
/// 422 `idempotency_mismatch` when the key came with another body, 409 `idempotency_in_progress` while the first
/// request with it still runs.
pub async fn once(
    db: &Postgres,
    account_id: Uuid,
    key: IdempotencyKey,
    body: &impl Serialize,
    effect: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<Stored>,
) -> Result<Response, Problem> {
    let Some(key) = key.0 else {
        return Ok(answer(db.run("create", effect).await?));
    };
    let fingerprint =
        Sha256::digest(serde_json::to_vec(body).map_err(|error| Problem::internal(error.into()))?);
    match idempotency::once(db, account_id, &key, &fingerprint, effect).await? {
        Outcome::Done(stored) => Ok(answer(stored)),
        Outcome::Replayed(stored) => {
            let mut response = answer(stored);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Outcome::Mismatch => {
            let detail = "This Idempotency-Key came with another body before.";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch", detail))
        }
        Outcome::Running => {
            let detail = "The first request with this Idempotency-Key still runs.";
            Err(Problem::new(StatusCode::CONFLICT, "idempotency_in_progress", detail))
        }
    }
}

fn answer(stored: Stored) -> Response {
    let mut response = Response::new(Body::from(stored.body));
    *response.status_mut() = StatusCode::from_u16(stored.status.cast_unsigned()).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [(header::LOCATION, stored.location), (header::ETAG, stored.etag)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}
