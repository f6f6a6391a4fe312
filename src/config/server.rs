//! `[server]`: where it listens, who is let in, and what the API may add.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml::de::DeTable;

use super::allowed::ApiSources;
use super::load::folder_of;
use super::reader::{Section, Value, tidy};
use super::webrtc::WebRtcConfig;
use crate::users::{Role, Users};

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Page, API, metrics, MJPEG; default `127.0.0.1:8080`.
    pub http: SocketAddr,
    /// RTSP; default `127.0.0.1:8554`.
    pub rtsp: SocketAddr,
    /// Whoever comes may watch. Default false.
    pub allow_anonymous: bool,
    /// All of the users file; default `users.toml` beside the configuration when there is one.
    pub users: Users,
    /// `[server.tls]`
    pub tls: Option<TlsConfig>,
    /// RTSP without TLS takes passwords that anybody on the way can read, also from the network. Default false.
    pub rtsp_plain_auth: bool,
    /// Names that browsers may know this machine by; addresses and `localhost` always are.
    pub hosts: Vec<String>,
    /// Proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// What the API may add as a source.
    pub api_sources: ApiSources,
    pub webrtc: WebRtcConfig,
}

/// `[server.tls]`: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, and those that it is signed by.
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl ServerConfig {
    /// What those may do who do not say who they are. Without users, who is on this machine may do all, as ever; from a
    /// network nobody is let in unless `allow_anonymous` says so, and then to look only.
    pub fn anonymous(&self) -> Option<Role> {
        match (self.users.is_empty() && self.http.ip().is_loopback(), self.allow_anonymous) {
            (true, _) => Some(Role::Operator),
            (false, true) => Some(Role::Viewer),
            (false, false) => None,
        }
    }

    /// Whether RTSP viewers need credentials.
    pub fn guards_rtsp(&self) -> bool {
        let only_here = self.users.is_empty() && self.rtsp.ip().is_loopback();
        !(self.allow_anonymous || only_here)
    }
}

pub(super) fn read_server(section: &Section) -> ServerConfig {
    let default = ServerConfig::default();
    let address = |key| section.get(key).and_then(|value| read_address(&value));
    let flag = |key| section.get(key).and_then(|value| value.boolean()).unwrap_or(false);
    let users = read_users(section);
    let server = ServerConfig {
        http: address("http").unwrap_or(default.http),
        rtsp: address("rtsp").unwrap_or(default.rtsp),
        allow_anonymous: flag("allow_anonymous"),
        users: users.clone().unwrap_or_default(),
        tls: read_tls(&section.section("tls")),
        rtsp_plain_auth: flag("rtsp_plain_auth"),
        hosts: section.get("hosts").and_then(|value| read_hosts(&value)).unwrap_or_default(),
        trusted_proxies: section.get("trusted_proxies").and_then(|value| read_networks(&value)).unwrap_or_default(),
        api_sources: section.get("api_sources").and_then(|value| read_api_sources(&value)).unwrap_or_default(),
        webrtc: WebRtcConfig::read(&section.section("webrtc")),
    };
    if collide(server.http, server.rtsp) {
        let help = "HTTP and RTSP need a port each; the defaults are 8080 and 8554";
        section.fail("rtsp", format!("{} is taken by server.http ({})", server.rtsp, server.http), Some(help));
    }
    // Where the users file is wrong, that is the error.
    if users.is_some_and(|users| users.is_empty()) && !server.allow_anonymous {
        for (key, address) in [("http", server.http), ("rtsp", server.rtsp)] {
            if !address.ip().is_loopback() {
                let problem =
                    format!("{address} is open to the network, and there is no user who could be asked for a password");
                let help = "make one with `maskcast user add NAME --config FILE`, or write allow_anonymous = true to let everyone watch";
                section.fail(key, problem, Some(help));
            }
        }
    }
    section.finish();
    server
}

/// The users file's name when none is given.
const USERS: &str = "users.toml";

/// `None` when there is something wrong with it.
fn read_users(section: &Section) -> Option<Users> {
    match section.get("users") {
        Some(value) => {
            let path = value.path()?;
            match path.metadata() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let help = format!("make it with `maskcast user add NAME --users {}`", path.display());
                    value.fail("no such file", Some(&help))
                }
                _ => Users::load(&path).map_err(|problem| value.fail::<()>(problem, None)).ok(),
            }
        }
        None => {
            let path = section.doc.base().join(USERS);
            if !path.exists() {
                return Some(Users::default());
            }
            Users::load(&path)
                .map_err(|problem| section.fail("users", format!("{}: {problem}", path.display()), None))
                .ok()
        }
    }
}

