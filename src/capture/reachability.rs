//! A cheap check whether a source can be reached, for every second of a retry pause.
//!
//! The pauses between attempts to open a camera increase, so that a faulty camera is not overloaded. A TCP handshake is
//! little load: with it, a camera that was switched on is detected within a second instead of half a minute.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::bounded;
use url::Url;

use crate::config::SourceUri;

/// The time limit for resolving a name and for connecting to an address. In a camera's network both take milliseconds.
const TIMEOUT: Duration = Duration::from_millis(400);

/// How to check whether a source can be reached.
#[derive(Debug)]
pub enum Reachability {
    /// By a TCP connection: host and port as configured, and the resolved addresses.
    Tcp(String, Vec<SocketAddr>),
    /// By the existence of this device file.
    Device(PathBuf),
}

impl Reachability {
    /// `None` for sources that cannot be checked without opening them.
    pub(super) fn of(uri: &SourceUri) -> Option<Self> {
        match uri {
            SourceUri::Rtsp(url) => tcp(url, if url.scheme() == "rtsps" { 322 } else { 554 }),
            SourceUri::Http(url) => tcp(url, if url.scheme() == "https" { 443 } else { 80 }),
            SourceUri::V4l2(path) => Some(Reachability::Device(path.clone())),
            _ => None,
        }
    }

    /// Checks once. Blocks for 400 ms per address at most.
    pub fn is_reachable(&self) -> bool {
        match self {
            Reachability::Tcp(_, addresses) => {
                addresses.iter().any(|address| TcpStream::connect_timeout(address, TIMEOUT).is_ok())
            }
            Reachability::Device(path) => path.exists(),
        }
    }

    /// Host, port and the reason why no connection can be opened, if the system reports one at once. GStreamer's own error has
    /// no reason.
    pub fn connect_error(&self) -> Option<String> {
        let Reachability::Tcp(place, addresses) = self else { return None };
        let mut connect_error = None;
        for address in addresses {
            let problem = match TcpStream::connect_timeout(address, TIMEOUT).map_err(|error| error.kind()) {
                Err(ErrorKind::ConnectionRefused) => "connection refused",
                Err(ErrorKind::HostUnreachable) => "no route to host",
                Err(ErrorKind::NetworkUnreachable) => "network unreachable",
                Ok(_) | Err(_) => return None,
            };
            connect_error = Some(format!("{place}: {problem}"));
        }
        connect_error
    }
}

/// Resolves the host of a URL. `None` if the resolver takes too long: the caller must not block, and the thread that waits for
/// the resolver ends later.
fn tcp(url: &Url, default_port: u16) -> Option<Reachability> {
    let (host, port) = (url.host_str()?, url.port().unwrap_or(default_port));
    let name = format!("{host}:{port}");
    let place = (host.trim_matches(['[', ']']).to_owned(), port);
    let (sender, receiver) = bounded(1);
    let resolve = move || {
        // Fails when the caller has stopped waiting.
        let _ = sender.send(place.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    };
    std::thread::Builder::new().name("resolve".into()).spawn(resolve).ok()?;
    let addresses = receiver.recv_timeout(TIMEOUT).ok()?.ok().filter(|addresses| !addresses.is_empty())?;
    Some(Reachability::Tcp(name, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn rtsp(place: &str) -> Reachability {
        Reachability::of(&SourceUri::Rtsp(Url::parse(&format!("rtsp://{place}/stream")).unwrap())).unwrap()
    }

    #[test]
    fn a_camera_is_reachable_while_it_listens() {
        let camera = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = camera.local_addr().unwrap().port();
        let places = [rtsp(&format!("127.0.0.1:{port}")), rtsp(&format!("localhost:{port}"))];
        assert!(places.iter().all(Reachability::is_reachable), "{places:?}");
        assert_eq!(places.each_ref().map(Reachability::connect_error), [None, None]);
        drop(camera);
        assert!(!places.iter().any(Reachability::is_reachable), "{places:?}");
        let errors = ["127.0.0.1", "localhost"].map(|host| Some(format!("{host}:{port}: connection refused")));
        assert_eq!(places.each_ref().map(Reachability::connect_error), errors);
    }

    #[test]
    fn addresses_without_a_port_have_that_of_the_scheme() {
        let port = |reachability: Reachability| match reachability {
            Reachability::Tcp(_, addresses) => addresses[0].port(),
            Reachability::Device(_) => 0,
        };
        assert_eq!(port(rtsp("127.0.0.1")), 554);
        assert_eq!(port(rtsp("[::1]:8554")), 8554);
        let https = SourceUri::Http(Url::parse("https://127.0.0.1/mjpeg").unwrap());
        assert_eq!(port(Reachability::of(&https).unwrap()), 443);
    }

    #[test]
    fn a_device_is_reachable_while_its_file_exists() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("video0");
        let reachability = Reachability::of(&SourceUri::V4l2(device.clone())).unwrap();
        assert!(!reachability.is_reachable());
        std::fs::write(device, "").unwrap();
        assert!(reachability.is_reachable());
        assert!(Reachability::of(&SourceUri::Libcamera(String::new())).is_none());
    }
}
