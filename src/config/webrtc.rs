//! `[server.webrtc]`: how WebRTC viewers and this machine find each other.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};
use url::Url;

use super::value::Value;
use crate::base::secret::Secret;

/// How WebRTC viewers connect to the service: ports, and STUN and TURN servers.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct WebRtcConfig {
    /// STUN server, `"stun:HOST:3478"`; `""` = none. The service and the browsers of the viewers use it to find their public
    /// addresses. Without STUN and TURN servers, WebRTC contacts no third party.
    // `HOST:PORT`
    #[schemars(with = "String", length(min = 0), extend("x-check" = "stun", "x-default" = "none"))]
    pub stun: Option<String>,
    /// TURN servers, which relay video to viewers that cannot connect directly: `["turn:USER:PASSWORD@HOST:3478"]`, or
    /// `"turns:…"` for TLS. The service sends them to viewers with user and password.
    #[schemars(with = "Vec<String>", extend("x-check-items" = "turn", "x-help" = TURN_HELP, "x-secret" = true))]
    pub turn: Vec<TurnServer>,
    /// Range of UDP ports for WebRTC, `"FIRST-LAST"`. Each viewer uses one port, so the range also limits their number. Open
    /// these ports in the firewall. `""` = any port.
    #[serde(serialize_with = "ports_text")]
    #[schemars(with = "String", length(min = 0), extend("x-check" = "udp-ports"))]
    pub udp_ports: Option<(u16, u16)>,
    /// Further addresses under which viewers reach this machine: the public address of a router that forwards `udp_ports` to
    /// it.
    #[schemars(with = "Vec<String>", extend("x-check-items" = "host-address", "x-help" = "write [\"203.0.113.9\"]"))]
    pub host_addresses: Vec<IpAddr>,
    /// Maximum number of WebRTC viewers of all streams together. Further viewers are refused (503).
    #[schemars(range(min = 0, max = 10_000), extend("x-help" = "0 admits no viewer"))]
    pub max_viewers: usize,
}

impl Default for WebRtcConfig {
    fn default() -> Self {
        WebRtcConfig {
            stun: None,
            turn: Vec::new(),
            udp_ports: Some((50_000, 50_100)),
            host_addresses: Vec::new(),
            max_viewers: 100,
        }
    }
}

/// A TURN relay with the user and password for it. Prints without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnServer {
    /// Over TLS (`turns:`).
    pub tls: bool,
    /// With its port.
    pub host: String,
    /// `udp` or `tcp`; the scheme's default when absent.
    pub transport: Option<&'static str>,
    pub user: String,
    pub password: Secret,
}

impl fmt::Display for TurnServer {
    /// In the form of browsers (RFC 7065).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.tls { "turns" } else { "turn" }, self.host)?;
        self.transport.map_or(Ok(()), |transport| write!(f, "?transport={transport}"))
    }
}

impl TurnServer {
    /// In the form of GStreamer, with the password.
    pub fn for_gstreamer(&self) -> Secret {
        let [user, password] =
            [&self.user, self.password.expose()].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        let scheme = if self.tls { "turns" } else { "turn" };
        let transport = self.transport.map(|transport| format!("?transport={transport}")).unwrap_or_default();
        Secret::new(format!("{scheme}://{user}:{password}@{}{transport}", self.host))
    }
}

const STUN_HELP: &str = "write \"stun:HOST:3478\", or \"\" for none";
const TURN_HELP: &str = "write \"turn:USER:PASSWORD@HOST:3478\", or \"turns:…\"; \
                         in a password, the characters @ : / ? # are written %40 %3A %2F %3F %23";
const PORTS_HELP: &str = "write \"50000-50100\", or \"\" for any; each viewer takes one";

fn ports_text<S: Serializer>(ports: &Option<(u16, u16)>, serializer: S) -> Result<S::Ok, S::Error> {
    match ports {
        Some((first, last)) => serializer.collect_str(&format_args!("{first}-{last}")),
        None => serializer.serialize_str(""),
    }
}

impl Serialize for TurnServer {
    /// Without user and password.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TurnServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        TurnServer::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// First and last port; null for any.
pub(super) fn read_udp_ports(value: &Value) -> Option<Json> {
    let text = value.text()?;
    if text.is_empty() {
        return Some(Json::Null);
    }
    let range = text
        .split_once('-')
        .and_then(|(least, most)| Some((least.trim().parse::<u16>().ok()?, most.trim().parse::<u16>().ok()?)));
    match range {
        Some((least, most)) if least >= 1024 && least <= most => Some(json!([least, most])),
        Some(_) => value.fail(format!("{text:?} is not a range of ports from 1024 to 65535"), Some(PORTS_HELP)),
        None => value.fail(format!("{text:?} is not a range of ports"), Some(PORTS_HELP)),
    }
}

pub(super) fn read_host_address(value: &Value) -> Option<Json> {
    let text = value.string(None)?;
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Some(address.to_string().into()),
        Ok(_) => value.fail(format!("{text} is not an address that a viewer can reach"), None),
        Err(_) => value.fail(format!("{text:?} is not an IP address"), Some("names are not looked up")),
    }
}

/// Host and port, the port being `port` when none is written.
fn server(url: &Url, port: u16) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(format!("{host}:{}", url.port().unwrap_or(port)))
}

