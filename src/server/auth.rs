//! Access control: every request is checked here before its handler runs.
//!
//! The required role depends on method and path. Unknown combinations require an operator:
//!
//! | request | required |
//! | --- | --- |
//! | the page's own files, `/healthz`, `/readyz`, logging in and out | nothing: they contain no data of streams |
//! | comparisons of models, collected frames | operator |
//! | other `GET`, `HEAD`, `OPTIONS`; all methods of WHEP | viewer |
//! | everything else | operator |
//!
//! Credentials are sent in the `Authorization` header (a token, or user and password with Basic) or as a session cookie. A
//! browser adds cookies and stored passwords also to requests that other sites make it send (CSRF). So a request that
//! changes something must come from a page of this service, and with a cookie it must also have the session's CSRF token.
//! Browsers let pages of any site open WebSockets and read what arrives, so a WebSocket must come from a page of this service.
//! A service without users answers only to its own host names: otherwise a site whose name resolves to 127.0.0.1 could read
//! the streams (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::{App, SharedApp};
use super::client::Client;
use super::collection::is_collection;
use super::connection::ClientConnection;
use super::problem::Problem;
use super::{body, cookie, host};
use crate::access::sessions::equal_in_constant_time;
use crate::access::{Access, Denied, Identity, REALM, basic};
use crate::base::bounded::field;
use crate::users::Role;

/// The access that a request requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredAccess {
    /// None; credentials are ignored.
    Public,
    /// None, but the handler gets the identity of the client if there is one.
    OptionalIdentity,
    Role(Role),
}

/// The access that is required for `method` on `path`.
pub(super) fn required_access(method: &Method, path: &str) -> RequiredAccess {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let is_whep_method = matches!(*method, Method::POST | Method::PATCH | Method::DELETE);
    match path {
        "/healthz" | "/readyz" if reads => RequiredAccess::Public,
        cookie::PATH if *method == Method::POST => RequiredAccess::Public,
        cookie::PATH => RequiredAccess::OptionalIdentity,
        path if reads && is_page_file(path) => RequiredAccess::Public,
        path if is_candidate(path) || is_collection(path) => RequiredAccess::Role(Role::Operator),
        _ if reads => RequiredAccess::Role(Role::Viewer),
        path if is_whep_method && path.starts_with("/whep/") => RequiredAccess::Role(Role::Viewer),
        _ => RequiredAccess::Role(Role::Operator),
    }
}

/// Whether `path` is about comparisons of models: their reports have pictures of cameras that a redacted stream does not show.
fn is_candidate(path: &str) -> bool {
    path.strip_prefix("/api/v1/models/")
        .and_then(|rest| rest.split('/').nth(1))
        .is_some_and(|part| part == "candidates")
}

/// Whether `path` is a file of the page, which needs no login. Data of streams is under other paths.
fn is_page_file(path: &str) -> bool {
    matches!(path, "/" | "/favicon.svg") || path.starts_with("/page/")
}

/// Passes a request to its handler with the [`Identity`] of the client, or refuses it.
pub(super) async fn guard(
    State(app): State<SharedApp>,
    ConnectInfo(peer): ConnectInfo<ClientConnection>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let changes = !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
    let headers = request.headers();
    let trusts = |address| app.access.trusts_proxy(address);
    let client = Client::of(peer.address.ip(), app.tls(), headers, trusts);
    if let Err(error) = host::check(request.version(), headers) {
        // Against request smuggling: no further request is read from this connection.
        return body::refuse_and_close(StatusCode::BAD_REQUEST, error.to_string());
    }
    if let Some(name) = unaccepted_host(&app.access, request.uri(), headers) {
        let detail =
            format!("host name {:?} is not accepted; server.hosts lists the names of this service", field(&name));
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response();
    }
    if (changes || headers.contains_key(header::UPGRADE)) && is_cross_site(headers) {
        return Problem::new(StatusCode::FORBIDDEN, "request refused: it comes from a page of another site".into())
            .into_response();
    }
    let required = required_access(&method, &path);
    let identity = match required {
        RequiredAccess::Public => None,
        RequiredAccess::OptionalIdentity | RequiredAccess::Role(_) => match identify(&app, headers, client).await {
            Ok(identity) => identity,
            Err(refusal) => return refusal,
        },
    };
    if let (true, Some(csrf)) = (changes, identity.as_ref().and_then(|identity| identity.csrf.as_deref())) {
        let sent = headers.get("x-csrf-token").and_then(|token| token.to_str().ok());
        if !sent.is_some_and(|sent| equal_in_constant_time(sent, csrf)) {
            let detail = format!("X-CSRF-Token is missing or wrong; GET {} returns it", cookie::PATH);
            return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
        }
    }
    match (required, &identity) {
        (RequiredAccess::Role(_), None) => {
            return unauthorized(headers, "authentication required: log in, or send a token or user and password");
        }
        (RequiredAccess::Role(role), Some(identity)) if identity.role < role => {
            let detail = match identity.name {
                Some(_) => format!("role {} required; your role is {}", role.name(), identity.role.name()),
                None => format!("role {} required: log in", role.name()),
            };
            // An anonymous client may log in; an authenticated one lacks the role.
            if identity.name.is_none() {
                return unauthorized(headers, &detail);
            }
            return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
        }
        _ => {}
    }
    let name = identity.as_ref().and_then(|identity| identity.name.clone());
    request.extensions_mut().insert(client);
    if let Some(identity) = identity {
        request.extensions_mut().insert(identity);
    }
    let response = next.run(request).await;
    if required == RequiredAccess::Role(Role::Operator) {
        let name = name.as_deref().unwrap_or("an anonymous client");
        let (method, path, address) = (field(method.as_str()), field(&path), client.address);
        tracing::info!("operator request: {method} {path}: {}; by {name} from {address}", response.status());
    }
    response
}

