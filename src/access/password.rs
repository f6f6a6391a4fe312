//! Passwords: hashed and checked with Argon2id, which is slow and takes memory on purpose.
//!
//! A check costs some 50 ms of a core and 19 MiB. So no more than two run at once and few wait: a flood of wrong passwords
//! cannot take the machine's cores from the cameras. The two work in buffers that are kept: glibc's heap grows by
//! gigabytes when 19 MiB are allocated and freed again and again between what the cameras allocate. A password that was
//! right is remembered for a minute (as a hash under a key that only this process knows), so that a program that asks
//! every few seconds with Basic does not pay each time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::{PasswordHash, PasswordHasher, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::limit::network;
use super::random;
use crate::base::secret::Secret;

/// Checks that run at the same time.
const AT_ONCE: usize = 2;

/// Checks that may wait for those; more are turned away.
const WAITING: usize = 16;

/// How long a password that was right need not be checked again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Passwords that are remembered at most.
const KEPT: usize = 256;

/// The least that a password must have, in characters (OWASP ASVS 2.1.1).
pub const SHORTEST: usize = 12;

/// The most, in bytes: hashing something endless is work for nothing.
pub const LONGEST: usize = 512;

/// OWASP's choice of memory (KiB), passes and lanes, and the crate's default; written down so that an update of the crate
/// does not change it unseen. Hashes carry their own, so that others stay valid.
fn argon2() -> Result<Argon2<'static>, argon2::Error> {
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(19 * 1024, 2, 1, None)?))
}

/// The hash of a password with a salt of its own, in PHC's string form.
///
/// # Errors
/// When the system has no random numbers.
pub fn hash(password: &str) -> Result<Secret, String> {
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(|error| error.to_string())?;
    let argon2 = argon2().map_err(|error| error.to_string())?;
    let hash = argon2.hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(Secret::new(hash.to_string()))
}

/// Whether a new password will do.
///
/// # Errors
/// Why not.
pub fn check_new(password: &str, name: &str) -> Result<(), String> {
    let characters = password.chars().count();
    let first = password.chars().next();
    if characters < SHORTEST {
        return Err(format!(
            "a password has {SHORTEST} characters at least, not {characters}; several words make a good one"
        ));
    }
    if password.len() > LONGEST {
        return Err(format!("a password has {LONGEST} bytes at most"));
    }
    if password.to_lowercase().contains(&name.to_lowercase()) && name.chars().count() >= 4 {
        return Err("the password must not contain the name".into());
    }
    if password.chars().all(|c| Some(c) == first) {
        return Err("the password is one character, repeated".into());
    }
    if password.chars().any(char::is_control) {
        return Err("the password has characters that cannot be typed".into());
    }
    Ok(())
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    Right,
    Wrong,
    /// Too many are being checked: to be asked again.
    Busy,
}

/// Checks passwords, a few at a time.
pub struct Verifier {
    key: [u8; 32],
    gate: Mutex<CheckGate>,
    opened: Condvar,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
}

#[derive(Default)]
struct CheckGate {
    running: usize,
    waiting: usize,
    /// Argon2's memory, of those checks that do not run now: [`AT_ONCE`] buffers at most, allocated by the first checks.
    idle: Vec<Vec<Block>>,
}

impl Verifier {
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, String> {
        Ok(Verifier { key: random()?, gate: Mutex::default(), opened: Condvar::new(), remembered: Mutex::default() })
    }

    /// Whether this very password was right within the last minute, from the same network. Cheap.
    pub fn remembers(&self, hash: &Secret, password: &str, from: Option<IpAddr>, now: Instant) -> bool {
        let key = self.fingerprint(hash, password, from);
        lock(&self.remembered).get(&key).is_some_and(|until| now < *until)
    }

    /// Checks a password against a hash. Without a hash (there is no such user) nothing is computed: the caller hides the
    /// difference in time by the moment of its answer. Blocks: not for threads that serve others. `from` is the client's
    /// address, where it is known.
    pub fn verify(&self, hash: Option<&Secret>, password: &str, from: Option<IpAddr>, now: Instant) -> PasswordCheck {
        if password.len() > LONGEST {
            return PasswordCheck::Wrong;
        }
        let Some(hash) = hash else {
            // Turned away where a known name would be.
            return if lock(&self.gate).is_full() { PasswordCheck::Busy } else { PasswordCheck::Wrong };
        };
        let Some(mut place) = self.enter() else { return PasswordCheck::Busy };
        let right = is_right(hash, password, &mut place.memory);
        drop(place);
        if right {
            let key = self.fingerprint(hash, password, from);
            let mut remembered = lock(&self.remembered);
            remembered.retain(|_, until| now < *until);
            if remembered.len() < KEPT {
                remembered.insert(key, now + REMEMBERED);
            }
        }
        if right { PasswordCheck::Right } else { PasswordCheck::Wrong }
    }

