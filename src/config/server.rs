//! `[server]`: where it listens, who may watch, and what the API may add.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;
use toml::de::DeTable;

use super::allowed::ApiSources;
use super::document::Section;
use super::path::{folder_of, tidy, to_json};
use super::value::Value;
use super::webrtc::WebRtcConfig;
use crate::users::{Role, Users};

/// Addresses on which the service listens, users, and the sources that the API may add.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-applies" = "reload"))]
pub struct ServerConfig {
    /// Address and port on which the service listens for HTTP: page, API, metrics, MJPEG, and the signalling of WebRTC.
    /// `"127.0.0.1:8080"` accepts connections from this machine only, `"0.0.0.0:8080"` from all networks. An address that is
    /// reachable from a network requires users, or `allow_anonymous = true`.
    #[schemars(with = "String", extend("x-check" = "socket-address", "x-applies" = "restart"))]
    pub http: SocketAddr,
    /// Address and port on which the service listens for RTSP. The rules of `http` apply.
    #[schemars(with = "String", extend("x-check" = "socket-address", "x-applies" = "restart"))]
    pub rtsp: SocketAddr,
    /// Clients without login have the role viewer. Changes still require a login as an operator.
    pub allow_anonymous: bool,
    /// The file with the users and tokens. `maskcast user` creates and changes it.
    #[serde(skip_serializing, deserialize_with = "load_users")]
    #[schemars(with = "String", extend("x-check" = "users-file", "x-default" = "`users.toml` beside this file, if there is one"))]
    pub users: Users,
    pub tls: Option<TlsConfig>,
    /// Without TLS, RTSP accepts Basic authentication from networks instead of digest. Passwords are then readable on the
    /// network.
    pub rtsp_plain_auth: bool,
    /// Host names under which browsers may open the service, in addition to IP addresses and `localhost`; requests with
    /// another name are refused (421). `[]` without users: no other name is accepted. `[]` with users: any name is accepted.
    #[schemars(with = "Vec<String>", extend(
        "x-check-items" = "host-name",
        "x-help" = "write names without scheme and port: [\"cameras.example.org\"]",
    ))]
    pub hosts: Vec<String>,
    /// Addresses or networks of the reverse proxies whose forwarding headers (the address of the client, the scheme) are
    /// trusted: `["127.0.0.1"]`.
    #[schemars(with = "Vec<String>", extend(
        "x-check-items" = "network",
        "x-help" = "write the proxies' addresses or networks: [\"127.0.0.1\", \"10.0.0.0/24\"]",
    ))]
    pub trusted_proxies: Vec<IpNet>,
    /// The sources that the API may add: schemes of URLs, and addresses of this machine or its link that are otherwise
    /// refused (`"127.0.0.1"`, `"169.254.0.0/16"`). A list with addresses only allows them in addition to the default
    /// schemes. The configuration file may contain any source.
    #[schemars(with = "Vec<String>", extend(
        "x-check-items" = "api-source",
        "x-help" = "write [\"rtsp\", \"https\"], or addresses: [\"127.0.0.1\"]",
    ))]
    pub api_sources: ApiSources,
    pub webrtc: WebRtcConfig,
}

/// Certificate and key for TLS. With this table, HTTP and RTSP accept TLS connections only; without it, they accept
/// unencrypted connections only. `maskcast cert` creates a self-signed pair. The files are read again when they have
/// changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["cert", "key"], "x-applies" = "restart"))]
pub struct TlsConfig {
    /// PEM file with the certificate, followed by its intermediate certificates.
    #[serde(with = "super::path")]
    #[schemars(with = "String", extend(
        "x-check" = "existing-file",
        "x-help" = "the path of a PEM file; `maskcast cert -o DIR` makes a pair",
    ))]
    pub cert: PathBuf,
    /// PEM file with the private key of the certificate.
    #[serde(with = "super::path")]
    #[schemars(with = "String", extend(
        "x-check" = "existing-file",
        "x-help" = "the path of a PEM file; `maskcast cert -o DIR` makes a pair",
    ))]
    pub key: PathBuf,
}

impl Default for ServerConfig {
    /// On this machine only, and without users.
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        ServerConfig {
            http: local(8080),
            rtsp: local(8554),
            allow_anonymous: false,
            users: Users::default(),
            tls: None,
            rtsp_plain_auth: false,
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            api_sources: ApiSources::default(),
            webrtc: WebRtcConfig::default(),
        }
    }
}

impl ServerConfig {
    /// The role of clients without credentials. Without users, a client on this machine may do everything; from a network
    /// nothing is allowed unless `allow_anonymous` is set, and then only watching.
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