/// The users file that the configuration at `path` means. Nothing else in it is looked at: the file is made with the help
/// of this when the configuration cannot be used without it.
///
/// # Errors
/// When the configuration cannot be read or is no TOML.
pub fn users_file(path: &Path) -> Result<PathBuf, String> {
    let located = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| located(&error))?;
    let table = DeTable::parse(text.trim_start_matches('\u{feff}')).map_err(|error| located(&error.message()))?;
    let server = table.get_ref().get("server").and_then(|server| server.get_ref().as_table());
    let users = server.and_then(|server| server.get("users")).and_then(|users| users.get_ref().as_str());
    Ok(tidy(folder_of(path).join(users.unwrap_or(USERS))))
}

fn read_tls(section: &Section) -> Option<TlsConfig> {
    if !section.is_present() {
        return None;
    }
    let help = "the path of a PEM file; `maskcast cert -o DIR` makes a pair";
    let file = |key| section.require(key, help).and_then(|value| value.existing_file());
    let (cert, key) = (file("cert"), file("key"));
    section.finish();
    Some(TlsConfig { cert: cert?, key: key? })
}

fn read_hosts(value: &Value) -> Option<Vec<String>> {
    let help = "write names without scheme and port: [\"cameras.example.org\"]";
    let host = |value: &Value| {
        let name = value.string()?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.chars().all(fits) {
            return Some(name.trim_end_matches('.').to_ascii_lowercase());
        }
        value.fail(format!("{name:?} is not the name of a host"), Some(help))
    };
    Some(value.list(Some(help))?.iter().filter_map(host).collect())
}

fn read_networks(value: &Value) -> Option<Vec<IpNet>> {
    let help = "write the proxies' addresses or networks: [\"127.0.0.1\", \"10.0.0.0/24\"]";
    let network = |value: &Value| {
        let text = value.string()?;
        let address = || text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        match text.parse::<IpNet>().or_else(|_| address()) {
            Ok(network) if network.prefix_len() == 0 => {
                let problem = format!("{text} is every address: any client could then say that it is another one");
                value.fail(problem, Some(help))
            }
            Ok(network) => Some(network),
            Err(_) => value.fail(format!("{text:?} is neither an address nor a network"), Some(help)),
        }
    };
    Some(value.list(Some(help))?.iter().filter_map(network).collect())
}

fn read_api_sources(value: &Value) -> Option<ApiSources> {
    let values = value.list(Some("write [\"rtsp\", \"https\"], or addresses: [\"127.0.0.1\"]"))?;
    let mut sources = ApiSources::none();
    for value in &values {
        if let Some(word) = value.string()
            && let Err((problem, help)) = sources.allow(word)
        {
            let _: Option<()> = value.fail(problem, Some(&help));
        }
    }
    Some(sources.or_default_schemes())
}

/// Whether listening on both fails: the same port on the same address, or one of them on all addresses.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || everywhere)
}

fn read_address(value: &Value) -> Option<SocketAddr> {
    let text = value.string()?;
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let host = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => host.parse().ok().map(IpAddr::V6),
            None => host.parse().ok().map(IpAddr::V4),
        },
    };
    match (host, port.parse()) {
        (Some(host), Ok(port)) => Some(SocketAddr::new(host, port)),
        _ => {
            let help = "write \"127.0.0.1:8080\" for this machine only, \"0.0.0.0:8080\" for all networks";
            value.fail(format!("{text:?} is not an IP address (or localhost) and a port"), Some(help))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collisions() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(collide(address("127.0.0.1:80"), address("127.0.0.1:80")));
        assert!(collide(address("0.0.0.0:80"), address("127.0.0.1:80")));
        assert!(!collide(address("10.0.0.1:80"), address("127.0.0.1:80")));
        assert!(!collide(address("0.0.0.0:80"), address("0.0.0.0:81")));
        assert!(!collide(address("127.0.0.1:0"), address("127.0.0.1:0")));
    }
}
