//! `[[webhook]]`: HTTP servers to which events are sent.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use url::Url;

use super::document::Section;
use super::duration::DurationText;
use super::error::did_you_mean;
use super::uri::network_url;
use super::value::Value;
use crate::base::secret::Secret;

/// An HTTP server to which a JSON object is sent when an event starts and when it ends. See [Webhooks](webhooks.md).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "WebhookConfig::nowhere")]
#[schemars(extend("required" = ["name", "url"], "x-applies" = "reload"))]
pub struct WebhookConfig {
    /// Unique name for logs and metrics: a letter, then letters, digits, `-` and `_`, at most 32 characters.
    #[schemars(length(min = 1, max = 32), extend("x-check" = "event-name", "x-help" = "write name = \"alarm\""))]
    pub name: String,
    /// Address of the server, `https://HOST/PATH` or `http://HOST/PATH`. The certificate of the server is checked. A host name
    /// whose address is of this machine, its link, or the metadata service of a cloud is refused; write the IP address or
    /// `localhost` to send there.
    #[schemars(with = "String", extend("x-check" = "webhook-url", "x-secret" = true, "x-help" = "write \"https://HOST/PATH\""))]
    pub url: WebhookUrl,
    #[serde(flatten)]
    pub secret: WebhookSecret,
    /// Names of the streams whose events are sent.
    #[schemars(extend("x-check-items" = "stream-name", "x-default" = "all streams", "x-help" = "write [\"gate\"]"))]
    pub streams: Vec<String>,
    /// Names of the rules and recorded events whose events are sent.
    #[schemars(extend("x-check-items" = "event-name", "x-default" = "all rules", "x-help" = "write [\"blocked\"]"))]
    pub rules: Vec<String>,
    /// How long a request may take.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "1s", "x-most" = "1m"))]
    pub timeout: Duration,
}

impl WebhookConfig {
    /// A webhook with the default settings.
    pub fn new(name: &str, url: Url) -> Self {
        WebhookConfig {
            name: name.to_owned(),
            url: WebhookUrl(url),
            secret: WebhookSecret(None),
            streams: Vec::new(),
            rules: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }

    fn nowhere() -> Self {
        let Ok(url) = Url::parse("http://0.0.0.0/") else { unreachable!("it is a URL") };
        WebhookConfig::new("", url)
    }
}

/// The address of a webhook. Its path and query may be a secret and are not shown.
#[derive(Clone, PartialEq)]
pub struct WebhookUrl(pub Url);

impl WebhookUrl {
    /// Scheme, host and port.
    pub fn label(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        const HELP: &str = "write \"https://HOST/PATH\"";
        let Some((scheme, _)) = text.split_once("://") else { return Err(("is not a URL".into(), Some(HELP.into()))) };
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err((format!("unknown scheme {scheme:?}"), Some(did_you_mean(&scheme, ["http", "https"]))));
        }
        match network_url(text)? {
            (url, None) => Ok(WebhookUrl(url)),
            (_, Some(_)) => {
                let help = "the server checks the signature instead; or put its token into the path or the query";
                Err(("contains a user or password, which is not sent".into(), Some(help.into())))
            }
        }
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl<'de> Deserialize<'de> for WebhookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        WebhookUrl::parse(&text).map_err(|(problem, _)| serde::de::Error::custom(problem))
    }
}

/// The secret with which requests are signed; `None`: they are not signed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WebhookSecret(pub Option<Secret>);

/// The keys for the secret. When they are read, file or variable are replaced by the secret that they contain.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Keys {
    /// File whose first line is the secret for signing requests (HMAC-SHA256). Without a secret they are not signed.
    #[schemars(extend("x-check" = "password-file", "x-default" = "none", "x-secret" = true))]
    secret_file: Option<String>,
    /// Name of the environment variable that contains the secret.
    #[schemars(extend("x-check" = "password-variable", "x-default" = "none", "x-secret" = true))]
    secret_env: Option<String>,
}

impl JsonSchema for WebhookSecret {
    fn schema_name() -> Cow<'static, str> {
        "WebhookSecret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Keys::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for WebhookSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Keys { secret_file, secret_env } = Keys::deserialize(deserializer)?;
        Ok(WebhookSecret(secret_file.or(secret_env).map(Secret::new)))
    }
}

impl Serialize for WebhookSecret {
    /// Without the secret.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

pub(super) fn read_url(value: &Value) -> Option<Json> {
    let text = value.string(None)?;
    match WebhookUrl::parse(text) {
        Ok(_) => Some(text.into()),
        Err((problem, help)) => value.fail(problem, help.as_deref()),
    }
}

/// Checks what concerns several keys of the webhooks of a configuration, and removes those with errors, which were reported.
pub(super) fn check_all(webhooks: &mut Vec<WebhookConfig>, root: &Section) {
    let mut place = 0;
    webhooks.retain(|webhook| {
        let section = match webhook.name.as_str() {
            "" => root.element("webhook", place),
            name => root.element("webhook", name),
        };
        place += 1;
        if section.is_written("secret_file") && section.is_written("secret_env") {
            section.fail("secret_env", "secret_file is given, too", Some("keep one of them"));
        }
        !webhook.name.is_empty() && section.is_valid("url")
    });
}
