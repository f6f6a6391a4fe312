//! TLS, RTSP, and addresses that others can reach.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use serde_json::json;

use crate::common;
use crate::common::program::{Guard, maskcast, run, until};
use crate::common::service::folder;
use crate::house::{ANNA, House, WALL, add_user, agent, ask, basic, bearer, describe};
use crate::http::every_endpoint;

#[test]
fn over_tls_everything_is_the_same_and_a_new_certificate_is_taken_up() {
    let house = House::new();
    let ca = house.certificate();
    let mut service = house.start("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    assert!(service.page.starts_with("https://") && service.rtsp.starts_with("rtsps://"), "{}", service.page);
    let secure = agent(Some(&ca));
    every_endpoint(&service.page, &secure, &house);
    let page = ask(&secure, "GET", &service.page, &[], None);
    assert_eq!((page.status, page.header("strict-transport-security")), (200, "max-age=31536000"));
    let login = ask(
        &secure,
        "POST",
        &format!("{}api/v1/session", service.page),
        &[],
        Some(&json!({ "user": "wall", "password": WALL })),
    );
    let cookie = login.header("set-cookie").to_string();
    assert!(cookie.starts_with("__Host-maskcast=") && cookie.ends_with("; Secure"), "{cookie}");
    let streams = ask(&secure, "GET", &format!("{}api/v1/streams", service.page), &[("cookie", &cookie)], None).json();
    assert!(streams[0]["links"]["rtsp"].as_str().unwrap().starts_with("rtsps://"), "{streams}");
    let scrape = ask(&secure, "GET", &format!("{}metrics", service.page), &[("cookie", &cookie)], None).body;
    let ends = scrape.lines().find_map(|line| line.strip_prefix("maskcast_certificate_expires_timestamp_seconds "));
    let days = (ends.unwrap().parse::<f64>().unwrap() - UNIX_EPOCH.elapsed().unwrap().as_secs_f64()) / 86400.0;
    assert!((820.0..=825.0).contains(&days), "{days} days");
    // Plain HTTP gets no page there.
    assert!(agent(None).get(service.page.replace("https", "http")).call().is_err());

    // RTSP has TLS, too, and the pictures with it.
    let host = service.rtsp.trim_start_matches("rtsps://").to_string();
    let probe = |url: &str| {
        run(Command::new("ffprobe").args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv", url]))
    };
    let good = probe(&format!("rtsps://wall:{}@{host}gate", WALL.replace(' ', "%20")));
    assert!(good.code == Some(0) && good.text().contains("h264"), "{good:?}");
    assert_ne!(probe(&format!("rtsps://wall:wrong@{host}gate")).code, Some(0));
    assert_ne!(probe(&format!("rtsps://{host}gate")).code, Some(0));
    // Without TLS nobody is served; GStreamer's server leaves such a client waiting.
    let plain = Command::new("ffprobe")
        .args(["-v", "error", "-timeout", "3000000", &format!("rtsp://{host}gate")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!plain.status.success() && !plain.stderr.is_empty(), "{plain:?}");

    // A connection that is open goes on while the pair is exchanged; then only the new one is shown.
    let mut watching = TlsViewer::new(&service.page, &ca, &house.viewer);
    watching.picture();
    std::fs::write(house.folder.path().join("tls/cert.pem"), "broken").unwrap();
    service.program.wait_for("the broken certificate", |entry| {
        entry["message"].as_str()?.contains("the old certificate goes on").then_some(())
    });
    assert_eq!(ask(&agent(Some(&watching.ca)), "GET", &service.page, &[], None).status, 200);
    let ca = house.certificate();
    service
        .program
        .wait_for("the new certificate", |entry| entry["message"].as_str()?.contains("was read again").then_some(()));
    watching.picture();
    until("only the new certificate is shown", || {
        let old = agent(Some(&watching.ca)).get(&service.page).call().is_err();
        (old && ask(&agent(Some(&ca)), "GET", &service.page, &[], None).status == 200).then_some(())
    });
}

/// curl, which watches MJPEG over TLS.
struct TlsViewer {
    _curl: Guard,
    pictures: BufReader<std::process::ChildStdout>,
    /// What it trusts: a copy of the certificate.
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
        let pictures = BufReader::new(curl.0.stdout.take().unwrap());
        TlsViewer { _curl: curl, pictures, ca: copy }
    }

    fn picture(&mut self) {
        let mut line = Vec::new();
        loop {
            line.clear();
            assert_ne!(self.pictures.read_until(b'\n', &mut line).unwrap(), 0, "the server has ended the connection");
            let text = String::from_utf8_lossy(&line);
            if let Some(length) = text.trim_end().strip_prefix("Content-Length: ") {
                let mut picture = vec![0; length.parse::<usize>().unwrap() + 2];
                self.pictures.read_exact(&mut picture).unwrap();
                assert_eq!(picture[2..4], [0xff, 0xd8]);
                return;
            }
        }
    }
}

#[test]
fn rtsp_asks_for_the_same_credentials_and_forgets_who_is_removed() {
    let house = House::new();
    let service = house.start("");
    let host = service.rtsp.trim_start_matches("rtsp://").trim_end_matches('/').to_string();
    let (status, challenge) = describe(&host, "gate", None);
    assert_eq!((status, challenge.as_str()), (401, "Basic realm=\"maskcast\""));
    assert_eq!(describe(&host, "gate", Some(&basic("wall", ANNA))).0, 401);
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 200);
    assert_eq!(describe(&host, "nothing", Some(&basic("wall", WALL))).0, 404);
    // Which streams there are is nobody's business who has not said who they are.
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
    // Who is removed is cut off.
    let mut viewer = common::rtsp::Viewer::play(&url, "tcp", (320, 180));
    viewer.next();
    let users = house.folder.path().join("users.toml");
    let removed = run(maskcast().args(["user", "remove", "wall", "--users"]).arg(&users));
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    let mut service = service;
    service.program.child.signal("HUP");
    service.program.wait_for("the reload", |entry| {
        entry["message"].as_str()?.starts_with("configuration read again").then_some(())
    });
    viewer.ends();
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 401);
    assert_eq!(describe(&host, "gate", Some(&basic("anna", ANNA))).0, 200);
    // The API forgets as fast.
    let streams = format!("{}api/v1/streams", service.page);
    assert_eq!(ask(&agent(None), "GET", &streams, &[("authorization", &basic("wall", WALL))], None).status, 401);
}

