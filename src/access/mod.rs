//! Who is there and what they may do: users, tokens, sessions, and how often passwords may be tried.
//!
//! Knows neither HTTP nor RTSP; both ask [`Access`]. What it holds is exchanged as a whole when the configuration is read
//! again: who was removed is out with the next request.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use subtle::ConstantTimeEq;

mod basic;
mod hashing;
pub mod limit;
pub mod password;
pub mod sessions;
pub mod tls;

pub use basic::basic;
pub(crate) use hashing::{digest, random, random_text};

use crate::base::clock::Clock;
use crate::base::log_dedup;
use crate::base::secret::Secret;
use crate::config::ServerConfig;
use crate::users::{Role, User, Users};
use limit::{Attempt, LoginLimits};
use password::{PasswordCheck, Verifier};
use sessions::{Sessions, StartedSession};

/// The realm of HTTP's and RTSP's challenges. Part of `rtsp_digest`: another one makes those worthless.
pub const REALM: &str = "maskcast";

/// How long whoever asks should wait when too many passwords are being checked.
const BUSY: Duration = Duration::from_secs(1);

/// Refusals are answered at whole multiples of this time after their request. A password is hashed only for a name that is
/// there; the moment of the answer is the same for all, so that it does not tell which names there are. Longer than a check,
/// except on a busy machine: then all refusals take as many of these as the slowest one has taken lately.
const PACE: Duration = Duration::from_millis(500);

/// How long a slow refusal slows the others down, and how many times [`PACE`] at most.
const LATELY: Duration = Duration::from_secs(600);
const SLOWEST: u128 = 10;

/// Users without an RTSP digest that one line of the log names.
const NAMED: usize = 5;

/// Somebody whose request may be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A user's or token's name; `None` where nobody was asked.
    pub name: Option<Arc<str>>,
    pub role: Role,
    /// Of a session: what its changing requests have to carry.
    pub csrf: Option<Arc<str>>,
    proof: Proof,
}

/// What somebody was let in by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// Nobody was asked.
    None,
    /// The password with this hash.
    Password(Secret),
    /// The token with this SHA-256.
    Token([u8; 32]),
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No such user, or another password.
    Wrong,
    /// Too many attempts: to be tried again after this time.
    Limited(Duration),
}

/// A refusal, and when it may be answered: see [`Access::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRefusal {
    pub denied: Denied,
    pub answer_at: Instant,
}

impl LoginRefusal {
    /// Blocks the thread until the refusal may be answered.
    fn wait(self, clock: &Clock) -> Denied {
        clock.sleep_until(self.answer_at);
        self.denied
    }
}

/// An RTSP digest that is tried, see [`Access::try_digest`].
#[derive(Debug)]
pub struct DigestAttempt {
    attempt: Attempt,
    from: Option<IpAddr>,
    began: Instant,
}

/// What the configuration says.
#[derive(Clone, Debug)]
struct Rules {
    users: Users,
    /// What those may do who do not say who they are.
    anonymous: Option<Role>,
    /// The same, where they are known to be on another machine.
    stranger: Option<Role>,
    /// Names that the service is asked for by; `None`: any.
    hosts: Option<Vec<String>>,
    trusted_proxies: Vec<IpNet>,
}

/// Decides who is let in.
pub struct Access {
    rules: RwLock<Arc<Rules>>,
    verifier: Verifier,
    limits: Mutex<LoginLimits>,
    sessions: Mutex<Sessions>,
    /// Paces of the slowest refusal lately, and until when that is.
    slowest: Mutex<Option<(u128, Instant)>>,
    clock: Clock,
}

impl Access {
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(config: &ServerConfig) -> Result<Self, String> {
        Self::with_clock(config, Clock::system())
    }

