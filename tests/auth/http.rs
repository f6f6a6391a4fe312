//! Endpoints, sessions and login limits over HTTP.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::program::{DEADLINE, Guard, maskcast, run, until};
use crate::common::service::{Service, folder};
use crate::common::whep::{Player, ReceiveMode};
use crate::fixture::{ANNA, Fixture, WALL, agent, basic, bearer, describe, send};

/// The API's own description.
pub fn document(page: &str, agent: &ureq::Agent, token: &str) -> Value {
    send(agent, "GET", &format!("{page}api/v1/openapi.json"), &[("authorization", &bearer(token))], None).json()
}

/// Every route of the server with a value for each parameter, from the source of the router and from the OpenAPI document,
/// so that new routes are tested as well.
pub fn routes(page: &str, agent: &ureq::Agent, token: &str) -> Vec<String> {
    let document = document(page, agent, token);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server");
    let source = source_of(&folder);
    let written = source.split(".route(\"/").skip(1).map(|rest| format!("/{}", rest.split('"').next().unwrap()));
    let mut found: Vec<String> = document["paths"].as_object().unwrap().keys().cloned().chain(written).collect();
    for route in &mut found {
        *route = route.replace("/page/{name}", "/page/app.js");
        *route = route.replace("{name}", "gate").replace("{file}", "x.mp4").replace("{id}", "7");
        *route = route.replace("{candidate}", "yard");
        assert!(!route.contains('{'), "{route}: no value for a parameter");
    }
    // Last: an operator's DELETE removes the stream.
    found.sort_by_key(|route| (route == "/api/v1/streams/gate", route.clone()));
    found.dedup();
    assert!(found.len() > 12 && found.iter().any(|route| route == "/mjpeg/gate"), "{found:?}");
    found
}

/// The text of all source files in a folder and its subfolders, without tests.
fn source_of(folder: &Path) -> String {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.is_dir() {
        true if path.ends_with("tests") => String::new(),
        true => source_of(&path),
        false if path.extension().is_some_and(|extension| extension == "rs") => std::fs::read_to_string(path).unwrap(),
        false => String::new(),
    };
    paths.map(text).collect()
}

/// Whether only operators may read the route: its pictures of cameras are not redacted.
pub fn is_for_operators(route: &str) -> bool {
    route.contains("/candidates") || route.contains("/collection")
}

/// Routes without data of streams.
pub const PUBLIC: [&str; 5] = ["/healthz", "/readyz", "/", "/favicon.svg", "/page/app.js"];

/// The result of the access check.
#[derive(Debug, PartialEq)]
enum Outcome {
    Unauthenticated,
    Forbidden,
    Admitted,
}

fn outcome(status: u16) -> Outcome {
    match status {
        401 => Outcome::Unauthenticated,
        403 => Outcome::Forbidden,
        _ => Outcome::Admitted,
    }
}

pub fn every_endpoint(page: &str, agent: &ureq::Agent, fixture: &Fixture) {
    let (viewer, operator) = (bearer(&fixture.viewer), bearer(&fixture.operator));
    for route in routes(page, agent, &fixture.operator) {
        let url = format!("{}{}", page.trim_end_matches('/'), route);
        let is_session = route == "/api/v1/session";
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let reads = matches!(method, "GET" | "HEAD");
            let whep = route.starts_with("/whep/") && matches!(method, "POST" | "PATCH" | "DELETE");
            let try_as = |authorization: Option<&str>| {
                let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
                let answer = send(agent, method, &url, &headers, None);
                if matches!(answer.status, 401 | 403) {
                    assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {route}");
                }
                outcome(answer.status)
            };
            let (anonymous, wrong) = (try_as(None), try_as(Some("Bearer maskcast_wrong")));
            if reads && PUBLIC.contains(&route.as_str()) {
                assert_eq!((anonymous, wrong), (Outcome::Admitted, Outcome::Admitted), "{method} {route}");
            } else if is_session && matches!(method, "POST" | "DELETE" | "PUT" | "PATCH") {
                // Logging in and out needs no credentials; other methods do not exist.
                assert_eq!(anonymous, Outcome::Admitted, "{method} {route}");
            } else {
                assert_eq!(
                    (anonymous, wrong),
                    (Outcome::Unauthenticated, Outcome::Unauthenticated),
                    "{method} {route}"
                );
            }
            let admitted = (reads && !is_for_operators(&route)) || whep || is_session;
            let expected = if admitted { Outcome::Admitted } else { Outcome::Forbidden };
            assert_eq!(try_as(Some(&viewer)), expected, "{method} {route} as a viewer");
            assert_eq!(try_as(Some(&operator)), Outcome::Admitted, "{method} {route} as an operator");
        }
    }
}

