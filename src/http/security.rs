//! Headers and refusals that protect browsers and caches from one another.
use super::Problem;
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
    routing::Route,
};
use percent_encoding::percent_decode_str;
use std::{mem, net::Ipv6Addr};
use tower_http::csrf::{Csrf, CsrfLayer, ProtectionError};

/// What a JSON API sends with every answer. A handler that sets one of them itself keeps its own.
static HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000; includeSubDomains")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Adds them to an answer's own.
pub fn add_headers(headers: &mut HeaderMap) {
    // A map that grows on the way costs more than all of its headers.
    let own = mem::replace(headers, HeaderMap::with_capacity(16));
    for (name, value) in &HEADERS {
        headers.insert(name, value.clone());
    }
    headers.extend(own);
}

/// Refuses what no handler should ever see.
///
/// # Errors
/// 414 and 431 for a head that is too long, 400 without exactly one sound `Host` or with a target that is no text, 405 for
/// TRACE and CONNECT.
pub fn check(request: &Request) -> Result<(), Problem> {
    check_size(request)?;
    let bad = |code, detail: &'static str| Err(Problem::new(StatusCode::BAD_REQUEST, code, detail));
    if !has_one_sound_host(request) {
        return bad("bad_host", "Send exactly one valid Host header.");
    }
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        let allowed = [(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"))];
        return Err(Problem::method_not_allowed().headers(allowed));
    }
    if !is_text(request.uri().path()) {
        return bad("bad_path", "The path is not percent-encoded UTF-8.");
    }
    if request.uri().query().is_some_and(|query| percent_decode_str(query).decode_utf8().is_err()) {
        // The parser of queries would put U+FFFD in its place.
        return bad("bad_query", "The query is not percent-encoded UTF-8.");
    }
    Ok(())
}

/// Longest request target and longest head, in bytes.
const TARGET_LIMIT: usize = 8 << 10;
const HEAD_LIMIT: usize = 32 << 10;

fn check_size(request: &Request) -> Result<(), Problem> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_LIMIT {
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", "A target has at most 8 KiB."));
    }
    // Per header line: a colon, a space and the line's end.
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if target + headers.sum::<usize>() > HEAD_LIMIT {
        let detail = "A head has at most 32 KiB.";
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", detail));
    }
    Ok(())
}

fn is_text(path: &str) -> bool {
    // Nearly every path is plain.
    !path.contains('%')
        || percent_decode_str(path).decode_utf8().is_ok_and(|text| !text.contains('\0'))
            && is_well_encoded(path)
}

/// Each `%` begins two hexadecimal digits.
fn is_well_encoded(path: &str) -> bool {
    let hex = |c: Option<&u8>| c.is_some_and(u8::is_ascii_hexdigit);
    let bytes = path.as_bytes();
    bytes.iter().enumerate().all(|(at, c)| *c != b'%' || hex(bytes.get(at + 1)) && hex(bytes.get(at + 2)))
}

fn has_one_sound_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::to_str);
    let target = request.uri().authority();
    match (hosts.next(), hosts.next()) {
        // A target with a host of its own must mean the same one.
        (Some(Ok(host)), None) => is_host(host) && target.is_none_or(|target| target == host),
        // HTTP/2 carries it in the request target, HTTP/1.0 may leave it out.
        (None, _) => target.is_some() || request.version() == Version::HTTP_10,
        _ => false,
    }
}

/// `host` or `host:port`: a name (RFC 3986, as an IPv4 address is), or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.bytes().rposition(|byte| byte == b':') {
        Some(colon) if !text.ends_with(']') => (&text[..colon], &text[colon + 1..]),
        _ => (text, "0"),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    let address = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_port && !host.is_empty() && (host.bytes().all(is_name) || address().is_some())
}

type Refuse = fn(ProtectionError) -> Response;
/// What [`csrf`] makes of a route.
pub type Guarded = Csrf<Route, Refuse>;

/// 403 for an unsafe request that another site's page sent.
pub fn csrf() -> CsrfLayer<Refuse> {
    CsrfLayer::new().with_rejection_response(|_| {
        Problem::new(StatusCode::FORBIDDEN, "cross_site", "A page of another site sent this.").into_response()
    })
}
