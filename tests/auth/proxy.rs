//! The client address behind a proxy.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::common::program::{DEADLINE, run};
use crate::fixture::{ANNA, Answer, Fixture, WALL, agent, bearer, send};

/// A login as forwarded by a proxy.
fn login(page: &str, user: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "user": user, "password": password });
    send(&agent(None), "POST", &format!("{page}api/v1/session"), headers, Some(&body))
}

#[test]
fn login_limits_apply_to_the_client_of_a_trusted_proxy() {
    let fixture = Fixture::new();
    let service = fixture.start("trusted_proxies = [\"127.0.0.1\"]");
    let from = |user: &str, password: &str, list: &str| {
        login(&service.page, user, password, &[("x-forwarded-for", list), ("x-forwarded-proto", "https")])
    };
    // The client forges addresses; the last one is added by the proxy.
    let attempts = (0..30).map(|n| from("anna", "a wrong passphrase", &format!("198.51.100.{n}, 192.0.2.66")).status);
    let attempts: Vec<u16> = attempts.collect();
    assert_eq!((&attempts[..10], attempts[29]), (&[401; 10][..], 429));
    assert_eq!(from("anna", ANNA, "192.0.2.66").status, 429);
    let other = from("anna", ANNA, "192.0.2.1");
    assert_eq!(other.status, 200, "{}", other.body);
    assert_eq!(from("wall", WALL, "192.0.2.1").status, 200);
    // The browser uses TLS to the proxy.
    let cookie = other.header("set-cookie").to_string();
    assert!(cookie.starts_with("__Host-maskcast=") && cookie.ends_with("; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let streams = |headers: &[(&str, &str)]| {
        send(&agent(None), "GET", &format!("{}api/v1/streams", service.page), headers, None).status
    };
    assert_eq!(streams(&[("cookie", cookie), ("x-forwarded-proto", "https")]), 200);
    assert_eq!(streams(&[("cookie", cookie)]), 401, "without TLS the cookie has another name");
    let plain = login(&service.page, "anna", ANNA, &[("x-forwarded-for", "192.0.2.2"), ("x-forwarded-proto", "http")]);
    assert!(plain.header("set-cookie").starts_with("maskcast="), "{}", plain.header("set-cookie"));
    let (_, _, log) = service.terminate();
    assert!(log.contains("login refused: too many attempts; user anna from 192.0.2.66"), "{log}");
    assert!(log.contains("login: anna from 192.0.2.1 as operator"), "{log}");
}

#[test]
fn headers_of_untrusted_peers_are_ignored() {
    let fixture = Fixture::new();
    let service = fixture.start("trusted_proxies = [\"192.0.2.0/24\"]");
    let from = |user: &str, password: &str, n: u32| {
        let address = format!("192.0.2.{n}");
        login(
            &service.page,
            user,
            password,
            &[("x-forwarded-for", &address), ("forwarded", &format!("for={address}")), ("x-forwarded-proto", "https")],
        )
    };
    let attempts: Vec<u16> = (0..15).map(|n| from("anna", "a wrong passphrase", n).status).collect();
    assert_eq!((&attempts[..10], attempts[14]), (&[401; 10][..], 429));
    let wall = from("wall", WALL, 77);
    assert!(wall.status == 200 && wall.header("set-cookie").starts_with("maskcast="), "{}", wall.header("set-cookie"));
    let (_, _, log) = service.terminate();
    assert!(
        log.contains("login refused: too many attempts; user anna from 127.0.0.1") && !log.contains("192.0.2."),
        "{log}"
    );
}

#[test]
fn clients_of_a_proxy_are_not_local_and_a_reload_changes_trusted_proxies() {
    let folder = crate::common::service::folder();
    let write = |proxies: &str| {
        let config = crate::common::service::write_config(
            folder.path(),
            "[[stream]]\nname = \"gate\"\nsource = \"test://smpte?width=320&height=180&fps=10\"\n",
        );
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("[server]\n", &format!("[server]\ntrusted_proxies = {proxies}\n")))
            .unwrap();
        config
    };
    let mut service = crate::common::service::Service::run(&write("[]"), &[]);
    service.program.wait_for_message("ready");
    let streams = format!("{}api/v1/streams", service.page);
    let status = |headers: &[(&str, &str)]| send(&agent(None), "GET", &streams, headers, None).status;
    assert_eq!((status(&[]), status(&[("x-forwarded-for", "127.0.0.1")])), (200, 401));
    write("[\"127.0.0.1\"]");
    service.program.child.signal("HUP");
    service
        .program
        .wait_for("the reload", |entry| entry["message"].as_str()?.starts_with("configuration reloaded").then_some(()));
    assert_eq!((status(&[]), status(&[("x-forwarded-for", "127.0.0.1")])), (401, 401));
}

#[test]
fn client_data_is_shortened_in_the_log() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let host = service.page.trim_start_matches("http://").trim_end_matches('/');
    let long = "x".repeat(60_000);
    let token = bearer(&fixture.operator);
    for head in [
        format!("DELETE /api/v1/streams/{long} HTTP/1.1\r\nHost: {host}\r\n"),
        format!("{} /api/v1/streams/gate HTTP/1.1\r\nHost: {host}\r\n", &long[..5000]),
        format!("DELETE /api/v1/streams/gate%0a2026%20ERROR HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {long}\r\n"),
    ] {
        let mut client = TcpStream::connect(host).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(client, "{head}Authorization: {token}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
        assert!(answer.len() < 3000, "{} bytes", answer.len());
    }
    let model = json!({ "path": format!("/{long}.onnx") });
    let url = format!("{}api/v1/model", service.page);
    assert_eq!(send(&agent(None), "POST", &url, &[("authorization", &token)], Some(&model)).status, 422);
    let camera = json!({ "name": "yard", "source": format!("rtsp://10.0.0.7/{long}") });
    let url = format!("{}api/v1/streams", service.page);
    assert_eq!(send(&agent(None), "POST", &url, &[("authorization", &token)], Some(&camera)).status, 422);
    let (_, _, log) = service.terminate();
    assert!(log.contains("DELETE /api/v1/streams/xxx") && log.contains("… (60016 bytes): 404"), "{log}");
    assert!(log.lines().all(|line| line.len() < 1000), "{log}");
}

/// The list is validated with the rest of the configuration.
#[test]
fn trusted_proxies_must_not_contain_every_address() {
    let fixture = Fixture::new();
    let config =
        fixture.config("trusted_proxies = [\"0.0.0.0/0\"]", "[[stream]]\nname = \"a\"\nsource = \"test://ball\"\n");
    let ended = run(crate::common::program::maskcast().arg("check").arg(&config));
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("server.trusted_proxies[0]: 0.0.0.0/0 is every address"), "{}", ended.stderr);
}