#[test]
fn every_endpoint_requires_authentication() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let agent = agent(None);
    every_endpoint(&service.page, &agent, &fixture);
    // Basic works as well; browsers do not get a Basic challenge.
    let url = format!("{}api/v1/streams", service.page);
    let wrong = send(&agent, "GET", &url, &[("authorization", &basic("wall", ANNA))], None);
    assert_eq!((wrong.status, wrong.header("www-authenticate").starts_with("Basic ")), (401, true));
    let browser = send(&agent, "GET", &url, &[("user-agent", "Mozilla/5.0 (X11)")], None);
    assert_eq!((browser.status, browser.header("www-authenticate")), (401, "Session realm=\"maskcast\""));
    assert_eq!(send(&agent, "GET", &url, &[("authorization", &basic("wall", WALL))], None).status, 200);
    // Without credentials no names of streams are revealed.
    let missing = send(&agent, "GET", &format!("{}mjpeg/nothing", service.page), &[], None);
    assert_eq!((missing.status, missing.body.contains("gate")), (401, false));
    // The page's own files need no login: the login form is in them.
    let page = send(&agent, "GET", &service.page, &[], None);
    assert_eq!((page.status, page.header("strict-transport-security")), (200, ""));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_session_needs_its_csrf_token_for_changes() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let agent = agent(None);
    let session = format!("{}api/v1/session", service.page);
    let model = format!("{}api/v1/model", service.page);
    let request = json!({ "path": "/nowhere/x.onnx" });
    let login = |user: &str, password: &str, headers: &[(&str, &str)]| {
        send(&agent, "POST", &session, headers, Some(&json!({ "user": user, "password": password })))
    };
    assert_eq!(login("anna", WALL, &[]).status, 401);
    assert_eq!(login("unknown", WALL, &[]).status, 401);
    assert_eq!(login("anna", ANNA, &[("sec-fetch-site", "cross-site")]).status, 403);
    assert_eq!(send(&agent, "POST", &session, &[], Some(&json!({ "user": "anna" }))).status, 422);
    let long = json!({ "user": "anna", "password": "x".repeat(5000) });
    assert_eq!(send(&agent, "POST", &session, &[], Some(&long)).status, 413);

    let answer = login("anna", ANNA, &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let cookie = answer.header("set-cookie").to_string();
    for attribute in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_string();
    let report = answer.json();
    let csrf = report["csrf"].as_str().unwrap().to_string();
    assert_eq!((report["user"].as_str(), report["role"].as_str()), (Some("anna"), Some("operator")));
    assert_eq!(send(&agent, "GET", &session, &[("cookie", &cookie)], None).json(), report);
    assert_eq!(send(&agent, "GET", &session, &[], None).status, 401);

    let change = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = [("cookie", cookie.as_str())].into_iter().chain(headers.iter().copied()).collect();
        send(&agent, "POST", &model, &headers, Some(&request)).status
    };
    assert_eq!(change(&[]), 403);
    assert_eq!(change(&[("x-csrf-token", "guess")]), 403);
    assert_eq!(change(&[("x-csrf-token", &csrf), ("origin", "http://evil.example")]), 403);
    assert_eq!(change(&[("x-csrf-token", &csrf), ("sec-fetch-site", "same-site")]), 403);
    let own = service.page.trim_end_matches('/').to_string();
    assert_eq!(change(&[("x-csrf-token", &csrf), ("origin", &own)]), 202);

    // A viewer's session changes nothing; a new login ends the old session; logging out ends the new one.
    let wall = login("wall", WALL, &[("cookie", &cookie)]);
    assert_eq!(send(&agent, "GET", &session, &[("cookie", &cookie)], None).status, 401);
    let cookie = wall.header("set-cookie").split(';').next().unwrap().to_string();
    let csrf = wall.json()["csrf"].as_str().unwrap().to_string();
    let headers = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    assert_eq!(send(&agent, "POST", &model, &headers, Some(&request)).status, 403);
    assert_eq!(send(&agent, "DELETE", &session, &headers[..1], None).status, 403);
    let out = send(&agent, "DELETE", &session, &headers, None);
    assert!(out.status == 204 && out.header("set-cookie").contains("Max-Age=0"), "{}", out.status);
    assert_eq!(send(&agent, "GET", &session, &headers, None).status, 401);
    let (_, _, log) = service.terminate();
    assert!(log.contains("login: anna from 127.0.0.1 as operator"), "{log}");
    assert!(log.contains("POST /api/v1/model: 202"), "{log}");
}

#[test]
fn login_attempts_are_limited() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let agent = agent(None);
    let session = format!("{}api/v1/session", service.page);
    let login = |user: &str, password: &str| {
        send(&agent, "POST", &session, &[], Some(&json!({ "user": user, "password": password })))
    };
    let mut answers = (0..30).map(|_| login("anna", "a wrong passphrase"));
    let limited = answers.find(|answer| answer.status != 401).expect("thirty wrong passwords");
    assert_eq!((limited.status, limited.json()["status"].as_u64()), (429, Some(429)));
    assert!((60..=120).contains(&limited.header("retry-after").parse::<u64>().unwrap()));
    assert_eq!(login("anna", ANNA).status, 429, "also with the correct one");
    // An unknown name has the same limit: it does not reveal which users exist.
    let answers = |name: &str| (0..10).map(|_| login(name, "a wrong passphrase").status).collect::<Vec<_>>();
    assert_eq!(answers("unknown"), [401; 10]);
    // The address has made twenty attempts; the next one is possible after some seconds.
    until("the address may make another attempt", || (login("wall", WALL).status == 200).then_some(()));
    assert_eq!(login("unknown", "a wrong passphrase").status, 429);
    // Other users and tokens are not affected.
    assert_eq!(login("wall", WALL).status, 200);
    let metrics = format!("{}metrics", service.page);
    assert_eq!(send(&agent, "GET", &metrics, &[("authorization", &bearer(&fixture.viewer))], None).status, 200);
    let (_, _, log) = service.terminate();
    assert!(log.contains("login refused: too many attempts; user anna from 127.0.0.1"), "{log}");
    assert!(!log.contains("a wrong passphrase"), "{log}");
}

