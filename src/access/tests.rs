//! Logins, sessions, and how a reload changes them.

use super::*;
use crate::users::Token;

fn config(users: Users) -> ServerConfig {
    ServerConfig { users, ..ServerConfig::default() }
}

/// With a clock that advances only while a refusal is delayed, or when the test advances it.
fn with_manual_clock(config: &ServerConfig) -> (Access, Clock) {
    let clock = Clock::manual();
    (Access::with_clock(config, clock.clone()).unwrap(), clock)
}

fn user(name: &str, role: Role, password: &str) -> User {
    User { name: name.into(), role, hash: password::hash(password).unwrap(), rtsp_digest: None }
}

fn token(name: &str, text: &str) -> Token {
    Token { name: name.into(), role: Role::Viewer, sha256: digest(text.as_bytes()) }
}

#[test]
fn tokens_and_passwords_identify_their_owner() {
    let users = Users {
        users: vec![user("anna", Role::Operator, "correct horse")],
        tokens: vec![token("a", "one"), token("b", "two")],
    };
    let (access, clock) = with_manual_clock(&config(users));
    assert_eq!(access.anonymous(), None);
    assert_eq!(access.token("two").unwrap().name.as_deref(), Some("b"));
    assert_eq!(access.token("three"), None);
    let anna = access.password("anna", "correct horse", None).unwrap();
    assert_eq!((anna.name.as_deref(), anna.role, &anna.csrf), (Some("anna"), Role::Operator, &None));
    assert_eq!(access.check_remembered("anna", "correct horse", None), Some(anna));
    for (name, password) in [("anna", "correct house"), ("bert", "correct horse")] {
        let began = clock.now();
        assert_eq!(access.password(name, password, None), Err(Denied::WrongCredentials));
        assert_eq!(clock.now() - began, REFUSAL_INTERVAL, "{name} is answered as late as every refusal");
    }
}

/// Neither the number of attempts nor the delay may reveal whether a user exists.
#[test]
fn unknown_names_have_the_same_limits_as_users() {
    let users = Users { users: vec![user("anna", Role::Viewer, "correct horse")], tokens: vec![] };
    let attempts = ["anna", "unknown"].map(|name| {
        let (access, clock) = with_manual_clock(&config(users.clone()));
        // From one address until it is limited, and then each time the limit allows it.
        let from = Some("192.0.2.77".parse().unwrap());
        let (mut answers, mut tried) = (Vec::new(), 0);
        while answers.len() < 4 {
            match access.password(name, "correct house", from) {
                Err(Denied::WrongCredentials) if tried < 100 => tried += 1,
                Err(Denied::WrongCredentials) => panic!("{name} is never limited"),
                Err(Denied::RateLimited(wait)) => {
                    answers.push((tried, wait));
                    clock.advance(wait);
                }
                Ok(who) => panic!("{who:?} is admitted"),
            }
        }
        answers
    });
    assert_eq!(attempts[0], attempts[1]);
    // Ten attempts, then one every two minutes.
    let tried: Vec<_> = attempts[0].iter().map(|(tried, _)| *tried).collect();
    assert_eq!(tried, [10, 11, 12, 13], "{attempts:?}");
    let waits = attempts[0].iter().map(|(_, wait)| *wait);
    assert!(
        waits.clone().all(|wait| wait > Duration::from_secs(100) && wait <= Duration::from_secs(120)),
        "{attempts:?}"
    );
}

#[test]
fn remembered_passwords_and_sessions_expire() {
    let users = Users { users: vec![user("anna", Role::Viewer, "correct horse")], tokens: vec![] };
    let (access, clock) = with_manual_clock(&config(users));
    access.password("anna", "correct horse", None).unwrap();
    let session = access.begin_session("anna").unwrap().id;
    clock.advance(Duration::from_secs(30));
    assert!(access.check_remembered("anna", "correct horse", None).is_some());
    clock.advance(Duration::from_secs(31));
    assert_eq!(access.check_remembered("anna", "correct horse", None), None);
    assert!(access.session(&session).is_some());
    clock.advance(sessions::MAX_IDLE);
    assert_eq!(access.session(&session), None);
}

/// Otherwise it could test passwords against the remembered ones.
#[test]
fn a_remembered_password_of_another_address_does_not_help_a_limited_address() {
    let users = Users { users: vec![user("anna", Role::Viewer, "correct horse")], tokens: vec![] };
    let access = Access::new(&config(users)).unwrap();
    let [attacker, owner] = ["192.0.2.77", "192.0.2.78"].map(|address| Some(address.parse().unwrap()));
    while access
        .check("anna", "correct house", attacker)
        .is_err_and(|refusal| refusal.denied == Denied::WrongCredentials)
    {}
    assert!(access.check("anna", "correct horse", owner).is_ok());
    assert!(access.check_remembered("anna", "correct horse", owner).is_some());
    assert_eq!(access.check_remembered("anna", "correct horse", attacker), None);
}

