//! Streams that are pushed to media servers: moving video arrives, a server that dies is found again, and one that
//! refuses or hangs disturbs nobody.

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use common::media_server::MediaServer;
use common::program::until;
use common::rtsp::Viewer;
use common::service::{Service, folder, write_config};
use common::whip_server::WhipServer;
use serde_json::Value;

const SECRET: &str = "SQUEAMISH-OSSIFRAGE";

/// A stream with a moving ball, pushed to `url`; `more` belongs to the push.
fn pushed_to(url: &str, more: &str) -> String {
    format!(
        "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         [[stream.push]]\nurl = \"{url}\"\n{more}\n"
    )
}

fn start(folder: &Path, url: &str, more: &str) -> Service {
    Service::with(folder, &pushed_to(url, more), &[("PUSH_PASSWORD", SECRET)])
}

/// What the API says of the only push, once its state is this one.
fn until_push(service: &Service, state: &str) -> Value {
    until(&format!("the push is {state}"), || {
        Some(service.stream("gate")["pushes"][0].clone()).filter(|push| push["state"] == state)
    })
}

fn failures(service: &Service) -> f64 {
    service.metrics().sum("maskcast_push_failures_total", &[("stream", "gate")])
}

#[test]
fn moving_video_arrives_without_a_viewer_and_shares_the_encode_with_one() {
    let server = MediaServer::listen(0, None);
    let folder = folder();
    let service = start(folder.path(), &server.url(), "");
    let picture = server.wait_for_motion(10);
    assert_eq!((picture.width, picture.height), (320, 240));
    let push = until_push(&service, "live");
    assert_eq!((&push["to"], &push["failures"]), (&server.url().into(), &0.into()));
    let mut viewer = Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    viewer.next();
    assert_eq!(service.stream("gate")["viewers"]["rtsp"], 1, "a push is no viewer");
    let before = service.metrics();
    for _ in 0..30 {
        viewer.next();
        server.next();
    }
    let after = service.metrics();
    let published = after.published("gate") - before.published("gate");
    let encoded = after.stage("gate", "encode") - before.stage("gate", "encode");
    assert!((encoded - published).abs() <= 4.0, "{encoded} encoded, {published} published");
    assert_eq!(after.sum("maskcast_push_live", &[("stream", "gate"), ("to", &server.url())]), 1.0);
    let (code, took, log) = service.terminate();
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn a_server_that_dies_is_found_again() {
    let server = MediaServer::listen(0, None);
    let (url, port) = (server.url(), server.port);
    let folder = folder();
    let service = start(folder.path(), &url, "");
    server.wait_for_motion(5);
    drop(server);
    let push = until_push(&service, "waiting");
    assert!(push["failures"].as_u64() > Some(0) && push["reason"].is_string(), "{push}");
    until("a failure more", || (failures(&service) >= 2.0).then_some(()));
    let server = MediaServer::listen(port, None);
    let came_back = Instant::now();
    server.wait_for_motion(5);
    println!("moving video {:?} after the server was back", came_back.elapsed());
    until_push(&service, "live");
    assert_eq!(service.stream("gate")["state"], "live");
}

#[test]
fn user_and_password_open_a_server_and_appear_nowhere() {
    let server = MediaServer::listen(0, Some(("camera", SECRET)));
    let folder = folder();
    let service = start(folder.path(), &server.url(), "user = \"camera\"\npassword_env = \"PUSH_PASSWORD\"");
    server.wait_for_motion(5);
    let wrong = format!("rtsp://camera:{SECRET}x@127.0.0.1:{}/gate?key={SECRET}", server.port);
    let other = common::service::folder();
    let refused = Service::with(other.path(), &pushed_to(&wrong, ""), &[("MASKCAST_LOG", "debug")]);
    let push = until_push(&refused, "waiting");
    assert!(push["reason"].as_str().unwrap().contains("password"), "{push}");
    // Where to is shown, and nothing that may be secret.
    let settings = &refused.stream("gate")["config"]["push"];
    assert_eq!(settings, &serde_json::json!([{"url": push["to"], "user": "camera"}]));
    let shown = ["api/v1/streams", "metrics"].map(|path| common::http::get(&format!("{}{path}", refused.page)).1);
    let logs = [service.terminate().2, refused.terminate().2];
    for text in shown.iter().chain(&logs) {
        assert!(!text.contains(SECRET), "{text}");
    }
}

/// It accepts connections and never answers.
#[test]
fn a_server_that_hangs_holds_up_nobody() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://{}/gate", silent.local_addr().unwrap());
    let folder = folder();
    let service = start(folder.path(), &url, "");
    let _held = silent.accept().unwrap();
    let mut viewer = Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    for _ in 0..45 {
        viewer.next();
    }
    assert_eq!(service.stream("gate")["state"], "live");
    let (code, took, log) = service.terminate();
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
}

#[test]
fn a_reload_takes_a_push_away_and_adds_one() {
    let servers = [MediaServer::listen(0, None), MediaServer::listen(0, None)];
    let folder = folder();
    let mut service = start(folder.path(), &servers[0].url(), "");
    servers[0].wait_for_motion(3);
    write_config(folder.path(), &pushed_to(&servers[1].url(), ""));
    service.program.child.signal("HUP");
    service.program.wait_for("the reload", |entry| {
        entry["message"].as_str().filter(|message| message.contains("restarted gate")).map(|_| ())
    });
    servers[1].wait_for_motion(3);
    let pushes = service.stream("gate")["pushes"].as_array().unwrap().clone();
    assert_eq!(pushes.iter().map(|push| push["to"].as_str().unwrap()).collect::<Vec<_>>(), [servers[1].url()]);
}

#[test]
fn moving_video_arrives_by_whip_with_a_token_and_the_session_is_given_back() {
    let token = format!("Bearer {SECRET}");
    let server = WhipServer::listen(Some(&token));
    let folder = folder();
    let service = start(folder.path(), &server.url(), "password_env = \"PUSH_PASSWORD\"");
    let first = server.next();
    assert_eq!((first.width, first.height), (320, 240));
    let moved = (0..100).any(|_| server.next().data != first.data);
    assert!(moved, "the pictures do not move");
    let push = until_push(&service, "live");
    assert_eq!((&push["to"], &push["failures"]), (&server.url().into(), &0.into()));
    let (code, took, log) = service.terminate();
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
    assert!(!log.contains(SECRET) && !log.contains("ERROR") && !log.contains("WARN"), "{log}");
    let asked: Vec<(String, String)> = server.requests().into_iter().map(|(method, path, _)| (method, path)).collect();
    assert_eq!(asked, [("POST".into(), "/gate/whip".into()), ("DELETE".into(), "/gate/whip/1".into())]);
    assert!(server.requests().iter().all(|(_, _, authorization)| authorization.as_ref() == Some(&token)));
}

#[test]
fn a_whip_server_that_refuses_is_asked_again_and_again_and_costs_no_encode() {
    let server = WhipServer::listen(Some("Bearer another"));
    let folder = folder();
    let service = start(folder.path(), &server.url(), "");
    let push = until_push(&service, "waiting");
    assert!(push["reason"].as_str().unwrap().contains("rejects the user, password or token"), "{push}");
    until("a failure more", || (failures(&service) >= 2.0).then_some(()));
    service.until_published("gate", 20);
    assert_eq!(service.metrics().stage("gate", "encode"), 0.0);
}
