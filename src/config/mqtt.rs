//! `[mqtt]`: the broker to which states, shares and events are sent.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::credentials::{Credentials, PasswordAlone, combine};
use super::document::Section;
use super::duration::DurationText;
use super::error::did_you_mean;
use super::uri::network_url;
use super::value::Value;
use crate::base::paths::state_folders;

/// The MQTT broker to which states, shares of classes and events are sent. `docs/mqtt.md` lists the topics.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "MqttConfig::nowhere")]
#[schemars(extend("required" = ["url"], "x-applies" = "reload"))]
pub struct MqttConfig {
    /// Address of the broker: `mqtt://HOST:1883`, or with TLS `mqtts://HOST:8883`. The port may be omitted.
    #[serde(rename = "url")]
    #[schemars(with = "String", extend(
        "x-check" = "broker-url",
        "x-help" = "where to: \"mqtt://HOST:1883\" or \"mqtts://HOST:8883\"",
    ))]
    pub broker: Broker,
    #[serde(flatten)]
    pub credentials: Option<Credentials>,
    /// Version of the protocol: `3` is MQTT 3.1.1, `5` is MQTT 5.
    #[schemars(range(min = 3, max = 5), extend("x-help" = "write 3 for MQTT 3.1.1 or 5 for MQTT 5"))]
    pub version: u8,
    /// PEM file with the certificates of the authorities that may have signed the broker's certificate, for `mqtts://`.
    #[serde(with = "super::path::optional")]
    #[schemars(with = "String", extend("x-check" = "existing-file", "x-default" = "the authorities of the system"))]
    pub ca: Option<PathBuf>,
    /// Name of this client. Two clients of a broker must not have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), extend(
        "x-check" = "client-id",
        "x-default" = "`prefix` and the name of this machine, `maskcast-HOSTNAME`",
    ))]
    pub client_id: Option<String>,
    /// First level of all topics. Services that share a broker need different ones.
    #[schemars(extend("x-check" = "topic", "x-help" = "write prefix = \"maskcast\""))]
    pub prefix: String,
    /// Minimum time between two messages about the shares of a stream. States and events are sent at once.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "100ms", "x-most" = "1h"))]
    pub every: Duration,
    /// Shares are sent only if the share of a class differs by this much from the last message, and once a minute. 0: all
    /// are sent.
    #[schemars(range(min = 0, max = 1), extend("x-help" = "a share of the pixels; 0.01 is a hundredth"))]
    pub deadband: f64,
    /// The discovery prefix of Home Assistant, to which descriptions of all entities are sent, or `"off"`.
    #[schemars(extend("x-check" = "topic", "x-help" = "write \"homeassistant\" or \"off\""))]
    pub discovery: String,
    /// Classes that have a sensor in Home Assistant for the frame and for each zone of a stream.
    #[schemars(with = "Vec<String>", extend("x-default" = "the classes of each rule, in its zone"))]
    pub discovery_classes: Option<Vec<String>>,
    /// Images of the streams are sent: at the start of an event, and every `snapshot_every`.
    pub snapshots: bool,
    /// Time between two images of a stream without events.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "10s", "x-most" = "1d"))]
    pub snapshot_every: Duration,
    /// Messages about events that are stored while the broker cannot be reached. When there are more, the oldest are lost.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-help" = "a number of messages"))]
    pub queue_size: u32,
    /// Folder of the file `mqtt.sqlite` with these messages. Without a folder, they are lost at a restart.
    #[serde(with = "super::path::optional")]
    #[schemars(with = "String", extend(
        "x-check" = "folder",
        "x-default" = "`$STATE_DIRECTORY` (set by systemd), else none",
    ))]
    pub queue_dir: Option<PathBuf>,
}

/// The address of a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Broker {
    /// A name or an IP address; IPv6 addresses without brackets.
    pub host: String,
    pub port: u16,
    /// `mqtts://`
    pub is_tls: bool,
}

impl MqttConfig {
    /// A broker with the default settings.
    pub fn of(broker: Broker) -> Self {
        MqttConfig {
            broker,
            credentials: None,
            version: 3,
            ca: None,
            client_id: None,
            prefix: "maskcast".into(),
            every: Duration::from_secs(1),
            deadband: 0.0,
            discovery: "homeassistant".into(),
            discovery_classes: None,
            snapshots: true,
            snapshot_every: Duration::from_secs(60),
            queue_size: 10_000,
            queue_dir: None,
        }
    }

    fn nowhere() -> Self {
        MqttConfig::of(Broker { host: String::new(), port: 1883, is_tls: false })
    }