    /// Bound to the hash, so that a password that was changed is forgotten by itself; and to the client's network, so that a
    /// client which has used up its attempts cannot test passwords while their owner is logged in elsewhere.
    fn fingerprint(&self, hash: &Secret, password: &str, from: Option<IpAddr>) -> [u8; 32] {
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.key) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of any length"),
        };
        mac.update(hash.expose().as_bytes());
        mac.update(&[0]);
        mac.update(from.map(|from| network(from).to_string()).unwrap_or_default().as_bytes());
        mac.update(&[0]);
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn enter(&self) -> Option<CheckPermit<'_>> {
        let mut gate = lock(&self.gate);
        if gate.is_full() {
            return None;
        }
        if gate.running >= AT_ONCE {
            gate.waiting += 1;
            gate = self.opened.wait_while(gate, |gate| gate.running >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
            gate.waiting -= 1;
        }
        gate.running += 1;
        let memory = gate.idle.pop().unwrap_or_default();
        Some(CheckPermit { verifier: self, memory })
    }
}

impl CheckGate {
    /// Whether another check would be turned away.
    fn is_full(&self) -> bool {
        self.running >= AT_ONCE && self.waiting >= WAITING
    }
}

/// Whether the hash (PHC's string form) is this password's. `memory` grows to what the hash asks for, and is used again.
fn is_right(hash: &Secret, password: &str, memory: &mut Vec<Block>) -> bool {
    let mut computed = || -> argon2::password_hash::Result<bool> {
        let hash = PasswordHash::new(hash.expose())?;
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let (params, mut salt) = (Params::try_from(&hash)?, [0; Salt::MAX_LENGTH]);
        let (Some(salted), Some(expected)) = (hash.salt, hash.hash) else { return Ok(false) };
        let salt = salted.decode_b64(&mut salt)?;
        let blocks = params.block_count();
        if memory.len() < blocks {
            memory.resize(blocks, Block::default());
        }
        let argon2 = Argon2::new(Algorithm::try_from(hash.algorithm)?, version, params);
        let mut output = vec![0; expected.len()];
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut output, &mut memory[..blocks])?;
        // Takes the same time wherever they differ.
        Ok(output.ct_eq(expected.as_bytes()).into())
    };
    computed().unwrap_or(false)
}

/// One of the few checks that run, and its memory.
struct CheckPermit<'a> {
    verifier: &'a Verifier,
    memory: Vec<Block>,
}

