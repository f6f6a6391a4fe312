//! Authentication and authorisation over HTTP. The input is a request: request line, headers, an empty line, a body. `@TOKEN@`,
//! `@OPERATOR@`, `@BASIC@`, `@SESSION@` and `@CSRF@` are replaced by valid secrets. The real server must refuse every request
//! without the required secrets.
#![no_main]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use libfuzzer_sys::fuzz_target;
use maskcast::access::Access;
use maskcast::config::{Secret, ServerConfig, SourceSpec, defaults_stream};
use maskcast::publish::outputs::StreamOutputs;
use maskcast::server::HttpServer;
use maskcast::users::{Role, Token, User, Users};
use maskcast::view::{ServiceView, StreamView};
use sha2::{Digest, Sha256};

const PASSWORD: &str = "correct horse";
/// `anna:correct horse`
const BASIC: &str = "YW5uYTpjb3JyZWN0IGhvcnNl";
/// Name, role and text.
const TOKENS: [(&str, Role, &str); 2] =
    [("grafana", Role::Viewer, "viewers-token-0123456789"), ("cron", Role::Operator, "operators-token-0123456789")];

struct Service {
    server: HttpServer,
    access: Arc<Access>,
    /// Id and CSRF token.
    session: Mutex<(String, String)>,
}

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    // The cheapest parameters: the strength of the hash is not tested.
    let params = Params::new(8, 1, 1, None).expect("the least");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = SaltString::encode_b64(b"sixteen bytes ok").expect("a salt");
    let hash = argon2.hash_password(PASSWORD.as_bytes(), &salt).expect("a hash").to_string();
    let anna = User { name: "anna".into(), role: Role::Operator, hash: Secret::new(hash), rtsp_digest: None };
    let token =
        |(name, role, text): (&str, Role, &str)| Token { name: name.into(), role, sha256: Sha256::digest(text).into() };
    let users = Users { users: vec![anna], tokens: TOKENS.map(token).into() };
    let config = ServerConfig { users, ..ServerConfig::default() };
    let access = Arc::new(Access::new(&config).expect("random numbers"));
    let address = "127.0.0.1:0".parse().expect("a literal");
    let (view, _) = ServiceView::new(address, Vec::new());
    let source = SourceSpec::parse("test://smpte", "/".as_ref()).expect("a literal");
    let config = defaults_stream("gate", source);
    let stream = StreamView::new(&config, StreamOutputs::default(), &Arc::default());
    view.set_streams(vec![Arc::new(stream)]);
    let whep = Arc::new(maskcast::publish::whep::Whep::new(maskcast::config::WebRtcConfig::default()));
    let bound = HttpServer::bind(address).expect("a port");
    let server = bound.serve_with_access(Arc::new(view), whep, Arc::clone(&access), None).expect("a thread");
    Service { server, access, session: Mutex::default() }
});

/// Statuses for refused requests, and for errors of HTTP itself.
const REFUSED: [u16; 4] = [401, 403, 421, 429];
const HTTP: [u16; 8] = [400, 408, 411, 413, 414, 417, 431, 505];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Service { server, access, session } = &*SERVICE;
    let mut session = session.lock().expect("not poisoned");
    if access.session(&session.0).is_none() {
        let started = access.begin_session("anna").expect("random numbers");
        *session = (started.id, started.csrf.to_string());
    }
    let (id, csrf) = &*session;
    // A password that was correct within the last minute is neither hashed nor counted again.
    assert!(access.password("anna", PASSWORD, None).is_ok());
    let [viewer, operator] = TOKENS.map(|(.., text)| text);
    let request = text
        .replace("@TOKEN@", viewer)
        .replace("@OPERATOR@", operator)
        .replace("@BASIC@", BASIC)
        .replace("@SESSION@", id)
        .replace("@CSRF@", csrf)
        .replace('\n', "\r\n");
    let mut client = TcpStream::connect(server.address()).expect("the server listens");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    client.set_nodelay(true).expect("a socket");
    // Fails when the server has refused the request early and closed the connection.
    let _ = client.write_all(request.as_bytes());
    // The server must not wait for the rest of the body.
    let _ = client.shutdown(std::net::Shutdown::Write);
    let mut line = Vec::new();
    let _ = BufReader::new(client).read_until(b'\n', &mut line);
    let line = String::from_utf8_lossy(&line);
    let Some(status) = line.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)?.parse::<u16>().ok()) else {
        return;
    };
    assert!(status < 500 || status == 503 || status == 505, "{line}");
    if HTTP.contains(&status) {
        return;
    }
    // Empty lines before a request are ignored (RFC 9112, 2.2).
    let mut words = request.trim_start_matches(['\r', '\n']).split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_read = ["GET", "HEAD", "OPTIONS"].contains(&method);
    let path = path_of(target);
    let is_open = match path {
        "/api/v1/session" => true,
        "/" | "/favicon.svg" | "/healthz" | "/readyz" => is_read,
        path => is_read && path.starts_with("/page/"),
    };
    let contains = |secret: &str| request.contains(secret);
    let is_operator = contains(operator) || contains(id) || basic(&request);
    if !is_open && !is_operator && !contains(viewer) {
        assert!(REFUSED.contains(&status), "{line} for an unauthenticated client: {request:?}");
    }
    let own = path.starts_with("/whep/") && ["POST", "PATCH", "DELETE"].contains(&method);
    if !is_open && !is_operator && !is_read && !own {
        assert!(REFUSED.contains(&status), "{line} for a viewer: {request:?}");
    }
    // A page of another site can make a browser send a cookie or Basic credentials, but neither the CSRF token nor a token.
    if path != "/api/v1/session"
        && !is_read
        && contains(id)
        && !contains(csrf)
        && ![viewer, operator].iter().any(|token| contains(token))
        && !basic(&request)
    {
        assert!(REFUSED.contains(&status), "{line} without the CSRF token: {request:?}");
    }
});

/// Whether the request may contain the correct user and password, in any encoding.
fn basic(request: &str) -> bool {
    request.contains("anna") && request.contains(PASSWORD) || request.contains(BASIC)
}

/// The path in the target of a request.
fn path_of(target: &str) -> &str {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    }
}
