//! The request's id and its client's address, as far as headers may be believed.
use crate::server::connection::Peer;
use axum::http::{HeaderMap, HeaderName};
use std::net::{IpAddr, SocketAddr};
use uuid::{NoContext, Timestamp, Uuid};

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's id when it matches `[A-Za-z0-9._-]{1,64}`, else a new one.
pub fn of(headers: &HeaderMap) -> Box<str> {
    let sound = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(is_id_byte);
    match headers.get(&HEADER).and_then(|value| value.to_str().ok()).filter(sound) {
        Some(id) => id.into(),
        None => new().hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned().into(),
    }
}

/// Sorts by the millisecond; any closer, the requests of all threads would have to queue for theirs.
fn new() -> Uuid {
    Uuid::new_v7(Timestamp::now(NoContext))
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The client: the `trusted_proxies`-th `X-Forwarded-For` entry from the right, else the socket's peer.
pub fn client(headers: &HeaderMap, peer: Peer, trusted_proxies: usize) -> Peer {
    let Some(hop) = trusted_proxies.checked_sub(1) else { return peer };
    let values = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let entries: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
    let entry = entries.iter().rev().nth(hop).map(|entry| entry.trim());
    entry.and_then(parse_address).map_or(peer, Peer::from)
}

/// Some proxies add the port.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_sound_id_is_kept_and_any_other_replaced() {
        assert_eq!(&*of(&headers("x-request-id", "a.B-9_")), "a.B-9_");
        for bad in ["", "a b", "a;b", &"a".repeat(65), "\u{e9}"] {
            assert_eq!(of(&headers("x-request-id", bad)).len(), 36, "{bad:?}");
        }
    }

    #[test]
    fn only_trusted_hops_are_believed() {
        let peer = Peer::from(IpAddr::from([10, 0, 0, 1]));
        let spoofed = headers("x-forwarded-for", "1.1.1.1, 2.2.2.2, [2001:db8::1]:443");
        let client = |headers, trusted| client(headers, peer.clone(), trusted).text;
        assert_eq!(&*client(&spoofed, 0), "10.0.0.1");
        assert_eq!(&*client(&spoofed, 1), "2001:db8::1");
        assert_eq!(&*client(&spoofed, 2), "2.2.2.2");
        assert_eq!(&*client(&spoofed, 9), "10.0.0.1");
        assert_eq!(&*client(&headers("x-forwarded-for", "junk"), 1), "10.0.0.1");
    }
}
