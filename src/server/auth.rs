//! Who may ask for what: one look at every request, before any handler sees it.
//!
//! The rule is made of method and path, and what it does not know it denies:
//!
//! | request | who |
//! | --- | --- |
//! | the page's own files, `/healthz`, `/readyz`, logging in and out | everybody: there is nothing of a stream in them |
//! | `GET`, `HEAD`, `OPTIONS`; whatever is done to one's own WHEP connection | viewers |
//! | everything else | operators |
//!
//! RequestCredentials come in a header (a token, or user and password with Basic) or as a session's cookie. A browser adds cookies
//! (and passwords that it has once asked for) by itself, also to what other sites make it send: so what changes something
//! must come from our own page, and with a cookie it must carry the session's CSRF token as well. Where nobody is asked who
//! they are, only names that are ours are answered: else a site whose name is made to lead to 127.0.0.1 could look, too.

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
use super::connection::ClientConnection;
use super::problem::Problem;
use super::{body, cookie, host};
use crate::access::sessions::same;
use crate::access::{Access, Denied, Identity, REALM, basic};
use crate::base::bounded::field;
use crate::users::Role;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredAccess {
    /// Nothing; who is there is not even looked at.
    Nothing,
    /// Nothing, but the handler wants to know who is there.
    Knowing,
    Role(Role),
}

/// The rule.
pub(super) fn need(method: &Method, path: &str) -> RequiredAccess {
    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let own = matches!(*method, Method::POST | Method::PATCH | Method::DELETE);
    match path {
        "/healthz" | "/readyz" if looks => RequiredAccess::Nothing,
        cookie::PATH if *method == Method::POST => RequiredAccess::Nothing,
        cookie::PATH => RequiredAccess::Knowing,
        path if looks && is_page_file(path) => RequiredAccess::Nothing,
        _ if looks => RequiredAccess::Role(Role::Viewer),
        path if own && path.starts_with("/whep/") => RequiredAccess::Role(Role::Viewer),
        _ => RequiredAccess::Role(Role::Operator),
    }
}

/// The page and what it is made of: the same for everybody. Everything about streams lies below other roots.
fn is_page_file(path: &str) -> bool {
    matches!(path, "/" | "/favicon.svg") || path.starts_with("/page/")
}

/// Lets a request through to its handler, with the [`Identity`] of who asks, or answers it with why not.
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
    if let Err(problem) = host::check(request.version(), headers) {
        // What follows on the connection may not be what it seems, either.
        return body::refuse_and_close(StatusCode::BAD_REQUEST, problem.into());
    }
    if let Some(name) = foreign_name(&app.access, request.uri(), headers) {
        let detail = format!("this service is not known as {:?}; server.hosts lists its names", field(&name));
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response();
    }
    if changes && is_cross_site(headers) {
        return Problem::new(StatusCode::FORBIDDEN, "the request comes from another site's page".into())
            .into_response();
    }
    let need = need(&method, &path);
    let who = match need {
        RequiredAccess::Nothing => None,
        RequiredAccess::Knowing | RequiredAccess::Role(_) => match identify(&app, headers, client).await {
            Ok(who) => who,
            Err(refusal) => return refusal,
        },
    };
    if let (true, Some(csrf)) = (changes, who.as_ref().and_then(|who| who.csrf.as_deref())) {
        let sent = headers.get("x-csrf-token").and_then(|token| token.to_str().ok());
        if !sent.is_some_and(|sent| same(sent, csrf)) {
            let detail = format!("X-CSRF-Token is missing or not the session's; GET {} tells it", cookie::PATH);
            return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
        }
    }
    match (need, &who) {
        (RequiredAccess::Role(_), None) => {
            return unauthorized(headers, "this needs a login, a token, or user and password");
        }
        (RequiredAccess::Role(role), Some(who)) if who.role < role => {
            let detail = match who.name {
                Some(_) => format!("this is for {}s; you are {}", role.name(), who.role.name()),
                None => format!("this is for {}s: log in", role.name()),
            };
            // Who has not said who they are may do so; everybody else is known and may not.
            if who.name.is_none() {
                return unauthorized(headers, &detail);
            }
            return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
        }
        _ => {}
    }
    let name = who.as_ref().and_then(|who| who.name.clone());
    request.extensions_mut().insert(client);
    if let Some(who) = who {
        request.extensions_mut().insert(who);
    }
    let response = next.run(request).await;
    if need == RequiredAccess::Role(Role::Operator) {
        let name = name.as_deref().unwrap_or("somebody");
        let (method, path) = (field(method.as_str()), field(&path));
        tracing::info!("{name} from {}: {method} {path}: {}", client.address, response.status());
    }
    response
}

