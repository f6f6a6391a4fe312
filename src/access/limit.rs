//! Limits of login attempts: token buckets that are refilled over time.
//!
//! | limit of | attempts | then one in | reason |
//! | --- | ---: | --- | --- |
//! | a name, from one address | 10 | 2 minutes | an attacker locks the user out only at the attacker's own address |
//! | a name, from all addresses | 40 | 1 minute | at most 100 guesses in an hour, from any number of addresses |
//! | an address, for all names | 20 | 3 seconds | trying many names gains one client nothing |
//!
//! Passwords over HTTP and RTSP and RTSP digests are counted together. Unknown names are counted like known ones: otherwise
//! the limit would reveal which users exist. A successful login is not counted and clears the name's failures from that
//! address. An address from which a user has logged in within 30 days is exempt from the second limit: a distributed attack
//! does not lock users out at their usual addresses.
//!
//! An address that has tried too many names is refused ([`LoginLimits::attempt`]), unless the password is right, which may
//! be checked as long as the name itself has attempts left ([`LoginLimits::attempt_by_name`]): one client that tries names
//! does not lock out the others behind its address.
//!
//! The tables are bounded. A full table drops the bucket that would be refilled first, which loses the least.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::digest;

/// Number of attempts without delay, and the time after which one is refilled.
#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    refill: Duration,
}

const PAIR: Rate = Rate { burst: 10, refill: Duration::from_secs(120) };

/// OWASP ASVS 2.2.1: at most 100 failed attempts for an account in any hour.
const NAME: Rate = Rate { burst: 40, refill: Duration::from_secs(60) };

/// More than for a name: several users may share one address.
const ADDRESS: Rate = Rate { burst: 20, refill: Duration::from_secs(3) };

/// How long an address from which a user has logged in is trusted for that user.
const TRUSTED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Maximum number of entries of each table.
const MAX_ENTRIES: usize = 4096;

/// The hash of a name: a user may type a long text or a password instead of a name.
type NameHash = [u8; 32];

/// The network of the client; `None` if it is unknown.
type ClientAddress = Option<IpAddr>;

/// The attempts of all names and addresses.
#[derive(Default)]
pub struct LoginLimits {
    pairs: Buckets<(NameHash, ClientAddress)>,
    names: Buckets<NameHash>,
    addresses: Buckets<IpAddr>,
    /// When the trust ends.
    trusted: HashMap<(NameHash, ClientAddress), Instant>,
}

/// A counted attempt. It counts as failed until [`LoginLimits::succeeded`] or [`LoginLimits::withdraw`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    name: NameHash,
    address: ClientAddress,
    trusted: bool,
    /// Counted only for the name, because the address has no attempts left.
    name_only: bool,
}

