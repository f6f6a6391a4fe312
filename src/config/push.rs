//! `[[stream.push]]`: media servers that a stream is sent to.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use url::Url;

use super::credentials::{Credentials, PasswordAlone, combine};
use super::document::Section;
use super::error::did_you_mean;
use super::source::url_label;
use super::uri::network_url;
use super::value::Value;

/// A media server to which the stream is sent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "PushConfig::nowhere")]
#[schemars(extend("required" = ["url"]))]
pub struct PushConfig {
    /// Address of the server. `rtsp://HOST/PATH` or `rtsps://…`: RTSP RECORD over TCP. `whip+http://HOST/PATH` or
    /// `whip+https://…`: WHIP (RFC 9725). With `rtsps` and `https`, the certificate of the server is checked.
    #[serde(rename = "url")]
    #[schemars(with = "String", extend(
        "x-check" = "push-url",
        "x-help" = "where to: \"rtsp://HOST/PATH\" or \"whip+https://HOST/PATH\"",
    ))]
    pub target: PushTarget,
    /// Without a user, the password is a bearer token, which only WHIP has.
    #[serde(flatten)]
    pub credentials: Option<Credentials>,
}

/// The address of a push, without user and password.
#[derive(Clone, PartialEq)]
pub enum PushTarget {
    /// `rtsp://` or `rtsps://`: the stream is announced and recorded there (RFC 2326).
    Rtsp(Url),
    /// `whip+http://` or `whip+https://`, here without its `whip+` (RFC 9725).
    Whip(Url),
}

impl PushConfig {
    fn nowhere() -> Self {
        let Ok(url) = Url::parse("rtsp://0.0.0.0/") else { unreachable!("it is a URL") };
        PushConfig { target: PushTarget::Rtsp(url), credentials: None }
    }

    /// Adds the credentials of the URL, whose text is `url`; `None` where it is wrong.
    pub(super) fn add_url_credentials(&mut self, section: &Section, url: Option<&str>) {
        let in_url = url.and_then(|url| PushTarget::parse(url).ok()).map(|(_, credentials)| credentials);
        let alone = match self.target {
            PushTarget::Whip(_) => PasswordAlone::IsAToken,
            PushTarget::Rtsp(_) => PasswordAlone::LacksAUser,
        };
        self.credentials = combine(section, self.credentials.take(), in_url, alone);
    }
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
            return Err(("is not a URL".into(), Some(HELP.into())));
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
    /// The label, because a query may contain a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl Serialize for PushTarget {
    /// The label, because a query may contain a token.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl<'de> Deserialize<'de> for PushTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        PushTarget::parse(&text).map(|(target, _)| target).map_err(|(problem, _)| serde::de::Error::custom(problem))
    }
}

pub(super) fn read_url(value: &Value) -> Option<Json> {
    let text = value.string(None)?;
    match PushTarget::parse(text) {
        Ok(_) => Some(text.into()),
        Err((problem, help)) => value.fail(problem, help.as_deref()),
    }
}

/// Checks the pushes of a stream, whose table is `stream`: no two have the same address. `values` are their tables as they
/// were read. Removes pushes without a valid URL, whose errors were reported.
pub(super) fn check_all(pushes: &mut Vec<PushConfig>, stream: &Section, values: &[Json]) {
    for (i, push) in pushes.iter_mut().enumerate() {
        push.add_url_credentials(&stream.element("push", i), values.get(i).and_then(|values| values["url"].as_str()));
    }
    let mut kept: Vec<PushConfig> = Vec::new();
    for (i, push) in pushes.drain(..).enumerate() {
        let section = stream.element("push", i);
        if !section.is_valid("url") {
            continue;
        }
        if kept.iter().any(|other| other.target == push.target) {
            section.fail("url", "is pushed to already, by a table above", Some("remove one of them"));
        } else {
            kept.push(push);
        }
    }
    *pushes = kept;
}
