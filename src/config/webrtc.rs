//! `[server.webrtc]`: how WebRTC viewers and this machine find each other.

use std::fmt;
use std::net::IpAddr;

use url::Url;

use super::reader::{Section, Value};
use super::uri::percent_decode;
use crate::base::secret::Secret;

/// `[server.webrtc]`
#[derive(Clone, Debug, PartialEq)]
pub struct WebRtcConfig {
    /// `HOST:PORT` of a STUN server. Default: none, for a closed network would wait for it.
    pub stun: Option<String>,
    pub turn: Vec<TurnServer>,
    /// First and last UDP port that media may use; `None` is any. Default 50000 to 50100.
    pub udp_ports: Option<(u16, u16)>,
    /// Addresses under which viewers reach this machine as well, from outside a router that passes those ports on.
    pub host_addresses: Vec<IpAddr>,
    /// Viewers at the same time, of all streams together. Default 100.
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

/// A relay, and who we are to it. Prints without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnServer {
    /// Over TLS (`turns:`).
    pub tls: bool,
    /// With its port.
    pub host: String,
    /// `udp` or `tcp`; what the scheme stands for when nothing is said.
    pub transport: Option<&'static str>,
    pub user: String,
    pub password: Secret,
}

impl fmt::Display for TurnServer {
    /// As browsers want it (RFC 7065).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.tls { "turns" } else { "turn" }, self.host)?;
        self.transport.map_or(Ok(()), |transport| write!(f, "?transport={transport}"))
    }
}

impl TurnServer {
    /// As GStreamer wants it, with the password.
    pub fn for_gstreamer(&self) -> Secret {
        let encode =
            |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let (user, password) = (encode(&self.user), encode(self.password.expose()));
        let scheme = if self.tls { "turns" } else { "turn" };
        let transport = self.transport.map(|transport| format!("?transport={transport}")).unwrap_or_default();
        Secret::new(format!("{scheme}://{user}:{password}@{}{transport}", self.host))
    }
}

const STUN_HELP: &str = "write \"stun:HOST:3478\", or \"\" for none";
const TURN_HELP: &str = "write \"turn:USER:PASSWORD@HOST:3478\", or \"turns:…\"; \
                         in a password, the characters @ : / ? # are written %40 %3A %2F %3F %23";
const PORTS_HELP: &str = "write \"50000-50100\", or \"\" for any; each viewer takes one";

impl WebRtcConfig {
    pub(super) fn read(section: &Section) -> Self {
        let default = WebRtcConfig::default();
        let udp_ports = match section.get("udp_ports") {
            Some(value) => value.text().and_then(|text| read_ports(&value, text)),
            None => default.udp_ports,
        };
        let list = |key, help| section.get(key).and_then(|value| value.list(Some(help))).unwrap_or_default();
        let webrtc = WebRtcConfig {
            stun: section.get("stun").and_then(|value| read_stun(&value, value.text()?)),
            turn: list("turn", TURN_HELP).iter().filter_map(read_turn).collect(),
            udp_ports,
            host_addresses: list("host_addresses", "write [\"203.0.113.9\"]").iter().filter_map(read_host).collect(),
            max_viewers: section
                .get("max_viewers")
                .and_then(|value| value.integer(0..=10_000, "0 lets nobody in"))
                .unwrap_or(default.max_viewers),
        };
        section.finish();
        webrtc
    }
}

fn read_ports(value: &Value, text: &str) -> Option<(u16, u16)> {
    let range =
        text.split_once('-').and_then(|(least, most)| Some((least.trim().parse().ok()?, most.trim().parse().ok()?)));
    match range {
        Some((least, most)) if least >= 1024 && least <= most => Some((least, most)),
        Some(_) => value.fail(format!("{text:?} is no range of ports from 1024 to 65535"), Some(PORTS_HELP)),
        None => value.fail(format!("{text:?} is no range of ports"), Some(PORTS_HELP)),
    }
}

fn read_host(value: &Value) -> Option<IpAddr> {
    let text = value.string()?;
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Some(address),
        Ok(_) => value.fail(format!("{text} is no address that a viewer can reach"), None),
        Err(_) => value.fail(format!("{text:?} is no IP address"), Some("names are not looked up")),
    }
}

/// Host and port, the port being `port` when none is written.
fn server(url: &Url, port: u16) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(format!("{host}:{}", url.port().unwrap_or(port)))
}

fn read_stun(value: &Value, text: &str) -> Option<String> {
    let rest = text.strip_prefix("stun:").map_or(text, |rest| rest.strip_prefix("//").unwrap_or(rest));
    let url = Url::parse(&format!("stun://{rest}")).ok().filter(|url| {
        url.username().is_empty() && matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none()
    });
    match url.as_ref().and_then(|url| server(url, 3478)) {
        Some(server) => Some(server),
        // A user and a password belong to TURN; who writes them here must not find them in an error.
        None if text.contains('@') => value.fail("is not a STUN server address: STUN has no users", Some(STUN_HELP)),
        None => value.fail(format!("{text:?} is no STUN server"), Some(STUN_HELP)),
    }
}

fn read_turn(value: &Value) -> Option<TurnServer> {
    let text = value.string()?;
    // What is wrong is not shown: it may hold the password.
    let wrong = |problem: &str| value.fail(problem, Some(TURN_HELP));
    let (tls, rest) = match text.split_once(':') {
        Some(("turn", rest)) => (false, rest),
        Some(("turns", rest)) => (true, rest),
        _ => return wrong("begins with neither turn: nor turns:"),
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let Some(url) = Url::parse(&format!("turn://{rest}")).ok() else { return wrong("is no address of a TURN server") };
    let Some(host) = server(&url, if tls { 5349 } else { 3478 }) else { return wrong("names no host") };
    let transport = match url.query() {
        None => None,
        Some("transport=udp") => Some("udp"),
        Some("transport=tcp") => Some("tcp"),
        Some(_) => return wrong("has something after the ? that is neither transport=udp nor transport=tcp"),
    };
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return wrong("has something after the host");
    }
    let decode = |part: &str| String::from_utf8(percent_decode(part)).ok().filter(|part| !part.is_empty());
    match (decode(url.username()), url.password().and_then(decode)) {
        (Some(user), Some(password)) => {
            Some(TurnServer { tls, host, transport, user, password: Secret::new(password) })
        }
        _ => wrong("has no user and password"),
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
    fn what_is_written_is_read() {
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
    fn everything_wrong_is_said_at_once_and_no_password_shown() {
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
