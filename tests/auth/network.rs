//! TLS, RTSP, and network addresses.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use serde_json::json;

use crate::common;
use crate::common::program::{Guard, maskcast, run, until};
use crate::common::service::folder;
use crate::fixture::{ANNA, Fixture, WALL, add_user, agent, basic, bearer, describe, send};
use crate::http::every_endpoint;

#[test]
fn tls_has_the_same_access_rules_and_reloads_the_certificate() {
    let fixture = Fixture::new();
    let ca = fixture.certificate();
    let mut service = fixture.start("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    assert!(service.page.starts_with("https://") && service.rtsp.starts_with("rtsps://"), "{}", service.page);
    let secure = agent(Some(&ca));
    every_endpoint(&service.page, &secure, &fixture);
    let page = send(&secure, "GET", &service.page, &[], None);
    assert_eq!((page.status, page.header("strict-transport-security")), (200, "max-age=31536000"));
    let login = send(
        &secure,
        "POST",
        &format!("{}api/v1/session", service.page),
        &[],
        Some(&json!({ "user": "wall", "password": WALL })),
    );
    let cookie = login.header("set-cookie").to_string();
    assert!(cookie.starts_with("__Host-maskcast=") && cookie.ends_with("; Secure"), "{cookie}");
    let streams = send(&secure, "GET", &format!("{}api/v1/streams", service.page), &[("cookie", &cookie)], None).json();
    assert!(streams[0]["links"]["rtsp"].as_str().unwrap().starts_with("rtsps://"), "{streams}");
    let scrape = send(&secure, "GET", &format!("{}metrics", service.page), &[("cookie", &cookie)], None).body;
    let ends = scrape.lines().find_map(|line| line.strip_prefix("maskcast_certificate_expires_timestamp_seconds "));
    let days = (ends.unwrap().parse::<f64>().unwrap() - UNIX_EPOCH.elapsed().unwrap().as_secs_f64()) / 86400.0;
    assert!((820.0..=825.0).contains(&days), "{days} days");
    // Plain HTTP fails.
    assert!(agent(None).get(service.page.replace("https", "http")).call().is_err());

    // RTSP uses TLS as well, also for the video.
    let host = service.rtsp.trim_start_matches("rtsps://").to_string();
    let probe = |url: &str| {
        run(Command::new("ffprobe").args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv", url]))
    };
    let good = probe(&format!("rtsps://wall:{}@{host}gate", WALL.replace(' ', "%20")));
    assert!(good.code == Some(0) && good.text().contains("h264"), "{good:?}");
    assert_ne!(probe(&format!("rtsps://wall:wrong@{host}gate")).code, Some(0));
    assert_ne!(probe(&format!("rtsps://{host}gate")).code, Some(0));
    // Plain RTSP fails; GStreamer's server does not answer such a client.
    let plain = Command::new("ffprobe")
        .args(["-v", "error", "-timeout", "3000000", &format!("rtsp://{host}gate")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!plain.status.success() && !plain.stderr.is_empty(), "{plain:?}");

    // An open connection continues while the certificate is replaced; new ones get only the new certificate.
    let mut watching = TlsViewer::new(&service.page, &ca, &fixture.viewer);
    watching.next_frame();
    std::fs::write(fixture.folder.path().join("tls/cert.pem"), "broken").unwrap();
    service.program.wait_for("the broken certificate", |entry| {
        entry["message"].as_str()?.starts_with("certificate not reloaded").then_some(())
    });
    assert_eq!(send(&agent(Some(&watching.ca)), "GET", &service.page, &[], None).status, 200);
    let ca = fixture.certificate();
    service.program.wait_for("the new certificate", |entry| {
        entry["message"].as_str()?.starts_with("certificate reloaded").then_some(())
    });
    watching.next_frame();
    until("only the new certificate is used", || {
        let old = agent(Some(&watching.ca)).get(&service.page).call().is_err();
        (old && send(&agent(Some(&ca)), "GET", &service.page, &[], None).status == 200).then_some(())
    });
}

/// curl as an MJPEG viewer over TLS.
struct TlsViewer {
    _curl: Guard,
    frames: BufReader<std::process::ChildStdout>,
    /// A copy of the certificate that it trusts.
    ca: PathBuf,
}

impl TlsViewer {
    fn new(page: &str, ca: &Path, token: &str) -> Self {
        let copy = ca.with_extension("first");
        std::fs::copy(ca, &copy).unwrap();
        let mut curl = Guard::spawn(
            Command::new("curl")
                .args(["-sS", "-N", "--cacert"])
                .arg(&copy)
                .args(["-H", &format!("Authorization: {}", bearer(token)), &format!("{page}mjpeg/gate")])
                .stdout(Stdio::piped()),
        );
        let frames = BufReader::new(curl.0.stdout.take().unwrap());
        TlsViewer { _curl: curl, frames, ca: copy }
    }

    fn next_frame(&mut self) {
        let mut line = Vec::new();
        loop {
            line.clear();
            assert_ne!(self.frames.read_until(b'\n', &mut line).unwrap(), 0, "the server has ended the connection");
            let text = String::from_utf8_lossy(&line);
            if let Some(length) = text.trim_end().strip_prefix("Content-Length: ") {
                let mut frame = vec![0; length.parse::<usize>().unwrap() + 2];
                self.frames.read_exact(&mut frame).unwrap();
                assert_eq!(frame[2..4], [0xff, 0xd8]);
                return;
            }
        }
    }
}

#[test]
fn rtsp_requires_the_same_credentials_and_disconnects_removed_users() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let host = service.rtsp.trim_start_matches("rtsp://").trim_end_matches('/').to_string();
    let (status, challenge) = describe(&host, "gate", None);
    assert_eq!((status, challenge.as_str()), (401, "Basic realm=\"maskcast\""));
    assert_eq!(describe(&host, "gate", Some(&basic("wall", ANNA))).0, 401);
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 200);
    assert_eq!(describe(&host, "nothing", Some(&basic("wall", WALL))).0, 404);
    // Without credentials, existing and unknown streams get the same response.
    for name in ["nothing", "no%20stream", "gate/nothing", "gate/stream=0", "nothing/stream=0", "/gate", ""] {
        assert_eq!(describe(&host, name, None), (401, challenge.clone()), "{name}");
    }
    let encoded = WALL.replace(' ', "%20");
    let url = format!("rtsp://wall:{encoded}@{host}/gate");
    for transport in ["tcp", "udp"] {
        let mut viewer = common::rtsp::Viewer::play(&url, transport, (320, 180));
        viewer.next();
        viewer.next();
    }
    // A removed user is disconnected.
    let mut viewer = common::rtsp::Viewer::play(&url, "tcp", (320, 180));
    viewer.next();
    let users = fixture.folder.path().join("users.toml");
    let removed = run(maskcast().args(["user", "remove", "wall", "--users"]).arg(&users));
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    let mut service = service;
    service.program.child.signal("HUP");
    service
        .program
        .wait_for("the reload", |entry| entry["message"].as_str()?.starts_with("configuration reloaded").then_some(()));
    viewer.wait_for_end();
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 401);
    assert_eq!(describe(&host, "gate", Some(&basic("anna", ANNA))).0, 200);
    // The API refuses the user as well.
    let streams = format!("{}api/v1/streams", service.page);
    assert_eq!(send(&agent(None), "GET", &streams, &[("authorization", &basic("wall", WALL))], None).status, 401);
}

