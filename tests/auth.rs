//! Closed by default: every endpoint without credentials, with a viewer's and with an operator's, over HTTP, TLS and RTSP.
//! The points of OWASP ASVS that apply are listed with these tests in SECURITY.md.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use common::program::{DEADLINE, Ended, Guard, maskcast, run, until};
use common::service::{Service, folder};

const ANNA: &str = "correct horse battery";
const WALL: &str = "staples in a brick";

/// Camera passwords and tokens that must not turn up anywhere.
const CAMERA: &str = "rtsp://admin:hunter2-camera@127.0.0.1:9/live?token=hunter2-query";

/// `maskcast user add`, with the password on standard input.
fn add_user(folder: &Path, name: &str, password: &str, arguments: &[&str]) -> Ended {
    let mut child = Guard::spawn(
        maskcast()
            .args(["user", "add", name, "--password-stdin", "--users"])
            .arg(folder.join("users.toml"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    child.0.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let status = child.wait(DEADLINE);
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    child.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    child.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ended { code: status.code(), stdout, stderr }
}

/// `maskcast user token`.
fn add_token(folder: &Path, name: &str, role: &str) -> String {
    let ended = run(maskcast().args(["user", "token", name, "--role", role, "--users"]).arg(folder.join("users.toml")));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.text()
}

/// A folder with a model, the operator anna, the viewer wall, and a token of each role.
struct House {
    folder: tempfile::TempDir,
    viewer: String,
    operator: String,
}

impl House {
    fn new() -> Self {
        let folder = folder();
        for (name, password, role) in [("anna", ANNA, "operator"), ("wall", WALL, "viewer")] {
            let ended = add_user(folder.path(), name, password, &["--role", role]);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
        let viewer = add_token(folder.path(), "scraper", "viewer");
        let operator = add_token(folder.path(), "hub", "operator");
        House { folder, viewer, operator }
    }

    /// Writes the configuration with these lines in `[server]`.
    fn config(&self, server: &str, streams: &str) -> PathBuf {
        let path = self.folder.path().join("maskcast.toml");
        let server = if server.contains("http =") {
            server.to_string()
        } else {
            format!("http = \"127.0.0.1:0\"\nrtsp = \"127.0.0.1:0\"\n{server}")
        };
        let text = format!(
            "[model]\npath = \"channels.onnx\"\nproviders = [\"cpu\"]\nworkers = 1\nthreads = 1\n\
             [server]\n{server}\n{streams}"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn start(&self, server: &str) -> Service {
        let stream = "[[stream]]\nname = \"gate\"\nsource = \"test://smpte?width=320&height=180&fps=10\"\n";
        let mut service = Service::run(&self.config(server, stream), &[]);
        service.program.wait_for_message("ready");
        service
    }

    /// The self-signed pair, by `maskcast cert`.
    fn certificate(&self) -> PathBuf {
        let tls = self.folder.path().join("tls");
        let ended =
            run(maskcast().args(["cert", "--force", "--host", "localhost", "--host", "127.0.0.1", "-o"]).arg(&tls));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        tls.join("cert.pem")
    }
}

fn agent(ca: Option<&Path>) -> ureq::Agent {
    let mut config =
        ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).timeout_global(Some(DEADLINE));
    if let Some(path) = ca {
        let certificate = ureq::tls::Certificate::from_pem(&std::fs::read(path).unwrap()).unwrap();
        let roots = ureq::tls::RootCerts::Specific(std::sync::Arc::new(vec![certificate]));
        config = config.tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build());
    }
    config.build().into()
}

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }
}

/// A request; of an endless answer only the head.
fn ask(agent: &ureq::Agent, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = match body {
        Some(body) => {
            agent.run(request.header("content-type", "application/json").body(body.to_string()).unwrap()).unwrap()
        }
        None if matches!(method, "POST" | "PUT" | "PATCH") => agent.run(request.body(String::new()).unwrap()).unwrap(),
        None => agent.run(request.body(()).unwrap()).unwrap(),
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let endless = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"multipart"));
    let body = if endless {
        String::new()
    } else {
        String::from_utf8_lossy(&response.body_mut().read_to_vec().unwrap()).into()
    };
    Answer { status, headers, body }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Every route of the server, with a name in the place of each parameter. Read from the router and from the API's own
/// document, so that a route that is added is tried, too.
fn routes(page: &str, agent: &ureq::Agent, token: &str) -> Vec<String> {
    let document = ask(agent, "GET", &format!("{page}api/v1/openapi.json"), &[("authorization", &bearer(token))], None);
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/mod.rs")).unwrap();
    let written = source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_string());
    let mut found: Vec<String> = document.json()["paths"].as_object().unwrap().keys().cloned().chain(written).collect();
    for route in &mut found {
        *route = route.replace("{name}", "gate").replace("{file}", "x.mp4").replace("{id}", "7");
        assert!(!route.contains('{'), "{route}: what stands for its parameter?");
    }
    // Last: as an operator it takes the stream away.
    found.sort_by_key(|route| route == "/api/v1/streams/gate");
    found.dedup();
    assert!(found.len() > 12 && found.iter().any(|route| route == "/mjpeg/gate"), "{found:?}");
    found
}

const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// What an answer says of the one who asked.
#[derive(Debug, PartialEq)]
enum Seen {
    Stranger,
    Forbidden,
    LetIn,
}

fn seen(status: u16) -> Seen {
    match status {
        401 => Seen::Stranger,
        403 => Seen::Forbidden,
        _ => Seen::LetIn,
    }
}

fn every_endpoint(page: &str, agent: &ureq::Agent, house: &House) {
    let (viewer, operator) = (bearer(&house.viewer), bearer(&house.operator));
    for route in routes(page, agent, &house.operator) {
        let url = format!("{}{}", page.trim_end_matches('/'), route);
        let is_session = route == "/api/v1/session";
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let looks = matches!(method, "GET" | "HEAD");
            let whep = route.starts_with("/whep/") && matches!(method, "POST" | "PATCH" | "DELETE");
            let try_as = |authorization: Option<&str>| {
                let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
                let answer = ask(agent, method, &url, &headers, None);
                if matches!(answer.status, 401 | 403) {
                    assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {route}");
                }
                seen(answer.status)
            };
            let (nobody, wrong) = (try_as(None), try_as(Some("Bearer maskcast_wrong")));
            if looks && OPEN.contains(&route.as_str()) {
                assert_eq!((nobody, wrong), (Seen::LetIn, Seen::LetIn), "{method} {route}");
            } else if is_session && matches!(method, "POST" | "DELETE" | "PUT" | "PATCH") {
                // Logging in and out is for everybody; there is nothing else.
                assert_eq!(nobody, Seen::LetIn, "{method} {route}");
            } else {
                assert_eq!((nobody, wrong), (Seen::Stranger, Seen::Stranger), "{method} {route}");
            }
            let expected = if looks || whep || is_session { Seen::LetIn } else { Seen::Forbidden };
            assert_eq!(try_as(Some(&viewer)), expected, "{method} {route} as a viewer");
            assert_eq!(try_as(Some(&operator)), Seen::LetIn, "{method} {route} as an operator");
        }
    }
}

