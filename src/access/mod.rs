//! Authentication and authorisation: users, tokens, sessions, and limits of login attempts.
//!
//! [`Access`] serves both HTTP and RTSP. A reload of the configuration replaces its rules as a whole: a removed user or token
//! is refused from the next request on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use subtle::ConstantTimeEq;

mod basic;
mod hashing;
pub mod limit;
pub mod password;
pub mod sessions;
pub mod tls;

pub use basic::basic;
pub use hashing::RandomError;
pub(crate) use hashing::{digest, random, random_text};

use crate::base::clock::Clock;
use crate::base::log_dedup;
use crate::base::secret::Secret;
use crate::config::ServerConfig;
use crate::users::{Role, User, Users};
use limit::{Attempt, LoginLimits};
use password::{PasswordCheck, Verifier};
use sessions::{Sessions, StartedSession};

/// The realm of HTTP's and RTSP's challenges. It is part of every `rtsp_digest`: changing it invalidates them.
pub const REALM: &str = "maskcast";

/// Retry delay when too many passwords are being checked.
const BUSY: Duration = Duration::from_secs(1);

/// Refusals are answered at whole multiples of this interval after their request. Passwords are hashed only for existing
/// names; equal delays hide which names exist. The interval is longer than a check, except on a busy machine: then every
/// refusal takes as many intervals as the slowest recent one.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(500);

/// How long a slow refusal delays the others, and by how many times [`REFUSAL_INTERVAL`] at most.
const SLOW_FOR: Duration = Duration::from_secs(600);
const MAX_INTERVALS: u128 = 10;

/// Maximum number of users without an RTSP digest in one log line.
const MAX_NAMES_LOGGED: usize = 5;

/// An authenticated user or token, or an admitted anonymous client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the user or token; `None` for an anonymous client.
    pub name: Option<Arc<str>>,
    pub role: Role,
    /// The CSRF token that changing requests of a session must have.
    pub csrf: Option<Arc<str>>,
    proof: Proof,
}

/// How an identity was authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// Anonymous.
    None,
    /// The password with this hash.
    Password(Secret),
    /// The token with this SHA-256.
    Token([u8; 32]),
}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Unknown user or wrong password.
    WrongCredentials,
    /// Too many attempts: retry after this time.
    RateLimited(Duration),
}

/// A refusal and the time at which it may be answered; see [`Access::check`].
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

/// An RTSP digest that is being checked; see [`Access::try_digest`].
#[derive(Debug)]
pub struct DigestAttempt {
    attempt: Attempt,
    from: Option<IpAddr>,
    began: Instant,
}

/// The rules of the configuration.
#[derive(Clone, Debug)]
struct Rules {
    users: Users,
    /// The role of clients without credentials.
    anonymous: Option<Role>,
    /// The role of clients without credentials that come through a proxy on this machine.
    anonymous_by_proxy: Option<Role>,
    /// Accepted host names; `None`: all.
    hosts: Option<Vec<String>>,
    trusted_proxies: Vec<IpNet>,
}

/// Authenticates clients.
pub struct Access {
    rules: RwLock<Arc<Rules>>,
    verifier: Verifier,
    limits: Mutex<LoginLimits>,
    sessions: Mutex<Sessions>,
    /// Number of intervals of the slowest recent refusal, and the time until which it applies.
    slowest_refusal: Mutex<Option<(u128, Instant)>>,
    clock: Clock,
}

impl Access {
    /// # Errors
    /// The system's random number generator failed.
    pub fn new(config: &ServerConfig) -> Result<Self, RandomError> {
        Self::with_clock(config, Clock::system())
    }

    /// As [`Access::new`], with the clock for limits, sessions, remembered passwords and delayed refusals.
    ///
    /// # Errors
    /// The system's random number generator failed.
    pub fn with_clock(config: &ServerConfig, clock: Clock) -> Result<Self, RandomError> {
        Ok(Access {
            rules: RwLock::new(Arc::new(Rules::of(config))),
            verifier: Verifier::new()?,
            limits: Mutex::default(),
            sessions: Mutex::default(),
            slowest_refusal: Mutex::default(),
            clock,
        })
    }

