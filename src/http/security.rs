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
/// 400 without exactly one sound `Host`, or with one that is not the request target's, 405 for TRACE and CONNECT, 413 for a body declared too large.
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
        (Some(host), None) => {
            let target = parts.uri.authority();
            authority(host).is_some_and(|host| target.is_none_or(|target| *target == host))
        }
        // HTTP/2 carries it in the request target, HTTP/1.0 may leave it out.
        (None, _) => parts.uri.authority().is_some() || parts.version == Version::HTTP_10,
        (Some(_), Some(_)) => false,
    }
}

/// `host` or `host:port`.
fn authority(host: &HeaderValue) -> Option<Authority> {
    let authority: Authority = host.to_str().ok()?.parse().ok()?;
    let host = authority.host();
    // The parser lets any text pass as the port, and a user before the host.
    let port = authority.as_str().strip_prefix(host)?;
    let sound = !host.is_empty() && (port.is_empty() || authority.port_u16().is_some());
    sound.then_some(authority)
}

type Refuse = fn(ProtectionError) -> Response;

/// 403 for an unsafe request that another site's page sent.
pub fn csrf() -> CsrfLayer<Refuse> {
    CsrfLayer::new().with_rejection_response(|_| {
        Problem::new(StatusCode::FORBIDDEN, "cross_site", "A page of another site sent this.").into_response()
    })
}
