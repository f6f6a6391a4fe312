//! Logins, sessions and what a new configuration changes for them.

use super::*;
use crate::users::Token;

fn config(users: Users) -> ServerConfig {
    ServerConfig { users, ..ServerConfig::default() }
}

/// Goes by a clock that moves only when a refusal is waited for or the test moves it.
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
fn tokens_and_passwords_tell_who_is_there() {
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
    assert_eq!(access.remembered("anna", "correct horse", None), Some(anna));
    for (name, password) in [("anna", "correct house"), ("bert", "correct horse")] {
        let asked = clock.now();
        assert_eq!(access.password(name, password, None), Err(Denied::Wrong));
        assert_eq!(clock.now() - asked, PACE, "{name} is answered when every refusal is");
    }
}

/// How many attempts a name has, and when the next one may be made, must not show whether there is such a user.
#[test]
fn unknown_names_have_as_many_attempts_as_users_and_get_them_back_as_late() {
    let users = Users { users: vec![user("anna", Role::Viewer, "correct horse")], tokens: vec![] };
    let attempts = ["anna", "nobody"].map(|name| {
        let (access, clock) = with_manual_clock(&config(users.clone()));
        // Of one address, until it is refused; then again each time that the refusal allows it.
        let from = Some("192.0.2.77".parse().unwrap());
        let (mut answers, mut tried) = (Vec::new(), 0);
        while answers.len() < 4 {
            match access.password(name, "correct house", from) {
                Err(Denied::Wrong) if tried < 100 => tried += 1,
                Err(Denied::Wrong) => panic!("{name} is never refused"),
                Err(Denied::Limited(wait)) => {
                    answers.push((tried, wait));
                    clock.advance(wait);
                }
                Ok(who) => panic!("{who:?} is let in"),
            }
        }
        answers
    });
    assert_eq!(attempts[0], attempts[1]);
    // Ten in a row, of which time gives one back each two minutes.
    let tried: Vec<_> = attempts[0].iter().map(|(tried, _)| *tried).collect();
    assert_eq!(tried, [10, 11, 12, 13], "{attempts:?}");
    let waits = attempts[0].iter().map(|(_, wait)| *wait);
    assert!(
        waits.clone().all(|wait| wait > Duration::from_secs(100) && wait <= Duration::from_secs(120)),
        "{attempts:?}"
    );
}

#[test]
fn a_remembered_password_and_a_session_end_by_the_clock() {
    let users = Users { users: vec![user("anna", Role::Viewer, "correct horse")], tokens: vec![] };
    let (access, clock) = with_manual_clock(&config(users));
    access.password("anna", "correct horse", None).unwrap();
    let session = access.begin("anna").unwrap().id;
    clock.advance(Duration::from_secs(30));
    assert!(access.remembered("anna", "correct horse", None).is_some());
    clock.advance(Duration::from_secs(31));
    assert_eq!(access.remembered("anna", "correct horse", None), None);
    assert!(access.session(&session).is_some());
    clock.advance(sessions::IDLE);
    assert_eq!(access.session(&session), None);
}

/// Else it could test passwords against the memory of those that were right lately.
#[test]
fn a_limited_address_is_refused_also_while_the_password_is_remembered_for_another_address() {
    let users = Users { users: vec![user("anna", Role::Viewer, "correct horse")], tokens: vec![] };
    let access = Access::new(&config(users)).unwrap();
    let [guesser, owner] = ["192.0.2.77", "192.0.2.78"].map(|address| Some(address.parse().unwrap()));
    while access.check("anna", "correct house", guesser).is_err_and(|refusal| refusal.denied == Denied::Wrong) {}
    assert!(access.check("anna", "correct horse", owner).is_ok());
    assert!(access.remembered("anna", "correct horse", owner).is_some());
    assert_eq!(access.remembered("anna", "correct horse", guesser), None);
}

