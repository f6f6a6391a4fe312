//! User and password of a camera or a media server, from its URL or from separate keys.

use std::borrow::Cow;
use std::io::Read;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::document::Section;
use super::value::Value;
use crate::base::secret::Secret;

/// User and password of a camera or a media server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    /// Empty if there is none.
    pub password: Secret,
}

/// The keys for credentials. When they are read, file or variable are replaced by the password that they contain.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Keys {
    /// User name for the camera, the media server or the broker. It may be part of the URL instead.
    #[schemars(extend("x-check" = "user", "x-default" = "none", "x-sources" = ["rtsp", "rtsps", "http", "https"]))]
    user: Option<String>,
    /// File whose first line is the password.
    #[schemars(extend(
        "x-check" = "password-file",
        "x-default" = "none",
        "x-sources" = ["rtsp", "rtsps", "http", "https"],
        "x-secret" = true,
        "x-api" = "remove",
        "x-api-help" = "write user and password into the URL: rtsp://USER:PASSWORD@HOST/PATH",
    ))]
    password_file: Option<String>,
    /// Name of the environment variable that contains the password.
    #[schemars(extend(
        "x-check" = "password-variable",
        "x-default" = "none",
        "x-sources" = ["rtsp", "rtsps", "http", "https"],
        "x-secret" = true,
        "x-api" = "remove",
        "x-api-help" = "write user and password into the URL: rtsp://USER:PASSWORD@HOST/PATH",
    ))]
    password_env: Option<String>,
}

impl JsonSchema for Credentials {
    fn schema_name() -> Cow<'static, str> {
        "Credentials".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Keys::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Credentials {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Keys { user, password_file, password_env } = Keys::deserialize(deserializer)?;
        let password = Secret::new(password_file.or(password_env).unwrap_or_default());
        Ok(Credentials { user: user.unwrap_or_default(), password })
    }
}

impl Serialize for Credentials {
    /// Without the password, because serialised settings are shown to clients of the API.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.user.is_empty() {
            map.serialize_entry("user", &self.user)?;
        }
        map.end()
    }
}

/// The meaning of a password without a user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PasswordAlone {
    LacksAUser,
    IsAToken,
}

/// User and password from the keys and from the URL, each from one place only. `in_url` is `None` where the URL is wrong.
pub(super) fn combine(
    section: &Section,
    keys: Option<Credentials>,
    in_url: Option<Option<Credentials>>,
    alone: PasswordAlone,
) -> Option<Credentials> {
    let is_url_valid = in_url.is_some();
    let in_url = in_url.flatten();
    let has_user = |known: &Credentials| !known.user.is_empty();
    let has_password = |known: &Credentials| !known.password.expose().is_empty();
    let is_password_written = section.is_written("password_file") || section.is_written("password_env");
    let password_key = if section.is_written("password_file") { "password_file" } else { "password_env" };
    let keep_one = Some("keep one of them");
    if section.is_written("password_file") && section.is_written("password_env") {
        section.fail("password_env", "password_file is given, too", keep_one);
    }
    if section.is_written("user") && in_url.as_ref().is_some_and(has_user) {
        section.fail("user", "the URL names a user, too", keep_one);
    }
    if is_password_written && in_url.as_ref().is_some_and(has_password) {
        section.fail(password_key, "the URL holds a password, too", keep_one);
    }
    let names_user = section.is_written("user") || in_url.as_ref().is_some_and(has_user);
    if is_password_written && is_url_valid && !names_user && alone == PasswordAlone::LacksAUser {
        section.fail(password_key, "there is no user for this password", Some("add user = \"…\""));
    }
    let Some(keys) = keys.filter(|keys| has_user(keys) || has_password(keys)) else { return in_url };
    let Some(in_url) = in_url else { return Some(keys) };
    Some(match (has_user(&keys), has_password(&keys)) {
        (true, true) => keys,
        (true, false) => Credentials { password: in_url.password, ..keys },
        (false, _) => Credentials { user: in_url.user, ..keys },
    })
}

pub(super) fn read_user(value: &Value) -> Option<Json> {
    let user = value.string(None)?;
    // Basic (RFC 7617) ends the user at the colon, and the API shows the user: it must not hold the password.
    if user.contains(':') {
        let help = "write the user alone, and the password into the file of password_file";
        return value.fail("contains a colon: is that user and password?", Some(help));
    }
    Some(user.into())
}

/// Maximum size of a password file in bytes.
const LONGEST_PASSWORD: u64 = 4096;

/// Reads the password from the file.
pub(super) fn read_password_file(value: &Value) -> Option<Json> {
    // The name is not repeated: it may be the password, written here by mistake.
    let help = Some("name a file, not the password; relative paths start at the configuration file's folder");
    let path = value.path()?;
    match path.metadata() {
        Ok(metadata) if !metadata.is_dir() => {}
        Ok(_) => return value.fail("is a folder, not a file", help),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return value.fail("no such file", help),
        Err(error) => return value.fail(format!("cannot be read: {error}"), help),
    }
    // A password is one line: a device that never ends must not fill the memory.
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(LONGEST_PASSWORD).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 == LONGEST_PASSWORD => value.fail("is not a password: it is too long", None),
        Ok(_) => {
            let line = text.lines().next().unwrap_or_default();
            match line.trim().is_empty() {
                _ if text.is_empty() => value.fail("the file is empty", None),
                true => value.fail("the first line of the file is empty", Some("write the password in the first line")),
                false => Some(line.into()),
            }
        }
        Err(error) => value.fail(format!("cannot be read: {error}"), help),
    }
}

/// Reads the password from the environment variable.
pub(super) fn read_password_variable(value: &Value) -> Option<Json> {
    let name = value.string(None)?;
    match value.doc.env(name) {
        Some(text) if !text.is_empty() => Some(text.into()),
        // The name is not repeated: it may be the password, written here by mistake.
        Some(_) => value.fail("the environment variable of this name is empty", None),
        None => value.fail("there is no environment variable of this name", Some("name a variable, not the password")),
    }
}
