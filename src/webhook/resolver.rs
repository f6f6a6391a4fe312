//! Looks up the addresses of webhook servers, and refuses those that a host name must not have.
//!
//! The check is made for each connection, with the addresses that it uses: a name server may change its answer at any time.

use std::net::IpAddr;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::config::is_internal;

/// A host name has an address of this machine, of its link, or of a service that only clouds have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the host name has the address {0}, which is this machine, its link or a metadata service; write the address into url"
)]
pub(super) struct InternalAddress(pub(super) IpAddr);

/// A resolver that refuses internal addresses of host names. The configuration file may name any address, and `localhost`.
#[derive(Debug, Default)]
pub(super) struct GuardedResolver(DefaultResolver);

impl Resolver for GuardedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.resolve(uri, config, timeout)?;
        let addresses = found.iter().map(|address| address.ip());
        match refused(uri.host().unwrap_or_default(), addresses) {
            Some(address) => Err(ureq::Error::Other(Box::new(InternalAddress(address)))),
            None => Ok(found),
        }
    }
}

/// The first address that this host must not have.
fn refused(host: &str, mut addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if is_address || host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return None;
    }
    addresses.find(|address| is_internal(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_are_written_may_be_internal() {
        let refused = |host: &str, address: &str| refused(host, std::iter::once(address.parse().unwrap())).is_some();
        for address in ["127.0.0.1", "169.254.169.254", "fe80::1", "::ffff:169.254.1.1", "64:ff9b::7f00:1", "0.0.0.0"] {
            assert!(refused("hooks.example", address), "{address}");
            assert!(refused("localhost.example", address), "{address}");
        }
        for address in ["192.0.2.7", "10.0.0.7", "2001:db8::7"] {
            assert!(!refused("hooks.example", address), "{address}");
        }
        for host in ["127.0.0.1", "169.254.169.254", "[::1]", "localhost", "LOCALHOST."] {
            assert!(!refused(host, "127.0.0.1"), "{host}");
        }
    }
}