#[test]
fn rtsp_without_tls_requires_digests_unless_configured_otherwise() {
    let fixture = Fixture::new();
    let ended = add_user(fixture.folder.path(), "nvr", "all that was recorded", &["--rtsp-digest"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // 0.0.0.0 counts as a network address.
    let open = "http = \"127.0.0.1:0\"\nrtsp = \"0.0.0.0:0\"\n";
    let service = fixture.start(open);
    let host = format!("127.0.0.1:{}", service.rtsp.trim_end_matches('/').rsplit_once(':').unwrap().1);
    let (status, challenge) = describe(&host, "gate", None);
    assert!(status == 401 && challenge.starts_with("Digest realm=\"maskcast\", nonce="), "{status} {challenge}");
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 401, "a password is not checked");
    let probe = |user: &str, password: &str| {
        let password = password.replace(' ', "%20");
        let url = format!("rtsp://{user}:{password}@{host}/gate");
        run(Command::new("ffprobe").args([
            "-v",
            "error",
            "-rtsp_transport",
            "tcp",
            "-show_entries",
            "stream=codec_name",
            "-of",
            "csv",
            &url,
        ]))
    };
    let good = probe("nvr", "all that was recorded");
    assert!(good.code == Some(0) && good.text().contains("h264"), "{good:?}");
    assert_ne!(probe("nvr", "another passphrase").code, Some(0));
    assert_ne!(probe("wall", WALL).code, Some(0));
    // Attempts with digests are limited. A connected viewer is not affected.
    let playing = format!("rtsp://nvr:{}@{host}/gate", "all that was recorded".replace(' ', "%20"));
    let mut viewer = common::rtsp::Viewer::play(&playing, "tcp", (320, 180));
    viewer.next();
    let guess = |n: u32| {
        let (_, challenge) = describe(&host, "gate", None);
        let nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let response = format!("{n:032x}");
        let uri = format!("rtsp://{host}/gate");
        let digest = format!(
            "Digest username=\"nvr\", realm=\"maskcast\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\""
        );
        assert_eq!(describe(&host, "gate", Some(&digest)).0, 401);
    };
    (0..40).for_each(guess);
    assert_ne!(probe("nvr", "all that was recorded").code, Some(0), "also the correct one");
    viewer.next();
    let (_, _, log) = service.terminate();
    assert!(log.contains("RTSP login refused: too many attempts"), "{log}");
    assert!(log.contains("only users with an RTSP digest can watch"), "{log}");

    let service = fixture.start(&format!("{open}rtsp_plain_auth = true\n"));
    let host = format!("127.0.0.1:{}", service.rtsp.trim_end_matches('/').rsplit_once(':').unwrap().1);
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 200);
    let (_, _, log) = service.terminate();
    assert!(log.contains("passwords are sent without encryption (rtsp_plain_auth)"), "{log}");
}