#[test]
fn on_a_network_without_tls_rtsp_takes_digests_or_what_the_configuration_allows() {
    let house = House::new();
    let ended = add_user(house.folder.path(), "nvr", "all that was recorded", &["--rtsp-digest"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Nobody else is on the address: it stands for a network's.
    let open = "http = \"127.0.0.1:0\"\nrtsp = \"0.0.0.0:0\"\n";
    let service = house.start(open);
    let host = format!("127.0.0.1:{}", service.rtsp.trim_end_matches('/').rsplit_once(':').unwrap().1);
    let (status, challenge) = describe(&host, "gate", None);
    assert!(status == 401 && challenge.starts_with("Digest realm=\"maskcast\", nonce="), "{status} {challenge}");
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 401, "a password is not even looked at");
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
    // Digests take no time to check: they cannot be tried without end. Who plays goes on.
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
    assert_ne!(probe("nvr", "all that was recorded").code, Some(0), "also the right one, or guessing would go on");
    viewer.next();
    let (_, _, log) = service.terminate();
    assert!(log.contains("login by RTSP refused: too many attempts"), "{log}");
    assert!(log.contains("only users with an RTSP digest can watch"), "{log}");

    let service = house.start(&format!("{open}rtsp_plain_auth = true\n"));
    let host = format!("127.0.0.1:{}", service.rtsp.trim_end_matches('/').rsplit_once(':').unwrap().1);
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 200);
    let (_, _, log) = service.terminate();
    assert!(log.contains("passwords are sent without encryption (rtsp_plain_auth)"), "{log}");
}

#[test]
fn an_open_listener_without_users_ends_with_78() {
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
        // With the user that is asked for, it starts.
        let ended = run(maskcast().args(["user", "token", "hub", "--config"]).arg(&config));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(run(maskcast().arg("check").arg(&config)).code, Some(0));
        std::fs::remove_file(folder.path().join("users.toml")).unwrap();
    }
}

#[test]
fn the_model_is_exchanged_with_a_token_over_tls() {
    let house = House::new();
    let ca = house.certificate();
    let service = house.start("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    let model = house.folder.path().join("yard.onnx");
    std::fs::copy(house.folder.path().join("channels.onnx"), &model).unwrap();
    let exchange = |token: &str| {
        let mut command = maskcast();
        command.args(["model", "use"]).arg(&model).args(["--url", &service.page]).arg("--ca").arg(&ca);
        run(command.env("MASKCAST_TOKEN", token))
    };
    for (token, code, words) in
        [("", 1, "needs a login"), (&*house.viewer, 1, "operators"), (&*house.operator, 0, "yard")]
    {
        let ended = exchange(token);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(words) || ended.text().contains(words), "{ended:?}");
    }
}