    /// Loads the users that the file does not name, and checks what concerns several keys.
    pub(super) fn apply_dependent_defaults(&mut self, section: &Section) {
        let mut users_are_read = section.is_valid("users");
        if !section.is_written("users") {
            let path = section.doc().base().join(USERS);
            match if path.exists() { Users::load(&path) } else { Ok(Users::default()) } {
                Ok(users) => (self.users, users_are_read) = (users, true),
                Err(problem) => section.fail("users", format!("{}: {problem}", path.display()), None),
            }
        }
        self.tls = self.tls.take().filter(|_| ["cert", "key"].iter().all(|key| section.section("tls").is_valid(key)));
        if collide(self.http, self.rtsp) {
            let help = "HTTP and RTSP need a port each; the defaults are 8080 and 8554";
            section.fail("rtsp", format!("{} is taken by server.http ({})", self.rtsp, self.http), Some(help));
        }
        // Where the users file is wrong, that is the error.
        if users_are_read && self.users.is_empty() && !self.allow_anonymous {
            for (key, address) in [("http", self.http), ("rtsp", self.rtsp)] {
                if !address.ip().is_loopback() {
                    let problem = format!("{address} is open to the network, and the service has no users");
                    let help = "make one with `maskcast user add NAME --config FILE`, or write allow_anonymous = true to let everyone watch";
                    section.fail(key, problem, Some(help));
                }
            }
        }
    }
}

/// The users file's name when none is given.
const USERS: &str = "users.toml";

/// From the path of the users file, which was checked before.
fn load_users<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Users, D::Error> {
    let path = super::path::deserialize(deserializer)?;
    Users::load(&path).map_err(serde::de::Error::custom)
}

pub(super) fn read_users_file(value: &Value) -> Option<Json> {
    let path = value.path()?;
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let help = format!("make it with `maskcast user add NAME --users {}`", path.display());
            value.fail("no such file", Some(&help))
        }
        _ => match Users::load(&path) {
            Ok(_) => Some(to_json(&path)),
            Err(problem) => value.fail(problem.to_string(), None),
        },
    }
}

/// Why the users file of a configuration cannot be determined.
#[derive(Debug, thiserror::Error)]
pub enum UsersPathError {
    /// The configuration file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The configuration file is not TOML.
    #[error("{}: {message}", .path.display())]
    Syntax { path: PathBuf, message: String },
}

/// The path of the users file of the configuration at `path`. Only `server.users` is read, so that `maskcast user add` can
/// create the users file of a configuration that is invalid without it.
///
/// # Errors
/// When the configuration cannot be read or is not TOML.
pub fn users_file(path: &Path) -> Result<PathBuf, UsersPathError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| UsersPathError::Read { path: path.to_path_buf(), source })?;
    let table = DeTable::parse(text.trim_start_matches('\u{feff}'))
        .map_err(|error| UsersPathError::Syntax { path: path.to_path_buf(), message: error.message().to_owned() })?;
    let server = table.get_ref().get("server").and_then(|server| server.get_ref().as_table());
    let users = server.and_then(|server| server.get("users")).and_then(|users| users.get_ref().as_str());
    Ok(tidy(folder_of(path).join(users.unwrap_or(USERS))))
}

pub(super) fn read_host_name(value: &Value) -> Option<Json> {
    let help = Some("write names without scheme and port: [\"cameras.example.org\"]");
    let name = value.string(help)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.chars().all(fits) {
        return Some(name.trim_end_matches('.').to_ascii_lowercase().into());
    }
    value.fail(format!("{name:?} is not the name of a host"), help)
}

pub(super) fn read_network(value: &Value) -> Option<Json> {
    let help = Some("write the proxies' addresses or networks: [\"127.0.0.1\", \"10.0.0.0/24\"]");
    let text = value.string(help)?;
    let address = || text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    match text.parse::<IpNet>().or_else(|_| address()) {
        Ok(network) if network.prefix_len() == 0 => {
            let problem = format!("{text} is every address: every client could forge its address");
            value.fail(problem, help)
        }
        Ok(network) => Some(network.to_string().into()),
        Err(_) => value.fail(format!("{text:?} is neither an address nor a network"), help),
    }
}

pub(super) fn read_api_source(value: &Value) -> Option<Json> {
    let word = value.string(None)?;
    match ApiSources::none().allow(word) {
        Ok(()) => Some(word.into()),
        Err((problem, help)) => value.fail(problem, Some(&help)),
    }
}

/// Whether listening on both fails: the same port on the same address, or one of them on all addresses.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || everywhere)
}

pub(super) fn read_socket_address(value: &Value) -> Option<Json> {
    let text = value.string(None)?;
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let host = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => host.parse().ok().map(IpAddr::V6),
            None => host.parse().ok().map(IpAddr::V4),
        },
    };
    match (host, port.parse()) {
        (Some(host), Ok(port)) => Some(SocketAddr::new(host, port).to_string().into()),
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
    fn addresses_collide_when_both_cannot_be_listened_at() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(collide(address("127.0.0.1:80"), address("127.0.0.1:80")));
        assert!(collide(address("0.0.0.0:80"), address("127.0.0.1:80")));
        assert!(!collide(address("10.0.0.1:80"), address("127.0.0.1:80")));
        assert!(!collide(address("0.0.0.0:80"), address("0.0.0.0:81")));
        assert!(!collide(address("127.0.0.1:0"), address("127.0.0.1:0")));
    }
}