    /// As [`Access::new`], with the clock by which limits, sessions and remembered passwords end and refusals are delayed.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn with_clock(config: &ServerConfig, clock: Clock) -> Result<Self, String> {
        Ok(Access {
            rules: RwLock::new(Arc::new(Rules::of(config))),
            verifier: Verifier::new()?,
            limits: Mutex::default(),
            sessions: Mutex::default(),
            slowest: Mutex::default(),
            clock,
        })
    }

    /// Takes over what a configuration that was read again says. Sessions of those who were removed or have another password
    /// end.
    pub fn set(&self, config: &ServerConfig) {
        let new = Arc::new(Rules::of(config));
        let old = std::mem::replace(&mut *self.rules.write().unwrap_or_else(PoisonError::into_inner), Arc::clone(&new));
        let hash = |rules: &Rules, name: &str| rules.users.user(name).map(|user| user.hash.clone());
        lock(&self.sessions).keep(|name| hash(&old, name).is_some() && hash(&old, name) == hash(&new, name));
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What those may do who do not say who they are; `None`: nothing.
    pub fn anonymous(&self) -> Option<Identity> {
        self.rules().anonymous.map(|role| Identity { name: None, role, csrf: None, proof: Proof::None })
    }

    /// What those may do who do not say who they are, and come from another machine by way of one that is here.
    pub fn stranger(&self) -> Option<Identity> {
        self.rules().stranger.map(|role| Identity { name: None, role, csrf: None, proof: Proof::None })
    }

    /// Whether the service may be asked for by this name. Addresses cannot be made to lead elsewhere, and `localhost` is
    /// nobody's.
    pub fn is_own_name(&self, host: &str) -> bool {
        let rules = self.rules();
        let Some(hosts) = &rules.hosts else { return true };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || hosts.contains(&host)
    }

    /// Whether this address is a trusted proxy's, whose forwarding headers name the client.
    pub fn trusts_proxy(&self, address: IpAddr) -> bool {
        self.rules().trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// All who have credentials.
    pub fn users(&self) -> Users {
        self.rules().users.clone()
    }

    /// Whose token this is. All are compared, each in constant time.
    pub fn token(&self, token: &str) -> Option<Identity> {
        let (rules, sha256) = (self.rules(), digest(token.as_bytes()));
        let same = |token: &crate::users::Token| bool::from(token.sha256.ct_eq(&sha256));
        // Not `find`, which would stop at the first: how long it takes would tell which it was.
        let found =
            rules.users.tokens.iter().fold(None, |found, token| if same(token) { Some(token) } else { found })?;
        let proof = Proof::Token(found.sha256);
        Some(Identity { name: Some(found.name.as_str().into()), role: found.role, csrf: None, proof })
    }

    /// Whether who was let in so would be let in again: what somebody watches does not end by itself.
    pub fn still_knows(&self, who: &Identity) -> bool {
        let rules = self.rules();
        match &who.proof {
            Proof::None => rules.anonymous.is_some(),
            Proof::Password(hash) => {
                who.name.as_deref().and_then(|name| rules.users.user(name)).is_some_and(|user| user.hash == *hash)
            }
            Proof::Token(sha256) => rules.users.tokens.iter().any(|token| token.sha256 == *sha256),
        }
    }

    /// Whether this user had this very password within the last minute, from the same network: what can be said at once.
    pub fn remembered(&self, user: &str, password: &str, from: Option<IpAddr>) -> Option<Identity> {
        let rules = self.rules();
        let user = rules.users.user(user)?;
        self.verifier.remembers(&user.hash, password, from, self.clock.now()).then(|| identity(user))
    }

    /// Whether this user has this password: [`Access::check`], and blocks until a refusal may be answered.
    ///
    /// # Errors
    /// Not so, or tried too often; also in the log, without what was tried.
    pub fn password(&self, name: &str, password: &str, from: Option<IpAddr>) -> Result<Identity, Denied> {
        self.check(name, password, from).map_err(|refusal| refusal.wait(&self.clock))
    }

    /// Whether this user has this password. Takes long and blocks; `from` is the client's address, where it is known.
    ///
    /// # Errors
    /// Not so, or tried too often; also in the log, without what was tried. To be answered at the time that it says: sooner,
    /// the answer would show whether there is such a user.
    pub fn check(&self, name: &str, password: &str, from: Option<IpAddr>) -> Result<Identity, LoginRefusal> {
        if let Some(identity) = self.remembered(name, password, from) {
            return Ok(identity);
        }
        let (rules, now) = (self.rules(), self.clock.now());
        let refuse = |denied| Err(self.refusal(denied, now));
        let user = rules.users.user(name);
        let (attempt, limited) = self.count(name, from, now);
        let Some(attempt) = attempt else {
            self.refused(name, from, "too many attempts");
            return refuse(Denied::Limited(limited.unwrap_or(BUSY)));
        };
        match (self.verifier.verify(user.map(|user| &user.hash), password, from, now), user) {
            (PasswordCheck::Right, Some(user)) => {
                lock(&self.limits).right(&attempt, now);
                Ok(identity(user))
            }
            (PasswordCheck::Right | PasswordCheck::Wrong, _) => {
                let why = limited.map_or("no such user, or another password", |_| "too many attempts");
                self.refused(name, from, why);
                refuse(limited.map_or(Denied::Wrong, Denied::Limited))
            }
            (PasswordCheck::Busy, _) => {
                lock(&self.limits).withdraw(&attempt);
                log_dedup::warn("", "", "logins are put off: too many passwords are to be checked");
                refuse(Denied::Limited(limited.unwrap_or(BUSY)))
            }
        }
    }

    /// A refusal of what was asked at `began`, to be answered at a multiple of [`PACE`] after it.
    fn refusal(&self, denied: Denied, began: Instant) -> LoginRefusal {
        let now = self.clock.now();
        let own = now.duration_since(began).as_millis() / PACE.as_millis() + 1;
        let mut slowest = lock(&self.slowest);
        let lately = slowest.filter(|(_, until)| *until > now).map_or(0, |(paces, _)| paces);
        if own >= lately {
            *slowest = Some((own.min(SLOWEST), now + LATELY));
        }
        let paces = u32::try_from(own.max(lately)).unwrap_or(u32::MAX);
        LoginRefusal { denied, answer_at: began + PACE * paces }
    }

    /// Counts an attempt. The duration is set when the limit is reached: a wrong attempt is then answered with it, and only a
    /// right one is accepted.
    fn count(&self, name: &str, from: Option<IpAddr>, now: Instant) -> (Option<Attempt>, Option<Duration>) {
        let mut limits = lock(&self.limits);
        match limits.attempt(name, from, now) {
            Ok(attempt) => (Some(attempt), None),
            Err(wait) => (limits.attempt_beside(name, from, now).ok(), Some(wait)),
        }
    }

    /// Counts an RTSP digest that is shown for a user, as passwords are counted. It counts as a wrong one until
    /// [`Access::digest_was_right`].
    ///
    /// # Errors
    /// Too many were tried. Blocks for a moment, as [`Access::digest_was_wrong`].
    pub fn try_digest(&self, name: &str, from: Option<IpAddr>) -> Result<DigestAttempt, Denied> {
        let began = self.clock.now();
        match self.count(name, from, began) {
            (Some(attempt), _) => Ok(DigestAttempt { attempt, from, began }),
            (None, wait) => {
                log_dedup::warn("", "", &format!("login by RTSP refused: too many attempts{}", place(from)));
                Err(self.refusal(Denied::Limited(wait.unwrap_or(BUSY)), began).wait(&self.clock))
            }
        }
    }

    /// The digest was right.
    pub fn digest_was_right(&self, tried: &DigestAttempt) {
        lock(&self.limits).right(&tried.attempt, self.clock.now());
    }

    /// The digest was wrong: logs what may be the reason, which the client does not learn. Blocks until the refusal may be
    /// answered.
    pub fn digest_was_wrong(&self, tried: &DigestAttempt) {
        let rules = self.rules();
        log_dedup::warn("", "", &format!("login by RTSP{} refused: {}", place(tried.from), why_not(&rules.users)));
        self.refusal(Denied::Wrong, tried.began).wait(&self.clock);
    }

    fn refused(&self, name: &str, from: Option<IpAddr>, why: &str) {
        let rules = self.rules();
        // Somebody may have typed a password in place of a name: only names that exist are told.
        let whom = rules.users.user(name).map_or("an unknown user", |user| &user.name);
        log_dedup::warn("", "", &format!("login of {whom}{} refused: {why}", place(from)));
    }

    /// Begins a session of a user who has just been let in.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn begin(&self, user: &str) -> Result<StartedSession, String> {
        lock(&self.sessions).begin(user, self.clock.now())
    }

    /// Whose session this is.
    pub fn session(&self, id: &str) -> Option<Identity> {
        let (name, csrf) = lock(&self.sessions).find(id, self.clock.now())?;
        let rules = self.rules();
        Some(Identity { csrf: Some(csrf), ..identity(rules.users.user(&name)?) })
    }

    /// Ends a session.
    pub fn end(&self, id: &str) {
        lock(&self.sessions).end(id);
    }
}

