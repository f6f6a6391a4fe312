//! How often passwords may be tried: buckets of attempts that are refilled in time.
//!
//! | of | in a row | then one in | so that |
//! | --- | ---: | --- | --- |
//! | a name, from one address | 10 | 2 minutes | whoever guesses locks out nobody but those beside him |
//! | a name, from everywhere | 40 | a minute | no more than 100 are guessed in an hour, from however many addresses |
//! | an address, for all names | 20 | 3 seconds | one client has no use for many names |
//!
//! HTTP's passwords, RTSP's passwords and RTSP's digests are counted together. Unknown names are counted like
//! known ones: else the limit would show which users exist. What is right costs nothing and clears the name from that address.
//! Where a name's password was right within 30 days, guesses from elsewhere do not count: a crowd of guessers does not keep
//! people from where they usually are.
//!
//! An address that has tried too many names is refused ([`LoginLimits::attempt`]), unless the password is right, which may be
//! looked at as long as the name itself has attempts left ([`LoginLimits::attempt_beside`]): one client that tries names does not
//! lock out the others behind its address.
//!
//! The tables are bounded; when one is full, the bucket that is nearest to being full of attempts again is forgotten, which
//! forgets the least.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::digest;

/// Wrong passwords in a row, and the time that one is held against its bucket after that.
#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    refill: Duration,
}

const PAIR: Rate = Rate { burst: 10, refill: Duration::from_secs(120) };

/// OWASP ASVS 2.2.1: no more than 100 wrong ones for an account in any hour.
const NAME: Rate = Rate { burst: 40, refill: Duration::from_secs(60) };

/// More than for a name: several people may sit behind one address.
const ADDRESS: Rate = Rate { burst: 20, refill: Duration::from_secs(3) };

/// How long a place where the right password was given is remembered for its user.
const TRUST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Entries of each kind.
const KEPT: usize = 4096;

/// A name, by its hash: what is typed there may be long, or a password.
type NameHash = [u8; 32];

/// Where an attempt comes from; `None` where it is not known.
type ClientAddress = Option<IpAddr>;

/// The attempts of all names and addresses.
#[derive(Default)]
pub struct LoginLimits {
    pairs: Buckets<(NameHash, ClientAddress)>,
    names: Buckets<NameHash>,
    addresses: Buckets<IpAddr>,
    /// Until when.
    trusted: HashMap<(NameHash, ClientAddress), Instant>,
}