#[test]
fn every_endpoint_asks_who_is_there() {
    let house = House::new();
    let service = house.start("");
    let agent = agent(None);
    every_endpoint(&service.page, &agent, &house);
    // Basic is the same; a browser is not made to ask by itself.
    let url = format!("{}api/v1/streams", service.page);
    let wrong = ask(&agent, "GET", &url, &[("authorization", &basic("wall", ANNA))], None);
    assert_eq!((wrong.status, wrong.header("www-authenticate").starts_with("Basic ")), (401, true));
    let browser = ask(&agent, "GET", &url, &[("user-agent", "Mozilla/5.0 (X11)")], None);
    assert_eq!((browser.status, browser.header("www-authenticate")), (401, "Session realm=\"maskcast\""));
    assert_eq!(ask(&agent, "GET", &url, &[("authorization", &basic("wall", WALL))], None).status, 200);
    // Who may not know what there is learns no names, neither from readiness nor from what is not there.
    let missing = ask(&agent, "GET", &format!("{}mjpeg/nothing", service.page), &[], None);
    assert_eq!((missing.status, missing.body.contains("gate")), (401, false));
    // The page's own files are for everybody: the login form is in them.
    let page = ask(&agent, "GET", &service.page, &[], None);
    assert_eq!((page.status, page.header("strict-transport-security")), (200, ""));
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_session_looks_and_changes_only_with_its_token() {
    let house = House::new();
    let service = house.start("");
    let agent = agent(None);
    let session = format!("{}api/v1/session", service.page);
    let model = format!("{}api/v1/model", service.page);
    let wish = json!({ "path": "/nowhere/x.onnx" });
    let login = |user: &str, password: &str, headers: &[(&str, &str)]| {
        ask(&agent, "POST", &session, headers, Some(&json!({ "user": user, "password": password })))
    };
    assert_eq!(login("anna", WALL, &[]).status, 401);
    assert_eq!(login("nobody", WALL, &[]).status, 401);
    assert_eq!(login("anna", ANNA, &[("sec-fetch-site", "cross-site")]).status, 403);
    assert_eq!(ask(&agent, "POST", &session, &[], Some(&json!({ "user": "anna" }))).status, 422);
    let long = json!({ "user": "anna", "password": "x".repeat(5000) });
    assert_eq!(ask(&agent, "POST", &session, &[], Some(&long)).status, 413);

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
    assert_eq!(ask(&agent, "GET", &session, &[("cookie", &cookie)], None).json(), report);
    assert_eq!(ask(&agent, "GET", &session, &[], None).status, 401);

    let change = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = [("cookie", cookie.as_str())].into_iter().chain(headers.iter().copied()).collect();
        ask(&agent, "POST", &model, &headers, Some(&wish)).status
    };
    assert_eq!(change(&[]), 403);
    assert_eq!(change(&[("x-csrf-token", "guess")]), 403);
    assert_eq!(change(&[("x-csrf-token", &csrf), ("origin", "http://evil.example")]), 403);
    assert_eq!(change(&[("x-csrf-token", &csrf), ("sec-fetch-site", "same-site")]), 403);
    let own = service.page.trim_end_matches('/').to_string();
    assert_eq!(change(&[("x-csrf-token", &csrf), ("origin", &own)]), 202);

    // A viewer's session changes nothing; a new login ends the old session; logging out ends it for good.
    let wall = login("wall", WALL, &[("cookie", &cookie)]);
    assert_eq!(ask(&agent, "GET", &session, &[("cookie", &cookie)], None).status, 401);
    let cookie = wall.header("set-cookie").split(';').next().unwrap().to_string();
    let csrf = wall.json()["csrf"].as_str().unwrap().to_string();
    let headers = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    assert_eq!(ask(&agent, "POST", &model, &headers, Some(&wish)).status, 403);
    assert_eq!(ask(&agent, "DELETE", &session, &headers[..1], None).status, 403);
    let out = ask(&agent, "DELETE", &session, &headers, None);
    assert!(out.status == 204 && out.header("set-cookie").contains("Max-Age=0"), "{}", out.status);
    assert_eq!(ask(&agent, "GET", &session, &headers, None).status, 401);
    let (_, _, log) = service.terminate();
    assert!(log.contains("anna has logged in from 127.0.0.1 as operator"), "{log}");
    assert!(log.contains("POST /api/v1/model: 202"), "{log}");
}

