//! Which sources the API may add (`server.api_sources`).
//!
//! The configuration file may name any source. The API is reached from a network, and its requests must not
//! make this machine read its own files, run GStreamer descriptions, or speak to services that trust it because the request
//! comes from loopback or a link-local address (as a cloud's metadata service does). So it accepts only network cameras at
//! other addresses and test patterns, unless the configuration lists more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::error::did_you_mean;
use super::source::SourceUri;

/// The schemes without `server.api_sources`.
const DEFAULT: [&str; 6] = ["rtsp", "rtsps", "srt", "http", "https", "test"];

/// All that can be allowed.
const SCHEMES: [&str; 10] = ["rtsp", "rtsps", "srt", "http", "https", "test", "file", "v4l2", "libcamera", "gst"];

/// The time limit of looking up a host name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses outside the loopback and link-local ranges at which clouds give their machines secrets.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Why the API may not add a source. Displayed for the client of the API; it repeats nothing that may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceRefusal {
    /// The scheme is not listed.
    #[error("the API may not add {scheme} sources, only {allowed}; the configuration may (server.api_sources)")]
    Scheme { scheme: String, allowed: String },
    /// The address is not listed, and is one of this machine, its link, or the metadata service of a cloud.
    #[error(
        "the API may not add sources at {0}, which is this machine or its link; list it in server.api_sources to allow that"
    )]
    Address(IpAddr),
    /// The addresses of the host are not known.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Why the addresses of a source's host are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the source's host is neither a name nor an address")]
    InvalidName,
    /// It has no address, or the name server did not answer in time.
    #[error("the source's host {0} is not known: is the name right, and is there a name server?")]
    Unknown(String),
    #[error("no thread to look up the source's host: {0}")]
    Thread(std::io::ErrorKind),
}

/// The sources that the API may add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSources {
    schemes: Vec<&'static str>,
    networks: Vec<IpNet>,
}

impl Default for ApiSources {
    /// Network cameras and test patterns.
    fn default() -> Self {
        ApiSources { schemes: DEFAULT.to_vec(), networks: Vec::new() }
    }
}

impl ApiSources {
    /// Whether it allows network sources because the configuration does not say which are allowed, or says the same.
    pub fn is_default(&self) -> bool {
        self.schemes == DEFAULT
    }

    pub(super) fn none() -> Self {
        ApiSources { schemes: Vec::new(), networks: Vec::new() }
    }

    /// A list of addresses alone is in addition to the default schemes.
    pub(super) fn or_default_schemes(mut self) -> Self {
        if self.schemes.is_empty() && !self.networks.is_empty() {
            self.schemes = DEFAULT.to_vec();
        }
        self
    }

    /// Allows a scheme, an address, or a network such as `127.0.0.0/8`.
    pub(super) fn allow(&mut self, word: &str) -> Result<(), (String, String)> {
        if let Some(scheme) = SCHEMES.iter().find(|scheme| **scheme == word) {
            self.schemes.push(scheme);
            return Ok(());
        }
        let network = word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) => {
                self.networks.push(network);
                Ok(())
            }
            Err(_) => Err((format!("{word:?} is neither a scheme nor an address"), did_you_mean(word, SCHEMES))),
        }
    }

    /// Checks whether the API may add sources of this kind, without accessing what the source names.
    ///
    /// # Errors
    /// [`SourceRefusal::Scheme`].
    pub fn check_kind(&self, uri: &SourceUri) -> Result<(), SourceRefusal> {
        let scheme = uri.scheme();
        if self.schemes.contains(&scheme) {
            return Ok(());
        }
        Err(SourceRefusal::Scheme { scheme: scheme.to_owned(), allowed: self.schemes.join(", ") })
    }

    /// Checks whether the API may add this source. Looks up the name of a host, for a few seconds at most.
    ///
    /// A name can mean another address by the time the camera is opened, and an HTTP server can
    /// redirect to another. To prevent both, leave `http` out of the list and shield the machine's own services from its network.
    ///
    /// # Errors
    /// The reason, for the client.
    pub fn check(&self, uri: &SourceUri) -> Result<(), SourceRefusal> {
        self.check_with(uri, None)
    }

    /// As [`ApiSources::check`], with the addresses of a host that was looked up before, on a thread that may wait. Only
    /// another host is looked up here.
    ///
    /// # Errors
    /// The reason, for the client.
    pub fn check_with(&self, uri: &SourceUri, known: Option<&SourceHost>) -> Result<(), SourceRefusal> {
        self.check_kind(uri)?;
        let Some(url) = uri.network_url() else { return Ok(()) };
        let found = match known.filter(|known| Some(&*known.name) == url.host_str()) {
            Some(known) => known.addresses.clone(),
            None => addresses(url),
        };
        for address in found? {
            let reached = reached(address);
            let is_listed = self.networks.iter().any(|network| reached.iter().any(|address| network.contains(address)));
            if reached.iter().any(|address| is_guarded(*address) || is_own(*address)) && !is_listed {
                return Err(SourceRefusal::Address(address));
            }
        }
        Ok(())
    }
}