/// These responses have no end, so removed credentials must end them.
#[test]
fn removing_a_token_ends_its_open_streams() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let token = format!("Authorization: {}", bearer(&fixture.viewer));
    let mut curl = Guard::spawn(
        Command::new("curl")
            .args(["-sS", "-N", "-H", &token, &format!("{}mjpeg/gate", service.page)])
            .stdout(Stdio::piped()),
    );
    let mut frames = curl.0.stdout.take().unwrap();
    frames.read_exact(&mut [0; 4096]).unwrap();
    let player = Player::start_as(&service.page, "gate", ReceiveMode::Packets, &bearer(&fixture.viewer));
    let other = Player::start_as(&service.page, "gate", ReceiveMode::Packets, &bearer(&fixture.operator));
    player.until_more(10);
    other.until_more(10);
    let viewers = || {
        let url = format!("{}api/v1/streams/gate", service.page);
        let stream = send(&agent(None), "GET", &url, &[("authorization", &bearer(&fixture.operator))], None).json();
        (stream["viewers"]["mjpeg"].as_u64().unwrap(), stream["viewers"]["webrtc"].as_u64().unwrap())
    };
    assert_eq!(viewers(), (1, 2));
    let users = fixture.folder.path().join("users.toml");
    let removed = run(maskcast().args(["user", "remove", "scraper", "--users"]).arg(&users));
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    service.program.child.signal("HUP");
    std::io::copy(&mut frames, &mut std::io::sink()).unwrap();
    curl.wait(DEADLINE);
    until("the removed viewer's connection has ended", || (viewers() == (0, 1)).then_some(()));
    other.until_more(10);
}

#[test]
fn anonymous_clients_may_only_read() {
    let fixture = Fixture::new();
    let service = fixture.start("allow_anonymous = true");
    let agent = agent(None);
    let url = |path: &str| format!("{}{path}", service.page);
    for path in ["api/v1/streams", "metrics", "api/v1/model", "mjpeg/gate"] {
        let answer = send(&agent, "GET", &url(path), &[], None);
        // Other pages may embed what anonymous clients may see.
        assert_eq!((answer.status, answer.header("cross-origin-resource-policy")), (200, ""), "{path}");
    }
    let session = send(&agent, "GET", &url("api/v1/session"), &[], None).json();
    assert_eq!(session, json!({ "user": null, "role": "viewer", "csrf": null, "login": true }));
    let request = json!({ "path": "/nowhere/x.onnx" });
    let change = |headers: &[(&str, &str)]| send(&agent, "POST", &url("api/v1/model"), headers, Some(&request)).status;
    assert_eq!(change(&[]), 401);
    assert_eq!(change(&[("authorization", &bearer(&fixture.viewer))]), 403);
    assert_eq!(change(&[("authorization", &bearer(&fixture.operator))]), 202);
    let host = service.rtsp.trim_start_matches("rtsp://").trim_end_matches('/').to_string();
    assert_eq!(describe(&host, "gate", None).0, 200);
}

/// A page of another site whose name resolves to 127.0.0.1 (DNS rebinding) could read the cameras and change them.
#[test]
fn without_users_only_own_host_names_and_pages_are_accepted() {
    let folder = folder();
    let service = Service::ready(folder.path(), "[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\n");
    let agent = agent(None);
    let url = format!("{}api/v1/streams", service.page);
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"] {
        let answer = send(&agent, "GET", &url, &[("host", host)], None);
        assert_eq!((answer.status, answer.json()["status"].as_u64()), (421, Some(421)), "{host}");
    }
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(send(&agent, "GET", &url, &[("host", host)], None).status, 200, "{host}");
    }
    // A client of a proxy on this machine may be on another machine.
    for by_proxy in [("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.7"), ("via", "1.1 proxy")] {
        assert_eq!(send(&agent, "GET", &url, &[by_proxy], None).status, 401, "{by_proxy:?}");
    }
    let request = json!({ "path": "/nowhere/x.onnx" });
    let model = format!("{}api/v1/model", service.page);
    assert_eq!(send(&agent, "POST", &model, &[("origin", "http://evil.example")], Some(&request)).status, 403);
    assert_eq!(send(&agent, "POST", &model, &[], Some(&request)).status, 202);
}
