//! Sessions of users who have logged in on the page. They are kept in memory and end with the service.
//!
//! A browser holds a random number of 256 bits in a cookie; only its hash is kept here. A session ends when it was not used
//! for [`MAX_IDLE`], when it is [`MAX_AGE`] old, and when its user is removed or gets another password.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::{RandomError, digest, random_text};

/// How long a session lasts without requests. An open page sends requests every second.
pub const MAX_IDLE: Duration = Duration::from_secs(12 * 3600);

/// How long a session lasts in total (OWASP ASVS 3.3.2). A display of cameras is open for weeks.
pub const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Maximum number of sessions.
const MAX_SESSIONS: usize = 1024;

/// Maximum number of sessions of one user. A new one ends the one that was unused for the longest time.
const MAX_SESSIONS_OF_USER: usize = 16;

/// All sessions.
#[derive(Default)]
pub struct Sessions(HashMap<[u8; 32], LoginSession>);

struct LoginSession {
    user: Arc<str>,
    csrf: Arc<str>,
    started: Instant,
    used: Instant,
}

/// A new session.
pub struct StartedSession {
    /// For the cookie. It is not kept.
    pub id: String,
    pub csrf: Arc<str>,
}

impl LoginSession {
    fn is_valid(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < MAX_IDLE && now.saturating_duration_since(self.started) < MAX_AGE
    }
}

impl Sessions {
    /// Begins a session of this user.
    ///
    /// # Errors
    /// The system's random number generator failed.
    pub fn begin(&mut self, user: &str, now: Instant) -> Result<StartedSession, RandomError> {
        self.0.retain(|_, session| session.is_valid(now));
        while self.0.values().filter(|session| &*session.user == user).count() >= MAX_SESSIONS_OF_USER {
            self.end_least_recently_used(|session| &*session.user == user);
        }
        while self.0.len() >= MAX_SESSIONS {
            self.end_least_recently_used(|_| true);
        }
        let (id, csrf): (String, Arc<str>) = (random_text()?, random_text()?.into());
        let session = LoginSession { user: user.into(), csrf: Arc::clone(&csrf), started: now, used: now };
        self.0.insert(digest(id.as_bytes()), session);
        Ok(StartedSession { id, csrf })
    }

    fn end_least_recently_used(&mut self, among: impl Fn(&LoginSession) -> bool) {
        let oldest = self.0.iter().filter(|(_, session)| among(session)).min_by_key(|(_, session)| session.used);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.0.remove(&key);
        }
    }

    /// User and CSRF token of the session with this id, which is marked as used.
    pub fn find(&mut self, id: &str, now: Instant) -> Option<(Arc<str>, Arc<str>)> {
        // Looked up by a hash: the time that takes does not reveal existing ids.
        let key = digest(id.as_bytes());
        let session = self.0.get_mut(&key)?;
        if !session.is_valid(now) {
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

    /// Ends the sessions of users for which `is_valid` is false.
    pub fn retain_users(&mut self, is_valid: impl Fn(&str) -> bool) {
        self.0.retain(|_, session| is_valid(&session.user));
    }
}

/// Whether two secrets are equal, compared in constant time.
pub fn equal_in_constant_time(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_unused_or_too_old() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let started = sessions.begin("anna", start).unwrap();
        assert!(started.id.len() >= 43 && started.csrf.len() >= 43 && started.id != *started.csrf);
        let (user, csrf) = sessions.find(&started.id, start).unwrap();
        assert_eq!((&*user, csrf), ("anna", started.csrf));
        assert!(sessions.find("", start).is_none() && sessions.find(&started.id[1..], start).is_none());
        // Used every hour, it lasts until its maximum age.
        let mut now = start;
        while now < start + MAX_AGE {
            assert!(sessions.find(&started.id, now).is_some());
            now += Duration::from_secs(3600);
        }
        assert!(sessions.find(&started.id, start + MAX_AGE).is_none());
        let started = sessions.begin("anna", start).unwrap();
        assert!(sessions.find(&started.id, start + MAX_IDLE).is_none());
        assert!(sessions.find(&started.id, start).is_none(), "an ended session stays ended");
    }

    #[test]
    fn sessions_end_by_logout_or_with_their_user() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let [a, b] = ["anna", "bert"].map(|user| sessions.begin(user, now).unwrap().id);
        let second = sessions.begin("anna", now).unwrap().id;
        sessions.end(&second);
        assert!(sessions.find(&second, now).is_none() && sessions.find(&a, now).is_some());
        sessions.retain_users(|user| user != "anna");
        assert!(sessions.find(&a, now).is_none() && sessions.find(&b, now).is_some());
    }

    #[test]
    fn the_number_of_sessions_is_limited_and_the_least_recently_used_ends_first() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let first = sessions.begin("anna", start).unwrap().id;
        let others: Vec<_> = (1..=MAX_SESSIONS_OF_USER as u64)
            .map(|n| sessions.begin("anna", start + Duration::from_secs(n)).unwrap().id)
            .collect();
        let now = start + Duration::from_secs(60);
        assert!(sessions.find(&first, now).is_none() && others.iter().all(|id| sessions.find(id, now).is_some()));
        for n in 0..2 * MAX_SESSIONS {
            sessions.begin(&format!("user{n}"), now).unwrap();
        }
        assert_eq!(sessions.0.len(), MAX_SESSIONS);
    }

    #[test]
    fn secrets_are_compared() {
        let equal = equal_in_constant_time;
        assert!(equal("abc", "abc") && !equal("abc", "abd") && !equal("abc", "abcd") && !equal("", "a"));
    }
}
