//! The session cookie.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::problem::Problem;

/// The path of logins and logouts.
pub(super) const PATH: &str = "/api/v1/session";

/// Browsers accept a cookie with this prefix only if it is `Secure`, for `/`, and set by this host: a server on another port or
/// subdomain without TLS cannot set it.
const SECURE_COOKIE: &str = "__Host-maskcast";
const PLAIN_COOKIE: &str = "maskcast";

/// The session id of a request. With TLS the cookie has another name.
pub(super) fn id(headers: &HeaderMap, secure: bool) -> Option<&str> {
    let wanted = if secure { SECURE_COOKIE } else { PLAIN_COOKIE };
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, id)| id)
}

/// The value of `Set-Cookie` for a session that ends after `seconds`.
pub(super) fn cookie(id: &str, seconds: u64, secure: bool) -> Result<HeaderValue, Problem> {
    let (name, secure) = if secure { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    HeaderValue::from_str(&format!("{name}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"))
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the cookie cannot be written".into()))
}
