//! Passwords, hashed and checked with Argon2id, which needs much time and memory by design.
//!
//! A check takes about 50 ms of a core and 19 MiB. At most two run at a time and few wait, so that a flood of wrong
//! passwords does not take the cores from the streams. The two buffers are kept: glibc's heap grows by gigabytes when
//! 19 MiB are allocated and freed repeatedly between the allocations of the streams. A correct password is remembered for
//! a minute (as a keyed hash; the key exists only in this process), so that a program that sends Basic every few seconds
//! causes one check a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use argon2::password_hash::{PasswordHash, PasswordHasher, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use hmac::{Hmac, Mac};
use parking_lot::{Condvar, Mutex};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::limit::network;
use super::{RandomError, random};
use crate::base::secret::Secret;

/// Maximum number of simultaneous checks.
const MAX_RUNNING: usize = 2;

/// Maximum number of waiting checks; more are refused.
const MAX_WAITING: usize = 16;

/// How long a correct password is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Maximum number of remembered passwords.
const MAX_REMEMBERED: usize = 256;

/// Minimum length of a new password in characters (OWASP ASVS 2.1.1).
pub const MIN_CHARACTERS: usize = 12;

/// Maximum length of a password in bytes, which limits the work of hashing it.
pub const MAX_BYTES: usize = 512;

/// Memory (KiB), passes and lanes as OWASP recommends. They are also the crate's defaults, but an update of the crate must
/// not change them. A hash contains its own parameters, so hashes with other parameters stay valid.
fn argon2() -> Result<Argon2<'static>, argon2::Error> {
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(19 * 1024, 2, 1, None)?))
}

/// A password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the password cannot be hashed: {0}")]
    Argon2(argon2::password_hash::Error),
}

impl From<argon2::password_hash::Error> for HashError {
    fn from(error: argon2::password_hash::Error) -> Self {
        HashError::Argon2(error)
    }
}

/// Why a new password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("a password needs at least {MIN_CHARACTERS} characters, this one has {characters}; use several words")]
    TooShort { characters: usize },
    #[error("a password may have at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("the password must not contain the name")]
    ContainsName,
    #[error("the password is one repeated character")]
    OneCharacter,
    #[error("the password contains control characters")]
    ControlCharacter,
}

/// The hash of a password with a random salt, in the PHC string format.
///
/// # Errors
/// The system's random number generator or Argon2 failed.
pub fn hash(password: &str) -> Result<Secret, HashError> {
    let salt = SaltString::encode_b64(&random::<16>()?)?;
    let argon2 = argon2().map_err(argon2::password_hash::Error::from)?;
    Ok(Secret::new(argon2.hash_password(password.as_bytes(), &salt)?.to_string()))
}

/// Checks the strength of a new password for the user `name`.
///
/// # Errors
/// It is too weak.
pub fn check_new(password: &str, name: &str) -> Result<(), WeakPassword> {
    let characters = password.chars().count();
    let first = password.chars().next();
    if characters < MIN_CHARACTERS {
        return Err(WeakPassword::TooShort { characters });
    }
    if password.len() > MAX_BYTES {
        return Err(WeakPassword::TooLong);
    }
    if password.to_lowercase().contains(&name.to_lowercase()) && name.chars().count() >= 4 {
        return Err(WeakPassword::ContainsName);
    }
    if password.chars().all(|c| Some(c) == first) {
        return Err(WeakPassword::OneCharacter);
    }
    if password.chars().any(char::is_control) {
        return Err(WeakPassword::ControlCharacter);
    }
    Ok(())
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    Correct,
    Wrong,
    /// Too many checks are waiting: retry later.
    Busy,
}

/// Checks passwords, at most two at a time.
pub struct Verifier {
    key: [u8; 32],
    gate: Mutex<CheckGate>,
    check_ended: Condvar,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
}

#[derive(Default)]
struct CheckGate {
    running: usize,
    waiting: usize,
    /// Argon2's unused buffers, at most [`MAX_RUNNING`], allocated by the first checks.
    buffers: Vec<Vec<Block>>,
}

impl Verifier {
    /// # Errors
    /// The system's random number generator failed.
    pub fn new() -> Result<Self, RandomError> {
        Ok(Verifier {
            key: random()?,
            gate: Mutex::default(),
            check_ended: Condvar::new(),
            remembered: Mutex::default(),
        })
    }

