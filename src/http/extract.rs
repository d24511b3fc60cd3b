//! `Json`, `Path` and `Query` whose rejections are problems.
use super::{Problem, body};
use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use http_body_util::BodyExt;
use serde::de::{DeserializeOwned, IgnoredAny};

/// A JSON body, read whole by the layer in `body.rs`.
///
/// # Errors
/// 415 for another content type, 400 when it is not JSON, 422 with the field named when it is not a `T`.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "Send the body as application/json.";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let body = request.into_body().collect().await.map_err(|_| body::broken())?;
        parse(&body.to_bytes()).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let broken = |why: &serde_json::Error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("The body is not JSON: {why}."))
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let message = error.inner().to_string();
        // A repeated key is broken JSON to most readers, though serde calls it a data error.
        if error.inner().classify() != serde_json::error::Category::Data
            || message.starts_with("duplicate field")
        {
            return broken(error.inner());
        }
        // What follows the wrong field has not been read yet.
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(body) {
            return broken(&error);
        }
        invalid(&error.path().to_string(), &message)
    })?;
    json.end().map_err(|error| broken(&error))?;
    Ok(value)
}

/// 422 with the field named, in words that name no Rust type.
fn invalid(path: &str, message: &str) -> Problem {
    // serde_json adds where it stopped reading; the field says it better.
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let named = message.split('`').nth(1).unwrap_or_default();
    let parent = if path == "." { String::new() } else { format!("{path}.") };
    if message.starts_with("missing field") {
        return Problem::invalid(format!("{parent}{named}"), "is required");
    }
    if message.starts_with("duplicate field") {
        return Problem::invalid(format!("{parent}{named}"), "is given more than once");
    }
    if message.starts_with("unknown field") {
        return Problem::invalid(if path == "." { named } else { path }, "is not a known field");
    }
    let message = if message.starts_with("invalid type: ") {
        wrong_type(message)
    } else if message.starts_with("invalid ") {
        "is out of range"
    } else if message.starts_with("UUID ") {
        "is malformed"
    } else {
        message
    };
    Problem::invalid(if path == "." { "body" } else { path }, message)
}

fn wrong_type(message: &str) -> &'static str {
    match message.rsplit_once("expected ").map(|(_, expected)| expected) {
        Some("a string") => "must be a string",
        Some("a sequence") => "must be a list",
        Some("a boolean") => "must be true or false",
        Some(expected) if expected.starts_with("struct ") => "must be an object",
        _ => "has the wrong type",
    }
}

/// Path parameters; a malformed one is 404, since nothing can be there.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}

/// Query parameters; 422 with the parameter named when one is out of range.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let value = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs));
        value.map(Self).map_err(|error| invalid(&error.path().to_string(), &error.inner().to_string()))
    }
}
