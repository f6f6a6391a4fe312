//! The `Host` header: HTTP/1.1 requires exactly one, with a valid host (RFC 9112, 3.2).

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version, header};

/// Why the `Host` of a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    #[error("the Host header is missing")]
    Missing,
    #[error("there is more than one Host header")]
    Repeated,
    #[error("the Host header is not a host with an optional port")]
    Invalid,
}

/// Checks that a request has the `Host` that its version of HTTP requires.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), HostError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        // Optional in HTTP/1.0.
        return if version < Version::HTTP_11 { Ok(()) } else { Err(HostError::Missing) };
    };
    if hosts.next().is_some() {
        return Err(HostError::Repeated);
    }
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    // `Authority` also accepts a user and an empty host.
    match authority {
        Some(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => Ok(()),
        _ => Err(HostError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn check_all(version: Version, hosts: &[&[u8]]) -> Result<(), HostError> {
        let hosts = hosts.iter().map(|host| (header::HOST, HeaderValue::from_bytes(host).unwrap()));
        let mut headers = HeaderMap::new();
        hosts.for_each(|(name, value)| {
            headers.append(name, value);
        });
        check(version, &headers)
    }

    #[test]
    fn http_1_1_requires_one_valid_host() {
        for host in ["box", "box:8080", "192.0.2.7", "[2001:db8::1]", "[2001:db8::1]:8080", "box.", "a_b"] {
            assert_eq!(check_all(Version::HTTP_11, &[host.as_bytes()]), Ok(()), "{host}");
        }
        for host in ["", " ", ":8080", "a b", "a/b", "http://box", "user@box", "box:8080:9", "[2001:db8::1", "\u{e9}"] {
            assert_eq!(check_all(Version::HTTP_11, &[host.as_bytes()]), Err(HostError::Invalid), "{host:?}");
            assert_eq!(check_all(Version::HTTP_10, &[host.as_bytes()]), Err(HostError::Invalid), "{host:?}");
        }
        assert_eq!(check_all(Version::HTTP_11, &[]), Err(HostError::Missing));
        assert_eq!(check_all(Version::HTTP_10, &[]), Ok(()));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert_eq!(check_all(version, &[b"box", b"box"]), Err(HostError::Repeated));
        }
    }
}
