//! Who has logged in on the page: sessions that live in memory and end with the service.
//!
//! A browser holds a random number of 256 bits in a cookie; here only its hash is kept. A session ends when it was not used
//! for [`IDLE`], at the latest after [`LONGEST`], and when its user is removed or gets another password.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::{digest, random_text};

/// An open page asks every second, so this is how long a closed one stays logged in.
pub const IDLE: Duration = Duration::from_secs(12 * 3600);

/// A wall of cameras is open for weeks; now and then it is asked again who it is (OWASP ASVS 3.3.2).
pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Sessions of all users.
const KEPT: usize = 1024;

/// Sessions of one user: one more, and the one that was not used for longest ends.
const KEPT_OF_USER: usize = 16;

/// All sessions.
#[derive(Default)]
pub struct Sessions(HashMap<[u8; 32], LoginSession>);

struct LoginSession {
    user: Arc<str>,
    csrf: Arc<str>,
    begun: Instant,
    used: Instant,
}

/// A session that has begun.
pub struct StartedSession {
    /// For the cookie; told once.
    pub id: String,
    pub csrf: Arc<str>,
}

impl LoginSession {
    fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IDLE && now.saturating_duration_since(self.begun) < LONGEST
    }
}

impl Sessions {
    /// Begins one for this user.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn begin(&mut self, user: &str, now: Instant) -> Result<StartedSession, String> {
        self.0.retain(|_, session| session.holds(now));
        while self.0.values().filter(|session| &*session.user == user).count() >= KEPT_OF_USER {
            self.end_oldest(|session| &*session.user == user);
        }
        while self.0.len() >= KEPT {
            self.end_oldest(|_| true);
        }
        let (id, csrf): (String, Arc<str>) = (random_text()?, random_text()?.into());
        let session = LoginSession { user: user.into(), csrf: Arc::clone(&csrf), begun: now, used: now };
        self.0.insert(digest(id.as_bytes()), session);
        Ok(StartedSession { id, csrf })
    }

    fn end_oldest(&mut self, among: impl Fn(&LoginSession) -> bool) {
        let oldest = self.0.iter().filter(|(_, session)| among(session)).min_by_key(|(_, session)| session.used);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.0.remove(&key);
        }
    }

    /// User and CSRF token of the session with this id; it counts as used.
    pub fn find(&mut self, id: &str, now: Instant) -> Option<(Arc<str>, Arc<str>)> {
        // Looked up by a hash: how long that takes says nothing about the ids that there are.
        let key = digest(id.as_bytes());
        let session = self.0.get_mut(&key)?;
        if !session.holds(now) {
            self.0.remove(&key);
            return None;
        }
        session.used = now;
        Some((Arc::clone(&session.user), Arc::clone(&session.csrf)))
    }

    /// Ends the session with this id.
    pub fn end(&mut self, id: &str) {
        self.0.remove(&digest(id.as_bytes()));
    }

    /// Ends the sessions of all users that do not pass.
    pub fn keep(&mut self, passes: impl Fn(&str) -> bool) {
        self.0.retain(|_, session| passes(&session.user));
    }
}

/// Whether two secrets are the same, in a time that does not tell how far they agree.
pub fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_not_used_and_in_the_end() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let begun = sessions.begin("anna", start).unwrap();
        assert!(begun.id.len() >= 43 && begun.csrf.len() >= 43 && begun.id != *begun.csrf);
        let (user, csrf) = sessions.find(&begun.id, start).unwrap();
        assert_eq!((&*user, csrf), ("anna", begun.csrf));
        assert!(sessions.find("", start).is_none() && sessions.find(&begun.id[1..], start).is_none());
        // Used every hour it lasts, but not for ever.
        let mut now = start;
        while now < start + LONGEST {
            assert!(sessions.find(&begun.id, now).is_some());
            now += Duration::from_secs(3600);
        }
        assert!(sessions.find(&begun.id, start + LONGEST).is_none());
        let begun = sessions.begin("anna", start).unwrap();
        assert!(sessions.find(&begun.id, start + IDLE).is_none());
        assert!(sessions.find(&begun.id, start).is_none(), "what has ended does not come back");
    }

    #[test]
    fn sessions_end_by_themselves_or_with_their_user() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let [a, b] = ["anna", "bert"].map(|user| sessions.begin(user, now).unwrap().id);
        let second = sessions.begin("anna", now).unwrap().id;
        sessions.end(&second);
        assert!(sessions.find(&second, now).is_none() && sessions.find(&a, now).is_some());
        sessions.keep(|user| user != "anna");
        assert!(sessions.find(&a, now).is_none() && sessions.find(&b, now).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let first = sessions.begin("anna", start).unwrap().id;
        let others: Vec<_> = (1..=KEPT_OF_USER as u64)
            .map(|n| sessions.begin("anna", start + Duration::from_secs(n)).unwrap().id)
            .collect();
        let now = start + Duration::from_secs(60);
        assert!(sessions.find(&first, now).is_none() && others.iter().all(|id| sessions.find(id, now).is_some()));
        for n in 0..2 * KEPT {
            sessions.begin(&format!("user{n}"), now).unwrap();
        }
        assert_eq!(sessions.0.len(), KEPT);
    }

    #[test]
    fn secrets_are_the_same_or_not() {
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "abcd") && !same("", "a"));
    }
}