/// The client's identity; `None` if it sends no credentials and anonymous clients are not admitted.
async fn identify(app: &SharedApp, headers: &HeaderMap, client: Client) -> Result<Option<Identity>, Response> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        return match credentials(authorization) {
            Some(RequestCredentials::Bearer(token)) => app.access.token(token).map(Some),
            Some(RequestCredentials::Basic(user, password)) => {
                match check_password(&app.access, user, password, client.address).await {
                    Ok(identity) => Some(Some(identity)),
                    Err(Denied::WrongCredentials) => None,
                    Err(Denied::RateLimited(wait)) => return Err(too_many(wait)),
                }
            }
            None => None,
        }
        .ok_or_else(|| unauthorized(headers, "wrong token, user or password"));
    }
    let session = cookie::id(headers, client.secure).and_then(|id| app.access.session(id));
    Ok(session.or_else(|| anonymous(app, client)))
}

/// The identity of a client without credentials. Without users, clients on this machine have full access; this does not
/// include clients of a proxy on this machine.
pub(super) fn anonymous(app: &App, client: Client) -> Option<Identity> {
    if client.forwarded { app.access.anonymous_by_proxy() } else { app.access.anonymous() }
}

enum RequestCredentials<'a> {
    Bearer(&'a str),
    Basic(String, String),
}

fn credentials(header: &HeaderValue) -> Option<RequestCredentials<'_>> {
    let (scheme, rest) = header.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(RequestCredentials::Bearer(rest));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let (user, password) = basic(rest)?;
    Some(RequestCredentials::Basic(user, password))
}

/// Checks a password on a blocking thread. Returns a refusal only when it may be answered.
pub(super) async fn check_password(
    access: &Arc<Access>,
    user: String,
    password: String,
    from: IpAddr,
) -> Result<Identity, Denied> {
    if let Some(identity) = access.check_remembered(&user, &password, Some(from)) {
        return Ok(identity);
    }
    let access = Arc::clone(access);
    let checked = tokio::task::spawn_blocking(move || access.check(&user, &password, Some(from))).await;
    match checked {
        Ok(Ok(identity)) => Ok(identity),
        Ok(Err(refusal)) => {
            // Not on the blocking thread: refused clients would delay other logins.
            tokio::time::sleep_until(refusal.answer_at.into()).await;
            Err(refusal.denied)
        }
        Err(_) => Err(Denied::WrongCredentials),
    }
}

/// 401 with a challenge. Browsers get a scheme that they ignore: on Basic they would show their own password dialog instead
/// of the page's login form.
pub(super) fn unauthorized(headers: &HeaderMap, detail: &str) -> Response {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let challenge = if agent.starts_with("Mozilla/") || headers.contains_key("sec-fetch-mode") {
        format!("Session realm=\"{REALM}\"")
    } else {
        format!("Basic realm=\"{REALM}\", charset=\"UTF-8\", Bearer realm=\"{REALM}\"")
    };
    with_header(Problem::new(StatusCode::UNAUTHORIZED, detail.into()), header::WWW_AUTHENTICATE, &challenge)
}

/// 429
pub(super) fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let detail = format!("too many wrong passwords; retry in {seconds} s");
    with_header(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail), header::RETRY_AFTER, &seconds.to_string())
}