#[test]
fn all_refusals_take_as_long_as_the_slowest_lately() {
    let (access, clock) = with_manual_clock(&ServerConfig::default());
    let answered_after = |took: Duration| {
        let began = clock.now();
        clock.advance(took);
        access.refusal(Denied::Wrong, began).answer_at - began
    };
    // Unknown names take no time, and are answered no sooner than known ones.
    assert_eq!(answered_after(Duration::ZERO), PACE);
    assert_eq!(answered_after(PACE / 2), PACE);
    assert_eq!(answered_after(PACE * 5 / 2), PACE * 3);
    assert_eq!(answered_after(Duration::ZERO), PACE * 3);
    // One that hangs does not hold up all others as long.
    assert_eq!(answered_after(PACE * 41 / 2), PACE * 21);
    assert_eq!(answered_after(Duration::ZERO), PACE * 10);
    // A slow one slows down the others for ten minutes.
    clock.advance(LATELY);
    assert_eq!(answered_after(Duration::ZERO), PACE);
}

#[test]
fn a_refused_digest_names_those_who_have_none() {
    let mut anna = user("anna", Role::Viewer, "correct horse");
    let bert = user("bert", Role::Viewer, "correct horse");
    anna.rtsp_digest = Some(Secret::new("0".repeat(32)));
    let why =
        |users: &[&User]| why_not(&Users { users: users.iter().map(|user| (*user).clone()).collect(), tokens: vec![] });
    assert_eq!(why(&[&anna]), "no such user, or another password");
    assert!(why(&[&anna, &bert]).contains("no RTSP digest (bert; "), "{}", why(&[&anna, &bert]));
    assert!(why(&[&bert; 6]).contains("bert, …;"), "{}", why(&[&bert; 6]));
}

#[test]
fn who_watches_is_known_until_another_configuration_says_otherwise() {
    let anna = user("anna", Role::Viewer, "correct horse");
    let users = Users { users: vec![anna.clone()], tokens: vec![token("t", "one")] };
    let access = Access::new(&config(users)).unwrap();
    let by_password = access.password("anna", "correct horse", None).unwrap();
    let by_token = access.token("one").unwrap();
    let by_session = access.session(&access.begin("anna").unwrap().id).unwrap();
    let all = [&by_password, &by_token, &by_session];
    let known = |access: &Access| all.map(|who| access.still_knows(who));
    assert_eq!(known(&access), [true; 3]);
    access.set(&config(Users { users: vec![anna], tokens: vec![token("t", "two")] }));
    assert_eq!(known(&access), [true, false, true]);
    let anew = user("anna", Role::Viewer, "battery staple");
    access.set(&config(Users { users: vec![anew], tokens: vec![token("t", "one")] }));
    assert_eq!(known(&access), [false, true, false]);
    let open = Access::new(&ServerConfig::default()).unwrap();
    let nobody = open.anonymous().unwrap();
    assert!(open.still_knows(&nobody) && !access.still_knows(&nobody));
}

#[test]
fn where_nobody_is_asked_only_our_own_names_are_answered() {
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
fn who_is_removed_or_gets_another_password_is_out_at_once() {
    let [anna, bert] = ["anna", "bert"].map(|name| user(name, Role::Viewer, "correct horse"));
    let access = Access::new(&config(Users { users: vec![anna.clone(), bert.clone()], tokens: vec![] })).unwrap();
    let [a, b] = ["anna", "bert"].map(|name| access.begin(name).unwrap().id);
    assert!(access.password("bert", "correct horse", None).is_ok());
    let promoted = User { role: Role::Operator, ..anna };
    access.set(&config(Users { users: vec![promoted.clone(), bert], tokens: vec![] }));
    assert_eq!(access.session(&a).unwrap().role, Role::Operator, "a role holds at once");
    assert!(access.session(&b).is_some());
    access.set(&config(Users { users: vec![promoted, user("bert", Role::Viewer, "battery staple")], tokens: vec![] }));
    assert!(access.session(&a).is_some() && access.session(&b).is_none());
    assert_eq!(access.remembered("bert", "correct horse", None), None);
    access.set(&config(Users { users: vec![], tokens: vec![token("t", "x")] }));
    assert!(access.session(&a).is_none());
}