#[test]
fn passwords_cannot_be_tried_without_end() {
    let house = House::new();
    let service = house.start("");
    let agent = agent(None);
    let session = format!("{}api/v1/session", service.page);
    let login = |user: &str, password: &str| {
        ask(&agent, "POST", &session, &[], Some(&json!({ "user": user, "password": password })))
    };
    let mut answers = (0..30).map(|_| login("anna", "a wrong passphrase"));
    let limited = answers.find(|answer| answer.status != 401).expect("thirty wrong passwords");
    assert_eq!((limited.status, limited.json()["status"].as_u64()), (429, Some(429)));
    assert!((1..=6).contains(&limited.header("retry-after").parse::<u64>().unwrap()));
    assert_eq!(login("anna", ANNA).status, 429, "also with the right one, or guessing would go on");
    // Others are not locked out by it, neither are programs.
    assert_eq!(login("wall", WALL).status, 200);
    let metrics = format!("{}metrics", service.page);
    assert_eq!(ask(&agent, "GET", &metrics, &[("authorization", &bearer(&house.viewer))], None).status, 200);
    let (_, _, log) = service.terminate();
    assert!(log.contains("login of anna from 127.0.0.1 refused: too many attempts"), "{log}");
    assert!(!log.contains("a wrong passphrase"), "{log}");
}

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

