//! `type = "udp"`: each mask as a JSON object in a UDP datagram of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use super::kind::{KeyKind, MaskSinkKind, SinkKey};
use super::mask::{MaskSink, SinkError, StreamMask};
use super::message::MaskMessage;

pub static KIND: MaskSinkKind = MaskSinkKind {
    name: "udp",
    about: "Sends one UDP datagram for each mask, with the JSON object that `jsonl` writes as a line. Datagrams may be lost \
            in the network, which is not noticed.",
    keys: &[SinkKey {
        name: "address",
        kind: KeyKind::Address,
        is_required: true,
        about: "The destination, as `HOST:PORT`. HOST is a name, an IPv4 address, or an IPv6 address in brackets.",
    }],
    label: |settings| settings.address("address").to_owned(),
    open: |settings| Box::new(UdpSink { address: settings.address("address").to_owned(), socket: None }),
};

struct UdpSink {
    /// `HOST:PORT`
    address: String,
    /// `None` before the first mask and after a failure, so that the name of the host is looked up again.
    socket: Option<UdpSocket>,
}

impl UdpSink {
    fn send(&mut self, mask: &StreamMask) -> io::Result<()> {
        let datagram = serde_json::to_vec(&MaskMessage::of(mask))?;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.address)?,
        };
        // A socket sends the whole datagram or fails.
        socket.send(&datagram)?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// A socket that sends to the first address of the host that can be used. It is connected, so that the answer "port
/// unreachable" of the destination is an error of the next datagram.
fn connect(address: &str) -> io::Result<UdpSocket> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for destination in address.to_socket_addrs()? {
        let local: SocketAddr = match destination {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        outcome = UdpSocket::bind(local).and_then(|socket| socket.connect(destination).map(|()| socket));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

impl MaskSink for UdpSink {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self.send(mask).map_err(|source| SinkError::Send { to: self.address.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::frame::{Label, Mask, PixelFormat, Rgb, VideoInfo};
    use crate::zones::ZoneMeter;

    fn mask(class: &str) -> StreamMask {
        let (pts, captured_at) = (Duration::ZERO, Instant::now());
        let label = Label::new(class, Rgb(0, 0, 0));
        let (classes, labels) = (vec![0], [label].into());
        let mask = Mask {
            seq: 7,
            pts,
            captured_at,
            width: 1,
            height: 1,
            classes,
            labels,
            model: "m".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        };
        let counts = ZoneMeter::new([].into()).measure(&mask);
        StreamMask::new(&"gate".into(), Arc::new(mask), VideoInfo::new(PixelFormat::I420, 2, 2), counts)
    }

    #[test]
    fn a_datagram_that_is_too_long_is_an_error_and_the_next_one_is_sent() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(180))).unwrap();
        let mut sink = UdpSink { address: receiver.local_addr().unwrap().to_string(), socket: None };
        let error = sink.push(&mask(&"x".repeat(70_000))).unwrap_err();
        let SinkError::Send { to, source } = &error else { panic!("{error:?}") };
        assert_eq!((to, source.raw_os_error()), (&sink.address, Some(90)), "EMSGSIZE");
        sink.push(&mask("road")).unwrap();
        let mut datagram = [0; 1500];
        let length = receiver.recv(&mut datagram).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&datagram[..length]).unwrap();
        assert_eq!(object["shares"], serde_json::json!({"road": 1.0}), "{object}");
    }
}
