//! How often passwords may be tried: a bucket of attempts for each user and for each client address, refilled in time.
//!
//! What is right costs nothing. The table is bounded; when it is full, the bucket that is nearest to being full of attempts
//! again is forgotten, which forgets the least.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Wrong passwords for one user in a row, then one in [`USER_REFILL`].
const USER_BURST: u32 = 10;
const USER_REFILL: Duration = Duration::from_secs(6);

/// Wrong passwords from one address in a row, then one in [`ADDRESS_REFILL`]. More than for a user: several people may sit
/// behind one address.
const ADDRESS_BURST: u32 = 20;
const ADDRESS_REFILL: Duration = Duration::from_secs(3);

/// Buckets of each kind.
const KEPT: usize = 4096;

/// The attempts of all users and addresses.
#[derive(Default)]
pub struct Limits {
    /// `None` stands for all who do not exist.
    users: Buckets<Option<String>>,
    addresses: Buckets<IpAddr>,
}

/// When the bucket of each key is full again, if nothing happens.
struct Buckets<K>(HashMap<K, Instant>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Buckets(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Takes an attempt out.
    ///
    /// # Errors
    /// How long to wait for the next one.
    fn take(&mut self, key: &K, burst: u32, refill: Duration, now: Instant) -> Result<(), Duration> {
        self.0.retain(|_, full| *full > now);
        if self.0.len() >= KEPT && !self.0.contains_key(key) {
            let first = self.0.iter().min_by_key(|(_, full)| **full).map(|(key, _)| key.clone());
            first.map(|first| self.0.remove(&first));
        }
        let full = self.0.entry(key.clone()).or_insert(now);
        let then = *full + refill;
        let wait = then.saturating_duration_since(now + refill * burst);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        *full = then;
        Ok(())
    }

    fn give_back(&mut self, key: &K, refill: Duration) {
        if let Some(full) = self.0.get_mut(key) {
            *full = full.checked_sub(refill).unwrap_or(*full);
        }
    }
}

impl Limits {
    /// Counts an attempt before it is made, so that many at once count, too. `user` is `None` for a name that nobody has.
    ///
    /// # Errors
    /// How long to wait before another may be made.
    pub fn attempt(&mut self, user: Option<&str>, from: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let user = user.map(str::to_owned);
        if let Some(address) = from.map(network) {
            self.addresses.take(&address, ADDRESS_BURST, ADDRESS_REFILL, now)?;
            // Names that nobody has are the address's own affair; else one client could use up the attempts of all.
            if user.is_none() {
                return Ok(());
            }
        }
        self.users.take(&user, USER_BURST, USER_REFILL, now).inspect_err(|_| {
            if let Some(address) = from.map(network) {
                self.addresses.give_back(&address, ADDRESS_REFILL);
            }
        })
    }

    /// The attempt was right: it does not count.
    pub fn right(&mut self, user: Option<&str>, from: Option<IpAddr>) {
        self.users.give_back(&user.map(str::to_owned), USER_REFILL);
        if let Some(address) = from.map(network) {
            self.addresses.give_back(&address, ADDRESS_REFILL);
        }
    }
}

/// What one client can choose from: a single IPv4 address, a network of 64 bits in IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_ten_wrong_passwords_a_user_waits() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        let (anna, from) = (Some("anna"), |n: u8| Some(IpAddr::from([192, 0, 2, n])));
        for n in 0..10 {
            assert_eq!(limits.attempt(anna, from(n), start), Ok(()));
        }
        assert_eq!(limits.attempt(anna, from(10), start), Err(USER_REFILL));
        let later = start + Duration::from_secs(4);
        assert_eq!(limits.attempt(anna, from(10), later), Err(Duration::from_secs(2)));
        assert_eq!(limits.attempt(Some("bert"), from(10), start), Ok(()), "others are not concerned");
        assert_eq!(limits.attempt(anna, from(10), start + USER_REFILL), Ok(()));
        assert!(limits.attempt(anna, from(10), start + USER_REFILL).is_err());
        // After a minute all ten are there again.
        for _ in 0..10 {
            assert_eq!(limits.attempt(anna, from(11), start + Duration::from_secs(66)), Ok(()));
        }
    }

    #[test]
    fn an_address_waits_whatever_names_it_tries() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let from = Some("2001:db8::1".parse().unwrap());
        let neighbour = Some("2001:db8::2".parse().unwrap());
        let other = Some("2001:db8:1::1".parse().unwrap());
        for _ in 0..20 {
            assert_eq!(limits.attempt(None, from, now), Ok(()));
        }
        assert!(limits.attempt(Some("anna"), from, now).is_err());
        assert!(limits.attempt(None, neighbour, now).is_err(), "one client has a whole network");
        assert_eq!(limits.attempt(None, other, now), Ok(()));
        assert_eq!(limits.attempt(Some("anna"), other, now), Ok(()));
    }

    #[test]
    fn what_was_right_does_not_count() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let from = Some(IpAddr::from([192, 0, 2, 1]));
        for _ in 0..100 {
            assert_eq!(limits.attempt(Some("anna"), from, now), Ok(()));
            limits.right(Some("anna"), from);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for n in 0..2 * KEPT as u32 {
            let _ = limits.attempt(None, Some(IpAddr::from(n.to_be_bytes())), now);
        }
        assert_eq!(limits.addresses.0.len(), KEPT);
    }
}