impl Rules {
    fn of(config: &ServerConfig) -> Self {
        let anonymous = config.anonymous();
        // With credentials a foreign name gets nobody in; on a network nobody knows all names.
        let any = config.hosts.is_empty() && (anonymous.is_none() || !config.http.ip().is_loopback());
        let stranger = config.allow_anonymous.then_some(Role::Viewer);
        let hosts = (!any).then(|| config.hosts.clone());
        let trusted_proxies = config.trusted_proxies.clone();
        Rules { users: config.users.clone(), anonymous, stranger, hosts, trusted_proxies }
    }
}

/// ` from ADDRESS`, where it is known.
fn place(from: Option<IpAddr>) -> String {
    from.map_or_else(String::new, |from| format!(" from {}", from.to_canonical()))
}

fn identity(user: &User) -> Identity {
    let proof = Proof::Password(user.hash.clone());
    Identity { name: Some(user.name.as_str().into()), role: user.role, csrf: None, proof }
}

/// What can be wrong with a digest that fits nobody's.
fn why_not(users: &Users) -> String {
    let mut without = users.users.iter().filter(|user| user.rtsp_digest.is_none()).map(|user| user.name.as_str());
    let names: Vec<&str> = without.by_ref().take(NAMED).collect();
    let more = if without.next().is_some() { ", …" } else { "" };
    match names.as_slice() {
        [] => "no such user, or another password".into(),
        names => format!(
            "no such user, another password, or somebody who has no RTSP digest ({}{more}; `maskcast user add --rtsp-digest` \
             makes it)",
            names.join(", ")
        ),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