impl Serialize for ApiSources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let networks = self.networks.iter().map(ToString::to_string);
        serializer.collect_seq(self.schemes.iter().map(ToString::to_string).chain(networks))
    }
}

impl<'de> Deserialize<'de> for ApiSources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut sources = ApiSources::none();
        for word in Vec::<String>::deserialize(deserializer)? {
            sources.allow(&word).map_err(|(problem, _)| serde::de::Error::custom(problem))?;
        }
        Ok(sources.or_default_schemes())
    }
}

/// The host of a network source, with its addresses.
#[derive(Clone, Debug)]
pub struct SourceHost {
    name: String,
    addresses: Result<Vec<IpAddr>, HostError>,
}

impl SourceHost {
    /// Looks the host up, for a few seconds at most; `None` for a source that is not reached by network.
    pub fn look_up(uri: &SourceUri) -> Option<Self> {
        let url = uri.network_url()?;
        Some(SourceHost { name: url.host_str()?.to_owned(), addresses: addresses(url) })
    }

    /// Whether the host of `uri`, which is looked up, may be this one: it has the same name or a common address, or the addresses of
    /// one of them are not known.
    pub fn may_be_host_of(&self, uri: &SourceUri) -> bool {
        let Some(url) = uri.network_url() else { return false };
        if url.host_str().is_some_and(|host| plain_name(host) == plain_name(&self.name)) {
            return true;
        }
        let (Ok(own), Ok(others)) = (&self.addresses, addresses(url)) else { return true };
        let own: Vec<IpAddr> = own.iter().copied().flat_map(reached).collect();
        others.into_iter().flat_map(reached).any(|other| own.contains(&other))
    }
}

/// A host name as it can be compared.
fn plain_name(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// An address and those that are embedded in it.
fn reached(address: IpAddr) -> Vec<IpAddr> {
    std::iter::once(address).chain(embedded(address)).collect()
}

/// All addresses that the host of this URL means, as GStreamer will find them. Forms like `0x7f.1`
/// are left to the system, which reads them all.
fn addresses(url: &Url) -> Result<Vec<IpAddr>, HostError> {
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // It is not a camera's name, and programs read it in different ways.
    if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':')) {
        return Err(HostError::InvalidName);
    }
    let (found, answer) = crossbeam_channel::bounded(1);
    let asked = (host.to_owned(), 0_u16);
    // The system's own look-up has no time limit, and the caller serves others.
    std::thread::Builder::new()
        .name("resolve".into())
        .spawn(move || {
            let addresses =
                asked.to_socket_addrs().map(|found| found.map(|address| address.ip().to_canonical()).collect());
            // Fails when the caller has stopped waiting.
            let _ = found.send(addresses.unwrap_or_default());
        })
        .map_err(|error| HostError::Thread(error.kind()))?;
    let found: Vec<IpAddr> = answer.recv_timeout(LOOKUP_TIMEOUT).unwrap_or_default();
    if found.is_empty() { Err(HostError::Unknown(host.to_owned())) } else { Ok(found) }
}

/// Whether it is one of this machine's own addresses in its networks: only those can be listened at.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether requests to this address reach this machine, its link, or a service that only clouds have.
pub fn is_internal(address: IpAddr) -> bool {
    let address = address.to_canonical();
    is_guarded(address) || embedded(address).into_iter().any(is_guarded)
}

/// This machine, its link, and what only clouds use.
fn is_guarded(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_link_local() || address.octets()[0] == 0 || address.is_broadcast()
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local(),
    };
    local || address.is_multicast() || METADATA.contains(&address)
}

