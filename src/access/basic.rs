//! Basic authentication (RFC 7617), for HTTP and RTSP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// User and password from the Base64 text of Basic; `None` if it is not valid.
pub fn basic(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
