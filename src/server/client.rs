//! The client of a request, also behind a proxy.
//!
//! The configuration lists the proxies (`server.trusted_proxies`). `X-Forwarded-For` and `Forwarded` (RFC 7239) are used
//! only when such a proxy sent the request, and of a list only the entries that trusted proxies have written: it is read
//! from its end, where the nearest proxy has added the address of its peer, up to the first address that is not a trusted
//! proxy. If both headers are present they must agree: a proxy that sets one may forward the other as a client forged it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED: &str = "forwarded";

/// Headers of requests that a proxy has forwarded.
const FORWARDING_HEADERS: [&str; 5] = [FORWARDED, FORWARDED_FOR, "x-forwarded-host", "x-real-ip", "via"];

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// Its address, or the proxy's where the proxy does not name the client.
    pub address: IpAddr,
    /// Whether a proxy forwarded the request: the client may be on another machine although the connection is local.
    pub forwarded: bool,
    /// Whether it uses TLS, with this server or with a trusted proxy.
    pub secure: bool,
}

impl Client {
    /// The client of a request with these headers from `peer`; `trusts` returns whether an address is a trusted proxy.
    pub fn of(peer: IpAddr, tls: bool, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> Self {
        let peer = peer.to_canonical();
        let forwarded = FORWARDING_HEADERS.iter().any(|name| headers.contains_key(*name));
        if !trusts(peer) {
            return Client { address: peer, forwarded, secure: tls };
        }
        let by_list = addresses(headers);
        let by_elements = elements(headers).map(|elements| {
            elements.iter().map(|element| parameter(element, "for").and_then(node)).collect::<Vec<_>>()
        });
        let found = |nodes: &[Option<IpAddr>]| outermost(peer, nodes, &trusts);
        let address = match (by_list, by_elements) {
            (Some(list), Some(elements)) => {
                Some(found(&list)).filter(|address| *address == found(&elements)).unwrap_or(peer)
            }
            (Some(nodes), None) | (None, Some(nodes)) => found(&nodes),
            (None, None) => peer,
        };
        Client { address, forwarded: true, secure: tls || proxy_received_https(headers) }
    }
}

/// The leftmost address of the list that a trusted proxy has written; `peer` where there is none.
fn outermost(peer: IpAddr, nodes: &[Option<IpAddr>], trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut address = peer;
    for node in nodes.iter().rev() {
        // A hidden or invalid entry ends the list: the entries before it may be forged.
        let Some(node) = node.filter(|_| trusts(address)) else { break };
        address = node;
    }
    address
}

/// All headers of this name, joined to one list; `None` without any.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<String> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    Some(values.join(",")).filter(|_| !values.is_empty())
}

/// The nodes of `X-Forwarded-For`.
fn addresses(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    joined(headers, FORWARDED_FOR).map(|list| list.split(',').map(node).collect())
}

/// The elements of `Forwarded`.
fn elements(headers: &HeaderMap) -> Option<Vec<String>> {
    joined(headers, FORWARDED).map(|list| unquoted(&list, ',').into_iter().map(str::to_owned).collect())
}

/// The parts between separators that are not within quotes.
fn unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(|c| {
        let separates = c == separator && !is_quoted;
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && is_quoted && !is_escaped;
        separates
    })
    .collect()
}

