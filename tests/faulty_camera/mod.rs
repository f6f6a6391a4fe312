//! A faulty camera: an RTSP server, or an HTTP one that sends multipart JPEG, with scripted faults.
//!
//! | file | what it knows |
//! | --- | --- |
//! | [`scenario`] | the small TOML files that say what a camera does and what a viewer must see |
//! | [`picture`] | a picture that carries its own number, and reading it back |
//! | [`sensor`] | pictures at a steady rate, and when each was taken |
//! | [`link`] | what happens to packets under way: lost, late, damaged, stamped wrongly |
//! | [`rtsp`] | the camera as an RTSP server (GStreamer's) |
//! | [`http`] | the camera as an HTTP server |
//! | [`raw`] | servers that break the protocol itself: silent ones, and ones that talk nonsense |
//!
//! Every camera has a loopback address of its own (127.x.y.z): while its port is closed nobody else can get it.
#![allow(dead_code)] // Tests and the example are programs of their own, and each uses a part.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};

pub mod http;
pub mod link;
pub mod picture;
pub mod raw;
pub mod rtsp;
pub mod scenario;
pub mod sensor;

use link::Link;
use scenario::{Action, CameraSpec, Codec, Kind, Video};
use sensor::Sensor;

/// A camera that does what it is told.
pub struct Camera {
    pub kind: Kind,
    pub address: SocketAddr,
    codec: Codec,
    sensor: Arc<Sensor>,
    link: Arc<Link>,
    connections: Arc<AtomicU64>,
    front: Option<Front>,
}

/// What answers at the camera's port.
enum Front {
    Rtsp(rtsp::Server),
    Http(http::Server),
    Raw(raw::Acceptor),
}

impl Camera {
    /// A camera at a loopback address of its own, in the state in which its scenario wants it to start.
    ///
    /// # Errors
    /// No port, or GStreamer lacks an element.
    pub fn start(spec: &CameraSpec) -> Result<Self> {
        let any = SocketAddr::from((own_address(), 0));
        let address = TcpListener::bind(any).and_then(|listener| listener.local_addr());
        Camera::start_at(spec, address.with_context(|| format!("no port at {any}"))?)
    }

    /// The same at a given address.
    ///
    /// # Errors
    /// The address is taken, or GStreamer lacks an element.
    pub fn start_at(spec: &CameraSpec, address: SocketAddr) -> Result<Self> {
        gstreamer::init()?;
        let mut camera = Camera {
            kind: spec.kind,
            address,
            codec: spec.codec,
            sensor: Arc::new(Sensor::start(spec.look())),
            link: Arc::default(),
            connections: Arc::default(),
            front: None,
        };
        camera.perform(&spec.starts)?;
        Ok(camera)
    }

    /// Where players find it.
    pub fn url(&self) -> String {
        match self.kind {
            Kind::Rtsp => format!("rtsp://{}/stream", self.address),
            Kind::Http => format!("http://{}/stream", self.address),
        }
    }

    /// Does what a step asks for; it is in effect on return.
    ///
    /// # Errors
    /// What this kind of camera cannot do; a port that cannot be opened again.
    pub fn perform(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Serve => {
                self.link.mend();
                self.sensor.cover(false);
                if !matches!(self.front, Some(Front::Rtsp(_) | Front::Http(_))) {
                    self.boot()?;
                }
            }
            Action::Reboot(video) => {
                self.front = None;
                self.link.mend();
                self.sensor.cover(false);
                self.codec = video.codec.unwrap_or(self.codec);
                self.film(video);
                self.boot()?;
            }
            Action::Change(video) => {
                if video.codec.is_some_and(|codec| codec != self.codec) {
                    bail!("another codec needs a reboot");
                }
                self.film(video);
            }
            Action::Refuse => self.front = None,
            Action::Silent => self.misbehave(raw::silent())?,
            Action::Garbage(garbage) => self.misbehave(raw::garbage(*garbage))?,
            Action::Stall => self.sensor.cover(true),
            Action::End => self.sensor.end(),
            Action::HangUp => match &self.front {
                Some(Front::Rtsp(server)) => server.hang_up(),
                Some(Front::Http(server)) => server.hang_up(),
                Some(Front::Raw(acceptor)) => acceptor.hang_up(),
                None => {}
            },
            Action::DropPackets(share) => self.link.set(|faults| faults.lost = *share),
            Action::Corrupt(share) => self.link.set(|faults| faults.damaged = *share),
            Action::Delay(range) => self.link.set(|faults| faults.delay_ms = Some(*range)),
            Action::JumpClock(seconds) => self.link.set(|faults| faults.clock_offset += seconds),
            Action::ClockRate(rate) => self.link.set(|faults| faults.clock_rate = *rate),
        }
        Ok(())
    }

    /// When the picture with this number was taken; `None` for a number that was not yet reached.
    pub fn taken_at(&self, number: u16) -> Option<Instant> {
        self.sensor.taken_at(number)
    }

    /// Pictures taken so far, whether or not anybody got them.
    pub fn taken(&self) -> u64 {
        self.sensor.taken()
    }

    /// Pictures that at least one client was given.
    pub fn delivered(&self) -> u64 {
        self.sensor.delivered()
    }

    /// How often somebody has connected.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn film(&self, video: &Video) {
        self.sensor.set_look(|look| video.apply(look));
    }

    fn boot(&mut self) -> Result<()> {
        // First the old one goes, for it has the port.
        self.front = None;
        let (address, count, sensor, link) = (self.address, &self.connections, &self.sensor, &self.link);
        self.front = Some(match self.kind {
            Kind::Rtsp => Front::Rtsp(rtsp::Server::start(address, self.codec, count, sensor, link)?),
            Kind::Http => Front::Http(http::Server::start(address, count, sensor, link)?),
        });
        Ok(())
    }

    fn misbehave(&mut self, handler: raw::Handler) -> Result<()> {
        self.front = None;
        self.front = Some(Front::Raw(raw::Acceptor::start(self.address, &self.connections, handler)?));
        Ok(())
    }
}

/// A loopback address that no other camera of this process has, and hardly one of another process.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    // 127.0.x.y is left to everybody else.
    Ipv4Addr::new(127, high % 255 + 1, low, NEXT.fetch_add(1, Ordering::Relaxed).max(1))
}