impl Drop for CheckPermit<'_> {
    fn drop(&mut self) {
        let mut gate = lock(&self.verifier.gate);
        gate.running -= 1;
        gate.idle.push(std::mem::take(&mut self.memory));
        drop(gate);
        self.verifier.opened.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_passwords_are_right_and_remembered_for_a_minute() {
        let verifier = Verifier::new().unwrap();
        let (now, right) = (Instant::now(), hash("correct horse").unwrap());
        assert!(right.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(hash("correct horse").unwrap(), right, "each hash has a salt of its own");
        assert_eq!(verifier.verify(Some(&right), "correct horsf", None, now), PasswordCheck::Wrong);
        assert_eq!(verifier.verify(None, "correct horse", None, now), PasswordCheck::Wrong);
        assert!(!verifier.remembers(&right, "correct horse", None, now));
        assert_eq!(verifier.verify(Some(&right), "correct horse", None, now), PasswordCheck::Right);
        assert!(verifier.remembers(&right, "correct horse", None, now + REMEMBERED - Duration::from_millis(1)));
        assert!(!verifier.remembers(&right, "correct horse", None, now + REMEMBERED));
        let (here, there) = (Some("2001:db8::1".parse().unwrap()), Some("2001:db8:0:1::1".parse().unwrap()));
        assert!(!verifier.remembers(&right, "correct horse", here, now), "it was right elsewhere");
        assert_eq!(verifier.verify(Some(&right), "correct horse", here, now), PasswordCheck::Right);
        assert!(verifier.remembers(&right, "correct horse", here, now));
        assert!(!verifier.remembers(&right, "correct horse", there, now));
        assert!(!verifier.remembers(&right, "correct horsf", None, now));
        assert!(
            !verifier.remembers(&hash("correct horse").unwrap(), "correct horse", None, now),
            "the password was set anew"
        );
        assert_eq!(verifier.verify(Some(&right), &"x".repeat(LONGEST + 1), None, now), PasswordCheck::Wrong);
    }

    #[test]
    fn a_flood_of_passwords_is_turned_away() {
        let verifier = Verifier::new().unwrap();
        let places: Vec<_> = (0..AT_ONCE).map(|_| verifier.enter().unwrap()).collect();
        let right = hash("correct horse").unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..WAITING)
                .map(|_| scope.spawn(|| verifier.verify(Some(&right), "correct horse", None, Instant::now())))
                .collect();
            let look = crossbeam_channel::tick(Duration::from_millis(1));
            while lock(&verifier.gate).waiting < WAITING {
                look.recv().unwrap();
            }
            assert_eq!(verifier.verify(Some(&right), "correct horse", None, Instant::now()), PasswordCheck::Busy);
            drop(places);
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), PasswordCheck::Right);
            }
        });
        let gate = lock(&verifier.gate);
        assert_eq!((gate.running, gate.waiting), (0, 0));
    }

    #[test]
    fn checks_use_two_buffers_again_and_unknown_names_none() {
        let verifier = Verifier::new().unwrap();
        let right = hash("correct horse").unwrap();
        assert_eq!(verifier.verify(None, "correct horse", None, Instant::now()), PasswordCheck::Wrong);
        assert!(lock(&verifier.gate).idle.is_empty(), "nothing is computed for a name that is not there");
        assert_eq!(verifier.verify(Some(&right), "correct horsf", None, Instant::now()), PasswordCheck::Wrong);
        let first = lock(&verifier.gate).idle[0].as_ptr();
        for _ in 0..3 {
            assert_eq!(verifier.verify(Some(&right), "correct horsf", None, Instant::now()), PasswordCheck::Wrong);
            assert_eq!(lock(&verifier.gate).idle[0].as_ptr(), first);
        }
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| verifier.verify(Some(&right), "correct horse", None, Instant::now()));
            }
        });
        let gate = lock(&verifier.gate);
        assert!((1..=AT_ONCE).contains(&gate.idle.len()));
        assert!(gate.idle.iter().all(|memory| memory.len() == 19 * 1024), "blocks of a KiB");
    }

    /// Hashes of other programs, and of older versions of this one, carry other parameters.
    #[test]
    fn a_hash_is_checked_with_its_own_parameters() {
        let verifier = Verifier::new().unwrap();
        for (algorithm, version, memory, passes, lanes, length) in [
            (Algorithm::Argon2id, Version::V0x13, 8, 1, 1, None),
            (Algorithm::Argon2i, Version::V0x10, 64, 3, 2, Some(24)),
            (Algorithm::Argon2d, Version::V0x13, 20 * 1024, 1, 4, Some(64)),
        ] {
            let params = Params::new(memory, passes, lanes, length).unwrap();
            let salt = SaltString::encode_b64(b"sixteen bytes ok").unwrap();
            let argon2 = Argon2::new(algorithm, version, params);
            let hash = Secret::new(argon2.hash_password(b"correct horse", &salt).unwrap().to_string());
            assert_eq!(
                verifier.verify(Some(&hash), "correct horse", None, Instant::now()),
                PasswordCheck::Right,
                "{algorithm}"
            );
            assert_eq!(
                verifier.verify(Some(&hash), "correct horsf", None, Instant::now()),
                PasswordCheck::Wrong,
                "{algorithm}"
            );
        }
        let broken = Secret::new("$argon2id$v=19$m=8,t=1,p=1$c2l4dGVlbiBieXRlcyBvaw");
        assert_eq!(verifier.verify(Some(&broken), "correct horse", None, Instant::now()), PasswordCheck::Wrong);
    }

    #[test]
    fn new_passwords_are_long_and_not_the_name() {
        for bad in ["hunter2", "xxxxxxxxxxxxxx", "Anna's password", "tab\there and there", &"x1".repeat(300)] {
            assert!(check_new(bad, "anna").is_err(), "{bad}");
        }
        for good in ["correct horse battery", "пароль из слов", "x1".repeat(100).as_str()] {
            assert_eq!(check_new(good, "anna"), Ok(()), "{good}");
        }
    }
}