#[test]
fn all_refusals_take_as_long_as_the_slowest_recent_one() {
    let (access, clock) = with_manual_clock(&ServerConfig::default());
    let answered_after = |took: Duration| {
        let began = clock.now();
        clock.advance(took);
        access.refusal(Denied::WrongCredentials, began).answer_at - began
    };
    // Unknown names need no check and are answered no sooner than known ones.
    assert_eq!(answered_after(Duration::ZERO), REFUSAL_INTERVAL);
    assert_eq!(answered_after(REFUSAL_INTERVAL / 2), REFUSAL_INTERVAL);
    assert_eq!(answered_after(REFUSAL_INTERVAL * 5 / 2), REFUSAL_INTERVAL * 3);
    assert_eq!(answered_after(Duration::ZERO), REFUSAL_INTERVAL * 3);
    // The delay of the others is limited.
    assert_eq!(answered_after(REFUSAL_INTERVAL * 41 / 2), REFUSAL_INTERVAL * 21);
    assert_eq!(answered_after(Duration::ZERO), REFUSAL_INTERVAL * 10);
    // The delay ends after ten minutes.
    clock.advance(SLOW_FOR);
    assert_eq!(answered_after(Duration::ZERO), REFUSAL_INTERVAL);
}

#[test]
fn the_log_names_users_without_a_digest() {
    let mut anna = user("anna", Role::Viewer, "correct horse");
    let bert = user("bert", Role::Viewer, "correct horse");
    anna.rtsp_digest = Some(Secret::new("0".repeat(32)));
    let problem = |users: &[&User]| {
        digest_problem(&Users { users: users.iter().map(|user| (*user).clone()).collect(), tokens: vec![] })
    };
    assert_eq!(problem(&[&anna]), "wrong user or password");
    assert!(problem(&[&anna, &bert]).contains("without RTSP digest (bert; "), "{}", problem(&[&anna, &bert]));
    assert!(problem(&[&bert; 6]).contains("bert, …;"), "{}", problem(&[&bert; 6]));
}

#[test]
fn an_identity_is_valid_until_a_reload_changes_its_credentials() {
    let anna = user("anna", Role::Viewer, "correct horse");
    let users = Users { users: vec![anna.clone()], tokens: vec![token("t", "one")] };
    let access = Access::new(&config(users)).unwrap();
    let by_password = access.password("anna", "correct horse", None).unwrap();
    let by_token = access.token("one").unwrap();
    let by_session = access.session(&access.begin_session("anna").unwrap().id).unwrap();
    let all = [&by_password, &by_token, &by_session];
    let valid = |access: &Access| all.map(|identity| access.is_valid(identity));
    assert_eq!(valid(&access), [true; 3]);
    access.set(&config(Users { users: vec![anna], tokens: vec![token("t", "two")] }));
    assert_eq!(valid(&access), [true, false, true]);
    let changed = user("anna", Role::Viewer, "battery staple");
    access.set(&config(Users { users: vec![changed], tokens: vec![token("t", "one")] }));
    assert_eq!(valid(&access), [false, true, false]);
    let open = Access::new(&ServerConfig::default()).unwrap();
    let anonymous = open.anonymous().unwrap();
    assert!(open.is_valid(&anonymous) && !access.is_valid(&anonymous));
}

#[test]
fn without_users_only_own_host_names_are_accepted() {
    let open = Access::new(&ServerConfig { hosts: vec!["box.local".into()], ..ServerConfig::default() }).unwrap();
    for own in ["127.0.0.1", "[::1]", "192.0.2.7", "localhost", "LOCALHOST.", "a.localhost", "Box.Local"] {
        assert!(open.is_own_name(own), "{own}");
    }
    for foreign in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "box"] {
        assert!(!open.is_own_name(foreign), "{foreign}");
    }
    let guarded = Access::new(&config(Users { users: vec![], tokens: vec![token("t", "x")] })).unwrap();
    assert!(guarded.is_own_name("cameras.example.org"));
}

#[test]
fn sessions_end_when_the_user_is_removed_or_the_password_changes() {
    let [anna, bert] = ["anna", "bert"].map(|name| user(name, Role::Viewer, "correct horse"));
    let access = Access::new(&config(Users { users: vec![anna.clone(), bert.clone()], tokens: vec![] })).unwrap();
    let [a, b] = ["anna", "bert"].map(|name| access.begin_session(name).unwrap().id);
    assert!(access.password("bert", "correct horse", None).is_ok());
    let promoted = User { role: Role::Operator, ..anna };
    access.set(&config(Users { users: vec![promoted.clone(), bert], tokens: vec![] }));
    assert_eq!(access.session(&a).unwrap().role, Role::Operator, "a new role applies at once");
    assert!(access.session(&b).is_some());
    access.set(&config(Users { users: vec![promoted, user("bert", Role::Viewer, "battery staple")], tokens: vec![] }));
    assert!(access.session(&a).is_some() && access.session(&b).is_none());
    assert_eq!(access.check_remembered("bert", "correct horse", None), None);
    access.set(&config(Users { users: vec![], tokens: vec![token("t", "x")] }));
    assert!(access.session(&a).is_none());
}