/// The value of a parameter of an element such as `for="[2001:db8::1]:4711";proto=https`.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let pairs = unquoted(element, ';').into_iter().filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Whether the nearest proxy received the request over HTTPS.
fn proxy_received_https(headers: &HeaderMap) -> bool {
    let by_list = joined(headers, FORWARDED_PROTO).and_then(|list| list.rsplit(',').next().map(str::to_owned));
    let by_element = || elements(headers)?.last().and_then(|element| parameter(element, "proto").map(str::to_owned));
    by_list.or_else(by_element).is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn trusts(address: IpAddr) -> bool {
        ["10.0.0.1", "10.0.0.2", "127.0.0.1", "2001:db8::1"].contains(&address.to_string().as_str())
    }

    fn of(peer: &str, pairs: &[(&'static str, &str)]) -> Client {
        Client::of(peer.parse().unwrap(), false, &headers(pairs), trusts)
    }

    fn address(peer: &str, pairs: &[(&'static str, &str)]) -> String {
        of(peer, pairs).address.to_string()
    }

    #[test]
    fn a_trusted_proxy_supplies_the_address_of_its_client() {
        for (list, client) in [
            ("192.0.2.7", "192.0.2.7"),
            (" 192.0.2.7 ", "192.0.2.7"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            // Forged entries are to the left of the proxy's own.
            ("198.51.100.1, 192.0.2.7", "192.0.2.7"),
            ("127.0.0.1, 192.0.2.7", "192.0.2.7"),
            // Chained proxies.
            ("192.0.2.7, 10.0.0.2", "192.0.2.7"),
            ("198.51.100.1,192.0.2.7,10.0.0.2,127.0.0.1", "192.0.2.7"),
            ("10.0.0.2", "10.0.0.2"),
            ("10.0.0.2, 127.0.0.1", "10.0.0.2"),
            // Without a valid entry, the address of the proxy.
            ("", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("192.0.2.7, nonsense", "10.0.0.1"),
            ("192.0.2.7, ", "10.0.0.1"),
            ("192.0.2.7, unknown, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.7/24", "10.0.0.1"),
            ("\u{e9}", "10.0.0.1"),
        ] {
            assert_eq!(address("10.0.0.1", &[("x-forwarded-for", list)]), client, "{list:?}");
        }
        let two = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(address("::ffff:10.0.0.1", &two), "192.0.2.7", "lines are one list");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn headers_of_untrusted_peers_are_ignored() {
        for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            let client = of("192.0.2.9", &[(name, "for=198.51.100.1"), ("x-forwarded-proto", "https")]);
            assert_eq!((client.address.to_string().as_str(), client.secure), ("192.0.2.9", false), "{name}");
        }
        assert!(of("192.0.2.9", &[("via", "1.1 cache")]).forwarded);
        assert!(!of("192.0.2.9", &[]).forwarded);
        assert!(of("10.0.0.1", &[]).forwarded, "a proxy forwards requests of others even if it sets no header");
    }

    #[test]
    fn forwarded_is_parsed_like_x_forwarded_for() {
        for (value, client) in [
            ("for=192.0.2.7", "192.0.2.7"),
            ("For=\"[2001:db8::7]:4711\";proto=https", "2001:db8::7"),
            ("proto=http; by=10.0.0.1 ;FOR = 192.0.2.7", "192.0.2.7"),
            ("for=198.51.100.1, for=192.0.2.7;proto=https, for=10.0.0.2", "192.0.2.7"),
            ("for=\"a,for=198.51.100.1\"", "10.0.0.1"),
            ("for=\"\\\",for=198.51.100.1\"", "10.0.0.1"),
            ("for=_hidden, for=10.0.0.2", "10.0.0.2"),
            ("for=unknown", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(address("10.0.0.1", &[("forwarded", value)]), client, "{value}");
        }
        // A client has added the header that its proxy does not set.
        let both = |list, value| address("10.0.0.1", &[("x-forwarded-for", list), ("forwarded", value)]);
        assert_eq!(both("192.0.2.7", "for=192.0.2.7"), "192.0.2.7");
        assert_eq!(both("192.0.2.7", "for=198.51.100.1"), "10.0.0.1");
        assert_eq!(both("198.51.100.1", "for=192.0.2.7"), "10.0.0.1");
    }

    #[test]
    fn tls_at_the_proxy_counts_as_tls() {
        for (pairs, secure) in [
            (&[("x-forwarded-proto", "https")][..], true),
            (&[("x-forwarded-proto", "HTTPS ")], true),
            (&[("x-forwarded-proto", "http")], false),
            (&[("x-forwarded-proto", "https, http")], false),
            (&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")], true),
            (&[("forwarded", "for=192.0.2.7;proto=https")], true),
            (&[("forwarded", "for=192.0.2.7;proto=https, for=10.0.0.2")], false),
            (&[("forwarded", "for=192.0.2.7;proto=https"), ("x-forwarded-proto", "http")], false),
            (&[], false),
        ] {
            assert_eq!(of("10.0.0.1", pairs).secure, secure, "{pairs:?}");
        }
        assert!(Client::of("192.0.2.9".parse().unwrap(), true, &HeaderMap::new(), trusts).secure);
    }
}
