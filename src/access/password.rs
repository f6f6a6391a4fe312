//! Passwords: hashed and checked with Argon2id, which is slow and takes memory on purpose.
//!
//! A check costs some 50 ms of a core and 19 MiB. So no more than two run at once and few wait: a flood of wrong passwords
//! cannot take the machine's cores from the cameras. A password that was right is remembered for a minute (as a hash under a
//! key that only this process knows), so that a program that asks every few seconds with Basic does not pay each time.

use std::collections::HashMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::random;
use crate::config::Secret;

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

/// Somebody whom nobody knows is checked against this, so that the time does not tell that there is no such user.
static NOBODY: LazyLock<Option<Secret>> = LazyLock::new(|| hash("nobody has this password").ok());

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    /// Too many are being checked: to be asked again.
    Busy,
}

/// Checks passwords, a few at a time.
pub struct Verifier {
    key: [u8; 32],
    gate: Mutex<Gate>,
    opened: Condvar,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
}

#[derive(Default)]
struct Gate {
    running: usize,
    waiting: usize,
}

impl Verifier {
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, String> {
        Ok(Verifier { key: random()?, gate: Mutex::default(), opened: Condvar::new(), remembered: Mutex::default() })
    }

    /// Whether this very password was right within the last minute. Cheap.
    pub fn remembers(&self, hash: &Secret, password: &str, now: Instant) -> bool {
        let key = self.fingerprint(hash, password);
        lock(&self.remembered).get(&key).is_some_and(|until| now < *until)
    }

    /// Checks a password against a hash; without one (there is no such user) it takes as long and is wrong. Blocks: not for
    /// threads that serve others.
    pub fn verify(&self, hash: Option<&Secret>, password: &str, now: Instant) -> Verdict {
        if password.len() > LONGEST {
            return Verdict::Wrong;
        }
        let Some(_place) = self.enter() else { return Verdict::Busy };
        let right = hash.or(NOBODY.as_ref()).is_some_and(|hash| is_right(hash, password)) && hash.is_some();
        if let (true, Some(hash)) = (right, hash) {
            let key = self.fingerprint(hash, password);
            let mut remembered = lock(&self.remembered);
            remembered.retain(|_, until| now < *until);
            if remembered.len() < KEPT {
                remembered.insert(key, now + REMEMBERED);
            }
        }
        if right { Verdict::Right } else { Verdict::Wrong }
    }

    /// Bound to the hash, so that a password that was changed is forgotten by itself.
    fn fingerprint(&self, hash: &Secret, password: &str) -> [u8; 32] {
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.key) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of any length"),
        };
        mac.update(hash.expose().as_bytes());
        mac.update(&[0]);
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn enter(&self) -> Option<Place<'_>> {
        let mut gate = lock(&self.gate);
        if gate.running >= AT_ONCE {
            if gate.waiting >= WAITING {
                return None;
            }
            gate.waiting += 1;
            gate = self.opened.wait_while(gate, |gate| gate.running >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
            gate.waiting -= 1;
        }
        gate.running += 1;
        Some(Place(self))
    }
}

fn is_right(hash: &Secret, password: &str) -> bool {
    // The comparison inside takes the same time wherever they differ.
    let parsed = PasswordHash::new(hash.expose());
    parsed.is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
}

/// One of the few checks that run.
struct Place<'a>(&'a Verifier);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.0.gate).running -= 1;
        self.0.opened.notify_one();
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
        assert_eq!(verifier.verify(Some(&right), "correct horsf", now), Verdict::Wrong);
        assert_eq!(verifier.verify(None, "correct horse", now), Verdict::Wrong);
        assert!(!verifier.remembers(&right, "correct horse", now));
        assert_eq!(verifier.verify(Some(&right), "correct horse", now), Verdict::Right);
        assert!(verifier.remembers(&right, "correct horse", now + REMEMBERED - Duration::from_millis(1)));
        assert!(!verifier.remembers(&right, "correct horse", now + REMEMBERED));
        assert!(!verifier.remembers(&right, "correct horsf", now));
        assert!(
            !verifier.remembers(&hash("correct horse").unwrap(), "correct horse", now),
            "the password was set anew"
        );
        assert_eq!(verifier.verify(Some(&right), &"x".repeat(LONGEST + 1), now), Verdict::Wrong);
    }

    #[test]
    fn a_flood_of_passwords_is_turned_away() {
        let verifier = Verifier::new().unwrap();
        let places: Vec<_> = (0..AT_ONCE).map(|_| verifier.enter().unwrap()).collect();
        let right = hash("correct horse").unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..WAITING)
                .map(|_| scope.spawn(|| verifier.verify(Some(&right), "correct horse", Instant::now())))
                .collect();
            let look = crossbeam_channel::tick(Duration::from_millis(1));
            while lock(&verifier.gate).waiting < WAITING {
                look.recv().unwrap();
            }
            assert_eq!(verifier.verify(Some(&right), "correct horse", Instant::now()), Verdict::Busy);
            drop(places);
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Verdict::Right);
            }
        });
        let gate = lock(&verifier.gate);
        assert_eq!((gate.running, gate.waiting), (0, 0));
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