#[test]
fn a_network_listener_without_users_exits_with_78() {
    let folder = folder();
    let stream = "[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\n";
    for (http, rtsp, key) in [("0.0.0.0:0", "127.0.0.1:0", "server.http"), ("127.0.0.1:0", "[::]:0", "server.rtsp")] {
        let config = common::service::write_config_at(folder.path(), http, rtsp, stream);
        for command in ["run", "check"] {
            let ended = run(maskcast().arg(command).arg(&config));
            assert_eq!(ended.code, Some(78), "{}", ended.stderr);
            assert!(
                ended.stderr.contains(&format!(" {key}: ")) && ended.stderr.lines().count() == 1,
                "{}",
                ended.stderr
            );
            assert!(ended.stderr.contains("maskcast user add") && ended.stderr.contains("allow_anonymous = true"));
        }
        // With a token, it starts.
        let ended = run(maskcast().args(["user", "token", "hub", "--config"]).arg(&config));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(run(maskcast().arg("check").arg(&config)).code, Some(0));
        std::fs::remove_file(folder.path().join("users.toml")).unwrap();
    }
}

#[test]
fn the_model_is_changed_with_a_token_over_tls() {
    let fixture = Fixture::new();
    let ca = fixture.certificate();
    let service = fixture.start("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    let model = fixture.folder.path().join("yard.onnx");
    std::fs::copy(fixture.folder.path().join("channels.onnx"), &model).unwrap();
    let change_model = |token: &str| {
        let mut command = maskcast();
        command.args(["model", "use"]).arg(&model).args(["--url", &service.page]).arg("--ca").arg(&ca);
        run(command.env("MASKCAST_TOKEN", token))
    };
    for (token, code, words) in [
        ("", 1, "authentication required"),
        (&*fixture.viewer, 1, "role operator required"),
        (&*fixture.operator, 0, "yard"),
    ] {
        let ended = change_model(token);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(words) || ended.text().contains(words), "{ended:?}");
    }
}