    /// Applies a reloaded configuration. Sessions of users who were removed or have another password end.
    pub fn set(&self, config: &ServerConfig) {
        let new = Arc::new(Rules::of(config));
        let old = std::mem::replace(&mut *self.rules.write(), Arc::clone(&new));
        let hash = |rules: &Rules, name: &str| rules.users.user(name).map(|user| user.hash.clone());
        self.sessions.lock().retain_users(|name| hash(&old, name).is_some() && hash(&old, name) == hash(&new, name));
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// The identity of clients without credentials; `None` if they are refused.
    pub fn anonymous(&self) -> Option<Identity> {
        self.rules().anonymous.map(|role| Identity { name: None, role, csrf: None, proof: Proof::None })
    }

    /// The identity of clients without credentials behind a proxy on this machine; `None` if they are refused.
    pub fn anonymous_by_proxy(&self) -> Option<Identity> {
        self.rules().anonymous_by_proxy.map(|role| Identity { name: None, role, csrf: None, proof: Proof::None })
    }

    /// Whether requests for this host name are accepted. IP addresses and `localhost` always are: an attacker cannot make them
    /// resolve to another address.
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

    /// Whether this is the address of a trusted proxy, whose forwarding headers name the client.
    pub fn trusts_proxy(&self, address: IpAddr) -> bool {
        self.rules().trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// All users and tokens.
    pub fn users(&self) -> Users {
        self.rules().users.clone()
    }

    /// The identity of this token. All tokens are compared, each in constant time.
    pub fn token(&self, token: &str) -> Option<Identity> {
        let (rules, sha256) = (self.rules(), digest(token.as_bytes()));
        let same = |token: &crate::users::Token| bool::from(token.sha256.ct_eq(&sha256));
        // Not `find`, which stops at the first match: the time would reveal its position.
        let found =
            rules.users.tokens.iter().fold(None, |found, token| if same(token) { Some(token) } else { found })?;
        let proof = Proof::Token(found.sha256);
        Some(Identity { name: Some(found.name.as_str().into()), role: found.role, csrf: None, proof })
    }

    /// Whether an authenticated identity is still accepted. For responses without end, whose user or token may be removed.
    pub fn is_valid(&self, identity: &Identity) -> bool {
        let rules = self.rules();
        match &identity.proof {
            Proof::None => rules.anonymous.is_some(),
            Proof::Password(hash) => {
                identity.name.as_deref().and_then(|name| rules.users.user(name)).is_some_and(|user| user.hash == *hash)
            }
            Proof::Token(sha256) => rules.users.tokens.iter().any(|token| token.sha256 == *sha256),
        }
    }

    /// The identity of this user if the same password was correct within the last minute from the same network. Does not
    /// block.
    pub fn check_remembered(&self, user: &str, password: &str, from: Option<IpAddr>) -> Option<Identity> {
        let rules = self.rules();
        let user = rules.users.user(user)?;
        self.verifier.remembers(&user.hash, password, from, self.clock.now()).then(|| identity(user))
    }

    /// Checks a password as [`Access::check`], and blocks until a refusal may be answered.
    ///
    /// # Errors
    /// Wrong, or too many attempts; logged without the password.
    pub fn password(&self, name: &str, password: &str, from: Option<IpAddr>) -> Result<Identity, Denied> {
        self.check(name, password, from).map_err(|refusal| refusal.wait(&self.clock))
    }

    /// Checks a password. Blocks for 50 ms and more. `from` is the client's address, if it is known.
    ///
    /// # Errors
    /// Wrong, or too many attempts; logged without the password. The caller must answer at the given time: an earlier answer
    /// would reveal whether the user exists.
    pub fn check(&self, name: &str, password: &str, from: Option<IpAddr>) -> Result<Identity, LoginRefusal> {
        if let Some(identity) = self.check_remembered(name, password, from) {
            return Ok(identity);
        }
        let (rules, now) = (self.rules(), self.clock.now());
        let refuse = |denied| Err(self.refusal(denied, now));
        let user = rules.users.user(name);
        let (attempt, limited) = self.count(name, from, now);
        let Some(attempt) = attempt else {
            self.log_refusal(name, from, "too many attempts");
            return refuse(Denied::RateLimited(limited.unwrap_or(BUSY)));
        };
        match (self.verifier.verify(user.map(|user| &user.hash), password, from, now), user) {
            (PasswordCheck::Correct, Some(user)) => {
                self.limits.lock().succeeded(&attempt, now);
                Ok(identity(user))
            }
            (PasswordCheck::Correct | PasswordCheck::Wrong, _) => {
                let reason = limited.map_or("wrong user or password", |_| "too many attempts");
                self.log_refusal(name, from, reason);
                refuse(limited.map_or(Denied::WrongCredentials, Denied::RateLimited))
            }
            (PasswordCheck::Busy, _) => {
                self.limits.lock().withdraw(&attempt);
                log_dedup::warn("", "", "login delayed: too many passwords are waiting to be checked");
                refuse(Denied::RateLimited(limited.unwrap_or(BUSY)))
            }
        }
    }

    /// A refusal of a request that arrived at `began`, to be answered a multiple of [`REFUSAL_INTERVAL`] later.
    fn refusal(&self, denied: Denied, began: Instant) -> LoginRefusal {
        let now = self.clock.now();
        let own = now.duration_since(began).as_millis() / REFUSAL_INTERVAL.as_millis() + 1;
        let mut slowest = self.slowest_refusal.lock();
        let recent = slowest.filter(|(_, until)| *until > now).map_or(0, |(intervals, _)| intervals);
        if own >= recent {
            *slowest = Some((own.min(MAX_INTERVALS), now + SLOW_FOR));
        }
        let intervals = u32::try_from(own.max(recent)).unwrap_or(u32::MAX);
        LoginRefusal { denied, answer_at: began + REFUSAL_INTERVAL * intervals }
    }

    /// Counts an attempt. The duration is set when the address has reached its limit: a failed attempt is then answered with
    /// it, and only a successful one is accepted.
    fn count(&self, name: &str, from: Option<IpAddr>, now: Instant) -> (Option<Attempt>, Option<Duration>) {
        let mut limits = self.limits.lock();
        match limits.attempt(name, from, now) {
            Ok(attempt) => (Some(attempt), None),
            Err(wait) => (limits.attempt_by_name(name, from, now).ok(), Some(wait)),
        }
    }

    /// Counts an attempt with an RTSP digest, as passwords are counted. It counts as failed until
    /// [`Access::digest_was_right`].
    ///
    /// # Errors
    /// Too many attempts. Blocks until the refusal may be answered.
    pub fn try_digest(&self, name: &str, from: Option<IpAddr>) -> Result<DigestAttempt, Denied> {
        let began = self.clock.now();
        match self.count(name, from, began) {
            (Some(attempt), _) => Ok(DigestAttempt { attempt, from, began }),
            (None, wait) => {
                log_dedup::warn("", "", &format!("RTSP login refused: too many attempts{}", from_address(from)));
                Err(self.refusal(Denied::RateLimited(wait.unwrap_or(BUSY)), began).wait(&self.clock))
            }
        }
    }

    /// The digest was correct.
    pub fn digest_was_right(&self, tried: &DigestAttempt) {
        self.limits.lock().succeeded(&tried.attempt, self.clock.now());
    }

    /// The digest was wrong. Logs the possible reasons, which are not sent to the client. Blocks until the refusal may be
    /// answered.
    pub fn digest_was_wrong(&self, tried: &DigestAttempt) {
        let rules = self.rules();
        log_dedup::warn(
            "",
            "",
            &format!("RTSP login refused: {}{}", digest_problem(&rules.users), from_address(tried.from)),
        );
        self.refusal(Denied::WrongCredentials, tried.began).wait(&self.clock);
    }

    fn log_refusal(&self, name: &str, from: Option<IpAddr>, reason: &str) {
        let rules = self.rules();
        // An unknown name is not logged: it may be a password typed into the wrong field.
        let user = rules.users.user(name).map_or_else(|| "unknown user".into(), |user| format!("user {}", user.name));
        log_dedup::warn("", "", &format!("login refused: {reason}; {user}{}", from_address(from)));
    }

    /// Begins a session of an authenticated user.
    ///
    /// # Errors
    /// The system's random number generator failed.
    pub fn begin_session(&self, user: &str) -> Result<StartedSession, RandomError> {
        self.sessions.lock().begin(user, self.clock.now())
    }

    /// The identity of the session with this id.
    pub fn session(&self, id: &str) -> Option<Identity> {
        let (name, csrf) = self.sessions.lock().find(id, self.clock.now())?;
        let rules = self.rules();
        Some(Identity { csrf: Some(csrf), ..identity(rules.users.user(&name)?) })
    }

    /// Ends a session.
    pub fn end_session(&self, id: &str) {
        self.sessions.lock().end(id);
    }
}

impl Rules {
    fn of(config: &ServerConfig) -> Self {
        let anonymous = config.anonymous();
        // Where credentials are required, DNS rebinding gains nothing; on a network the service may have any name.
        let any = config.hosts.is_empty() && (anonymous.is_none() || !config.http.ip().is_loopback());
        let anonymous_by_proxy = config.allow_anonymous.then_some(Role::Viewer);
        let hosts = (!any).then(|| config.hosts.clone());
        let trusted_proxies = config.trusted_proxies.clone();
        Rules { users: config.users.clone(), anonymous, anonymous_by_proxy, hosts, trusted_proxies }
    }
}

/// ` from ADDRESS`, or nothing if it is unknown.
fn from_address(from: Option<IpAddr>) -> String {
    from.map_or_else(String::new, |from| format!(" from {}", from.to_canonical()))
}

fn identity(user: &User) -> Identity {
    let proof = Proof::Password(user.hash.clone());
    Identity { name: Some(user.name.as_str().into()), role: user.role, csrf: None, proof }
}

/// Possible reasons why a digest matches no user.
fn digest_problem(users: &Users) -> String {
    let mut without = users.users.iter().filter(|user| user.rtsp_digest.is_none()).map(|user| user.name.as_str());
    let names: Vec<&str> = without.by_ref().take(MAX_NAMES_LOGGED).collect();
    let more = if without.next().is_some() { ", …" } else { "" };
    match names.as_slice() {
        [] => "wrong user or password".into(),
        names => format!(
            "wrong user or password, or a user without RTSP digest ({}{more}; `maskcast user add --rtsp-digest` \
             adds it)",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests;