    /// The discovery prefix; `None` if discovery is off.
    pub fn discovery_prefix(&self) -> Option<&str> {
        Some(self.discovery.as_str()).filter(|prefix| *prefix != "off")
    }

    /// Adds the credentials of the URL and the state folder, and checks what concerns several keys. `values` is the table as
    /// it was read.
    pub(super) fn apply_dependent_defaults(&mut self, section: &Section, values: &Json) {
        let in_url = values["url"].as_str().and_then(|url| Broker::parse(url).ok()).map(|(_, credentials)| credentials);
        self.credentials = combine(section, self.credentials.take(), in_url, PasswordAlone::LacksAUser);
        if self.version == 4 {
            section.fail("version", "there is no version 4", Some("write 3 for MQTT 3.1.1 or 5 for MQTT 5"));
        }
        if self.queue_dir.is_none() && !section.is_written("queue_dir") {
            let state = section.doc().env("STATE_DIRECTORY").unwrap_or_default();
            self.queue_dir = state_folders(state.as_ref()).next();
        }
        if let Some(ca) = self.ca.as_ref().filter(|_| section.is_valid("ca")) {
            if section.is_valid("url") && !self.broker.is_tls {
                section.fail("ca", "has no meaning without TLS", Some("write url = \"mqtts://…\""));
            } else if let Err(problem) = read_authorities(ca) {
                section.fail("ca", problem, Some("a PEM file with certificates of authorities"));
            }
        }
    }
}

/// The certificates of a PEM file.
fn read_authorities(path: &std::path::Path) -> Result<(), String> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if found.is_empty() { Err("contains no certificate".into()) } else { Ok(()) }
}

impl Broker {
    /// The address for logs, metrics and the API: `mqtt://HOST:PORT`.
    pub fn label(&self) -> String {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => format!("{scheme}://[{}]:{}", self.host, self.port),
            false => format!("{scheme}://{}:{}", self.host, self.port),
        }
    }

    pub(super) fn parse(text: &str) -> Result<(Broker, Option<Credentials>), (String, Option<String>)> {
        const HELP: &str = "write \"mqtt://HOST:1883\" or \"mqtts://HOST:8883\"";
        let Some((scheme, _)) = text.split_once("://") else {
            return Err(("is not a URL".into(), Some(HELP.into())));
        };
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            other => {
                return Err((format!("unknown scheme {other:?}"), Some(did_you_mean(other, ["mqtt", "mqtts"]))));
            }
        };
        let (url, credentials) = network_url(text)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(("has a path or a query".into(), Some(HELP.into())));
        }
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = url.port().unwrap_or(if is_tls { 8883 } else { 1883 });
        Ok((Broker { host: host.to_owned(), port, is_tls }, credentials))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl Serialize for Broker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl<'de> Deserialize<'de> for Broker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Broker::parse(&text).map(|(broker, _)| broker).map_err(|(problem, _)| serde::de::Error::custom(problem))
    }
}

/// Whether the text is the URL of a broker with a password in it.
pub(super) fn url_has_password(text: &str) -> bool {
    let credentials = Broker::parse(text).ok().and_then(|(_, credentials)| credentials);
    credentials.is_some_and(|known| !known.password.expose().is_empty())
}

pub(super) fn read_broker(value: &Value) -> Option<Json> {
    let text = value.string(None)?;
    match Broker::parse(text) {
        Ok(_) => Some(text.into()),
        Err((problem, help)) => value.fail(problem, help.as_deref()),
    }
}

/// A topic without wildcards.
pub(super) fn read_topic(value: &Value) -> Option<Json> {
    let help = Some("write words separated by slashes, without + # and spaces at the ends");
    let topic = value.string(help)?;
    if topic.contains(['+', '#']) || topic.chars().any(char::is_control) {
        return value.fail("contains +, # or a control character, which topics must not have", help);
    }
    if topic.is_empty() || topic.starts_with(['/', '$', ' ']) || topic.ends_with(['/', ' ']) || topic.contains("//") {
        return value.fail("has an empty level, or begins with $", help);
    }
    if topic.len() > 128 {
        return value.fail(format!("has {} bytes, more than 128", topic.len()), help);
    }
    Some(topic.into())
}

pub(super) fn read_client_id(value: &Value) -> Option<Json> {
    let help = Some("write client_id = \"maskcast-gate\"");
    let id = value.string(help)?;
    if id.is_empty() || id.chars().any(char::is_control) {
        return value.fail("is empty or contains control characters", help);
    }
    if id.chars().count() > 64 {
        return value.fail("has more than 64 characters", help);
    }
    Some(id.into())
}
