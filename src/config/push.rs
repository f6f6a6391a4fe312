//! Reads `[[stream.push]]`: media servers that a stream is handed on to.

use std::fmt;

use url::Url;

use super::Credentials;
use super::error::did_you_mean;
use super::reader::Section;
use super::source::url_label;
use super::stream::{PasswordAlone, read_credentials};
use super::uri::network_url;

/// `[[stream.push]]`
#[derive(Clone, Debug, PartialEq)]
pub struct PushConfig {
    pub target: PushTarget,
    /// Without a user, the password is a bearer token, which only WHIP knows.
    pub credentials: Option<Credentials>,
}

/// Where to, without user and password.
#[derive(Clone, PartialEq)]
pub enum PushTarget {
    /// `rtsp://` or `rtsps://`: the stream is announced and recorded there (RFC 2326).
    Rtsp(Url),
    /// `whip+http://` or `whip+https://`, here without its `whip+` (RFC 9725).
    Whip(Url),
}

impl PushTarget {
    /// The address for logs, metrics and the API, without anything that may be secret.
    pub fn label(&self) -> String {
        match self {
            PushTarget::Rtsp(url) => url_label(url),
            PushTarget::Whip(url) => format!("whip+{}", url_label(url)),
        }
    }

    pub(super) fn parse(text: &str) -> Result<(PushTarget, Option<Credentials>), (String, Option<String>)> {
        const SCHEMES: [&str; 4] = ["rtsp", "rtsps", "whip+http", "whip+https"];
        const HELP: &str = "write \"rtsp://HOST/PATH\" or \"whip+https://HOST/PATH\"";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(("is no URL".into(), Some(HELP.into())));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "rtsp" | "rtsps" => network_url(text).map(|(url, user)| (PushTarget::Rtsp(url), user)),
            "whip+http" => network_url(&format!("http://{rest}")).map(|(url, user)| (PushTarget::Whip(url), user)),
            "whip+https" => network_url(&format!("https://{rest}")).map(|(url, user)| (PushTarget::Whip(url), user)),
            "http" | "https" | "whip" => Err((
                format!("streams are not pushed by {scheme}://"),
                Some("for WHIP, write \"whip+https://HOST/PATH\"".into()),
            )),
            other => Err((format!("unknown scheme {other:?}"), Some(did_you_mean(other, SCHEMES)))),
        }
    }
}

impl fmt::Debug for PushTarget {
    /// By label: a query may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

/// All of a stream's; what is wrong with the others has been noted.
pub(super) fn read_pushes(stream: &Section) -> Vec<PushConfig> {
    let Some(value) = stream.get("push") else { return Vec::new() };
    if !value.is_array() {
        stream.fail(
            "push",
            "must be tables",
            Some("write [[stream.push]], with two brackets, and below it url = \"…\""),
        );
        return Vec::new();
    }
    let mut pushes: Vec<PushConfig> = Vec::new();
    for table in value.list(None).unwrap_or_default() {
        let Some(section) = table.section() else { continue };
        let Some(push) = read_push(&section) else { continue };
        if pushes.iter().any(|other| other.target == push.target) {
            section.fail("url", "is pushed to already, by a table above", Some("take one of them out"));
            continue;
        }
        pushes.push(push);
    }
    pushes
}

fn read_push(section: &Section) -> Option<PushConfig> {
    let parsed =
        section.require("url", "where to: \"rtsp://HOST/PATH\" or \"whip+https://HOST/PATH\"").and_then(|value| {
            match PushTarget::parse(value.string()?) {
                Ok(parsed) => Some(parsed),
                Err((problem, help)) => value.fail(problem, help.as_deref()),
            }
        });
    let alone = match &parsed {
        Some((PushTarget::Whip(_), _)) => PasswordAlone::IsAToken,
        _ => PasswordAlone::LacksAUser,
    };
    let in_url = parsed.as_ref().and_then(|(_, credentials)| credentials.as_ref());
    let credentials = read_credentials(section, parsed.is_some(), in_url, alone);
    section.finish();
    let (target, _) = parsed?;
    Some(PushConfig { target, credentials })
}