/// The IPv4 addresses that an IPv6 address has in it: a router or this machine's own kernel (a 6to4 or Teredo interface, a
/// NAT64) may send what goes there to them.
fn embedded(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(address) = address else { return Vec::new() };
    let segments = address.segments();
    let octets = address.octets();
    let at = |first: usize| Ipv4Addr::new(octets[first], octets[first + 1], octets[first + 2], octets[first + 3]);
    let found = match segments {
        // IPv4-compatible (RFC 4291), IPv4-mapped, and IPv4-translated (RFC 7915: `::ffff:0:127.0.0.1`).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => vec![at(12)],
        // NAT64 (RFC 6052), and its local prefix (RFC 8215), in which the address may stand around the octet that is kept 0.
        [0x64, 0xff9b, 0, ..] => vec![at(12)],
        [0x64, 0xff9b, ..] => {
            let around = Ipv4Addr::new(octets[6], octets[7], octets[9], octets[10]);
            let behind = Ipv4Addr::new(octets[7], octets[9], octets[10], octets[11]);
            // The length of the network's prefix is not known. Addresses that begin with 0 are the gaps of the other forms.
            [at(12), around, behind, at(9)].into_iter().filter(|address| address.octets()[0] != 0).collect()
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![at(2)],
        // Teredo (RFC 4380): the server, and the client with its bits inverted.
        [0x2001, 0, ..] => vec![at(4), Ipv4Addr::from_bits(!at(12).to_bits())],
        // ISATAP (RFC 5214), in any network.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![at(12)],
        _ => Vec::new(),
    };
    found.into_iter().map(IpAddr::V4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn check(sources: &ApiSources, text: &str) -> Result<(), SourceRefusal> {
        sources.check(&SourceUri::parse(text, Path::new("/srv")).unwrap())
    }

    fn allowing(words: &[&str]) -> ApiSources {
        let mut sources = ApiSources::none();
        words.iter().for_each(|word| sources.allow(word).unwrap());
        sources.or_default_schemes()
    }

    #[test]
    fn by_default_the_api_adds_only_network_cameras_and_test_patterns() {
        let sources = ApiSources::default();
        for text in
            ["rtsp://192.0.2.7/a", "rtsps://[2001:db8::7]/a", "srt://10.0.0.7:7001", "http://192.168.1.5/a", "test://"]
        {
            assert_eq!(check(&sources, text), Ok(()), "{text}");
        }
        for text in [
            "file:///etc/shadow",
            "/etc/shadow",
            "gst:filesrc location=/etc/shadow ! fakesink",
            "v4l2:///dev/video0",
            "libcamera://",
        ] {
            let refused = check(&sources, text).unwrap_err();
            assert!(matches!(refused, SourceRefusal::Scheme { .. }), "{text}: {refused}");
            assert!(!refused.to_string().contains("shadow"), "{text}: {refused}");
        }
    }

    #[test]
    fn this_machine_and_its_link_are_refused_however_they_are_written() {
        for text in [
            "rtsp://127.0.0.1/a",
            "rtsp://localhost/a",
            "http://127.1/a",
            "http://2130706433/a",
            "rtsp://2130706433/a",
            "rtsp://0x7f.1/a",
            "rtsp://0177.0.0.1/a",
            "http://0.0.0.0:8080/a",
            "srt://0.0.0.0:7001?mode=listener",
            "rtsp://[::1]/a",
            "rtsp://[::]/a",
            "rtsp://[::ffff:127.0.0.1]/a",
            "http://[::ffff:7f00:1]/a",
            "rtsp://[64:ff9b::127.0.0.1]/a",
            "rtsp://[64:ff9b::a9fe:a9fe]/a",
            "rtsp://[64:ff9b:1::127.0.0.1]/a",
            "rtsp://[64:ff9b:1:7f00:0:100::]/a",
            "rtsp://[64:ff9b:1:7f:0:1::]/a",
            "rtsp://[64:ff9b:1:0:7f:0:100:0]/a",
            "rtsp://[2002:7f00:1::]/a",
            "http://[2002:7f00:0001::1]:8080/a",
            "srt://[2002:a9fe:a9fe::5]:7001",
            "rtsp://[2002:0:1::]/a",
            "rtsp://[2001:0:7f00:1::]/a",
            "rtsp://[2001:0:c000:207:0:0:80ff:fffe]/a",
            "rtsp://[::127.0.0.1]/a",
            "rtsp://[::7f00:1]/a",
            "rtsp://[::ffff:0:127.0.0.1]/a",
            "rtsp://[::ffff:169.254.169.254]/a",
            "rtsp://[2001:db8::5efe:127.0.0.1]/a",
            "rtsp://[ff02::1]/a",
            "rtsp://224.0.0.1/a",
            "rtsp://[2001:db8::200:5efe:169.254.1.1]/a",
            "rtsp://0.0.0.0/a",
            "rtsp://0.1.2.3/a",
            "rtsp://0/a",
            "rtsp://127.1/a",
            "rtsp://127.0.1/a",
            "rtsp://0x7f000001/a",
            "rtsp://0x7f.0x0.0x0.0x1/a",
            "rtsp://017700000001/a",
            "rtsp://0x7F.0.0.01/a",
            "http://0x7f000001/a",
            "http://017700000001/a",
            "srt://2130706433:7001",
            "rtsp://0xa9fea9fe/a",
            "rtsp://[fe80::1]/a",
            "http://169.254.169.254/latest/meta-data/",
            "http://168.63.129.16/",
            "http://[fd00:ec2::254]/",
        ] {
            let refused = check(&ApiSources::default(), text).expect_err(text);
            assert!(matches!(refused, SourceRefusal::Address(_)), "{text}: {refused}");
        }
        // Addresses of other machines in the same forms are accepted.
        for text in [
            "rtsp://[2002:c000:207::1]/a",
            "rtsp://[64:ff9b::192.0.2.7]/a",
            "rtsp://[64:ff9b:1::192.0.2.7]/a",
            "rtsp://[2001:0:c000:207::3fff:fdf8]/a",
            "rtsp://[::ffff:192.0.2.7]/a",
            "rtsp://[2001:db8::5efe:192.0.2.7]/a",
            "rtsp://3221225991/a",
        ] {
            assert_eq!(check(&ApiSources::default(), text), Ok(()), "{text}");
        }
        for (text, error) in [
            ("rtsp://127%2E0.0.1/a", HostError::InvalidName),
            ("rtsp://no-such-host.invalid/a", HostError::Unknown("no-such-host.invalid".into())),
        ] {
            assert_eq!(check(&ApiSources::default(), text), Err(SourceRefusal::Host(error)), "{text}");
        }
    }

    #[test]
    fn a_resolved_host_is_checked_by_its_addresses() {
        let uri = |text: &str| SourceUri::parse(text, Path::new("/srv")).unwrap();
        let known =
            |name: &str, address: &str| SourceHost { name: name.into(), addresses: Ok(vec![address.parse().unwrap()]) };
        let check = |text: &str, known: &SourceHost| ApiSources::default().check_with(&uri(text), Some(known));
        let camera = known("camera.invalid", "192.0.2.7");
        assert_eq!(check("rtsp://camera.invalid/a", &camera), Ok(()), "it is not looked up again");
        let inside = check("rtsp://camera.invalid/a", &known("camera.invalid", "127.0.0.1"));
        assert_eq!(inside, Err(SourceRefusal::Address("127.0.0.1".parse().unwrap())));
        // The addresses of one host are not used for another.
        assert!(check("rtsp://localhost/a", &camera).is_err());
        assert!(SourceHost::look_up(&uri("test://")).is_none());
        let own = SourceHost::look_up(&uri("rtsp://127.0.0.1/a")).unwrap();
        assert_eq!((own.name.as_str(), own.addresses), ("127.0.0.1", Ok(vec!["127.0.0.1".parse().unwrap()])));
    }

    #[test]
    fn listed_schemes_and_addresses_are_accepted() {
        let loopback = allowing(&["127.0.0.0/8", "::1"]);
        assert_eq!(check(&loopback, "rtsp://127.0.0.1/a"), Ok(()));
        assert_eq!(check(&loopback, "rtsp://[::1]/a"), Ok(()));
        assert!(check(&loopback, "rtsp://169.254.0.1/a").is_err());
        let files = allowing(&["file", "rtsp"]);
        assert_eq!(check(&files, "/srv/a.mp4"), Ok(()));
        assert!(check(&files, "http://192.0.2.7/a").is_err(), "only the listed schemes are accepted");
        assert!(
            check(&ApiSources::none().or_default_schemes(), "rtsp://192.0.2.7/a").is_err(),
            "an empty list accepts nothing"
        );
        let (problem, help) = ApiSources::none().allow("rstp").unwrap_err();
        assert_eq!(
            (problem.as_str(), help.as_str()),
            ("\"rstp\" is neither a scheme nor an address", "did you mean rtsp?")
        );
    }
}