fn with_header(problem: Problem, name: header::HeaderName, value: &str) -> Response {
    let mut response = problem.into_response();
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The host name of the request, if it is not a name of this service.
fn unaccepted_host(access: &Access, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let mut hosts = hosts.chain(uri.authority().map(Authority::as_str));
    hosts.find(|host| !host.parse::<Authority>().is_ok_and(|host| access.is_own_name(host.host()))).map(str::to_owned)
}

/// Whether a browser sent this request for a page of another site. Programs send neither header; other sites cannot make
/// them send requests.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        // Browsers on plain HTTP. The scheme is not compared: a proxy may terminate TLS.
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != text("host"),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn unknown_paths_and_methods_require_an_operator() {
        for path in ["/", "/page/app.js", "/page/base.css", "/favicon.svg", "/healthz", "/readyz"] {
            assert_eq!(required_access(&Method::GET, path), RequiredAccess::Public, "{path}");
            assert_eq!(required_access(&Method::POST, path), RequiredAccess::Role(Role::Operator), "{path}");
        }
        for path in [
            "/metrics",
            "/metrics.js",
            "/api/v1/streams",
            "/api/v1/x.js",
            "/api/v1/streams/gate/mask.png",
            "/mjpeg/a.css",
            "/whep/a.js",
            "/api/docs",
            "/elsewhere",
            "/elsewhere.js",
            "/page",
            "//page/app.js",
            "/%70age/app.js",
            "/healthz/",
            "//",
        ] {
            assert_eq!(required_access(&Method::GET, path), RequiredAccess::Role(Role::Viewer), "{path}");
            assert_eq!(required_access(&Method::HEAD, path), RequiredAccess::Role(Role::Viewer), "{path}");
            assert_eq!(required_access(&Method::PUT, path), RequiredAccess::Role(Role::Operator), "{path}");
        }
        for method in [Method::POST, Method::PATCH, Method::DELETE] {
            assert_eq!(required_access(&method, "/whep/gate"), RequiredAccess::Role(Role::Viewer));
            assert_eq!(required_access(&method, "/whep/gate/7"), RequiredAccess::Role(Role::Viewer));
            assert_eq!(required_access(&method, "/whepx"), RequiredAccess::Role(Role::Operator));
            assert_eq!(required_access(&method, "/api/v1/streams/gate"), RequiredAccess::Role(Role::Operator));
        }
        assert_eq!(required_access(&Method::PUT, "/whep/gate"), RequiredAccess::Role(Role::Operator));
        // Collected frames are not redacted.
        for path in ["/api/v1/streams/gate/collection", "/api/v1/streams/gate/collection/20260101T000000000Z/image.jpg"]
        {
            assert_eq!(required_access(&Method::GET, path), RequiredAccess::Role(Role::Operator), "{path}");
        }
        assert_eq!(required_access(&Method::POST, "/api/v1/session"), RequiredAccess::Public);
        assert_eq!(required_access(&Method::DELETE, "/api/v1/session"), RequiredAccess::OptionalIdentity);
        assert_eq!(required_access(&Method::from_bytes(b"BREW").unwrap(), "/"), RequiredAccess::Role(Role::Operator));
    }

    #[test]
    fn requests_of_other_sites_are_detected() {
        let cross = |pairs: &[(&'static str, &str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            is_cross_site(&headers.collect())
        };
        assert!(!cross(&[("host", "box:8080")]));
        assert!(!cross(&[("host", "box:8080"), ("origin", "http://box:8080")]));
        assert!(!cross(&[("host", "box"), ("origin", "https://box")]));
        assert!(!cross(&[("host", "inner"), ("origin", "https://outer"), ("sec-fetch-site", "same-origin")]));
        assert!(cross(&[("host", "box:8080"), ("origin", "http://box:81")]));
        assert!(cross(&[("host", "box"), ("origin", "null")]));
        assert!(cross(&[("origin", "http://evil")]));
        assert!(cross(&[("host", "box"), ("origin", "http://box"), ("sec-fetch-site", "cross-site")]));
        assert!(cross(&[("host", "box"), ("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn credentials_are_parsed_from_the_header() {
        let read = |text: &str| match credentials(&HeaderValue::from_str(text).unwrap()) {
            Some(RequestCredentials::Bearer(token)) => format!("bearer {token}"),
            Some(RequestCredentials::Basic(user, password)) => format!("{user} / {password}"),
            None => String::new(),
        };
        assert_eq!(read("Bearer abc"), "bearer abc");
        assert_eq!(read(&format!("basic {}", STANDARD.encode("anna:a:b ü"))), "anna / a:b ü");
        for nothing in ["Basic", "Basic !", "Basic YQ==", "Digest username=\"a\"", "abc"] {
            assert_eq!(read(nothing), "", "{nothing}");
        }
    }
}
