//! Headers and refusals that protect browsers and caches from one another.
use super::{Problem, extract};
use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts,
        uri::Authority,
    },
    response::{IntoResponse, Response},
};
use tower_http::csrf::{CsrfLayer, ProtectionError};

/// What a JSON API sends with every answer. A handler that sets one of them itself keeps its own.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000; includeSubDomains")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

pub fn add_headers(headers: &mut HeaderMap) {
    for (name, value) in &HEADERS {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}

/// Refuses what no handler should ever see.
///
/// # Errors
/// 400 without exactly one sound `Host`, 405 for TRACE and CONNECT, 413 for a body declared too large.
pub fn check(parts: &Parts) -> Result<(), Problem> {
    if !has_one_sound_host(parts) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_host", "Send exactly one valid Host header."));
    }
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        return Err(Problem::method_not_allowed());
    }
    extract::refuse_declared_too_large(&parts.headers)
}

fn has_one_sound_host(parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_authority(host),
        // HTTP/2 carries it in the request target, HTTP/1.0 may leave it out.
        (None, _) => parts.uri.authority().is_some() || parts.version == Version::HTTP_10,
        (Some(_), Some(_)) => false,
    }
}

fn is_authority(host: &HeaderValue) -> bool {
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}

type Refuse = fn(ProtectionError) -> Response;

/// 403 for an unsafe request that another site's page sent.
pub fn csrf() -> CsrfLayer<Refuse> {
    CsrfLayer::new().with_rejection_response(|_| {
        Problem::new(StatusCode::FORBIDDEN, "cross_site", "A page of another site sent this.").into_response()
    })
}
