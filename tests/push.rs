//! Streams that are pushed to media servers: video arrives, the push reconnects to a restarted server, and a server that
//! refuses or hangs does not affect other outputs.

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

/// A stream with a moving ball, pushed to `url`; `more`: further settings of the push.
fn pushed_to(url: &str, more: &str) -> String {
    format!(
        "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
         [[stream.push]]\nurl = \"{url}\"\n{more}\n"
    )
}

fn start(folder: &Path, url: &str, more: &str) -> Service {
    Service::with(folder, &pushed_to(url, more), &[("PUSH_PASSWORD", SECRET)])
}

/// Waits until the only push is in this state; returns its JSON from the API.
fn until_push(service: &Service, state: &str) -> Value {
    until(&format!("the push is {state}"), || {
        Some(service.stream("gate")["pushes"][0].clone()).filter(|push| push["state"] == state)
    })
}

fn failures(service: &Service) -> f64 {
    service.metrics().sum("maskcast_push_failures_total", &[("stream", "gate")])
}

#[test]
fn a_push_runs_without_viewers_and_shares_the_encoder_with_them() {
    let server = MediaServer::listen(0, None);
    let folder = folder();
    let service = start(folder.path(), &server.url(), "");
    let frame = server.wait_for_motion(10);
    assert_eq!((frame.width, frame.height), (320, 240));
    let push = until_push(&service, "live");
    assert_eq!((&push["to"], &push["failures"]), (&server.url().into(), &0.into()));
    let mut viewer = Viewer::play(&service.rtsp("gate"), "tcp", (320, 240));
    viewer.next();
    assert_eq!(service.stream("gate")["viewers"]["rtsp"], 1, "a push does not count as a viewer");
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
fn a_push_reconnects_to_a_restarted_server() {
    let server = MediaServer::listen(0, None);
    let (url, port) = (server.url(), server.port);
    let folder = folder();
    let service = start(folder.path(), &url, "");
    server.wait_for_motion(5);
    drop(server);
    let push = until_push(&service, "waiting");
    assert!(push["failures"].as_u64() > Some(0) && push["reason"].is_string(), "{push}");
    until("one more failure", || (failures(&service) >= 2.0).then_some(()));
    let server = MediaServer::listen(port, None);
    let restarted = Instant::now();
    server.wait_for_motion(5);
    println!("video arrived {:?} after the restart of the server", restarted.elapsed());
    until_push(&service, "live");
    assert_eq!(service.stream("gate")["state"], "live");
}

#[test]
fn a_push_authenticates_with_user_and_password_and_never_shows_them() {
    let server = MediaServer::listen(0, Some(("camera", SECRET)));
    let folder = folder();
    let service = start(folder.path(), &server.url(), "user = \"camera\"\npassword_env = \"PUSH_PASSWORD\"");
    server.wait_for_motion(5);
    let wrong = format!("rtsp://camera:{SECRET}x@127.0.0.1:{}/gate?key={SECRET}", server.port);
    let other = common::service::folder();
    let refused = Service::with(other.path(), &pushed_to(&wrong, ""), &[("MASKCAST_LOG", "debug")]);
    let push = until_push(&refused, "waiting");
    assert!(push["reason"].as_str().unwrap().contains("password"), "{push}");
    // The API shows the target without secrets.
    let settings = &refused.stream("gate")["config"]["push"];
    assert_eq!(settings, &serde_json::json!([{"url": push["to"], "user": "camera"}]));
    let shown = ["api/v1/streams", "metrics"].map(|path| common::http::get(&format!("{}{path}", refused.page)).1);
    let logs = [service.terminate().2, refused.terminate().2];
    for text in shown.iter().chain(&logs) {
        assert!(!text.contains(SECRET), "{text}");
    }
}

/// The server accepts connections and sends nothing.
#[test]
fn a_server_that_hangs_does_not_delay_viewers_or_the_stop() {
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
fn a_reload_removes_and_adds_pushes() {
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
fn a_push_by_whip_authenticates_with_a_token_and_deletes_its_session() {
    let token = format!("Bearer {SECRET}");
    let server = WhipServer::listen(Some(&token));
    let folder = folder();
    let service = start(folder.path(), &server.url(), "password_env = \"PUSH_PASSWORD\"");
    let first = server.next();
    assert_eq!((first.width, first.height), (320, 240));
    let moved = (0..100).any(|_| server.next().data != first.data);
    assert!(moved, "consecutive frames do not differ");
    let push = until_push(&service, "live");
    assert_eq!((&push["to"], &push["failures"]), (&server.url().into(), &0.into()));
    let (code, took, log) = service.terminate();
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
    assert!(!log.contains(SECRET) && !log.contains("ERROR") && !log.contains("WARN"), "{log}");
    let requests: Vec<(String, String)> =
        server.requests().into_iter().map(|(method, path, _)| (method, path)).collect();
    assert_eq!(requests, [("POST".into(), "/gate/whip".into()), ("DELETE".into(), "/gate/whip/1".into())]);
    assert!(server.requests().iter().all(|(_, _, authorization)| authorization.as_ref() == Some(&token)));
}

#[test]
fn a_refused_whip_push_retries_and_causes_no_encoding() {
    let server = WhipServer::listen(Some("Bearer another"));
    let folder = folder();
    let service = start(folder.path(), &server.url(), "");
    let push = until_push(&service, "waiting");
    assert!(push["reason"].as_str().unwrap().contains("rejects the user, password or token"), "{push}");
    until("one more failure", || (failures(&service) >= 2.0).then_some(()));
    service.until_published("gate", 20);
    assert_eq!(service.metrics().stage("gate", "encode"), 0.0);
}