/// The status of an RTSP request, and the challenge.
fn describe(host: &str, path: &str, authorization: Option<&str>) -> (u16, String) {
    let mut connection = TcpStream::connect(host).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let line = authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
    write!(connection, "DESCRIBE rtsp://{host}/{path} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n{line}\r\n")
        .unwrap();
    let mut lines = BufReader::new(connection).lines().map(Result::unwrap);
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let challenge = head.iter().find_map(|line| line.strip_prefix("WWW-Authenticate: "));
    (status, challenge.unwrap_or_default().to_string())
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
    let (_, _, log) = service.terminate();
    assert!(log.contains("only users with an RTSP digest can watch there"), "{log}");

    let service = house.start(&format!("{open}rtsp_plain_auth = true\n"));
    let host = format!("127.0.0.1:{}", service.rtsp.trim_end_matches('/').rsplit_once(':').unwrap().1);
    assert_eq!(describe(&host, "gate", Some(&basic("wall", WALL))).0, 200);
    let (_, _, log) = service.terminate();
    assert!(log.contains("passwords can be read on their way (rtsp_plain_auth)"), "{log}");
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
fn anonymous_viewers_look_and_change_nothing() {
    let house = House::new();
    let service = house.start("allow_anonymous = true");
    let agent = agent(None);
    let url = |path: &str| format!("{}{path}", service.page);
    for path in ["api/v1/streams", "metrics", "api/v1/model", "mjpeg/gate"] {
        assert_eq!(ask(&agent, "GET", &url(path), &[], None).status, 200, "{path}");
    }
    let session = ask(&agent, "GET", &url("api/v1/session"), &[], None).json();
    assert_eq!(session, json!({ "user": null, "role": "viewer", "csrf": null, "login": true }));
    let wish = json!({ "path": "/nowhere/x.onnx" });
    let change = |headers: &[(&str, &str)]| ask(&agent, "POST", &url("api/v1/model"), headers, Some(&wish)).status;
    assert_eq!(change(&[]), 401);
    assert_eq!(change(&[("authorization", &bearer(&house.viewer))]), 403);
    assert_eq!(change(&[("authorization", &bearer(&house.operator))]), 202);
    let host = service.rtsp.trim_start_matches("rtsp://").trim_end_matches('/').to_string();
    assert_eq!(describe(&host, "gate", None).0, 200);
}

/// A page of another site whose name is made to lead to 127.0.0.1 could read the cameras, and change them.
#[test]
fn without_users_only_own_names_and_own_pages_are_answered() {
    let folder = folder();
    let service = Service::ready(folder.path(), "[[stream]]\nname = \"gate\"\nsource = \"test://ball\"\n");
    let agent = agent(None);
    let url = format!("{}api/v1/streams", service.page);
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"] {
        let answer = ask(&agent, "GET", &url, &[("host", host)], None);
        assert_eq!((answer.status, answer.json()["status"].as_u64()), (421, Some(421)), "{host}");
    }
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(ask(&agent, "GET", &url, &[("host", host)], None).status, 200, "{host}");
    }
    let wish = json!({ "path": "/nowhere/x.onnx" });
    let model = format!("{}api/v1/model", service.page);
    assert_eq!(ask(&agent, "POST", &model, &[("origin", "http://evil.example")], Some(&wish)).status, 403);
    assert_eq!(ask(&agent, "POST", &model, &[], Some(&wish)).status, 202);
}

#[test]
fn secrets_turn_up_nowhere() {
    let house = House::new();
    let stream = format!("[[stream]]\nname = \"gate\"\nsource = \"{CAMERA}\"\n");
    let mut service = Service::run(&house.config("", &stream), &[("MASKCAST_LOG", "debug")]);
    service.program.wait_for_message("ready");
    let agent = agent(None);
    let auth = bearer(&house.operator);
    let session = format!("{}api/v1/session", service.page);
    // Typed into the wrong field, and sent in the wrong form.
    ask(&agent, "POST", &session, &[], Some(&json!({ "user": ANNA, "password": "x" })));
    ask(&agent, "POST", &session, &[], Some(&json!({ "user": "anna", "pass": ANNA })));
    let login = ask(&agent, "POST", &session, &[], Some(&json!({ "user": "anna", "password": ANNA })));
    let cookie = login.header("set-cookie").split([';', '=']).nth(1).unwrap().to_string();
    let csrf = login.json()["csrf"].as_str().unwrap().to_string();
    let mut said = String::new();
    for route in routes(&service.page, &agent, &house.operator).iter().filter(|route| !route.starts_with("/mjpeg")) {
        let url = format!("{}{}", service.page.trim_end_matches('/'), route);
        said += &ask(&agent, "GET", &url, &[("authorization", &auth)], None).body;
        said += &ask(&agent, "GET", &url, &[("authorization", &basic("anna", ANNA))], None).body;
    }
    let ended = run(maskcast().args(["user", "list", "--users"]).arg(house.folder.path().join("users.toml")));
    said += &ended.text();
    let (_, _, log) = service.terminate();
    let file = std::fs::read_to_string(house.folder.path().join("users.toml")).unwrap();
    for secret in ["hunter2", ANNA, WALL, &house.operator, &house.viewer, &cookie, &csrf, "$argon2"] {
        assert!(!log.contains(secret), "the log holds {secret}:\n{log}");
        assert!(!said.contains(secret), "an answer holds {secret}:\n{said}");
        if secret != "$argon2" {
            assert!(!file.contains(secret), "the users file holds {secret}");
        }
    }
}

#[test]
fn users_are_made_listed_changed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.toml");
    let command = |arguments: &[&str]| run(maskcast().arg("user").args(arguments).arg("--users").arg(&users));
    let weak = add_user(folder.path(), "anna", "short", &[]);
    assert!(
        weak.code == Some(1) && weak.stderr.contains("12 characters at least") && !users.exists(),
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
    // Without a terminal it does not wait for one; a password is never an argument.
    let ended = command(&["add", "bert"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--password-stdin"), "{}", ended.stderr);
    assert_eq!(command(&["add", "bert", "--password", ANNA]).code, Some(2));
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
