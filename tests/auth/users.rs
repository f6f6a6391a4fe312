//! Users and tokens on the command line, and secrets in logs and responses.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::common::program::{maskcast, run, until};
use crate::common::service::Service;
use crate::fixture::{ANNA, Fixture, WALL, add_user, agent, basic, bearer, send};
use crate::http::routes;

/// A password and a token of a camera.
const CAMERA: &str = "rtsp://admin:hunter2-camera@127.0.0.1:9/live?token=hunter2-query";

#[test]
fn secrets_are_neither_logged_nor_returned() {
    let fixture = Fixture::new();
    let stream = format!("[[stream]]\nname = \"gate\"\nsource = \"{CAMERA}\"\n");
    let mut service = Service::run(&fixture.config("", &stream), &[("MASKCAST_LOG", "debug")]);
    service.program.wait_for_message("ready");
    let agent = agent(None);
    let auth = bearer(&fixture.operator);
    let session = format!("{}api/v1/session", service.page);
    // A password in the wrong field, and in an invalid request.
    send(&agent, "POST", &session, &[], Some(&json!({ "user": ANNA, "password": "x" })));
    send(&agent, "POST", &session, &[], Some(&json!({ "user": "anna", "pass": ANNA })));
    let login = send(&agent, "POST", &session, &[], Some(&json!({ "user": "anna", "password": ANNA })));
    let cookie = login.header("set-cookie").split([';', '=']).nth(1).unwrap().to_string();
    let csrf = login.json()["csrf"].as_str().unwrap().to_string();
    let mut output = String::new();
    for route in routes(&service.page, &agent, &fixture.operator).iter().filter(|route| !route.starts_with("/mjpeg")) {
        let url = format!("{}{}", service.page.trim_end_matches('/'), route);
        output += &send(&agent, "GET", &url, &[("authorization", &auth)], None).body;
        output += &send(&agent, "GET", &url, &[("authorization", &basic("anna", ANNA))], None).body;
    }
    let ended = run(maskcast().args(["user", "list", "--users"]).arg(fixture.folder.path().join("users.toml")));
    output += &ended.text();
    let (_, _, log) = service.terminate();
    let file = std::fs::read_to_string(fixture.folder.path().join("users.toml")).unwrap();
    for secret in ["hunter2", ANNA, WALL, &fixture.operator, &fixture.viewer, &cookie, &csrf, "$argon2"] {
        assert!(!log.contains(secret), "the log has {secret}:\n{log}");
        assert!(!output.contains(secret), "a response has {secret}:\n{output}");
        if secret != "$argon2" {
            assert!(!file.contains(secret), "the users file has {secret}");
        }
    }
}

#[test]
fn users_and_tokens_are_added_listed_changed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.toml");
    let command = |arguments: &[&str]| run(maskcast().arg("user").args(arguments).arg("--users").arg(&users));
    let weak = add_user(folder.path(), "anna", "short", &[]);
    assert!(
        weak.code == Some(1) && weak.stderr.contains("at least 12 characters") && !users.exists(),
        "{}",
        weak.stderr
    );
    assert_eq!(add_user(folder.path(), "a:b", ANNA, &[]).code, Some(2));
    assert_eq!(add_user(folder.path(), "anna", ANNA, &[]).code, Some(0));
    assert_eq!(users.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let twice = add_user(folder.path(), "anna", WALL, &["--role", "operator"]);
    assert!(twice.code == Some(1) && twice.stderr.contains("--replace"), "{}", twice.stderr);
    let token = command(&["token", "hub"]);
    assert!(token.text().starts_with("maskcast_") && token.text().len() > 50 && token.stdout.ends_with(b"\n"));
    assert_eq!(command(&["list"]).text(), "anna\tviewer\tpassword\nhub\tviewer\ttoken");
    assert_eq!(
        add_user(folder.path(), "anna", WALL, &["--role", "operator", "--replace", "--rtsp-digest"]).code,
        Some(0)
    );
    assert_eq!(command(&["list"]).text(), "anna\toperator\tpassword, with RTSP digest\nhub\tviewer\ttoken");
    assert_eq!(command(&["remove", "hub"]).code, Some(0));
    assert_eq!(command(&["remove", "hub"]).code, Some(1));
    assert_eq!(command(&["list"]).text(), "anna\toperator\tpassword, with RTSP digest");
    // Without a terminal there is no prompt; a password is never an argument.
    let ended = command(&["add", "bert"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--password-stdin"), "{}", ended.stderr);
    assert_eq!(command(&["add", "bert", "--password", ANNA]).code, Some(2));
}

#[test]
fn removing_all_users_logs_one_warning() {
    let fixture = Fixture::new();
    let mut service = fixture.start("");
    let streams = format!("{}api/v1/streams", service.page);
    assert_eq!(send(&agent(None), "GET", &streams, &[], None).status, 401);
    std::fs::remove_file(fixture.folder.path().join("users.toml")).unwrap();
    service.program.child.signal("HUP");
    service.program.wait_for("the warning", |entry| {
        let warned = entry["message"].as_str()?.contains("server.users has no users left");
        (warned && entry["level"] == "WARN").then_some(())
    });
    until("access needs no login", || (send(&agent(None), "GET", &streams, &[], None).status == 200).then_some(()));
    // It is logged once, not with every reload.
    service.program.child.signal("HUP");
    service
        .program
        .wait_for("the reload", |entry| entry["message"].as_str()?.starts_with("configuration reloaded").then_some(()));
    service.program.child.signal("HUP");
    service
        .program
        .wait_for("the reload", |entry| entry["message"].as_str()?.starts_with("configuration reloaded").then_some(()));
    let (_, _, log) = service.terminate();
    assert_eq!(log.matches("server.users has no users left").count(), 1, "{log}");
}
