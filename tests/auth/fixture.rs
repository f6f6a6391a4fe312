//! A service with users, and requests with credentials.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::common::program::{DEADLINE, Ended, Guard, maskcast, run};
use crate::common::service::{Service, folder};

pub const ANNA: &str = "correct horse battery";
pub const WALL: &str = "staples in a brick";

/// `maskcast user add`, with the password on standard input.
pub fn add_user(folder: &Path, name: &str, password: &str, arguments: &[&str]) -> Ended {
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
pub fn add_token(folder: &Path, name: &str, role: &str) -> String {
    let ended = run(maskcast().args(["user", "token", name, "--role", role, "--users"]).arg(folder.join("users.toml")));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.text()
}

/// A folder with a model, the operator anna, the viewer wall, and one token of each role.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub viewer: String,
    pub operator: String,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = folder();
        for (name, password, role) in [("anna", ANNA, "operator"), ("wall", WALL, "viewer")] {
            let ended = add_user(folder.path(), name, password, &["--role", role]);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
        let viewer = add_token(folder.path(), "scraper", "viewer");
        let operator = add_token(folder.path(), "hub", "operator");
        Fixture { folder, viewer, operator }
    }

    /// Writes the configuration with these lines in `[server]`.
    pub fn config(&self, server: &str, streams: &str) -> PathBuf {
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

    pub fn start(&self, server: &str) -> Service {
        let stream = "[[stream]]\nname = \"gate\"\nsource = \"test://smpte?width=320&height=180&fps=10\"\n";
        let mut service = Service::run(&self.config(server, stream), &[]);
        service.program.wait_for_message("ready");
        service
    }

    /// Creates a self-signed certificate with `maskcast cert`; returns its path.
    pub fn certificate(&self) -> PathBuf {
        let tls = self.folder.path().join("tls");
        let ended =
            run(maskcast().args(["cert", "--force", "--host", "localhost", "--host", "127.0.0.1", "-o"]).arg(&tls));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        tls.join("cert.pem")
    }
}

pub fn agent(ca: Option<&Path>) -> ureq::Agent {
    let mut config =
        ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).timeout_global(Some(DEADLINE));
    if let Some(path) = ca {
        let certificate = ureq::tls::Certificate::from_pem(&std::fs::read(path).unwrap()).unwrap();
        let roots = ureq::tls::RootCerts::Specific(std::sync::Arc::new(vec![certificate]));
        config = config.tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build());
    }
    config.build().into()
}

pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }
}

/// Sends a request. Of an MJPEG response, and of server-sent events, only the head is read.
pub fn send(agent: &ureq::Agent, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
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
    let kind = headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
    let endless = kind.starts_with("multipart") || kind.starts_with("text/event-stream");
    let body = if endless {
        String::new()
    } else {
        String::from_utf8_lossy(&response.body_mut().read_to_vec().unwrap()).into()
    };
    Answer { status, headers, body }
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The status and the challenge of an RTSP DESCRIBE.
pub fn describe(host: &str, path: &str, authorization: Option<&str>) -> (u16, String) {
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