    /// Whether this password was correct within the last minute, from the same network. This takes no noticeable time.
    pub fn remembers(&self, hash: &Secret, password: &str, from: Option<IpAddr>, now: Instant) -> bool {
        let key = self.fingerprint(hash, password, from);
        self.remembered.lock().get(&key).is_some_and(|until| now < *until)
    }

    /// Checks a password against a hash. Without a hash (an unknown user) nothing is computed: the caller hides the
    /// difference in time by delaying its answer. Blocks for 50 ms and more. `from` is the client's address, if it is
    /// known.
    pub fn verify(&self, hash: Option<&Secret>, password: &str, from: Option<IpAddr>, now: Instant) -> PasswordCheck {
        if password.len() > MAX_BYTES {
            return PasswordCheck::Wrong;
        }
        let Some(hash) = hash else {
            // Refused under the same condition as a known name.
            return if self.gate.lock().is_full() { PasswordCheck::Busy } else { PasswordCheck::Wrong };
        };
        let Some(mut permit) = self.acquire() else { return PasswordCheck::Busy };
        let is_correct = matches(hash, password, &mut permit.buffer);
        drop(permit);
        if is_correct {
            let key = self.fingerprint(hash, password, from);
            let mut remembered = self.remembered.lock();
            remembered.retain(|_, until| now < *until);
            if remembered.len() < MAX_REMEMBERED {
                remembered.insert(key, now + REMEMBERED_FOR);
            }
        }
        if is_correct { PasswordCheck::Correct } else { PasswordCheck::Wrong }
    }

    /// Includes the hash, so that a changed password is not remembered, and the client's network, so that a client without
    /// attempts left cannot test passwords while their owner is logged in elsewhere.
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

    fn acquire(&self) -> Option<CheckPermit<'_>> {
        let mut gate = self.gate.lock();
        if gate.is_full() {
            return None;
        }
        if gate.running >= MAX_RUNNING {
            gate.waiting += 1;
            self.check_ended.wait_while(&mut gate, |gate| gate.running >= MAX_RUNNING);
            gate.waiting -= 1;
        }
        gate.running += 1;
        let buffer = gate.buffers.pop().unwrap_or_default();
        Some(CheckPermit { verifier: self, buffer })
    }
}

impl CheckGate {
    /// Whether another check would be refused.
    fn is_full(&self) -> bool {
        self.running >= MAX_RUNNING && self.waiting >= MAX_WAITING
    }
}

/// Whether the hash (PHC string format) is that of `password`. `buffer` grows to the size that the hash requires.
fn matches(hash: &Secret, password: &str, buffer: &mut Vec<Block>) -> bool {
    let mut computed = || -> argon2::password_hash::Result<bool> {
        let hash = PasswordHash::new(hash.expose())?;
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let (params, mut salt) = (Params::try_from(&hash)?, [0; Salt::MAX_LENGTH]);
        let (Some(salted), Some(expected)) = (hash.salt, hash.hash) else { return Ok(false) };
        let salt = salted.decode_b64(&mut salt)?;
        let blocks = params.block_count();
        if buffer.len() < blocks {
            buffer.resize(blocks, Block::default());
        }
        let argon2 = Argon2::new(Algorithm::try_from(hash.algorithm)?, version, params);
        let mut output = vec![0; expected.len()];
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut output, &mut buffer[..blocks])?;
        // Constant time.
        Ok(output.ct_eq(expected.as_bytes()).into())
    };
    computed().unwrap_or(false)
}

/// A running check and its buffer.
struct CheckPermit<'a> {
    verifier: &'a Verifier,
    buffer: Vec<Block>,
}

