//! Limits the number of RTSP connections, in total and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::limit::network;

/// The most RTSP connections at the same time.
pub(super) const MAX_CONNECTIONS: usize = 512;

/// The most connections from one address (IPv6: from one /64 network), except the loopback address.
pub(super) const MAX_PER_ADDRESS: usize = 128;

/// Counts open connections per address.
pub(super) struct ConnectionLimiter {
    max: usize,
    max_per_address: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Permits one open connection until it is dropped.
pub(super) struct ConnectionPermit {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl ConnectionLimiter {
    /// Allows `max` connections in total, and `max_per_address` from one address.
    pub fn new(max: usize, max_per_address: usize) -> Self {
        ConnectionLimiter { max, max_per_address, open: Arc::default() }
    }

    /// Whether the total limit allows another connection.
    pub fn has_room(&self) -> bool {
        self.open.lock().values().sum::<usize>() < self.max
    }

    /// A permit for a connection from `address`; `None` when the total limit or the limit of the address is reached.
    /// The loopback address has no limit of its own, because a local proxy forwards many clients.
    pub fn try_acquire(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let is_loopback = address.to_canonical().is_loopback();
        let address = network(address);
        let mut open = self.open.lock();
        let of_address = open.get(&address).copied().unwrap_or_default();
        if open.values().sum::<usize>() >= self.max || (of_address >= self.max_per_address && !is_loopback) {
            return None;
        }
        open.insert(address, of_address + 1);
        Some(ConnectionPermit { address, open: Arc::clone(&self.open) })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_limited_and_others_keep_their_share() {
        let limiter = ConnectionLimiter::new(6, 2);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let held = [limiter.try_acquire(one).unwrap(), limiter.try_acquire(one).unwrap()];
        assert!(limiter.try_acquire(one).is_none());
        // The same address as an IPv4-mapped one, as sockets for both families report it.
        assert!(limiter.try_acquire("::ffff:192.0.2.1".parse().unwrap()).is_none());
        let _other = limiter.try_acquire(other).unwrap();
        let _neighbour = limiter.try_acquire("2001:db8::2".parse().unwrap()).unwrap();
        assert!(limiter.try_acquire("2001:db8::3".parse().unwrap()).is_none(), "the third from one network");
        drop(held);
        let _again = limiter.try_acquire(one).unwrap();
        let local = "127.0.0.1".parse().unwrap();
        let _local = [(); 3].map(|()| limiter.try_acquire(local).unwrap());
        assert!(!limiter.has_room());
        assert!(limiter.try_acquire(local).is_none(), "the total holds for the loopback too");
        assert_eq!(limiter.open.lock().len(), 3);
    }
}