/// For each key, the time at which its token bucket is full again.
struct Buckets<K>(HashMap<K, Instant>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Buckets(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Takes an attempt from the bucket.
    ///
    /// # Errors
    /// The time until the next attempt.
    fn take(&mut self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.0.retain(|_, full| *full > now);
        evict_if_full(&mut self.0, key);
        let full = self.0.entry(key.clone()).or_insert(now);
        let then = *full + rate.refill;
        let wait = then.saturating_duration_since(now + rate.refill * rate.burst);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        *full = then;
        Ok(())
    }

    fn give_back(&mut self, key: &K, rate: Rate) {
        if let Some(full) = self.0.get_mut(key) {
            *full = full.checked_sub(rate.refill).unwrap_or(*full);
        }
    }
}

/// Drops the entry that ends first if the table is full and does not have `key`.
fn evict_if_full<K: Hash + Eq + Clone>(table: &mut HashMap<K, Instant>, key: &K) {
    if table.len() >= MAX_ENTRIES && !table.contains_key(key) {
        let first = table.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
        first.map(|first| table.remove(&first));
    }
}

impl LoginLimits {
    /// Counts an attempt before it is made, so that simultaneous attempts count.
    ///
    /// # Errors
    /// The time until the next attempt.
    pub fn attempt(&mut self, name: &str, from: Option<IpAddr>, now: Instant) -> Result<Attempt, Duration> {
        let attempt = self.new_attempt(digest(name.as_bytes()), from.map(network), now);
        if let Some(address) = attempt.address {
            self.addresses.take(&address, ADDRESS, now)?;
        }
        let taken = self.take_name(&attempt, now);
        if let (Err(_), Some(address)) = (taken, &attempt.address) {
            // The attempt is not made.
            self.addresses.give_back(address, ADDRESS);
        }
        taken.map(|()| attempt)
    }

    /// Counts an attempt that [`LoginLimits::attempt`] has refused, only for its name, whether such a user exists or not. A
    /// successful attempt may be accepted; a failed one is answered with the refusal.
    ///
    /// # Errors
    /// The time until the next attempt: the name has no attempts left either.
    pub fn attempt_by_name(&mut self, name: &str, from: Option<IpAddr>, now: Instant) -> Result<Attempt, Duration> {
        let attempt = self.new_attempt(digest(name.as_bytes()), from.map(network), now);
        self.take_name(&attempt, now).map(|()| Attempt { name_only: true, ..attempt })
    }

    fn take_name(&mut self, attempt: &Attempt, now: Instant) -> Result<(), Duration> {
        let pair = (attempt.name, attempt.address);
        self.pairs.take(&pair, PAIR, now)?;
        match attempt.trusted {
            true => Ok(()),
            false => self.names.take(&attempt.name, NAME, now).inspect_err(|_| self.pairs.give_back(&pair, PAIR)),
        }
    }

    fn new_attempt(&self, name: NameHash, address: ClientAddress, now: Instant) -> Attempt {
        let trusted = self.trusted.get(&(name, address)).is_some_and(|until| *until > now);
        Attempt { name, address, trusted, name_only: false }
    }

    /// The attempt was not made.
    pub fn withdraw(&mut self, attempt: &Attempt) {
        self.pairs.give_back(&(attempt.name, attempt.address), PAIR);
        if !attempt.trusted {
            self.names.give_back(&attempt.name, NAME);
        }
        if let (Some(address), false) = (&attempt.address, attempt.name_only) {
            self.addresses.give_back(address, ADDRESS);
        }
    }

    /// The login succeeded: this attempt and the failed ones before it do not count.
    pub fn succeeded(&mut self, attempt: &Attempt, now: Instant) {
        self.withdraw(attempt);
        let pair = (attempt.name, attempt.address);
        self.pairs.0.remove(&pair);
        if attempt.address.is_some() {
            self.trusted.retain(|_, until| *until > now);
            evict_if_full(&mut self.trusted, &pair);
            self.trusted.insert(pair, now + TRUSTED_FOR);
        }
    }
}

/// The range of addresses that one client can use: one IPv4 address, or an IPv6 /64 network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n]))
    }

    fn tries(limits: &mut LoginLimits, name: &str, from: Option<IpAddr>, now: Instant) -> usize {
        (0..1000).take_while(|_| limits.attempt(name, from, now).is_ok()).count()
    }

    #[test]
    fn ten_failures_delay_further_attempts_of_that_name_from_that_address() {
        let (mut limits, start) = (LoginLimits::default(), Instant::now());
        assert_eq!(tries(&mut limits, "anna", from(1), start), 10);
        assert_eq!(limits.attempt("anna", from(1), start), Err(PAIR.refill));
        let later = start + Duration::from_secs(100);
        assert_eq!(limits.attempt("anna", from(1), later), Err(Duration::from_secs(20)));
        assert!(limits.attempt("anna", from(1), start + PAIR.refill).is_ok());
        assert!(limits.attempt("anna", from(1), start + PAIR.refill).is_err());
        assert!(limits.attempt("bert", from(1), start + PAIR.refill).is_ok(), "other names are not limited");
        // Twenty minutes later all ten are refilled.
        assert_eq!(tries(&mut limits, "anna", from(1), start + 11 * PAIR.refill), 10);
    }

    #[test]
    fn one_attacker_does_not_lock_out_other_addresses() {
        let (mut limits, start) = (LoginLimits::default(), Instant::now());
        let mut now = start;
        for _ in 0..3600 {
            now += Duration::from_secs(1);
            let _ = tries(&mut limits, "anna", from(66), now);
            // RTSP without a known address.
            let _ = tries(&mut limits, "anna", None, now);
        }
        assert!(limits.attempt("anna", from(1), now).is_ok());
    }

    #[test]
    fn a_distributed_attack_has_a_hundred_attempts_an_hour_and_does_not_limit_trusted_addresses() {
        let (mut limits, start) = (LoginLimits::default(), Instant::now());
        let trusted = limits.attempt("anna", from(1), start).unwrap();
        limits.succeeded(&trusted, start);
        let (mut now, mut guesses) = (start, 0);
        for second in 0..3600 {
            now = start + Duration::from_secs(second);
            guesses += (100..200).filter(|&n| limits.attempt("anna", from(n), now).is_ok()).count();
        }
        assert!((90..=100).contains(&guesses), "{guesses}");
        assert!(limits.attempt("anna", from(2), now).is_err(), "a new address of the user looks like the attackers'");
        assert!(limits.attempt("anna", from(1), now).is_ok());
        assert!(limits.attempt("anna", from(1), start + TRUSTED_FOR).is_ok(), "the attack has ended");
    }

    #[test]
    fn an_address_is_limited_for_all_names_together() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        let from = Some("2001:db8::1".parse().unwrap());
        let neighbour = Some("2001:db8::2".parse().unwrap());
        let other = Some("2001:db8:1::1".parse().unwrap());
        for n in 0..20 {
            assert!(limits.attempt(&format!("user{n}"), from, now).is_ok());
        }
        assert!(limits.attempt("anna", from, now).is_err());
        assert!(limits.attempt("bert", neighbour, now).is_err(), "one client has a whole /64 network");
        assert!(limits.attempt("anna", other, now).is_ok());
    }

    #[test]
    fn successful_and_withdrawn_attempts_do_not_count() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        for _ in 0..100 {
            let attempt = limits.attempt("anna", from(1), now).unwrap();
            limits.withdraw(&attempt);
        }
        for _ in 0..100 {
            // One failure, then a success.
            assert!(limits.attempt("bert", from(2), now).is_ok());
            let attempt = limits.attempt("bert", from(2), now).unwrap();
            limits.succeeded(&attempt, now);
            limits.addresses = Buckets::default();
        }
    }

    #[test]
    fn a_name_has_its_own_attempts_when_its_address_has_none_left() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        for n in 0..1000 {
            let _ = limits.attempt(&format!("user{n}"), from(66), now);
        }
        assert!(limits.attempt("anna", from(66), now).is_err());
        for _ in 0..100 {
            let attempt = limits.attempt_by_name("anna", from(66), now).unwrap();
            limits.succeeded(&attempt, now);
        }
        assert!(limits.attempt("anna", from(66), now).is_err(), "the address is still limited");
        // Attempts of one name are limited, whether a user has the name or not.
        for name in ["anna", "unknown"] {
            let tried = (0..1000).take_while(|_| limits.attempt_by_name(name, from(66), now).is_ok()).count();
            assert_eq!(tried, 10, "{name}");
        }
    }

    #[test]
    fn the_tables_are_bounded() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        for n in 0..2 * MAX_ENTRIES as u32 {
            if let Ok(attempt) = limits.attempt(&n.to_string(), Some(IpAddr::from(n.to_be_bytes())), now)
                && n % 2 == 0
            {
                limits.succeeded(&attempt, now);
            }
        }
        assert!(
            limits.addresses.0.len() <= MAX_ENTRIES
                && limits.pairs.0.len() <= MAX_ENTRIES
                && limits.names.0.len() <= MAX_ENTRIES
        );
        assert!(limits.trusted.len() <= MAX_ENTRIES);
    }
}