impl Drop for CheckPermit<'_> {
    fn drop(&mut self) {
        let mut gate = self.verifier.gate.lock();
        gate.running -= 1;
        gate.buffers.push(std::mem::take(&mut self.buffer));
        drop(gate);
        self.verifier.check_ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correct_passwords_are_accepted_and_remembered_for_a_minute() {
        let verifier = Verifier::new().unwrap();
        let (now, correct) = (Instant::now(), hash("correct horse").unwrap());
        assert!(correct.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(hash("correct horse").unwrap(), correct, "each hash has its own salt");
        assert_eq!(verifier.verify(Some(&correct), "correct horsf", None, now), PasswordCheck::Wrong);
        assert_eq!(verifier.verify(None, "correct horse", None, now), PasswordCheck::Wrong);
        assert!(!verifier.remembers(&correct, "correct horse", None, now));
        assert_eq!(verifier.verify(Some(&correct), "correct horse", None, now), PasswordCheck::Correct);
        assert!(verifier.remembers(&correct, "correct horse", None, now + REMEMBERED_FOR - Duration::from_millis(1)));
        assert!(!verifier.remembers(&correct, "correct horse", None, now + REMEMBERED_FOR));
        let (here, there) = (Some("2001:db8::1".parse().unwrap()), Some("2001:db8:0:1::1".parse().unwrap()));
        assert!(!verifier.remembers(&correct, "correct horse", here, now), "it was correct from elsewhere");
        assert_eq!(verifier.verify(Some(&correct), "correct horse", here, now), PasswordCheck::Correct);
        assert!(verifier.remembers(&correct, "correct horse", here, now));
        assert!(!verifier.remembers(&correct, "correct horse", there, now));
        assert!(!verifier.remembers(&correct, "correct horsf", None, now));
        assert!(
            !verifier.remembers(&hash("correct horse").unwrap(), "correct horse", None, now),
            "the password was set again"
        );
        assert_eq!(verifier.verify(Some(&correct), &"x".repeat(MAX_BYTES + 1), None, now), PasswordCheck::Wrong);
    }

    #[test]
    fn a_flood_of_passwords_is_refused() {
        let verifier = Verifier::new().unwrap();
        let permits: Vec<_> = (0..MAX_RUNNING).map(|_| verifier.acquire().unwrap()).collect();
        let correct = hash("correct horse").unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..MAX_WAITING)
                .map(|_| scope.spawn(|| verifier.verify(Some(&correct), "correct horse", None, Instant::now())))
                .collect();
            let poll = crossbeam_channel::tick(Duration::from_millis(1));
            while verifier.gate.lock().waiting < MAX_WAITING {
                poll.recv().unwrap();
            }
            assert_eq!(verifier.verify(Some(&correct), "correct horse", None, Instant::now()), PasswordCheck::Busy);
            drop(permits);
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), PasswordCheck::Correct);
            }
        });
        let gate = verifier.gate.lock();
        assert_eq!((gate.running, gate.waiting), (0, 0));
    }

    #[test]
    fn checks_reuse_two_buffers_and_unknown_names_use_none() {
        let verifier = Verifier::new().unwrap();
        let correct = hash("correct horse").unwrap();
        assert_eq!(verifier.verify(None, "correct horse", None, Instant::now()), PasswordCheck::Wrong);
        assert!(verifier.gate.lock().buffers.is_empty(), "nothing is computed for an unknown name");
        assert_eq!(verifier.verify(Some(&correct), "correct horsf", None, Instant::now()), PasswordCheck::Wrong);
        let first = verifier.gate.lock().buffers[0].as_ptr();
        for _ in 0..3 {
            assert_eq!(verifier.verify(Some(&correct), "correct horsf", None, Instant::now()), PasswordCheck::Wrong);
            assert_eq!(verifier.gate.lock().buffers[0].as_ptr(), first);
        }
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| verifier.verify(Some(&correct), "correct horse", None, Instant::now()));
            }
        });
        let gate = verifier.gate.lock();
        assert!((1..=MAX_RUNNING).contains(&gate.buffers.len()));
        assert!(gate.buffers.iter().all(|buffer| buffer.len() == 19 * 1024), "blocks of 1 KiB");
    }

    /// Hashes of other programs and of older versions have other parameters.
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
                PasswordCheck::Correct,
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
    fn weak_passwords_are_refused() {
        for (bad, reason) in [
            ("hunter2", WeakPassword::TooShort { characters: 7 }),
            ("xxxxxxxxxxxxxx", WeakPassword::OneCharacter),
            ("Anna's password", WeakPassword::ContainsName),
            ("tab\there and there", WeakPassword::ControlCharacter),
            (&"x1".repeat(300), WeakPassword::TooLong),
        ] {
            assert_eq!(check_new(bad, "anna"), Err(reason), "{bad}");
        }
        for good in ["correct horse battery", "пароль из слов", "x1".repeat(100).as_str()] {
            assert_eq!(check_new(good, "anna"), Ok(()), "{good}");
        }
    }
}
