//! Whether a source that could not be reached is there again, asked so cheaply that it can be asked every second.
//!
//! Attempts to open a camera are spread further and further apart, so as not to burden one that is ill. One that was
//! switched off is not burdened by a TCP handshake: with it, its return is noticed within a second instead of half a minute.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::bounded;
use url::Url;

use crate::config::SourceUri;

/// How long a name may take to become an address, and an address to answer. On a camera's network both take milliseconds.
const PATIENCE: Duration = Duration::from_millis(400);

/// Where a source can be looked for.
#[derive(Debug)]
pub enum Reachability {
    /// It accepts connections there: host and port as they are written, and what they are.
    Tcp(String, Vec<SocketAddr>),
    /// It is this device.
    Device(PathBuf),
}

impl Reachability {
    /// `None` for sources of which nothing can be told without opening them.
    pub(super) fn of(uri: &SourceUri) -> Option<Self> {
        match uri {
            SourceUri::Rtsp(url) => tcp(url, if url.scheme() == "rtsps" { 322 } else { 554 }),
            SourceUri::Http(url) => tcp(url, if url.scheme() == "https" { 443 } else { 80 }),
            SourceUri::V4l2(path) => Some(Reachability::Device(path.clone())),
            _ => None,
        }
    }

    /// Looks once.
    pub fn is_there(&self) -> bool {
        match self {
            Reachability::Tcp(_, addresses) => {
                addresses.iter().any(|address| TcpStream::connect_timeout(address, PATIENCE).is_ok())
            }
            Reachability::Device(path) => path.exists(),
        }
    }

    /// Host and port, and why no connection comes about, where the system knows it at once. Without that GStreamer says
    /// no more than that it failed.
    pub fn refusal(&self) -> Option<String> {
        let Reachability::Tcp(place, addresses) = self else { return None };
        let mut refusal = None;
        for address in addresses {
            let problem = match TcpStream::connect_timeout(address, PATIENCE).map_err(|error| error.kind()) {
                Err(ErrorKind::ConnectionRefused) => "connection refused",
                Err(ErrorKind::HostUnreachable) => "no route to host",
                Err(ErrorKind::NetworkUnreachable) => "network unreachable",
                Ok(_) | Err(_) => return None,
            };
            refusal = Some(format!("{place}: {problem}"));
        }
        refusal
    }
}

/// Where a URL's host listens. A resolver that takes long must not hold up who asks: then it is `None`, and the thread
/// that waits for it ends when it has its answer.
fn tcp(url: &Url, default_port: u16) -> Option<Reachability> {
    let (host, port) = (url.host_str()?, url.port().unwrap_or(default_port));
    let name = format!("{host}:{port}");
    let place = (host.trim_matches(['[', ']']).to_owned(), port);
    let (answer, answered) = bounded(1);
    let ask = move || {
        // Nobody may be waiting any more.
        let _ = answer.send(place.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    };
    std::thread::Builder::new().name("resolve".into()).spawn(ask).ok()?;
    let addresses = answered.recv_timeout(PATIENCE).ok()?.ok().filter(|addresses| !addresses.is_empty())?;
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
    fn a_camera_is_there_as_long_as_it_listens() {
        let camera = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = camera.local_addr().unwrap().port();
        let places = [rtsp(&format!("127.0.0.1:{port}")), rtsp(&format!("localhost:{port}"))];
        assert!(places.iter().all(Reachability::is_there), "{places:?}");
        assert_eq!(places.each_ref().map(Reachability::refusal), [None, None]);
        drop(camera);
        assert!(!places.iter().any(Reachability::is_there), "{places:?}");
        let said = ["127.0.0.1", "localhost"].map(|host| Some(format!("{host}:{port}: connection refused")));
        assert_eq!(places.each_ref().map(Reachability::refusal), said);
    }

    #[test]
    fn addresses_have_the_scheme_s_port() {
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
    fn a_device_is_there_when_it_is_plugged_in() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("video0");
        let reachability = Reachability::of(&SourceUri::V4l2(device.clone())).unwrap();
        assert!(!reachability.is_there());
        std::fs::write(device, "").unwrap();
        assert!(reachability.is_there());
        assert!(Reachability::of(&SourceUri::Libcamera(String::new())).is_none());
    }
}