/// `HOST:PORT`; null for none.
pub(super) fn read_stun(value: &Value) -> Option<Json> {
    let text = value.text()?;
    if text.is_empty() {
        return Some(Json::Null);
    }
    let rest = text.strip_prefix("stun:").map_or(text, |rest| rest.strip_prefix("//").unwrap_or(rest));
    let url = Url::parse(&format!("stun://{rest}")).ok().filter(|url| {
        url.username().is_empty() && matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none()
    });
    match url.as_ref().and_then(|url| server(url, 3478)) {
        Some(server) => Some(server.into()),
        // A user and a password belong to TURN; written here by mistake, they must not be shown in an error.
        None if text.contains('@') => value.fail("is not a STUN server address: STUN has no users", Some(STUN_HELP)),
        None => value.fail(format!("{text:?} is not a STUN server"), Some(STUN_HELP)),
    }
}

pub(super) fn read_turn(value: &Value) -> Option<Json> {
    let text = value.string(Some(TURN_HELP))?;
    match TurnServer::parse(text) {
        Ok(_) => Some(text.into()),
        // The value is not shown: it may hold the password.
        Err(problem) => value.fail(problem, Some(TURN_HELP)),
    }
}

impl TurnServer {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match text.split_once(':') {
            Some(("turn", rest)) => (false, rest),
            Some(("turns", rest)) => (true, rest),
            _ => return Err("begins with neither turn: nor turns:"),
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let url = Url::parse(&format!("turn://{rest}")).map_err(|_| "is not the address of a TURN server")?;
        let host = server(&url, if tls { 5349 } else { 3478 }).ok_or("names no host")?;
        let transport = match url.query() {
            None => None,
            Some("transport=udp") => Some("udp"),
            Some("transport=tcp") => Some("tcp"),
            Some(_) => return Err("has something after the ? that is neither transport=udp nor transport=tcp"),
        };
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err("has something after the host");
        }
        let decode = |part: &str| {
            let decoded = percent_decode_str(part).decode_utf8().ok()?;
            (!decoded.is_empty()).then(|| decoded.into_owned())
        };
        match (decode(url.username()), url.password().and_then(decode)) {
            (Some(user), Some(password)) => {
                Ok(TurnServer { tls, host, transport, user, password: Secret::new(password) })
            }
            _ => Err("has no user and password"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{ConfigErrors, parse};

    fn read(text: &str) -> Result<WebRtcConfig, ConfigErrors> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.onnx"), "").unwrap();
        let text = format!(
            "model.path = \"m.onnx\"\nstream = [{{ name = \"a\", source = \"test://\" }}]\n[server.webrtc]\n{text}"
        );
        parse(&text, &folder.path().join(Path::new("maskcast.toml"))).map(|config| config.server.webrtc)
    }

    #[test]
    fn every_key_is_read() {
        assert_eq!(read("").unwrap(), WebRtcConfig::default());
        let webrtc = read(
            "stun = \"stun:stun.example\"\nturn = [\"turn:me:p%40ss@relay.example?transport=tcp\", \"turns://a:b@[::1]:443\"]\n\
             udp_ports = \"40000-40010\"\nhost_addresses = [\"203.0.113.9\", \"2001:db8::1\"]\nmax_viewers = 5\n",
        )
        .unwrap();
        assert_eq!(webrtc.stun.as_deref(), Some("stun.example:3478"));
        let shown: Vec<String> = webrtc.turn.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["turn:relay.example:3478?transport=tcp", "turns:[::1]:443"]);
        assert_eq!((webrtc.turn[0].user.as_str(), webrtc.turn[0].password.expose()), ("me", "p@ss"));
        assert_eq!(webrtc.turn[0].for_gstreamer().expose(), "turn://me:p%40ss@relay.example:3478?transport=tcp");
        assert_eq!(webrtc.udp_ports, Some((40_000, 40_010)));
        assert_eq!(webrtc.host_addresses.len(), 2);
        assert_eq!(webrtc.max_viewers, 5);
        let nothing = read("stun = \"\"\nudp_ports = \"\"\n").unwrap();
        assert_eq!((nothing.stun, nothing.udp_ports), (None, None));
    }

    #[test]
    fn everything_wrong_is_reported_at_once_and_no_password_shown() {
        let text = "stun = \"http://a/b\"\nturn = [\"turn:relay\", \"relay:hunter2@x\", \"turn:u:hunter2@h?x=hunter2\", 3]\n\
            udp_ports = \"50100-50000\"\nhost_addresses = [\"box.local\", \"0.0.0.0\"]\nmax_viewers = -1\nstunn = 1\n";
        let errors = read(text).unwrap_err();
        let keys: Vec<&str> = errors.errors.iter().map(|error| error.key.as_str()).collect();
        let expected = [
            "stun",
            "turn[0]",
            "turn[1]",
            "turn[2]",
            "turn[3]",
            "udp_ports",
            "host_addresses[0]",
            "host_addresses[1]",
            "max_viewers",
            "stunn",
        ]
        .map(|key| format!("server.webrtc.{key}"));
        assert_eq!(keys, expected, "{errors}");
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
        for text in [
            "stun = \"stun:me:hunter2@relay\"",
            "turn = [\"turn:me:12/hunter2@relay\"]",
            "turn = [\"turn:me:p@ss#hunter2@relay\"]",
        ] {
            assert!(!read(text).unwrap_err().to_string().contains("hunter2"), "{text}");
        }
        let right = read("turn = [\"turn:me:hunter2@relay\"]\n").unwrap();
        assert!(!format!("{right:?} {}", right.turn[0]).contains("hunter2"));
    }
}
