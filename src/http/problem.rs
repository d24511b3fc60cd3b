//! Every refusal as `application/problem+json`; the only place that maps failures to statuses.
//!
//! A problem has two texts: `detail` is for the client, the source is for the log and never leaves the process.
use crate::{
    backing::{outbound, postgres, redis},
    telemetry::request,
};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::{borrow::Cow, sync::Arc, time::Duration};
use utoipa::ToSchema;

/// A refusal, ready to be sent.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<anyhow::Error>,
}

/// What is wrong with one field of the request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field, for example `tags[2]`.
    pub field: String,
    pub message: String,
}

/// What the request's log line says of a refusal.
#[derive(Clone)]
pub struct Refusal {
    pub code: &'static str,
    pub source: Option<Arc<anyhow::Error>>,
}

/// The body of every answer outside 2xx and 3xx (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// Stable name of the reason, for programs.
    #[schema(example = "invalid")]
    code: &'static str,
    /// The request's `x-request-id`.
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let (errors, headers) = (Vec::new(), Vec::new());
        Self { status, code, detail: detail.into(), errors, retry_after: None, headers, source: None }
    }

    /// 422 `invalid` for one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{field}: {message}"));
        problem.errors.push(FieldError { field, message });
        problem
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here.")
    }

    pub fn method_not_allowed() -> Self {
        let detail = "This route does not have that method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// 503 for a moment of too much work.
    pub fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once; try again soon.")
            .retry_after(Duration::from_secs(1))
    }

    /// 503 for a dependency that does not answer; 504 when it was the request that had no time left to wait.
    pub fn unavailable(source: anyhow::Error) -> Self {
        if request::is_late() {
            return Self::timeout().because(source);
        }
        let detail = "A part of the service is down; try again soon.";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.retry_after(Duration::from_secs(1)).because(source)
    }

    /// 500: a fault of ours, its cause in the log only.
    pub fn internal(source: anyhow::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed; the failure is logged.")
            .because(source)
    }

    /// 503: the process stops, and has no more time for this request.
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service stops; try again, elsewhere.")
            .retry_after(Duration::from_secs(1))
    }

    pub fn timeout() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "The request took too long.")
    }

    /// Sends `Retry-After`, in whole seconds, rounded up.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Sends these headers too.
    pub fn headers(mut self, headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Self {
        self.headers.extend(headers);
        self
    }

    fn because(mut self, source: anyhow::Error) -> Self {
        self.source = Some(source);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = request::with_current(|request| self.body(&request.id)).unwrap_or_else(|| self.body(""));
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        headers.extend(self.headers);
        let refusal = Refusal { code: self.code, source: self.source.map(Arc::new) };
        response.extensions_mut().insert(refusal);
        response
    }
}

impl Problem {
    fn body(&self, request_id: &str) -> Vec<u8> {
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id,
            errors: &self.errors,
        };
        serde_json::to_vec(&body).expect("a struct of strings and numbers is JSON")
    }
}

impl From<postgres::Error> for Problem {
    fn from(error: postgres::Error) -> Self {
        match error {
            postgres::Error::Unavailable(source) => Self::unavailable(source.context("Postgres")),
            postgres::Error::Query(source) => Self::internal(anyhow::Error::new(source).context("Postgres")),
        }
    }
}

/// A statement inside a transaction.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        postgres::Error::from(error).into()
    }
}

impl From<redis::Error> for Problem {
    fn from(error: redis::Error) -> Self {
        match error {
            redis::Error::Unavailable(source) => Self::unavailable(source.context("Redis")),
            redis::Error::Answer(source) => Self::internal(anyhow::Error::new(source).context("Redis")),
        }
    }
}

/// Shared, since one upstream call may answer many requests.
impl From<Arc<outbound::Error>> for Problem {
    fn from(error: Arc<outbound::Error>) -> Self {
        match &*error {
            outbound::Error::Open { retry_after } => {
                let detail = "The upstream fails too often; try again soon.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", detail)
                    .retry_after(*retry_after)
            }
            outbound::Error::Timeout => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "The upstream took too long.")
            }
            outbound::Error::BadAnswer(_) | outbound::Error::Unreachable(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "upstream_failed", "The upstream gave no usable answer.")
                    .because(anyhow::Error::new(error))
            }
        }
    }
}