/// An attempt that has been counted, and is a wrong one unless somebody says otherwise.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    name: NameHash,
    place: ClientAddress,
    trusted: bool,
    /// Counted for the name only, as the address has no attempts left.
    beside: bool,
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
    fn take(&mut self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.0.retain(|_, full| *full > now);
        make_room(&mut self.0, key);
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

/// Forgets what ends first, where there is no place for another key.
fn make_room<K: Hash + Eq + Clone>(table: &mut HashMap<K, Instant>, key: &K) {
    if table.len() >= KEPT && !table.contains_key(key) {
        let first = table.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
        first.map(|first| table.remove(&first));
    }
}

impl LoginLimits {
    /// Counts an attempt before it is made, so that many at once count, too.
    ///
    /// # Errors
    /// How long to wait before another may be made.
    pub fn attempt(&mut self, name: &str, from: Option<IpAddr>, now: Instant) -> Result<Attempt, Duration> {
        let attempt = self.attempt_at(digest(name.as_bytes()), from.map(network), now);
        if let Some(address) = attempt.place {
            self.addresses.take(&address, ADDRESS, now)?;
        }
        let taken = self.take_name(&attempt, now);
        if let (Err(_), Some(address)) = (taken, &attempt.place) {
            // It was not made.
            self.addresses.give_back(address, ADDRESS);
        }
        taken.map(|()| attempt)
    }

    /// Counts an attempt that [`LoginLimits::attempt`] has refused: for its name only, whether there is such a user or not. What
    /// comes of it may be told when it is right; when it is wrong, the answer is the refusal.
    ///
    /// # Errors
    /// How long to wait: the name has no attempts left either.
    pub fn attempt_beside(&mut self, name: &str, from: Option<IpAddr>, now: Instant) -> Result<Attempt, Duration> {
        let attempt = self.attempt_at(digest(name.as_bytes()), from.map(network), now);
        self.take_name(&attempt, now).map(|()| Attempt { beside: true, ..attempt })
    }

    fn take_name(&mut self, attempt: &Attempt, now: Instant) -> Result<(), Duration> {
        let pair = (attempt.name, attempt.place);
        self.pairs.take(&pair, PAIR, now)?;
        match attempt.trusted {
            true => Ok(()),
            false => self.names.take(&attempt.name, NAME, now).inspect_err(|_| self.pairs.give_back(&pair, PAIR)),
        }
    }

    fn attempt_at(&self, name: NameHash, place: ClientAddress, now: Instant) -> Attempt {
        let trusted = self.trusted.get(&(name, place)).is_some_and(|until| *until > now);
        Attempt { name, place, trusted, beside: false }
    }

    /// The attempt was not made after all.
    pub fn withdraw(&mut self, attempt: &Attempt) {
        self.pairs.give_back(&(attempt.name, attempt.place), PAIR);
        if !attempt.trusted {
            self.names.give_back(&attempt.name, NAME);
        }
        if let (Some(address), false) = (&attempt.place, attempt.beside) {
            self.addresses.give_back(address, ADDRESS);
        }
    }

    /// The attempt was right: it does not count, and neither do the slips before it.
    pub fn right(&mut self, attempt: &Attempt, now: Instant) {
        self.withdraw(attempt);
        let pair = (attempt.name, attempt.place);
        self.pairs.0.remove(&pair);
        if attempt.place.is_some() {
            self.trusted.retain(|_, until| *until > now);
            make_room(&mut self.trusted, &pair);
            self.trusted.insert(pair, now + TRUST);
        }
    }
}

/// What one client can choose from: a single IPv4 address, a network of 64 bits in IPv6.
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
    fn after_ten_wrong_passwords_an_address_waits_for_that_name() {
        let (mut limits, start) = (LoginLimits::default(), Instant::now());
        assert_eq!(tries(&mut limits, "anna", from(1), start), 10);
        assert_eq!(limits.attempt("anna", from(1), start), Err(PAIR.refill));
        let later = start + Duration::from_secs(100);
        assert_eq!(limits.attempt("anna", from(1), later), Err(Duration::from_secs(20)));
        assert!(limits.attempt("anna", from(1), start + PAIR.refill).is_ok());
        assert!(limits.attempt("anna", from(1), start + PAIR.refill).is_err());
        assert!(limits.attempt("bert", from(1), start + PAIR.refill).is_ok(), "others are not concerned");
        // After twenty minutes more all ten are there again.
        assert_eq!(tries(&mut limits, "anna", from(1), start + 11 * PAIR.refill), 10);
    }

    #[test]
    fn one_guesser_locks_nobody_out_but_himself() {
        let (mut limits, start) = (LoginLimits::default(), Instant::now());
        let mut now = start;
        for _ in 0..3600 {
            now += Duration::from_secs(1);
            let _ = tries(&mut limits, "anna", from(66), now);
            // By RTSP as well.
            let _ = tries(&mut limits, "anna", None, now);
        }
        assert!(limits.attempt("anna", from(1), now).is_ok());
    }

    #[test]
    fn a_crowd_of_guessers_has_a_hundred_an_hour_and_leaves_the_usual_places_alone() {
        let (mut limits, start) = (LoginLimits::default(), Instant::now());
        let home = limits.attempt("anna", from(1), start).unwrap();
        limits.right(&home, start);
        let (mut now, mut guesses) = (start, 0);
        for second in 0..3600 {
            now = start + Duration::from_secs(second);
            guesses += (100..200).filter(|&n| limits.attempt("anna", from(n), now).is_ok()).count();
        }
        assert!((90..=100).contains(&guesses), "{guesses}");
        assert!(limits.attempt("anna", from(2), now).is_err(), "nobody can tell her from the others");
        assert!(limits.attempt("anna", from(1), now).is_ok());
        assert!(limits.attempt("anna", from(1), start + TRUST).is_ok(), "the crowd has long gone");
    }

    #[test]
    fn an_address_waits_whatever_names_it_tries() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        let from = Some("2001:db8::1".parse().unwrap());
        let neighbour = Some("2001:db8::2".parse().unwrap());
        let other = Some("2001:db8:1::1".parse().unwrap());
        for n in 0..20 {
            assert!(limits.attempt(&format!("user{n}"), from, now).is_ok());
        }
        assert!(limits.attempt("anna", from, now).is_err());
        assert!(limits.attempt("bert", neighbour, now).is_err(), "one client has a whole network");
        assert!(limits.attempt("anna", other, now).is_ok());
    }

    #[test]
    fn what_was_right_or_not_made_does_not_count() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        for _ in 0..100 {
            let attempt = limits.attempt("anna", from(1), now).unwrap();
            limits.withdraw(&attempt);
        }
        for _ in 0..100 {
            // Two slips, then the right one.
            assert!(limits.attempt("bert", from(2), now).is_ok());
            let attempt = limits.attempt("bert", from(2), now).unwrap();
            limits.right(&attempt, now);
            limits.addresses = Buckets::default();
        }
    }

    #[test]
    fn a_name_keeps_its_attempts_while_its_address_has_none() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        for n in 0..1000 {
            let _ = limits.attempt(&format!("user{n}"), from(66), now);
        }
        assert!(limits.attempt("anna", from(66), now).is_err());
        for _ in 0..100 {
            let attempt = limits.attempt_beside("anna", from(66), now).unwrap();
            limits.right(&attempt, now);
        }
        assert!(limits.attempt("anna", from(66), now).is_err(), "the address is as it was");
        // Guesses of one name are limited, whether a user has the name or not.
        for name in ["anna", "nobody"] {
            let tried = (0..1000).take_while(|_| limits.attempt_beside(name, from(66), now).is_ok()).count();
            assert_eq!(tried, 10, "{name}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut limits, now) = (LoginLimits::default(), Instant::now());
        for n in 0..2 * KEPT as u32 {
            if let Ok(attempt) = limits.attempt(&n.to_string(), Some(IpAddr::from(n.to_be_bytes())), now)
                && n % 2 == 0
            {
                limits.right(&attempt, now);
            }
        }
        assert!(limits.addresses.0.len() <= KEPT && limits.pairs.0.len() <= KEPT && limits.names.0.len() <= KEPT);
        assert!(limits.trusted.len() <= KEPT);
    }
}
