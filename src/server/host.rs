//! The `Host` header: HTTP/1.1 wants exactly one, with a host in it (RFC 9112, 3.2).

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version, header};

/// Whether a request has the `Host` that its version of HTTP wants.
///
/// # Errors
/// What is wrong, for the client.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        // HTTP/1.0 has none.
        return if version < Version::HTTP_11 { Ok(()) } else { Err("the Host header is missing") };
    };
    if hosts.next().is_some() {
        return Err("there is more than one Host header");
    }
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    // Neither a user nor an empty host belongs there.
    match authority {
        Some(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => Ok(()),
        _ => Err("the Host header is not a host with an optional port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn check_all(version: Version, hosts: &[&[u8]]) -> Result<(), &'static str> {
        let hosts = hosts.iter().map(|host| (header::HOST, HeaderValue::from_bytes(host).unwrap()));
        let mut headers = HeaderMap::new();
        hosts.for_each(|(name, value)| {
            headers.append(name, value);
        });
        check(version, &headers)
    }

    #[test]
    fn http_1_1_wants_one_host() {
        for host in ["box", "box:8080", "192.0.2.7", "[2001:db8::1]", "[2001:db8::1]:8080", "box.", "a_b"] {
            assert_eq!(check_all(Version::HTTP_11, &[host.as_bytes()]), Ok(()), "{host}");
        }
        for host in ["", " ", ":8080", "a b", "a/b", "http://box", "user@box", "box:8080:9", "[2001:db8::1", "\u{e9}"] {
            assert!(check_all(Version::HTTP_11, &[host.as_bytes()]).is_err(), "{host:?}");
            assert!(check_all(Version::HTTP_10, &[host.as_bytes()]).is_err(), "{host:?}");
        }
        assert_eq!(check_all(Version::HTTP_11, &[]), Err("the Host header is missing"));
        assert_eq!(check_all(Version::HTTP_10, &[]), Ok(()));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert_eq!(check_all(version, &[b"box", b"box"]), Err("there is more than one Host header"));
        }
    }
}