/// Who asks; `None` when nobody says so and nobody is let in unasked.
async fn identify(app: &SharedApp, headers: &HeaderMap, client: Client) -> Result<Option<Identity>, Response> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        return match credentials(authorization) {
            Some(RequestCredentials::Bearer(token)) => app.access.token(token).map(Some),
            Some(RequestCredentials::Basic(user, password)) => {
                match check(&app.access, user, password, client.address).await {
                    Ok(identity) => Some(Some(identity)),
                    Err(Denied::Wrong) => None,
                    Err(Denied::Limited(wait)) => return Err(too_many(wait)),
                }
            }
            None => None,
        }
        .ok_or_else(|| unauthorized(headers, "no such token, or no such user and password"));
    }
    let session = cookie::id(headers, client.secure).and_then(|id| app.access.session(id));
    Ok(session.or_else(|| anonymous(app, client)))
}

/// What those may do who do not say who they are. Without users whoever is on this machine may do all; but not who comes by
/// way of a proxy on it.
pub(super) fn anonymous(app: &App, client: Client) -> Option<Identity> {
    if client.passed_on { app.access.stranger() } else { app.access.anonymous() }
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

/// Checks a password on a thread that may block. A refusal comes when it may be answered.
pub(super) async fn check(
    access: &Arc<Access>,
    user: String,
    password: String,
    from: IpAddr,
) -> Result<Identity, Denied> {
    if let Some(identity) = access.remembered(&user, &password, Some(from)) {
        return Ok(identity);
    }
    let access = Arc::clone(access);
    let checked = tokio::task::spawn_blocking(move || access.check(&user, &password, Some(from))).await;
    match checked {
        Ok(Ok(identity)) => Ok(identity),
        Ok(Err(refusal)) => {
            // Not on the thread that checks: many who are refused would keep others waiting.
            tokio::time::sleep_until(refusal.answer_at.into()).await;
            Err(refusal.denied)
        }
        Err(_) => Err(Denied::Wrong),
    }
}

/// 401 with what a client could do. A browser would ask for a password by itself on Basic, over the page that has a form
/// for it; it passes over a scheme that it does not know.
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
    let detail = format!("too many wrong passwords; the next attempt may be made in {seconds} s");
    with_header(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail), header::RETRY_AFTER, &seconds.to_string())
}

fn with_header(problem: Problem, name: header::HeaderName, value: &str) -> Response {
    let mut response = problem.into_response();
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The name by which the service was asked for, if it is none of its own.
fn foreign_name(access: &Access, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let asked = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let mut asked = asked.chain(uri.authority().map(Authority::as_str));
    asked.find(|host| !host.parse::<Authority>().is_ok_and(|host| access.is_own_name(host.host()))).map(str::to_owned)
}

/// Whether a browser says that another site's page has made it send this. Programs say nothing, and are no danger: nobody
/// else makes them send anything.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        // Browsers on plain HTTP. The scheme is the browser's own affair: there may be a proxy that does TLS.
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
    fn what_the_rule_does_not_know_is_for_operators() {
        for path in ["/", "/page/app.js", "/page/base.css", "/favicon.svg", "/healthz", "/readyz"] {
            assert_eq!(need(&Method::GET, path), RequiredAccess::Nothing, "{path}");
            assert_eq!(need(&Method::POST, path), RequiredAccess::Role(Role::Operator), "{path}");
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
            assert_eq!(need(&Method::GET, path), RequiredAccess::Role(Role::Viewer), "{path}");
            assert_eq!(need(&Method::HEAD, path), RequiredAccess::Role(Role::Viewer), "{path}");
            assert_eq!(need(&Method::PUT, path), RequiredAccess::Role(Role::Operator), "{path}");
        }
        for method in [Method::POST, Method::PATCH, Method::DELETE] {
            assert_eq!(need(&method, "/whep/gate"), RequiredAccess::Role(Role::Viewer));
            assert_eq!(need(&method, "/whep/gate/7"), RequiredAccess::Role(Role::Viewer));
            assert_eq!(need(&method, "/whepx"), RequiredAccess::Role(Role::Operator));
            assert_eq!(need(&method, "/api/v1/streams/gate"), RequiredAccess::Role(Role::Operator));
        }
        assert_eq!(need(&Method::PUT, "/whep/gate"), RequiredAccess::Role(Role::Operator));
        assert_eq!(need(&Method::POST, "/api/v1/session"), RequiredAccess::Nothing);
        assert_eq!(need(&Method::DELETE, "/api/v1/session"), RequiredAccess::Knowing);
        assert_eq!(need(&Method::from_bytes(b"BREW").unwrap(), "/"), RequiredAccess::Role(Role::Operator));
    }

    #[test]
    fn other_sites_requests_are_told_from_our_own() {
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
    fn credentials_are_read_from_the_header() {
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
