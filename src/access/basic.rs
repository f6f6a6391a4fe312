//! Basic authentication (RFC 7617), which HTTP and RTSP have in common.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// User and password of Basic's base64.
pub fn basic(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
